"""The file that keeps the clients of our own token service, state/clients.json, and the changes that can be made.

One JSON object: `{"version": 1, "clients": [...]}`, each a client.Client. How it is read, replaced and watched
is kept's. Trust: whoever can write it can get tokens of any role. Its loss locks every client out. A secret is
never written, only its Argon2id hash.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from gatebook import kept
from gatebook.errors import GatebookError
from gatebook.identity.api_key import ID, make_id, make_text
from gatebook.identity.client import SECRET, Client, hash_of

MAX_WORDS = 4 << 10  # letters of roles and scopes together: a token is larger by a third, and has 8 KiB

Announce = Callable[[Client], object]


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    version: Literal[1]
    clients: tuple[Client, ...]


def _check(document: Document) -> None:
    if len({client.id for client in document.clients}) != len(document.clients):
        raise ValueError("a client stands in it twice")


KIND = kept.Kind(
    title="clients",
    command="gatebook client",
    document=Document,
    empty=Document(version=1, clients=()),
    check=_check,
)


def read(path: Path) -> tuple[Client, ...]:
    """Raises EnvironmentFault for a file that cannot be used."""
    return kept.read(path, KIND).document.clients


class Made(NamedTuple):
    """`secret` is shown to a person once, never written anywhere."""

    secret: str
    client: Client


def create(
    path: Path,
    *,
    provider: str,
    roles: tuple[str, ...],
    scopes: tuple[str, ...],
    subject: str | None,
    refresh: bool,
    ttl_s: float,
    now: float,
    random: Callable[[int], bytes],
    announce: Announce,
) -> Made:
    """A new client, in effect once this returns. Without a subject, that is its id. Raises GatebookError."""
    if sum(map(len, (*roles, *scopes))) > MAX_WORDS:
        raise GatebookError(f"the client was not made: roles and scopes are up to {MAX_WORDS} letters together")
    with kept.change(path, KIND) as change:
        clients = change.document.clients
        taken = {client.id for client in clients}
        client_id = next(name for name in iter(lambda: make_id(random), "") if name not in taken)
        secret = make_text(client_id, random, SECRET)
        fields = {
            "id": client_id,
            "provider": provider,
            "subject": client_id if subject is None else subject,
            "roles": roles,
            "scopes": scopes,
            "refresh": refresh,
            "created": int(now),
            "expires": int(now + ttl_s),
            "revoked": None,
            "hash": hash_of(secret),
        }
        try:
            client = msgspec.convert(fields, Client, strict=True)
        except msgspec.ValidationError:
            raise GatebookError(
                "the client was not made: roles (without commas) and scopes are up to 64 words of ASCII each, "
                "a subject is up to 255 printable letters of ASCII"
            ) from None
        change.become(Document(version=1, clients=(*clients, client)), lambda: announce(client))
    return Made(secret, client)


def revoke(path: Path, client_id: str, *, now: float, announce: Announce) -> tuple[Client, bool]:
    """The client, and whether this call revoked it (else it was revoked before). Raises GatebookError."""
    if not re.fullmatch(ID, client_id):  # it may be a secret with a slip in it: not to be shown
        raise GatebookError("that is no client's id; `gatebook client list` shows them all")
    with kept.change(path, KIND) as change:
        clients = change.document.clients
        found = next((client for client in clients if client.id == client_id), None)
        if found is None:
            raise GatebookError(f"there is no client {client_id}; `gatebook client list` shows them all")
        if found.revoked is not None:
            return found, False
        gone = msgspec.structs.replace(found, revoked=int(now))
        after = tuple(gone if client is found else client for client in clients)
        change.become(Document(version=1, clients=after), lambda: announce(gone))
    return gone, True
