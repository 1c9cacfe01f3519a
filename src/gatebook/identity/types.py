"""What identification takes and gives. Pure data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec


class Credential(NamedTuple):
    """What a client presents. `value` is secret: never logged, never stored."""

    method: str  # bearer, api_key
    value: bytes
    provider: str | None = None  # for api_key in a header of its own: whose header it was

    def sha256(self) -> bytes:
        return hashlib.sha256(self.value).digest()


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who a credential belongs to, on which provider's word, until when (seconds since 1970)."""

    provider: str
    method: str  # oidc, api_key
    subject: str
    client: str | None = None
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    claims: Mapping[str, Any] = {}
    credential_sha256: bytes  # of the credential's bytes; the guard keys it before anything is stored
    expires_at: float


class Refusal(NamedTuple):
    """Why no identity came of it: a key of record.REASONS. `provider` when it is known."""

    reason: str
    provider: str | None = None
