"""API keys: how one looks, what is kept of it, and whether one that was presented is good.

    gbk_<id: 8 of a-z2-7>_<secret: 43 of 0-9A-Za-z>_<checksum: 6 of 0-9A-Za-z>

The secret is 256 random bits in base 62; the checksum is the CRC-32 of all before it, so that scanners for
leaked secrets find a key by its form and lose no time on what only looks like one. Of a key the SHA-256 of its
whole text is kept, never the text: of 256 random bits a fast hash gives nothing away. The file that keeps them
is api_key_file's. Pure; randomness is an argument.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import zlib
from collections.abc import Callable, Iterable
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from gatebook.config.value import NAME
from gatebook.identity.types import Identity, Refusal

LENGTH = 63
ID = r"[a-z2-7]{8}"
MAX_ROLES = 64

KEY = "gbk"
_FORM = re.compile(rb"([a-z]{3})_" + ID.encode() + rb"_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}")
_ID_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_NOBODY = bytes(32)

# Printable, without spaces or commas: it is sent to upstreams in a list.
Role = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"\A[!-+\--~]+\Z")]
Subject = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"\A[!-~]+( [!-~]+)*\Z")]
Seconds = Annotated[int, Meta(ge=0, le=1 << 40)]


class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that is kept of a key. Times are seconds since 1970; `sha256` is hex, of the key's whole text."""

    id: Annotated[str, Meta(pattern=rf"\A{ID}\Z")]
    provider: Annotated[str, Meta(pattern=NAME.removesuffix("$") + r"\Z")]
    subject: Subject
    roles: Annotated[tuple[Role, ...], Meta(max_length=MAX_ROLES)]
    created: Seconds
    expires: Seconds
    revoked: Seconds | None
    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]

    def state(self, now: float) -> str:
        """active, expired or revoked; a revoked key stays revoked."""
        if self.revoked is not None:
            return "revoked"
        return "active" if now < self.expires else "expired"


def make_id(random: Callable[[int], bytes]) -> str:
    """40 random bits; the caller looks whether it is taken."""
    number = int.from_bytes(random(5))
    return "".join(_ID_LETTERS[number >> shift & 31] for shift in range(35, -1, -5))


def make_text(key_id: str, random: Callable[[int], bytes], prefix: str = KEY) -> str:
    """A new key's whole text: the only time that it exists here. Other secrets have a prefix of their own."""
    begun = f"{prefix}_{key_id}_{_base62(int.from_bytes(random(32)), 43)}"
    return f"{begun}_{_checksum(begun.encode())}"


def is_well_formed(text: bytes, prefix: str = KEY) -> bool:
    """Whether it has a key's form, checksum included: what a secret scanner may go by."""
    found = _FORM.fullmatch(text)
    return found is not None and found[1] == prefix.encode() and _checksum(text[:-7]).encode() == text[-6:]


def is_secret_of_ours(text: bytes) -> bool:
    """Whether it has the form of a key, a client's secret or a refresh token of gatebook's own."""
    return text.startswith(b"gb") and is_well_formed(text, text[:3].decode("ascii", "replace"))


def _checksum(begun: bytes) -> str:
    return _base62(zlib.crc32(begun), 6)


def _base62(number: int, length: int) -> str:
    letters = []
    for _ in range(length):
        number, letter = divmod(number, 62)
        letters.append(_LETTERS[letter])
    return "".join(reversed(letters))


class _Known(NamedTuple):
    digest: bytes
    identity: Identity
    revoked: bool


class KeyRing:
    """The keys of one reading of the file, ready to be asked."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._known = {key.id.encode(): _known(key) for key in keys}

    def find(self, presented: bytes, now: float) -> Identity | Refusal:
        """Whose key it is. Says revoked or expired only to who has the whole key."""
        if len(presented) != LENGTH:
            return Refusal("key_malformed")
        known = self._known.get(presented[4:12])
        digest = hashlib.sha256(presented).digest()
        # The id is no secret; of the rest the time says nothing, whether the id is known or not.
        same = hmac.compare_digest(digest, _NOBODY if known is None else known.digest)
        if known is None or not same:
            return Refusal("key_unknown" if is_well_formed(presented) else "key_malformed")
        if known.revoked:
            return Refusal("key_revoked", known.identity.provider)
        if now >= known.identity.expires_at:
            return Refusal("key_expired", known.identity.provider)
        return known.identity


def _known(key: ApiKey) -> _Known:
    digest = bytes.fromhex(key.sha256)
    identity = Identity(
        provider=key.provider,
        method="api_key",
        subject=key.subject,
        client=key.id,
        roles=key.roles,
        issued_at=float(key.created),
        credential_sha256=digest,
        expires_at=float(key.expires),
    )
    return _Known(digest, identity, key.revoked is not None)
