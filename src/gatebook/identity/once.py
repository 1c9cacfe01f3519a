"""What a request uses up: a token's id on a route where each token opens once.

In: an identity. Out: `Use`, which the recorder remembers until the token could not be used any more. A token's id
is its issuer's own (RFC 7519, 4.1.7), whatever that provider is called in the configuration and whichever route it
is used on; so the same id of another issuer is another use. Never shortens what a token says of its end. Pure.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from gatebook.identity.types import Identity, Refusal

FOR_GOOD_US = 1 << 61


class Use(NamedTuple):
    """`key` may be used once until then. `again`: why a request is refused that comes second."""

    key: bytes
    until_us: int
    again: Refusal


def key_of(kind: str, issuer: str, name: str) -> bytes:
    """32 bytes. `kind` and `issuer` end where they end, whatever `name` holds."""
    parts = [kind.encode(), issuer.encode("utf-8", "surrogateescape"), name.encode("utf-8", "surrogateescape")]
    return hashlib.sha256(b"".join(len(part).to_bytes(4) + part for part in parts)).digest()


def of_token(identity: Identity) -> Use | Refusal:
    if identity.token_id is None:
        return Refusal("token_id_missing", identity.provider)
    issuer, exp = identity.claims.get("iss"), identity.claims.get("exp")
    if isinstance(issuer, str):
        key = key_of("token", issuer, identity.token_id)
    else:
        key = key_of("provider's token", identity.provider, identity.token_id)
    until_us = FOR_GOOD_US
    if isinstance(exp, (int, float)):
        until_us = int(min(max(exp, identity.expires_at) * 1e6, FOR_GOOD_US))
    return Use(key, until_us, Refusal("token_replayed", identity.provider))
