"""Everything the log holds of one person: their accesses, and whatever else names them. Pure, but for the source.

In: records in the ledger's order, the person's pseudonyms, and the name where it is known. Out: `Collected`. An
access counts as theirs when its identity is one of their pseudonyms or, of that provider, their name in clear;
acts and alerts count when they mention a pseudonym or the name. Never passes over a record that cannot be read.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from gatebook import record
from gatebook.access.found import Access, Event, Strange, read
from gatebook.access.join import Joiner


class Source(Protocol):
    """The part of `ledger.read.Reader` that is used here."""

    @property
    def origin(self) -> str: ...
    @property
    def size(self) -> int: ...
    def forwards(self, start: int) -> Iterator[tuple[int, bytes]]: ...
    def record(self, index: int) -> bytes | None: ...


@dataclass
class Person:
    """`pseudonyms` in hex. `name` None: known by a pseudonym alone."""

    provider: str | None
    pseudonyms: frozenset[str]
    name: str | None


@dataclass
class Collected:
    """`looked_at`: records; `unreadable`: those of another version, which may be theirs."""

    accesses: list[Access] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    looked_at: int = 0
    unreadable: int = 0

    def counts(self) -> dict[str, Any]:
        """What stands at the beginning of a report."""
        found = self.accesses
        return {
            "accesses": len(found),
            "allowed": sum(each.decision is not None and each.decision.verdict == "allow" for each in found),
            "denied": sum(each.decision is not None and each.decision.verdict == "deny" for each in found),
            "other_records": len(self.events),
            "sealed": sum(each.sealed is not None for each in found),
            "records_looked_at": self.looked_at,
            "unreadable": self.unreadable,
            "first_us": min((each.time_us for each in found), default=None),
            "last_us": max((each.time_us for each in found), default=None),
            "by_route": dict(
                sorted(Counter((each.request and each.request.route) or "-" for each in found).items())
            ),
        }


def collect(source: Source, person: Person, seen: Callable[[int], None]) -> Collected:
    """`seen(index)` hears how far it is."""
    collected = Collected()
    mentioned = _mentioned(person)
    joiner = Joiner(source.origin, source.record)
    open_decisions: set[int] = set()
    for index, data in source.forwards(0):
        collected.looked_at += 1
        seen(index)
        mentions = mentioned is not None and mentioned.search(data) is not None
        made = read(index, data)
        if isinstance(made, Strange):
            collected.unreadable += 1
        elif isinstance(made, record.Decision):
            if mentions and _is_theirs(made.identity, person):
                open_decisions.add(index)
                joiner.add(index, data)
        elif isinstance(made, record.Outcome):
            if made.decision_index in open_decisions or made.decision_index is None:
                _take(joiner.add(index, data), person, collected)
        elif mentions:
            collected.events.append(Event(index, made))
    _take(list(joiner.rest()), person, collected)
    collected.accesses.sort(key=lambda each: each.index)
    return collected


def _mentioned(person: Person) -> re.Pattern[bytes] | None:
    """Finds a pseudonym or the name in a record's bytes, but no other name that only holds it."""
    names = [each.encode() for each in person.pseudonyms]
    if person.name is not None:
        names.append(json.dumps(person.name, ensure_ascii=False)[1:-1].encode("utf-8", "surrogateescape"))
    if not names:
        return None
    part_of_a_name = rb"[\w@.\x80-\xff-]"
    return re.compile(rb"(?<!%s)(?:%s)(?![\w@\x80-\xff-])" % (part_of_a_name, b"|".join(map(re.escape, names))))


def _take(found: list[Any], person: Person, collected: Collected) -> None:
    collected.accesses += [
        each for each in found if isinstance(each, Access) and _is_theirs(each.identity, person)
    ]


def _is_theirs(who: record.IdentityPart | None, person: Person) -> bool:
    if who is None or who.subject is None:
        return False
    if who.subject in person.pseudonyms:
        return True
    return person.name is not None and who.subject == person.name and who.provider == person.provider
