"""Clients of our own token service: what is kept of one, and whether a secret is its.

A client proves itself by a secret, or by what it signs with a key whose public half is kept. A secret has the
form of an API key, with `gbs` before it: 256 random bits and a checksum. Kept is its Argon2id hash (RFC 9106),
which costs about 30 ms and 19 MiB to check, so whoever asks bounds how often. An unknown client costs what a
known one does. The file that keeps clients is client_file's. Never shows a hash. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from msgspec import Meta

from gatebook.config.value import NAME
from gatebook.identity.api_key import ID, MAX_ROLES, Role, Seconds, Subject, is_well_formed

SECRET: Final = "gbs"  # noqa: S105 - how one begins
MAX_SCOPES: Final = 64

Scope = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"\A[!#-\[\]-~]+\Z")]  # RFC 6749, 3.3

Hash = Annotated[str, Meta(pattern=r"\A\$argon2id\$v=19\$m=\d{1,7},t=\d{1,3},p=\d{1,2}\$[\w+/]+\$[\w+/]+\Z")]

# OWASP's least for Argon2id. What is hashed has 256 random bits: no cost would make guessing possible or hopeless.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 << 10, parallelism=1)
_NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$i/KG4yFJ3rjstG/7EmGieQ$QNByIa4EnpM15XNTvsx+0DjyWTMtg6n0JkVHHI//ves"


class Client(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that is kept of a client. Times are seconds since 1970. `refresh`: it is given refresh tokens."""

    id: Annotated[str, Meta(pattern=rf"\A{ID}\Z")]
    provider: Annotated[str, Meta(pattern=NAME.removesuffix("$") + r"\Z")]
    subject: Subject
    roles: Annotated[tuple[Role, ...], Meta(max_length=MAX_ROLES)]
    scopes: Annotated[tuple[Scope, ...], Meta(max_length=MAX_SCOPES)]
    refresh: bool
    created: Seconds
    expires: Seconds
    revoked: Seconds | None
    key: dict[str, str] | None  # a public JWK
    hash: Hash | None

    def state(self, now: float) -> str:
        """active, expired or revoked; a revoked client stays revoked."""
        if self.revoked is not None:
            return "revoked"
        return "active" if now < self.expires else "expired"

    def __repr__(self) -> str:
        return f"Client({self.id})"


class Clients:
    """The clients of one reading of the file."""

    def __init__(self, clients: Iterable[Client]) -> None:
        self._by_id = {client.id: client for client in clients}

    def find(self, client_id: str) -> Client | None:
        return self._by_id.get(client_id)


def may_be_a_secret(text: bytes) -> bool:
    """What is not costs nothing to refuse, whoever's it claims to be."""
    return is_well_formed(text, SECRET)


def hash_of(secret: str) -> str:
    return _hasher.hash(secret)


def is_secret_of(client: Client | None, secret: bytes) -> bool:
    """Slow. Takes as long for nobody's as for somebody's."""
    try:
        known = client.hash if client is not None else None
        return _hasher.verify(known or _NOBODY, secret) and known is not None
    except (VerificationError, InvalidHashError):
        return False
