"""The file that keeps API keys, state/api-keys.json: what stands in it, and the changes that can be made to it.

One JSON object: `{"version": 1, "keys": [...]}`, each key an api_key.ApiKey. How it is read, replaced and
watched is kept's. Trust: whoever can write it can let anybody in. Its loss locks every key out. A secret is
never written, only its SHA-256.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from gatebook import kept
from gatebook.errors import GatebookError
from gatebook.identity.api_key import ID, ApiKey, make_id, make_text

Announce = Callable[[ApiKey], object]


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    version: Literal[1]
    keys: tuple[ApiKey, ...]


def _check(document: Document) -> None:
    keys = document.keys
    if len({key.id for key in keys}) != len(keys) or len({key.sha256 for key in keys}) != len(keys):
        raise ValueError("a key stands in it twice")


KIND = kept.Kind(
    title="API keys",
    command="gatebook key",
    document=Document,
    empty=Document(version=1, keys=()),
    check=_check,
)


def read(path: Path) -> tuple[ApiKey, ...]:
    """Raises EnvironmentFault for a file that cannot be used."""
    return kept.read(path, KIND).document.keys


class Made(NamedTuple):
    """`text` is the secret: shown to a person once, never written anywhere."""

    text: str
    key: ApiKey


def create(
    path: Path,
    *,
    provider: str,
    roles: tuple[str, ...],
    subject: str | None,
    ttl_s: float,
    now: float,
    random: Callable[[int], bytes],
    announce: Announce,
) -> Made:
    """A new key, in effect once this returns. Without a subject, it is the key's id. Raises GatebookError."""
    with kept.change(path, KIND) as change:
        keys = change.document.keys
        taken = {key.id for key in keys}
        key_id = next(name for name in iter(lambda: make_id(random), "") if name not in taken)
        text = make_text(key_id, random)
        fields = {
            "id": key_id,
            "provider": provider,
            "subject": key_id if subject is None else subject,
            "roles": roles,
            "created": int(now),
            "expires": int(now + ttl_s),
            "revoked": None,
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
        try:
            key = msgspec.convert(fields, ApiKey, strict=True)
        except msgspec.ValidationError:
            raise GatebookError(
                "the key was not made: roles are up to 64 words of ASCII without commas or spaces, "
                "a subject is up to 255 printable letters of ASCII"
            ) from None
        change.become(Document(version=1, keys=(*keys, key)), lambda: announce(key))
    return Made(text, key)


def revoke(path: Path, key_id: str, *, now: float, announce: Announce) -> tuple[ApiKey, bool]:
    """The key, and whether this call revoked it (else it was revoked before). Raises GatebookError."""
    if not re.fullmatch(ID, key_id):  # it may be a secret with a slip in it: not to be shown
        raise GatebookError("that is no key's id; `gatebook key list` shows them all")
    with kept.change(path, KIND) as change:
        keys = change.document.keys
        found = next((key for key in keys if key.id == key_id), None)
        if found is None:
            raise GatebookError(f"there is no key {key_id}; `gatebook key list` shows them all")
        if found.revoked is not None:
            return found, False
        gone = msgspec.structs.replace(found, revoked=int(now))
        after = tuple(gone if key is found else key for key in keys)
        change.become(Document(version=1, keys=after), lambda: announce(gone))
    return gone, True
