// A certified OpenID provider on loopback, for tests: `node provider.mjs CLIENTS`.
//
// CLIENTS is JSON: {"<id>": {"secret": "...", "claims": {...}, "lifetime": seconds}}. Each client may ask for
// an RS256 JWT access token by client_credentials, for any resource `urn:<audience>`; without one the
// audience is `orders-api`. The first line on stdout is the issuer. Keys are made at the start and kept
// nowhere. The process ends with its standard input, so that no test leaves it behind.

import { generateKeyPairSync, randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import process from "node:process";

import { Provider } from "oidc-provider";

const SCOPES = "orders:read orders:write";
const clients = JSON.parse(process.argv[2] ?? "{}");

function signingKey() {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  return { ...privateKey.export({ format: "jwk" }), kid: randomUUID(), alg: "RS256", use: "sig" };
}

function resourceServer(_ctx, resource, client) {
  return {
    scope: SCOPES,
    audience: resource.replace(/^urn:/, ""),
    accessTokenTTL: clients[client.clientId].lifetime ?? 300,
    accessTokenFormat: "jwt",
    jwt: { sign: { alg: "RS256" } },
  };
}

const server = createServer();
server.listen(0, "127.0.0.1");
await once(server, "listening");
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  jwks: { keys: [signingKey()] },
  scopes: SCOPES.split(" "),
  clients: Object.entries(clients).map(([id, { secret }]) => ({
    client_id: id,
    client_secret: secret,
    grant_types: ["client_credentials"],
    response_types: [],
    redirect_uris: [],
    scope: SCOPES,
  })),
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => "urn:orders-api",
      getResourceServerInfo: resourceServer,
    },
  },
  extraTokenClaims: (_ctx, token) => clients[token.clientId].claims ?? {},
});
provider.on("server_error", (_ctx, error) => process.stderr.write(`${error.stack}\n`));
server.on("request", provider.callback());

process.stdout.write(`${issuer}\n`);
process.stdin.resume();
await once(process.stdin, "end");
process.exit(0);
