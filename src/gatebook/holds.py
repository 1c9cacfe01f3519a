"""Legal holds, state/holds.json: what may not be erased, and which hold forbids an erasure.

One JSON object: `{"version": 1, "holds": [...]}`, each a Hold: on everything, on what a person did, on a time, or
on both. How the file is read and replaced is kept's. Trust: whoever can write it can have erased what somebody
wants kept; one that is broken or gone forbids every erasure. A person stands in it by keyed hash and pseudonym,
never by name. Each step is announced (put on record) before it takes effect. `blocking` is pure.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from gatebook import kept
from gatebook.errors import GatebookError
from gatebook.identity.api_key import ID, Seconds, make_id

Micros = Annotated[int, Meta(ge=0, lt=1 << 62)]
Line = Annotated[str, Meta(min_length=1, max_length=300)]

NOBODY: frozenset[str] = frozenset()  # the names of a record that no person stands behind


class Person(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`key`: keyed hash of the name, its provider in it: the vault's lookup. `pseudonym`: where there is one."""

    provider: Annotated[str, Meta(min_length=1, max_length=64)] | None
    key: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    pseudonym: Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")] | None

    @property
    def names(self) -> frozenset[str]:
        return frozenset(name for name in (self.key, self.pseudonym) if name is not None)


class Hold(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`since_us` included, `until_us` not; None: without that bound. No person: everybody's."""

    id: Annotated[str, Meta(pattern=rf"\A{ID}\Z")]
    person: Person | None
    since_us: Micros | None
    until_us: Micros | None
    reason: Line
    created: Seconds
    created_by: Annotated[str, Meta(pattern=r"\Aos:[0-9]{1,10}\Z")]

    def problem(self) -> str | None:
        """What no type can say."""
        if self.since_us is not None and self.until_us is not None and self.since_us >= self.until_us:
            return "it ends before it begins"
        return None if self.reason.isprintable() else "its words are not printable"

    def covers(self, times_us: tuple[int, int] | None, names: frozenset[str] | None) -> bool:
        if times_us is not None:
            if self.since_us is not None and times_us[1] < self.since_us:
                return False
            if self.until_us is not None and times_us[0] >= self.until_us:
                return False
        return self.person is None or names is None or not names.isdisjoint(self.person.names)

    def detail(self) -> dict[str, Any]:
        """For the record: everything but the keyed hash."""
        who = self.person
        told = {
            "id": self.id,
            "provider": who.provider if who is not None else None,
            "subject": (who.pseudonym or "somebody who is not in the log yet") if who is not None else None,
            "since_us": self.since_us,
            "until_us": self.until_us,
            "reason": self.reason,
        }
        return {name: value for name, value in told.items() if value is not None}


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    version: Literal[1]
    holds: tuple[Hold, ...]


def _check(document: Document) -> None:
    if len({entry.id for entry in document.holds}) != len(document.holds):
        raise ValueError("a hold stands in it twice")
    for entry in document.holds:
        problem = entry.problem()
        if problem is not None:
            raise ValueError(f"hold {entry.id}: {problem}")


KIND = kept.Kind(
    title="holds",
    command="gatebook hold",
    document=Document,
    empty=Document(version=1, holds=()),
    check=_check,
)

Announce = Callable[[Hold], object]


def read(path: Path) -> tuple[Hold, ...]:
    """Those in force. Raises EnvironmentFault for a file that cannot be used: then nothing may be erased."""
    return kept.read(path, KIND).document.holds


@contextlib.contextmanager
def standing(path: Path) -> Iterator[tuple[Hold, ...]]:
    """Those in force, of which none comes or goes meanwhile: for as long as an erasure takes.

    Waits for nobody: whoever adds a hold waits in turn for the recorder, which asks here. Raises EnvironmentFault.
    """
    with kept.change(path, KIND, patience_s=0) as change:
        yield change.document.holds


def blocking(
    holds: Iterable[Hold], *, times_us: tuple[int, int] | None = None, names: frozenset[str] | None = None
) -> list[Hold]:
    """The holds that forbid erasing what lies between those times, both included, and is of the person so named.

    `names`: all keyed hashes and pseudonyms, in hex, that may stand for the person; NOBODY where it is nobody's.
    None for either: not known, so whatever could be meant is held.
    """
    return [hold for hold in holds if hold.covers(times_us, names)]


def refuse(found: list[Hold]) -> None:
    """Raises GatebookError, with the holds, unless there are none."""
    if found:
        named = "; ".join(f"{hold.id} ({hold.reason})" for hold in found)
        raise GatebookError(
            f"nothing was erased: held by {named}; `gatebook hold list` shows what is held and why"
        )


def add(
    path: Path,
    *,
    person: Person | None,
    since_us: int | None,
    until_us: int | None,
    reason: str,
    by: str,
    now: float,
    random: Callable[[int], bytes],
    announce: Announce,
) -> Hold:
    """In force once this returns. Raises GatebookError."""
    with kept.change(path, KIND) as change:
        entries = change.document.holds
        taken = {entry.id for entry in entries}
        fields = {
            "id": next(name for name in iter(lambda: make_id(random), "") if name not in taken),
            "person": person,
            "since_us": since_us,
            "until_us": until_us,
            "reason": reason,
            "created": int(now),
            "created_by": by,
        }
        try:
            made = msgspec.convert(fields, Hold, strict=True)
            problem = made.problem()
        except msgspec.ValidationError as error:
            problem = str(error)
        if problem is not None:
            raise GatebookError(f"nothing is held: {problem}")
        change.become(Document(version=1, holds=(*entries, made)), lambda: announce(made))
    return made


def release(path: Path, hold_id: str, *, announce: Announce) -> Hold:
    """Not in force any more once this returns; that it was stays on record. Raises GatebookError."""
    if not re.fullmatch(ID, hold_id):
        raise GatebookError("that is no hold's id; `gatebook hold list` shows them all")
    with kept.change(path, KIND) as change:
        entries = change.document.holds
        old = next((entry for entry in entries if entry.id == hold_id), None)
        if old is None:
            raise GatebookError(f"there is no hold {hold_id}; `gatebook hold list` shows them all")
        left = tuple(entry for entry in entries if entry is not old)
        change.become(Document(version=1, holds=left), lambda: announce(old))
    return old
