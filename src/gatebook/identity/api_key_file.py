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
        made = _make(keys, provider, roles, subject, ttl_s, now, random)
        change.become(Document(version=1, keys=(*keys, made.key)), lambda: announce(made.key))
    return made


def _make(
    keys: tuple[ApiKey, ...],
    provider: str,
    roles: tuple[str, ...],
    subject: str | None,
    ttl_s: float,
    now: float,
    random: Callable[[int], bytes],
) -> Made:
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
        return Made(text, msgspec.convert(fields, ApiKey, strict=True))
    except msgspec.ValidationError:
        raise GatebookError(
            "the key was not made: roles are up to 64 words of ASCII without commas or spaces, "
            "a subject is up to 255 printable letters of ASCII"
        ) from None


def rotate(
    path: Path,
    key_id: str,
    *,
    overlap_s: float,
    ttl_s: float | None,
    now: float,
    random: Callable[[int], bytes],
    announce: Callable[[ApiKey, ApiKey], object],
) -> tuple[Made, ApiKey]:
    """A new key of the same caller and roles, and the old one, which ends with the overlap, or sooner.

    Without `ttl_s` the new one works as long as the old one was made for. Raises GatebookError.
    """
    with kept.change(path, KIND) as change:
        keys = change.document.keys
        old = _find(keys, key_id)
        if old.state(now) != "active":
            raise GatebookError(f"{key_id} is {old.state(now)}; make another with `gatebook key create`")
        wanted_s = old.expires - old.created if ttl_s is None else ttl_s
        made = _make(keys, old.provider, old.roles, old.subject, wanted_s, now, random)
        ending = msgspec.structs.replace(old, expires=min(old.expires, int(now + overlap_s)))
        after = tuple(ending if key is old else key for key in keys)
        change.become(Document(version=1, keys=(*after, made.key)), lambda: announce(made.key, ending))
    return made, ending


def _find(keys: tuple[ApiKey, ...], key_id: str) -> ApiKey:
    if not re.fullmatch(ID, key_id):  # it may be a secret with a slip in it: not to be shown
        raise GatebookError("that is no key's id; `gatebook key list` shows them all")
    found = next((key for key in keys if key.id == key_id), None)
    if found is None:
        raise GatebookError(f"there is no key {key_id}; `gatebook key list` shows them all")
    return found


def unlink(path: Path, provider: str, subject: str, *, now: float, announce: Callable[[list[str]], object]) -> int:
    """That person was forgotten: their keys that open nothing any more lose the name. How many.

    Records name a key by its id, and this file its owner. Raises EnvironmentFault.
    """
    with kept.change(path, KIND) as change:
        keys = change.document.keys
        after = tuple(
            msgspec.structs.replace(key, subject=key.id)
            if (key.provider, key.subject) == (provider, subject) and key.state(now) != "active"
            else key
            for key in keys
        )
        changed = [old.id for new, old in zip(after, keys, strict=True) if new is not old]
        if changed:
            # What is refused stays refused.
            change.become(Document(version=1, keys=after), lambda: announce(changed))
    return len(changed)


def revoke(path: Path, key_id: str, *, now: float, announce: Announce) -> tuple[ApiKey, bool]:
    """The key, and whether this call revoked it (else it was revoked before). Raises GatebookError."""
    with kept.change(path, KIND) as change:
        keys = change.document.keys
        found = _find(keys, key_id)
        if found.revoked is not None:
            return found, False
        gone = msgspec.structs.replace(found, revoked=int(now))
        after = tuple(gone if key is found else key for key in keys)
        change.become(Document(version=1, keys=after), lambda: announce(gone))
    return gone, True
