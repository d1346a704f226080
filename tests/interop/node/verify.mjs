// Verifies a token as a Node service would: node verify.mjs TOKEN JWKS_URL ISSUER AUDIENCE
import { createRemoteJWKSet, jwtVerify } from "jose";

const [token, url, issuer, audience] = process.argv.slice(2);
const keys = createRemoteJWKSet(new URL(url));
const { payload, protectedHeader } = await jwtVerify(token, keys, { issuer, audience });
console.log(JSON.stringify({ payload, protectedHeader }));
