"""A ledger from some place on -> items in its order, as they complete.

In: a ledger's reader. A decision waits for its outcome; where one takes longer than NOTICE_US, a first notice of
it is given and the outcome makes another item. `place` says all that is needed to go on after a stop: the next
entry, and the decisions that wait. Never passes over an entry: what cannot be read, and was not erased, stops it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

import msgspec

from gatebook import record
from gatebook.access.found import Access, Event, Found, Strange
from gatebook.access.join import Joiner
from gatebook.errors import Damaged
from gatebook.ledger.read import Gap
from gatebook.sinks.item import Item, Kind, Part

NOTICE_US: Final = 60_000_000
_DECISION: Final = b'{"v":1,"kind":"decision"'


class Source(Protocol):
    """The part of `ledger.read.Reader` that is used here."""

    @property
    def origin(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def gaps(self) -> list[Gap]: ...
    def refresh(self) -> bool: ...
    def disclosed(self, start: int, end: int) -> Iterator[tuple[int, bytes, bytes]]: ...
    def record(self, index: int) -> bytes | None: ...


class Place(msgspec.Struct, frozen=True):
    """`next`: the first entry that was not read. `open`: decisions before it that wait; `told`: with a notice."""

    next: int = 0
    open: list[int] = []
    told: list[int] = []


class Stream:
    def __init__(self, source: Source, place: Place, *, salts: bool = True) -> None:
        """Raises Damaged where a decision that waits cannot be read, or the ledger has less than was sent of it.

        `salts`: give them along.
        """
        if place.next > source.size:
            raise Damaged(
                f"the ledger has {source.size} entries, and {place.next} have been sent of it: is it an old copy? "
                "New records would get numbers that the sink has seen; see `gatebook verify`"
            )
        self._source = source
        self._salts = salts
        self._joiner = Joiner(source.origin, source.record)
        self._waiting: dict[int, Part] = {}
        self._next = place.next
        self._told = set(place.told)
        self._gaps = 0
        for index in place.open:
            part = self._find(index)
            self._check_readable()
            if part is not None:  # otherwise it was erased meanwhile, and its outcome comes alone
                self._waiting[index] = part
                self._joiner.add(index, part.record)

    @property
    def place(self) -> Place:
        return Place(self._next, sorted(self._waiting), sorted(self._told & self._waiting.keys()))

    @property
    def behind(self) -> int:
        """How many entries there are to be read."""
        return max(0, self._source.size - self._next)

    def refresh(self) -> bool:
        """See what has been written since."""
        return self._source.refresh()

    def read(self, enough: int, enough_bytes: int | None = None) -> list[Item]:
        """What is complete by now, as soon as it is `enough`: items, or bytes of records. Raises Damaged."""
        items: list[Item] = []
        left = enough_bytes
        end = self._source.size
        for index, salt, data in self._source.disclosed(self._next, end):
            self._check_readable()
            taken = self._take(self._part(index, salt, data))
            items += taken
            self._next = index + 1
            if left is not None:
                left -= sum(item.bytes for item in taken)
            if len(items) >= enough or (left is not None and left <= 0):
                return items
        self._check_readable()
        self._next = max(self._next, end)
        return items

    def notices(self, now_us: int) -> list[Item]:
        """First notices of what has been going on for long; to be asked for when all has been read."""
        items = []
        for found in self._joiner.overdue(now_us - NOTICE_US):
            index = found.decision_index
            if index is not None and index in self._waiting and index not in self._told:
                self._told.add(index)
                items.append(self._access(found, (self._waiting[index],)))
        return items

    def _check_readable(self) -> None:
        """Entries that cannot be read stop the stream, but for those whose erasure the ledger explains."""
        for gap in self._source.gaps[self._gaps :]:
            if not gap.erased:
                last = gap.first_index + gap.n - 1
                raise Damaged(f"entries {gap.first_index} to {last} cannot be read: {gap.why}")
        self._gaps = len(self._source.gaps)

    def _take(self, part: Part) -> list[Item]:
        if part.record.startswith(_DECISION):
            self._waiting[part.index] = part
        return [self._item(found, part) for found in self._joiner.add(part.index, part.record)]

    def _item(self, found: Found, part: Part) -> Item:
        ident = f"{self._source.origin}/{part.index}"
        match found:
            case Access():
                return self._access(found, self._parts_of(found, part))
            case Event(record=made):
                return Item(ident, _kind(made), part.index, made.time_us, found, (part,))
            case Strange():
                return Item(ident, "unreadable", part.index, 0, found, (part,))

    def _access(self, found: Access, parts: tuple[Part, ...]) -> Item:
        ident = f"{self._source.origin}/{found.index}" + ("/open" if found.open else "")
        return Item(ident, "access", found.index, found.time_us, found, parts)

    def _parts_of(self, found: Access, last: Part) -> tuple[Part, ...]:
        """The decision and the outcome, as far as there are such; `last` is the one that completed it."""
        parts = []
        for index in (found.decision_index, found.outcome_index):
            if index is None or (index == found.decision_index and found.decision is None):
                continue
            part = self._waiting.pop(index, None) or (last if index == last.index else self._find(index))
            self._told.discard(index)
            if part is not None:
                parts.append(part)
        return tuple(parts)

    def _find(self, index: int) -> Part | None:
        return next((self._part(*found) for found in self._source.disclosed(index, index + 1)), None)

    def _part(self, index: int, salt: bytes, data: bytes) -> Part:
        return Part(index, data, salt if self._salts else None)


def _kind(made: record.Admin | record.Alert | record.System) -> Kind:
    match made:
        case record.Admin():
            return "admin"
        case record.Alert():
            return "alert"
        case record.System():
            return "system"
