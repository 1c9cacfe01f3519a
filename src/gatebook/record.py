"""The kinds of record: fields, limits, exact bytes; and the closed list of reasons.

A record is one JSON object in one line of UTF-8, fields in the order given here, `v` first, times in
integer microseconds since 1970 (UTC). What is unknown is left out. `encode` gives the exact bytes that
the ledger commits to; nothing ever re-serialises them. Never holds a credential, a body, or a query
value or header that the configuration does not name. Pure.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal, NamedTuple

import msgspec

MAX_RECORD_BYTES = 32 << 10
MAX_TEXT_BYTES = 2 << 10

# What may be odd about an access that was judged like any other: see guard.signals.
SIGNALS: dict[str, str] = {
    "new_network": "the credential came from a network that it had not come from before",
    "new_tls_client": "the credential came by a TLS client that it had not come by before",
}

Source = Literal["client", "gateway", "guard", "policy", "limit", "upstream", "network"]


class Reason(NamedTuple):
    """Why a request was answered as it was: its status, whose doing, and what the client is told."""

    status: int
    source: Source
    title: str


REASONS: dict[str, Reason] = {
    # allowed
    "rule": Reason(200, "policy", "Allowed by a rule"),
    "public": Reason(200, "policy", "Allowed: the route asks for no identity"),
    # refused before anybody was identified
    "path_not_canonical": Reason(400, "client", "The request path is not in canonical form"),
    "no_route": Reason(404, "policy", "Not found"),
    "method_not_allowed": Reason(405, "policy", "Method not allowed"),
    # credentials; clients get one title for all of them, so that nothing can be probed
    "credential_missing": Reason(401, "client", "Authentication required"),
    "credential_ambiguous": Reason(401, "client", "Authentication failed"),
    "token_malformed": Reason(401, "client", "Authentication failed"),
    "token_algorithm": Reason(401, "client", "Authentication failed"),
    "token_issuer": Reason(401, "client", "Authentication failed"),
    "token_audience": Reason(401, "client", "Authentication failed"),
    "token_type": Reason(401, "client", "Authentication failed"),
    "token_expired": Reason(401, "client", "Authentication failed"),
    "token_not_yet_valid": Reason(401, "client", "Authentication failed"),
    "token_too_old": Reason(401, "client", "Authentication failed"),
    "token_key_unknown": Reason(401, "client", "Authentication failed"),
    "token_signature": Reason(401, "client", "Authentication failed"),
    "token_claims": Reason(401, "client", "Authentication failed"),
    "token_inactive": Reason(401, "client", "Authentication failed"),
    "token_nonce": Reason(401, "client", "Authentication failed"),
    # a credential that is bound to a certificate or a key, and client certificates
    "token_binding": Reason(401, "client", "Authentication failed"),
    "token_unbound": Reason(401, "client", "Authentication failed"),
    "proof_missing": Reason(401, "client", "Authentication failed"),
    "proof_malformed": Reason(401, "client", "Authentication failed"),
    "proof_algorithm": Reason(401, "client", "Authentication failed"),
    "proof_signature": Reason(401, "client", "Authentication failed"),
    "proof_target": Reason(401, "client", "Authentication failed"),
    "proof_not_yet_valid": Reason(401, "client", "Authentication failed"),
    "proof_expired": Reason(401, "client", "Authentication failed"),
    "proof_token": Reason(401, "client", "Authentication failed"),
    "proof_nonce": Reason(401, "client", "Authentication failed"),
    "proof_key": Reason(401, "client", "Authentication failed"),
    "proof_replayed": Reason(401, "client", "Authentication failed"),
    "certificate_missing": Reason(401, "client", "Authentication failed"),
    "certificate_mismatch": Reason(401, "client", "Authentication failed"),
    "certificate_malformed": Reason(401, "client", "Authentication failed"),
    "certificate_untrusted": Reason(401, "client", "Authentication failed"),
    "certificate_not_yet_valid": Reason(401, "client", "Authentication failed"),
    "certificate_expired": Reason(401, "client", "Authentication failed"),
    "certificate_usage": Reason(401, "client", "Authentication failed"),
    "certificate_revoked": Reason(401, "client", "Authentication failed"),
    "certificate_subject": Reason(401, "client", "Authentication failed"),
    "key_malformed": Reason(401, "client", "Authentication failed"),
    "key_unknown": Reason(401, "client", "Authentication failed"),
    "key_expired": Reason(401, "client", "Authentication failed"),
    "key_revoked": Reason(401, "client", "Authentication failed"),
    "token_replayed": Reason(401, "client", "Authentication failed"),
    "token_id_missing": Reason(401, "client", "Authentication failed"),
    "credential_revoked": Reason(401, "client", "Authentication failed"),
    "provider_unavailable": Reason(503, "guard", "Service unavailable"),
    "revocations_unavailable": Reason(503, "guard", "Service unavailable"),
    # people with a browser
    "login_required": Reason(303, "policy", "Log in first"),
    "cross_site": Reason(403, "client", "Forbidden"),
    "login_begun": Reason(200, "policy", "Sent to the provider to log in"),
    "login_unknown": Reason(400, "client", "This login was not begun in this browser, or it is over"),
    "login_issuer": Reason(400, "client", "The answer is not the provider's that was asked"),
    "login_denied": Reason(403, "policy", "The provider has refused the login"),
    "login_code": Reason(400, "client", "The provider does not know this login"),
    "session_issued": Reason(200, "policy", "A session was begun"),
    "session_too_large": Reason(403, "policy", "What the provider says of this person is too much for a session"),
    "session_ended": Reason(200, "policy", "A session was ended by its person"),
    "session_missing": Reason(200, "policy", "There was no session to end"),
    "sessions_withdrawn": Reason(200, "policy", "The provider has ended sessions"),
    "logout_replayed": Reason(400, "client", "This logout token was used before"),
    # policy and limits
    "deny_rule": Reason(403, "policy", "Forbidden"),
    "no_rule": Reason(403, "policy", "Forbidden"),
    "condition_error": Reason(403, "policy", "Forbidden"),
    "limit_exceeded": Reason(429, "limit", "Too many requests"),
    # the token service; what is told of these is RFC 6749's error code alone
    "token_issued": Reason(200, "policy", "A token was issued"),
    "token_refreshed": Reason(200, "policy", "A token was issued for a refresh token"),
    "token_withdrawn": Reason(200, "policy", "A token was revoked at its client's wish"),
    "token_unknown": Reason(200, "client", "There was no token to revoke"),
    "request_malformed": Reason(400, "client", "Bad request"),
    "client_refused": Reason(401, "client", "Authentication failed"),
    "client_not_entitled": Reason(400, "policy", "The client may not use this grant"),
    "grant_unknown": Reason(400, "client", "Unsupported grant type"),
    "scope_refused": Reason(400, "policy", "Invalid scope"),
    "refresh_unknown": Reason(400, "client", "Invalid grant"),
    "refresh_expired": Reason(400, "client", "Invalid grant"),
    "refresh_revoked": Reason(400, "client", "Invalid grant"),
    "refresh_foreign": Reason(400, "client", "Invalid grant"),
    "refresh_reused": Reason(400, "client", "Invalid grant"),
    "portal_busy": Reason(503, "guard", "Service unavailable"),
    "attempts_exceeded": Reason(429, "limit", "Too many requests"),
    # ours
    "recorder_unavailable": Reason(503, "guard", "Service unavailable"),
    "gateway_reloading": Reason(503, "gateway", "Service unavailable"),
    "guard_error": Reason(503, "guard", "Service unavailable"),
}


Severity = Literal["low", "medium", "high"]


class AlertKind(NamedTuple):
    """What an alert means, in a sentence for whoever is woken by it."""

    severity: Severity
    title: str


ALERTS: dict[str, AlertKind] = {
    "refresh_reused": AlertKind(
        "high", "A refresh token was used a second time: it has been copied, or its answer was lost"
    ),
    "refresh_foreign": AlertKind("high", "A client presented the refresh token of another client"),
    "witness_disagrees": AlertKind(
        "high", "A witness has seen another history of this log: it was rewritten, or put back to an older state"
    ),
    "secret_guessing": AlertKind("medium", "Somebody tries secrets of a client of the token service"),
}


class IdentityPart(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Who. `subject` is a pseudonym unless policy keeps it; `credential` is a keyed fingerprint, hex.

    `groups` and `scopes` are there, be it empty, once somebody was identified: rules go by them. Of a long list
    the last text says how many more there are.
    """

    provider: str
    method: str  # oidc, introspection, api_key
    subject: str | None = None
    client: str | None = None
    credential: str | None = None
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None
    scopes: tuple[str, ...] | None = None
    granted: tuple[str, ...] = ()  # roles held besides, by grants in force


class RequestPart(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What was asked. `claimed_id` is the client's own X-Request-ID: a claim, never trusted.

    `unclear`: query or headers, where the request's could not be read as texts, so that no condition could.
    """

    method: str
    path: str
    route: str | None = None
    host: str | None = None
    protocol: str | None = None  # 1.0, 1.1, 2
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    claimed_id: str | None = None
    unclear: tuple[Literal["query", "headers"], ...] = ()


class ClientPart(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """From where. `address` as far as policy keeps it."""

    address: str | None = None
    port: int | None = None


class TLSPart(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    version: str | None = None  # 1.2, 1.3
    cipher: str | None = None
    group: str | None = None
    sni: str | None = None
    certificate: str | None = None  # SHA-256 of the client's certificate, hex


class SealedPart(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is kept of the person in a form that ends with their vault row (gatebook.sealed)."""

    under: str  # the row's pseudonym, 32 hex digits
    box: str  # base64


class ShadowPart(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The verdict that the rules in shadow mode would have brought about, had they been enforced."""

    verdict: Literal["allow", "deny"]
    reason: str  # key of REASONS
    rule: str | None = None  # absent where no rule would have held


class DecisionPart(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """On whose word. `configuration` is the SHA-256 of the effective configuration, hex.

    `rule` is the rule that allowed or denied, or whose condition could not be evaluated and so denied.
    `shadow` is there only where it is another verdict.
    """

    verdict: Literal["allow", "deny"]
    status: int  # what the client is told on a denial; 200 on an allow
    reason: str  # key of REASONS
    configuration: str
    durability: str
    rule: str | None = None
    shadow: ShadowPart | None = None
    grants: tuple[str, ...] = ()  # of an allow: the grants without which it would have been none


class IssuedPart(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A credential that was given out. `credential` is its keyed fingerprint: each use of it bears the same."""

    token_id: str
    credential: str
    expires_us: int
    family: str | None = None  # of refresh tokens: all that came of one authentication
    scopes: tuple[str, ...] = ()


class LimitPart(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The tightest limit's state after this request; `reset_s`: seconds until full again, rounded up."""

    name: str
    limit: int
    remaining: int
    reset_s: int
    retry_after_s: int | None = None


class ResponsePart(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the client got. `status` is absent when it got none. Bytes are counted on the wire, TLS excluded."""

    status: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    duration_us: int | None = None
    complete: bool | None = None


class UpstreamPart(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the upstream did; of several tries, the last."""

    name: str | None = None
    address: str | None = None
    status: int | None = None
    connect_us: int | None = None
    header_us: int | None = None
    response_us: int | None = None


class ErrorPart(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Where a failure came from. `message` is the gateway's own words, without names or addresses."""

    source: Source
    detail: str  # a word: connect_refused, timeout, outcome_unknown
    message: str | None = None


class Decision(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="kind", tag="decision"):
    """Written by the guard before it answers."""

    v: Literal[1] | None = None  # set by `encode`; declared so that decoding accepts it
    id: str  # 32 hex digits, made by the gateway
    time_us: int
    trace_id: str | None = None
    identity: IdentityPart | None = None
    request: RequestPart
    client: ClientPart | None = None
    tls: TLSPart | None = None
    decision: DecisionPart
    upstream: str | None = None
    limit: LimitPart | None = None
    issued: IssuedPart | None = None
    connection: int | None = None
    connection_request: int | None = None
    signals: tuple[str, ...] = ()  # keys of SIGNALS
    sealed: SealedPart | None = None


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="kind", tag="outcome"):
    """Written by the recorder from the gateway's log. Without a decision it says itself what was asked."""

    v: Literal[1] | None = None
    id: str | None = None
    time_us: int
    decision_index: int | None = None
    request: RequestPart | None = None
    client: ClientPart | None = None
    tls: TLSPart | None = None
    response: ResponsePart | None = None
    upstream: UpstreamPart | None = None
    error: ErrorPart | None = None


class Admin(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="kind", tag="admin"):
    """Something an operator did: a key made or revoked, a configuration put in force."""

    v: Literal[1] | None = None
    time_us: int
    action: str  # key.create, key.revoke, configuration.apply
    actor: str  # os:<uid> for the command line
    detail: dict[str, Any] = {}


class Alert(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="kind", tag="alert"):
    """Something that a person should look at soon. `alert` is a key of ALERTS."""

    v: Literal[1] | None = None
    time_us: int
    alert: str
    severity: Severity
    identity: IdentityPart | None = None
    client: ClientPart | None = None
    detail: dict[str, Any] = {}


class System(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag_field="kind", tag="system"):
    """Something that happened to gatebook itself: start, stop, loss, a gateway that died."""

    v: Literal[1] | None = None
    time_us: int
    event: str
    detail: dict[str, Any] = {}


Record = Decision | Outcome | Admin | Alert | System

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


def encode(record: Record) -> bytes:
    """The record's exact bytes, at most MAX_RECORD_BYTES; raises ValueError beyond (callers cut texts first)."""
    data = b'{"v":1,' + _encoder.encode(record)[1:]
    if len(data) > MAX_RECORD_BYTES:
        raise ValueError(f"record of {len(data)} bytes; at most {MAX_RECORD_BYTES} are allowed")
    return data


def decode(data: bytes) -> Record:
    """Parse a record's bytes. Raises ValueError on anything that is not exactly a known record."""
    record = _decoder.decode(data)
    if record.v != 1:
        raise ValueError("record: v is not 1")
    return record


def cut(text: str, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """`text`, or when it is longer: its beginning, its length and its SHA-256."""
    data = text.encode("utf-8", "surrogateescape")
    if len(data) <= max_bytes:
        return text
    head = data[: max_bytes - 100].decode("utf-8", "ignore")
    return f"{head}…[{len(data)} bytes, sha256:{hashlib.sha256(data).hexdigest()}]"
