"""What identification takes and gives. Plain data; `Credential` alone keeps its digest once it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec


class Presented(NamedTuple):
    """What a request shows of its caller; hostile, but for `certificate`, whose key TLS has proved.

    `headers` are the client's, names in lower case. `url` is what the client must have meant (RFC 9449, `htu`):
    scheme, the Host that it sent, and the path as it sent it, without query.
    """

    headers: list[tuple[bytes, bytes]]
    method: str
    url: str
    certificate: bytes = b""  # DER, of this TLS connection; b"" for none


class Proved(NamedTuple):
    """A DPoP proof that holds (RFC 9449). `once`: the key of its one use, possible until then."""

    once: bytes
    until_us: int
    forward: bool  # it goes on to the upstream


@dataclass(slots=True)
class Credential:
    """What a client presents. `value` is secret: never logged, never stored."""

    method: str  # bearer, api_key, certificate, session
    value: bytes = field(repr=False)
    provider: str | None = None  # for api_key: a provider in whose header it came
    scheme: str = ""  # for tokens, as the client said it: bearer, dpop
    proof: Proved | None = field(default=None, compare=False)  # once it is confirmed: what was shown beside it
    nonce: str = field(default="", compare=False)  # for the client's next proof; none: the one that it has will do
    _digest: bytes = field(default=b"", init=False, repr=False, compare=False)

    def sha256(self) -> bytes:
        if not self._digest:
            self._digest = hashlib.sha256(self.value).digest()
        return self._digest


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """What a credential is bound to (RFC 7800, `cnf`): it opens nothing without all that is named here."""

    jkt: str | None = None  # the thumbprint of a DPoP key (RFC 9449)
    x5t_s256: str | None = None  # of a client certificate (RFC 8705), base64url


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who a credential belongs to, on which provider's word, until when (seconds since 1970)."""

    provider: str
    method: str  # oidc, introspection, gatebook, api_key, session
    subject: str
    client: str | None = None
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    claims: Mapping[str, Any] = {}
    bound: Bound | None = None
    token_id: str | None = None  # a token's jti
    issued_at: float | None = None
    grants: tuple[tuple[str, str], ...] = ()  # (id, role) of grants in force; their roles stand last in `roles`
    credential_sha256: bytes  # keyed.signed_sha256; it is keyed before anything is stored
    expires_at: float

    @property
    def own_roles(self) -> tuple[str, ...]:
        """Without those that are held by grants."""
        return self.roles[: len(self.roles) - len(self.grants)]


class Refusal(NamedTuple):
    """Why no identity came of it: a key of record.REASONS. `provider`: whose credential it claims to be."""

    reason: str
    provider: str | None = None
