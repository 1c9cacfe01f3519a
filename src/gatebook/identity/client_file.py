"""The file that keeps the clients of our own token service, state/clients.json, and the changes that can be made.

One JSON object: `{"version": 1, "clients": [...]}`, each a client.Client. How it is read, replaced and watched
is kept's. Trust: whoever can write it can get tokens of any role. Its loss locks every client out. A secret is
never written, only its Argon2id hash.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from gatebook import kept
from gatebook.errors import GatebookError
from gatebook.identity.api_key import ID, make_id, make_text
from gatebook.identity.client import SECRET, Client, hash_of
from gatebook.identity.jwk import MIN_RSA_BITS, algorithms_of
from gatebook.identity.strict import parse_object

MAX_WORDS = 4 << 10  # letters of roles and scopes together: a token is larger by a third, and has 8 KiB

_PUBLIC: Final[tuple[str, ...]] = ("kty", "crv", "n", "e", "x", "y")
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

Announce = Callable[[Client], object]


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    version: Literal[1]
    clients: tuple[Client, ...]


def _check(document: Document) -> None:
    if len({client.id for client in document.clients}) != len(document.clients):
        raise ValueError("a client stands in it twice")
    for client in document.clients:
        if (client.hash is None) == (client.key is None):
            raise ValueError(f"client {client.id} has to have a secret or a key")
        if client.key is not None and not algorithms_of(client.key):
            raise ValueError(f"the key of client {client.id} cannot be used")


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
    """`secret` is shown to a person once, never written anywhere; empty for a client with a key."""

    secret: str
    client: Client


def public_key(data: bytes) -> dict[str, str]:
    """Of a PEM file or a JWK, as it is kept. Raises GatebookError for what is no public key that may verify."""
    try:
        if data.lstrip().startswith(b"{"):
            jwk = parse_object(data)
            if _PRIVATE & jwk.keys():
                raise GatebookError("that is a private key; the client keeps it, and gives its public half")
        else:
            jwk = _of_pem(data)
    except (ValueError, JoseError, TypeError):
        raise GatebookError("that is no public key in PEM, and no JWK") from None
    kept_of_it: dict[str, str] = {name: str(jwk[name]) for name in _PUBLIC if name in jwk}
    if not algorithms_of(kept_of_it):
        raise GatebookError(
            "that key cannot be used; P-256, P-384, P-521, Ed25519 and RSA of 2048 bits or more can"
        )
    return kept_of_it


def _of_pem(data: bytes) -> dict[str, Any]:
    """Raises GatebookError, ValueError, JoseError."""
    if b"PRIVATE KEY" in data:
        raise GatebookError("that is a private key; the client keeps it, and gives its public half")
    key = serialization.load_pem_public_key(data)
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return dict(RSAKey.import_key(data).as_dict(private=False))
    if isinstance(key, ec.EllipticCurvePublicKey):
        return dict(ECKey.import_key(data).as_dict(private=False))
    if isinstance(key, ed25519.Ed25519PublicKey):
        return dict(OKPKey.import_key(data).as_dict(private=False))
    return {}  # it cannot be used


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
    key: dict[str, str] | None = None,
) -> Made:
    """A new client, in effect once this returns. Without a subject, that is its id. Raises GatebookError."""
    if sum(map(len, (*roles, *scopes))) > MAX_WORDS:
        raise GatebookError(f"the client was not made: roles and scopes are up to {MAX_WORDS} letters together")
    with kept.change(path, KIND) as change:
        clients = change.document.clients
        taken = {client.id for client in clients}
        client_id = next(name for name in iter(lambda: make_id(random), "") if name not in taken)
        secret = "" if key is not None else make_text(client_id, random, SECRET)
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
            "key": key,
            "hash": hash_of(secret) if secret else None,
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


def unlink(path: Path, provider: str, subject: str, *, now: float, announce: Callable[[list[str]], object]) -> int:
    """That person was forgotten: their clients that get nothing any more lose the name. How many.

    Records name a client by its id, and this file whom it is. Raises EnvironmentFault.
    """
    with kept.change(path, KIND) as change:
        clients = change.document.clients
        after = tuple(
            msgspec.structs.replace(client, subject=client.id)
            if (client.provider, client.subject) == (provider, subject) and client.state(now) != "active"
            else client
            for client in clients
        )
        changed = [old.id for new, old in zip(after, clients, strict=True) if new is not old]
        if changed:
            # What is refused stays refused.
            change.become(Document(version=1, clients=after), lambda: announce(changed))
    return len(changed)


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
