"""The file that keeps grants, state/grants.json: what stands in it, and each step of a grant's life.

One JSON object: `{"version": 1, "grants": [...]}`, each a grant.Grant. How it is read, replaced and watched is
kept's. Trust: whoever can write it can grant a role, as far as the configuration lets it be granted at all; a file
that cannot be used grants nothing. Who asks and who approves are never the same. Each step is announced (put on
record) before it takes effect.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from gatebook import kept
from gatebook.config.model import Grantable
from gatebook.errors import GatebookError
from gatebook.identity.api_key import ID, make_id
from gatebook.identity.grant import REQUEST_TTL_S, Grant

GRACE_S = 30 * 86_400  # how long one that is over is still shown

Announce = Callable[[Grant], object]


class Person(NamedTuple):
    """An OS user: `os:<uid>`, and the name that the configuration may know them by."""

    actor: str
    name: str


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    version: Literal[1]
    grants: tuple[Grant, ...]


def _check(document: Document) -> None:
    if len({entry.id for entry in document.grants}) != len(document.grants):
        raise ValueError("a grant stands in it twice")
    for entry in document.grants:
        problem = entry.problem()
        if problem is not None:
            raise ValueError(f"grant {entry.id}: {problem}")


KIND = kept.Kind(
    title="grants",
    command="gatebook grant",
    document=Document,
    empty=Document(version=1, grants=()),
    check=_check,
)


def read(path: Path) -> tuple[Grant, ...]:
    """Raises EnvironmentFault for a file that cannot be used."""
    return kept.read(path, KIND).document.grants


def request(
    path: Path,
    terms: Grantable | None,
    *,
    role: str,
    provider: str,
    key: str,
    shown: str,
    seconds: float,
    reason: str,
    by: Person,
    now: float,
    random: Callable[[int], bytes],
    announce: Announce,
) -> Grant:
    """`terms`: what the configuration says of the role. `key` is of keyed.Keys. Raises GatebookError."""
    if terms is None or terms.role != role:
        raise GatebookError(f"nothing was asked for: no grant of {role} is in the configuration's `grants`")
    if seconds > terms.max:
        raise GatebookError(f"nothing was asked for: {role} is granted for {terms.max:g} s at most")
    with kept.change(path, KIND) as change:
        entries = tuple(entry for entry in change.document.grants if not _forgotten(entry, now))
        taken = {entry.id for entry in change.document.grants}
        fields = {
            "id": next(name for name in iter(lambda: make_id(random), "") if name not in taken),
            "role": role,
            "provider": provider,
            "key": key,
            "shown": shown,
            "seconds": int(seconds),
            "reason": reason,
            "requested": int(now),
            "requested_by": by.actor,
            **dict.fromkeys(("decision", "decided", "decided_by", "approver", "revoked", "revoked_by")),
            "completed": False,
        }
        try:
            made = msgspec.convert(fields, Grant, strict=True)
            problem = made.problem()
        except msgspec.ValidationError as error:
            problem = str(error)
        if problem is not None:
            raise GatebookError(f"nothing was asked for: {problem}")
        change.become(Document(version=1, grants=(*entries, made)), lambda: announce(made))
    return made


def decide(
    path: Path,
    grant_id: str,
    decision: Literal["approved", "denied"],
    *,
    terms: Callable[[str], Grantable | None],
    by: Person,
    now: float,
    announce: Announce,
) -> Grant:
    """In effect within a second once this returns. Raises GatebookError. Who asked for it may deny it."""

    def decided(old: Grant) -> Grant:
        allows = terms(old.role)
        if old.state(now) != "requested":
            raise GatebookError(f"nothing was changed: {grant_id} is {old.state(now)}, not requested")
        if decision == "approved" and by.actor == old.requested_by:
            raise GatebookError(
                f"nothing was changed: {by.actor} has asked for it; somebody else has to approve it"
            )
        if allows is None or (by.name not in allows.approve and by.actor != old.requested_by):
            raise GatebookError(f"nothing was changed: {by.name} may not decide on grants of {old.role}")
        if old.seconds > allows.max:
            raise GatebookError(f"nothing was changed: {old.role} is granted for {allows.max:g} s at most")
        approver = by.name if decision == "approved" else None
        return msgspec.structs.replace(
            old, decision=decision, decided=int(now), decided_by=by.actor, approver=approver
        )

    return _step(path, grant_id, decided, announce)


def revoke(path: Path, grant_id: str, *, by: Person, now: float, announce: Announce) -> Grant:
    """It gives nothing any more within a second. Anybody may take a role away. Raises GatebookError."""

    def revoked(old: Grant) -> Grant:
        if old.state(now) != "in force":
            raise GatebookError(f"nothing was changed: {grant_id} is {old.state(now)}, not in force")
        return msgspec.structs.replace(old, revoked=int(now), revoked_by=by.actor)

    return _step(path, grant_id, revoked, announce)


def complete(path: Path, grant_id: str, announce: Announce) -> Grant:
    """It has ended and is done with, for good. Raises GatebookError."""

    def completed(old: Grant) -> Grant:
        if old.decision != "approved" or old.completed:
            raise GatebookError(f"{grant_id} has been completed, or never began")
        return msgspec.structs.replace(old, completed=True)

    return _step(path, grant_id, completed, announce)


def unlink(path: Path, key: str, *, now: float, announce: Callable[[list[str]], object]) -> int:
    """Whoever `key` names was forgotten: their grants that give nothing any more go. How many.

    Records name a grant by its id, and this file the person by it. Raises EnvironmentFault.
    """
    with kept.change(path, KIND) as change:
        entries = change.document.grants
        left = tuple(
            entry
            for entry in entries
            if entry.key != key or not (entry.completed or entry.state(now) in ("denied", "expired"))
        )
        gone = [entry.id for entry in entries if entry not in left]
        if gone:
            # These gave nothing to anybody.
            change.become(Document(version=1, grants=left), lambda: announce(gone))
    return len(gone)


def _step(path: Path, grant_id: str, change_it: Callable[[Grant], Grant], announce: Announce) -> Grant:
    if not re.fullmatch(ID, grant_id):
        raise GatebookError("that is no grant's id; `gatebook grant list` shows them all")
    with kept.change(path, KIND) as change:
        entries = change.document.grants
        old = next((entry for entry in entries if entry.id == grant_id), None)
        if old is None:
            raise GatebookError(f"there is no grant {grant_id}; `gatebook grant list` shows them all")
        new = change_it(old)
        problem = new.problem()
        if problem is not None:
            raise GatebookError(f"nothing was changed: {problem}")
        after = tuple(new if entry is old else entry for entry in entries)
        change.become(Document(version=1, grants=after), lambda: announce(new))
    return new


def _forgotten(entry: Grant, now: float) -> bool:
    if entry.decision == "approved" and not entry.completed:
        return False
    return max(entry.requested + REQUEST_TTL_S, entry.ends) + GRACE_S < now
