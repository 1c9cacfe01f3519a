"""What the deployment's own files hold of one person, beside the log, and what of it can go.

In: who it is. Out: a line for each place, with what to do about it. API keys, clients and grants open doors: they
are told and not touched: whoever ends them should know that they do. Revocations are kept, for they keep a door
shut; they lose what leads from them to records. Never names anybody in what it says.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from gatebook.identity import api_key_file, client_file, grant_file, revocation_file
from gatebook.paths import Paths

_AGAIN = "once it is over, forget them again"


class Stored(NamedTuple):
    """`store`: the file; `what` it holds of the person; `remedy`: how it ends, or why it stays."""

    store: str
    what: str
    remedy: str


class Unlinked(NamedTuple):
    """How many lost what led to records: revocations, grants that were over, keys and clients that had ended."""

    revocations: int = 0
    grants: int = 0
    credentials: int = 0


def stored(paths: Paths, provider: str | None, subject: str | None, key: str, now: float) -> list[Stored]:
    """`key`: keyed.Keys.name of the subject. Without `subject`, what holds the name itself is not looked for."""
    found = []
    for api_key in api_key_file.read(paths.api_keys):
        if (api_key.provider, api_key.subject) == (provider, subject):
            what = f"API key {api_key.id} ({api_key.state(now)}) is theirs, and records name it"
            found.append(Stored(paths.api_keys.name, what, f"gatebook key revoke {api_key.id}; {_AGAIN}"))
    for client in client_file.read(paths.clients):
        if (client.provider, client.subject) == (provider, subject):
            what = f"client {client.id} of the token service is theirs, and records name it"
            found.append(Stored(paths.clients.name, what, f"gatebook client revoke {client.id}; {_AGAIN}"))
    for grant in grant_file.read(paths.grants):
        if grant.key == key:
            what = f"grant {grant.id} of {grant.role} ({grant.state(now)}) is by their keyed name"
            remedy = (
                f"gatebook grant revoke {grant.id}"
                if grant.state(now) == "in force"
                else "forget them again once it is over"
            )
            found.append(Stored(paths.grants.name, what, remedy))
    for entry in revocation_file.read(paths.revocations):
        if entry.key == key:
            what = f"revocation {entry.id} is by their keyed name"
            found.append(Stored(paths.revocations.name, what, "stays: it keeps them out"))
    return found


def unlink(
    paths: Paths,
    provider: str | None,
    subject: str,
    key: str,
    now: float,
    random: Callable[[int], bytes],
    announce: Callable[[str, list[str]], object],
) -> Unlinked:
    """What led from the name to records goes; what is refused stays refused. Raises EnvironmentFault.

    `announce`: of what, and their ids, before a file is changed; what it raises leaves that file as it was.
    """
    revocations = grants = credentials = 0
    if any(entry.key == key for entry in revocation_file.read(paths.revocations)):
        say = partial(announce, "revocations")
        revocations = revocation_file.unlink(paths.revocations, key, now=now, random=random, announce=say)
    if any(entry.key == key for entry in grant_file.read(paths.grants)):
        grants = grant_file.unlink(paths.grants, key, now=now, announce=partial(announce, "grants"))
    if provider is not None:
        who = (provider, subject)
        if any((each.provider, each.subject) == who for each in api_key_file.read(paths.api_keys)):
            say = partial(announce, "keys")
            credentials += api_key_file.unlink(paths.api_keys, *who, now=now, announce=say)
        if any((each.provider, each.subject) == who for each in client_file.read(paths.clients)):
            say = partial(announce, "clients")
            credentials += client_file.unlink(paths.clients, *who, now=now, announce=say)
    return Unlinked(revocations, grants, credentials)
