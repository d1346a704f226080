// jose with its own remote JWK Set: node jose.mjs JWKS_URL CACHE_TTL LEEWAY ISSUER AUDIENCE
import { createInterface } from "node:readline";
import { createRemoteJWKSet, jwtVerify } from "jose";

const [url, cacheTTL, leeway, issuer, audience] = process.argv.slice(2);
const keys = createRemoteJWKSet(new URL(url), {
  cacheMaxAge: Number(cacheTTL) * 1000,
  cooldownDuration: Number(cacheTTL) * 1000,
  timeoutDuration: 5000,
});
const options = { issuer, audience, clockTolerance: Number(leeway) };

async function judge(token) {
  let reason = null;
  try {
    await jwtVerify(token, keys, options);
  } catch (error) {
    reason = `${error.code ?? error.name}: ${error.message}`;
  }
  return [Date.now() / 1000, reason];
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await Promise.all(JSON.parse(line).map(judge))));
}
