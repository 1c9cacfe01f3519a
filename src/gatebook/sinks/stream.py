"""A ledger from some place on -> items in its order, as they complete.

In: a ledger's reader. A decision waits for its outcome; where one takes longer than NOTICE_US, a first notice of it
is given and the outcome makes another item. `place` says all that is needed to go on after a stop: the next entry,
and the decisions that wait. Never passes over an entry: what cannot be read, and was not erased, stops it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol

import msgspec

from gatebook import record
from gatebook.access.found import Access, Event, Found, Strange
from gatebook.access.join import Joiner
from gatebook.errors import Damaged
from gatebook.ledger.read import Gap
from gatebook.sinks.item import Item, Kind, Part

NOTICE_US: Final = 60_000_000


class Source(Protocol):
    """The part of `ledger.read.Reader` that is used here."""

    @property
    def origin(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def gaps(self) -> list[Gap]: ...
    def refresh(self) -> bool: ...
    def forwards(self, start: int) -> Iterator[tuple[int, bytes]]: ...
    def record(self, index: int) -> bytes | None: ...


class Place(msgspec.Struct, frozen=True):
    """`next`: the first entry that was not read. `open`: decisions before it that wait; `told`: with a notice."""

    next: int = 0
    open: list[int] = []
    told: list[int] = []


class Stream:
    """`salt_of` gives the salt of a record's commitment; None where none is to be sent."""

    def __init__(self, source: Source, place: Place, salt_of: Callable[[int], bytes | None]) -> None:
        self._source = source
        self._salt_of = salt_of
        self._joiner = Joiner(source.origin, source.record)
        self._raw: dict[int, bytes] = {}  # of decisions that wait
        self._next = place.next
        self._told = set(place.told)
        self._gaps = 0
        for index in place.open:
            data = source.record(index)
            if data is None:
                self._check_readable()
                continue  # it was erased meanwhile; its outcome comes alone
            self._raw[index] = data
            self._joiner.add(index, data)
        for _ in self._joiner.overdue_of(self._told):
            pass  # told before the stop

    @property
    def place(self) -> Place:
        return Place(self._next, sorted(self._raw), sorted(self._told & self._raw.keys()))

    @property
    def behind(self) -> int:
        """How many entries there are to be read."""
        return max(0, self._source.size - self._next)

    def read(self, enough: int) -> list[Item]:
        """Items that are complete by now, at least `enough` if there are so many. Raises Damaged."""
        items: list[Item] = []
        for index, data in self._source.forwards(self._next):
            self._check_readable()
            items += self._take(index, data)
            self._next = index + 1
            if len(items) >= enough:
                return items
        self._check_readable()
        self._next = max(self._next, self._source.size)
        return items

    def refresh(self) -> bool:
        """See what has been written since."""
        return self._source.refresh()

    def notices(self, now_us: int) -> list[Item]:
        """First notices of what has been going on for long; to be asked for when all has been read."""
        items = []
        for found in self._joiner.overdue(now_us - NOTICE_US):
            if found.decision_index is not None and found.decision_index not in self._told:
                self._told.add(found.decision_index)
                items.append(self._item(found, found.decision_index))
        return items

    def _check_readable(self) -> None:
        """Entries that cannot be read stop the stream, but for those whose erasure the ledger explains."""
        for gap in self._source.gaps[self._gaps :]:
            if not getattr(gap, "erased", False):
                last = gap.first_index + gap.n - 1
                raise Damaged(f"entries {gap.first_index} to {last} cannot be read: {gap.why}")
        self._gaps = len(self._source.gaps)

    def _take(self, index: int, data: bytes) -> list[Item]:
        if data.startswith(b'{"v":1,"kind":"decision"'):
            self._raw[index] = data
        items = [self._item(found, index, data) for found in self._joiner.add(index, data)]
        for item in items:
            if item.access is not None and item.access.decision_index is not None:
                self._raw.pop(item.access.decision_index, None)
                self._told.discard(item.access.decision_index)
        return items

    def _item(self, found: Found, index: int, data: bytes = b"") -> Item:
        origin = self._source.origin
        match found:
            case Access():
                ident = f"{origin}/{found.index}" + ("/open" if found.open else "")
                return Item(ident, "access", found.index, found.time_us, found, self._parts(found, index, data))
            case Event(record=made):
                kind = _kind(made)
                return Item(f"{origin}/{index}", kind, index, made.time_us, found, (self._part(index, data),))
            case Strange():
                return Item(f"{origin}/{index}", "unreadable", index, 0, found, (self._part(index, data),))

    def _parts(self, found: Access, index: int, data: bytes) -> tuple[Part, ...]:
        parts = []
        if found.decision_index is not None and found.decision is not None:
            decision = data if index == found.decision_index and data else self._raw.get(found.decision_index)
            decision = decision or self._source.record(found.decision_index)
            if decision is not None:
                parts.append(self._part(found.decision_index, decision))
        if found.outcome_index is not None:
            outcome = data if index == found.outcome_index else self._source.record(found.outcome_index)
            if outcome is not None:
                parts.append(self._part(found.outcome_index, outcome))
        return tuple(parts)

    def _part(self, index: int, data: bytes) -> Part:
        return Part(index, data, self._salt_of(index))


def _kind(made: record.Admin | record.Alert | record.System) -> Kind:
    match made:
        case record.Admin():
            return "admin"
        case record.Alert():
            return "alert"
        case record.System():
            return "system"
