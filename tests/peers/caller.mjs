// An OAuth client with DPoP, for tests: `node caller.mjs CALL`, npm's openid-client as it is published.
//
// CALL is JSON: {"issuer": "http://…", "client": "<id>", "secret": "…", "alg": "ES256", "requests": [{"method": "GET",
// "url": "https://…"}, …]}. It makes a key of its own, gets a token by client_credentials that is bound to it, and
// sends each request with a proof; it answers a demand for a nonce as the library does. One line of JSON for each:
// {"status": 200, "nonce": "…" or null, "challenge": "…" or null}.

import process from "node:process";

import * as client from "openid-client";

const call = JSON.parse(process.argv[2]);
const configuration = await client.discovery(
  new URL(call.issuer),
  call.client,
  undefined,
  client.ClientSecretBasic(call.secret),
  { execute: [client.allowInsecureRequests] },
);
const DPoP = client.getDPoPHandle(configuration, await client.randomDPoPKeyPair(call.alg));
const token = await client.clientCredentialsGrant(
  configuration,
  { scope: "orders:read", resource: "urn:orders-api" },
  { DPoP },
);
if (token.token_type !== "dpop") throw new Error(`a token of type ${token.token_type}`);
for (const { method, url } of call.requests) {
  let status, headers;
  try {
    const answer = await client.fetchProtectedResource(
      configuration, token.access_token, new URL(url), method, undefined, undefined, { DPoP },
    );
    ({ status, headers } = answer);
  } catch (error) {
    if (error.code !== "OAUTH_WWW_AUTHENTICATE_CHALLENGE") throw error;
    ({ status, headers } = error.response ?? error.cause);
  }
  const told = { status, nonce: headers.get("dpop-nonce"), challenge: headers.get("www-authenticate") };
  process.stdout.write(`${JSON.stringify(told)}\n`);
}
