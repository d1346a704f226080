//! Reads one JSON object a line (`jwks` as text, `token`, `issuer`, `audience`) and writes, for each, what
//! the runtime's resolver answers: `{"accepted": {...}}` with the identity, or `{"refused": "why"}`.

use macp_auth::auth::resolver::AuthResolver;
use macp_auth::auth::resolvers::jwt_bearer::{JwtBearerResolver, JwtConfig};
use serde_json::{json, Value};
use std::io::BufRead;
use tonic::metadata::MetadataMap;

async fn verdict(request: &Value) -> Result<Value, String> {
    let text = |name: &str| request[name].as_str().unwrap_or_default().to_string();
    let config = JwtConfig {
        issuer: text("issuer"),
        audience: text("audience"),
        // The runtime's default list; the type is the resolver's own dependency, so it is made by parsing.
        algorithms: ["RS256", "ES256"].iter().map(|name| name.parse().unwrap()).collect(),
    };
    let resolver = JwtBearerResolver::from_inline_json(config, &text("jwks"))?;
    let mut metadata = MetadataMap::new();
    let value = format!("Bearer {}", text("token"));
    metadata.insert("authorization", value.parse().map_err(|_| "no metadata value".to_string())?);
    match resolver.resolve(&metadata).await {
        Ok(Some(who)) => {
            let mut modes = who.allowed_modes.map(|modes| modes.into_iter().collect::<Vec<_>>());
            if let Some(modes) = modes.as_mut() {
                modes.sort();
            }
            Ok(json!({
                "sub": who.sender,
                "allowed_modes": modes,
                "can_start_sessions": who.can_start_sessions,
                "can_manage_mode_registry": who.can_manage_mode_registry,
                "is_observer": who.is_observer,
                "max_open_sessions": who.max_open_sessions,
            }))
        }
        Ok(None) => Err("not taken for a JWT".to_string()),
        Err(why) => Err(why.to_string()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let answer = match verdict(&request).await {
            Ok(identity) => json!({ "accepted": identity }),
            Err(why) => json!({ "refused": why }),
        };
        println!("{answer}");
    }
}
