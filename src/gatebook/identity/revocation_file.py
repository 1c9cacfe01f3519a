"""The file that keeps revocations, state/revocations.json: what stands in it, and the changes that can be made.

One JSON object: `{"version": 1, "revocations": [...]}`, each a revocation.Revocation. How it is read, replaced and
watched is kept's. Trust: whoever can write it can have a stolen credential accepted again, or shut anybody out. A
file that cannot be used, or is gone, lets nobody in. What has been over for a while is dropped with the next
change: never earlier, so that a clock that runs ahead for less than that forgets nothing that still matters.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from gatebook import kept
from gatebook.errors import EnvironmentFault, GatebookError
from gatebook.identity.api_key import ID, make_id
from gatebook.identity.revocation import Revocation, What

GRACE_S = 86_400  # after which what a person made is dropped once it is over
AUTOMATIC_GRACE_S = 3600  # and what no person made, such as sign-outs, of which there may be many
OPERATOR = "os:"  # what the actor begins with when it is a person at the command line
MAX_AUTOMATIC_BYTES = 4 << 20  # beyond it only a person may add; so that there is always room for one

Announce = Callable[[Revocation], object]


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    version: Literal[1]
    revocations: tuple[Revocation, ...]


def _check(document: Document) -> None:
    if len({entry.id for entry in document.revocations}) != len(document.revocations):
        raise ValueError("a revocation stands in it twice")
    for entry in document.revocations:
        problem = entry.problem()
        if problem is not None:
            raise ValueError(f"revocation {entry.id}: {problem}")


KIND = kept.Kind(
    title="revocations",
    command="gatebook revoke",
    document=Document,
    empty=Document(version=1, revocations=()),
    check=_check,
)


def read(path: Path) -> tuple[Revocation, ...]:
    """Raises EnvironmentFault for a file that cannot be used."""
    return kept.read(path, KIND).document.revocations


def add(
    path: Path,
    what: What,
    key: str,
    *,
    provider: str | None,
    before: float | None = None,
    until: float | None = None,
    shown: str,
    reason: str,
    actor: str,
    now: float,
    random: Callable[[int], bytes],
    announce: Announce,
) -> tuple[Revocation, bool]:
    """The revocation, in effect within a second once this returns, and whether it is new. Raises GatebookError.

    `key` is of keyed.Keys; empty for `all`. What one that is there already says too is not added again.
    """
    with kept.change(path, KIND) as change:
        entries = tuple(entry for entry in change.document.revocations if not _is_old(entry, now))
        taken = {entry.id for entry in change.document.revocations}
        fields = {
            "id": next(name for name in iter(lambda: make_id(random), "") if name not in taken),
            "what": what,
            "provider": provider,
            "key": key,
            "before": None if before is None else int(before),
            "until": None if until is None else int(until),
            "shown": shown,
            "reason": reason,
            "actor": actor,
            "created": int(now),
        }
        try:
            made = msgspec.convert(fields, Revocation, strict=True)
            problem = made.problem()
        except msgspec.ValidationError as error:
            problem = str(error)
        if problem is not None:
            raise GatebookError(f"nothing was revoked: {problem}; a reason is a line of up to 300 letters")
        covering = next((entry for entry in entries if _covers(entry, made)), None)
        if covering is not None:
            return covering, False
        after = Document(version=1, revocations=(*entries, made))
        if not actor.startswith(OPERATOR) and len(msgspec.json.encode(after)) > MAX_AUTOMATIC_BYTES:
            raise EnvironmentFault(f"{path}: holds {len(entries)} revocations; what room is left is for persons")
        change.become(after, lambda: announce(made))
    return made, True


def _is_old(entry: Revocation, now: float) -> bool:
    return not entry.holds(now - (GRACE_S if entry.actor.startswith(OPERATOR) else AUTOMATIC_GRACE_S))


def _covers(old: Revocation, new: Revocation) -> bool:
    """Whether `new` would refuse nothing that `old` does not."""
    if (old.what, old.key, old.provider) != (new.what, new.key, new.provider):
        return False
    if old.until is not None and (new.until is None or new.until > old.until):
        return False
    return old.before is None or (new.before is not None and new.before <= old.before)


FORGOTTEN = "somebody who was forgotten"


def unlink(
    path: Path,
    key: str,
    *,
    now: float,
    random: Callable[[int], bytes],
    announce: Callable[[list[str]], object],
) -> int:
    """Whoever `key` names was forgotten: what refuses them stays, what leads from it to records goes. How many.

    The record of a revocation gives its id and the pseudonym, this file the id and the keyed name: together they
    would tell who it was to anybody who has pseudonym.key and guesses. So it gets another id. `announce` is
    told the old ids alone.
    """
    with kept.change(path, KIND) as change:
        entries = change.document.revocations
        taken = {entry.id for entry in entries}
        after = []
        for entry in entries:
            if entry.key == key and entry.shown != FORGOTTEN:
                made = next(name for name in iter(lambda: make_id(random), "") if name not in taken)
                taken.add(made)
                entry = msgspec.structs.replace(
                    entry, id=made, shown=FORGOTTEN, reason=FORGOTTEN, created=int(now)
                )
            after.append(entry)
        changed = [old.id for new, old in zip(after, entries, strict=True) if new is not old]
        if changed:
            # This refuses neither more nor less than before.
            change.become(Document(version=1, revocations=tuple(after)), lambda: announce(changed))
    return len(changed)


def undo(path: Path, revocation_id: str, *, announce: Announce) -> Revocation:
    """What it refused is accepted again within a second. Raises GatebookError."""
    if not re.fullmatch(ID, revocation_id):
        raise GatebookError("that is no revocation's id; `gatebook revoke list` shows them all")
    with kept.change(path, KIND) as change:
        entries = change.document.revocations
        found = next((entry for entry in entries if entry.id == revocation_id), None)
        if found is None:
            raise GatebookError(f"there is no revocation {revocation_id}; `gatebook revoke list` shows them all")
        rest = tuple(entry for entry in entries if entry is not found)
        change.become(Document(version=1, revocations=rest), lambda: announce(found))
    return found
