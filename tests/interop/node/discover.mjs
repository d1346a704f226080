// Verifies a token with nothing but the issuer: node discover.mjs TOKEN ISSUER AUDIENCE
import { auth } from "express-oauth2-jwt-bearer";

const [token, issuerBaseURL, audience] = process.argv.slice(2);
const headers = { authorization: `Bearer ${token}`, host: "localhost" };
const request = {
  headers,
  get: (name) => headers[name.toLowerCase()],
  is: () => false,
  method: "GET",
  protocol: "https",
  url: "/",
};
await new Promise((resolve, reject) =>
  auth({ issuerBaseURL, audience })(request, {}, (error) => (error ? reject(error) : resolve())),
);
console.log(JSON.stringify(request.auth));
