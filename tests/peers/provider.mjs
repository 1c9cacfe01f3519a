// A certified OpenID provider on loopback, for tests: `node provider.mjs CLIENTS`.
//
// CLIENTS is JSON: {"<id>": {"secret": "...", "claims": {...}, "lifetime": seconds, "format": "jwt" | "opaque",
// "auth": "client_secret_basic" | "client_secret_post" | "private_key_jwt", "keys": [JWK, ...]}}. Each client may
// ask for an access token by client_credentials, an RS256 JWT or an opaque one, for any resource `urn:<audience>`;
// without one the audience is `orders-api`. Each may introspect and revoke tokens, and have them bound to a DPoP
// key; with "bound": true they are bound to a certificate, which is taken from the request's field `Client-Cert`
// (RFC 9440), as from a proxy with TLS in front. With "refreshes" as well as redirects it acts for people at APIs, by
// access and refresh tokens. With "redirects", people log in there instead, at the provider's
// own pages: "people" is {"<name>": claims}, any password will do, and "afterLogout" and "backchannel" are where
// they, and word of it, go when they log out. The first line on stdout is the issuer. Keys are made at the start
// and kept nowhere. The process ends with its standard input, so that no test leaves it behind.

import { X509Certificate, generateKeyPairSync, randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import process from "node:process";

import { Provider } from "oidc-provider";

const SCOPES = "orders:read orders:write";
const clients = JSON.parse(process.argv[2] ?? "{}");
const people = Object.assign({}, ...Object.values(clients).map((client) => client.people ?? {}));
console.info = () => {}; // where it says that its login pages are for development

function signingKey() {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  return { ...privateKey.export({ format: "jwk" }), kid: randomUUID(), alg: "RS256", use: "sig" };
}

function resourceServer(_ctx, resource, client) {
  return {
    scope: SCOPES,
    audience: resource.replace(/^urn:/, ""),
    accessTokenTTL: clients[client.clientId].lifetime ?? 300,
    accessTokenFormat: clients[client.clientId].format ?? "jwt",
    jwt: { sign: { alg: "RS256" } },
  };
}

function presented(ctx) {
  const field = ctx.get("client-cert");
  return field ? new X509Certificate(Buffer.from(field.slice(1, -1), "base64")) : undefined;
}

const server = createServer();
server.listen(0, "127.0.0.1");
await once(server, "listening");
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  jwks: { keys: [signingKey()] },
  scopes: ["openid", "offline_access", ...SCOPES.split(" ")],
  clients: Object.entries(clients).map(([id, { secret, auth, keys, bound, redirects, refreshes, afterLogout, backchannel }]) => ({
    client_id: id,
    client_secret: keys ? undefined : secret,
    token_endpoint_auth_method: auth ?? "client_secret_basic",
    jwks: keys ? { keys } : undefined,
    tls_client_certificate_bound_access_tokens: bound ?? false,
    ...(redirects
      ? {
          grant_types: refreshes ? ["authorization_code", "refresh_token"] : ["authorization_code"],
          response_types: ["code"],
          redirect_uris: redirects,
          post_logout_redirect_uris: afterLogout,
          ...(backchannel
            ? { backchannel_logout_uri: backchannel, backchannel_logout_session_required: true }
            : {}),
          scope: refreshes ? `openid offline_access ${SCOPES}` : "openid",
        }
      : { grant_types: ["client_credentials"], response_types: [], redirect_uris: [], scope: SCOPES }),
  })),
  claims: { openid: ["sub", ...new Set(Object.values(people).flatMap(Object.keys))] },
  conformIdTokenClaims: false,
  findAccount: (_ctx, sub) => people[sub] && { accountId: sub, claims: () => ({ sub, ...people[sub] }) },
  enabledJWA: { dPoPSigningAlgValues: ["ES256", "EdDSA", "PS256", "RS256"] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: Object.keys(people).length > 0 },
    backchannelLogout: { enabled: true },
    dPoP: { enabled: true },
    mTLS: { enabled: true, certificateBoundAccessTokens: true, getCertificate: presented },
    introspection: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: (_ctx, client) => (clients[client.clientId].redirects ? undefined : "urn:orders-api"),
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
