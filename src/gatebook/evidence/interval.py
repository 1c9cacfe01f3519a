"""A range of time -> entries of the log, and which of their records are asked for.

The log's order is what counts, times are claims, so a range of time becomes one of entries: from the first with a
time in it to the last. Records and heartbeats have a time; what cannot be read has that of its frame. Ranges that
follow each other in time never leave an entry out between them, whatever clocks did; where times are not in order
they may share some. Reads, never writes.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from gatebook.access.filter import Filter
from gatebook.access.found import Access
from gatebook.access.join import Joiner
from gatebook.errors import Damaged
from gatebook.ledger.entry import Heartbeat, parse
from gatebook.ledger.read import Piece, Reader

_TIME = re.compile(rb'"time_us":(-?[0-9]{1,19})[,}]')
_OUTCOME = b'{"v":1,"kind":"outcome"'

SLACK_US: Final = 600_000_000  # so much later may be appended what has a time

Progress = Callable[[int, int], None]


class Interval(NamedTuple):
    """Entries `first` to `end` - 1."""

    first: int
    end: int


def find(reader: Reader, since_us: int, until_us: int) -> Interval:
    """The shortest that holds each entry with a time in the range; empty, in its place, when there is none."""
    starts = reader.begun()
    # The first segment behind whose end the range may begin.
    low = next(
        (start for (start, _), (_, after) in pairwise(starts) if after > since_us), starts[-1][0] if starts else 0
    )
    first, is_earliest = _first(reader, low, since_us, until_us)
    if first is None:
        beyond, _ = _first(reader, low, until_us, 1 << 63)
        return Interval(*(2 * [reader.size if beyond is None else beyond]))
    if is_earliest:
        first = 0  # what has no time begins with the log
    return Interval(first, 1 + _last(reader, starts, first, since_us, until_us))


def _last(reader: Reader, starts: list[tuple[int, int]], first: int, since_us: int, until_us: int) -> int:
    """The last entry in the range. `first` is one.

    Looked for in the segments that were begun when the range was over, or just after, and from there on as long as
    segments hold any; before those only when they hold none.
    """
    parts = [(start, created, end) for (start, created), (end, _) in pairwise([*starts, (reader.size, 0)])]
    over = max((n for n, part in enumerate(parts) if part[1] < until_us + SLACK_US), default=0)
    over = max([over, *(n for n, part in enumerate(parts) if part[0] <= first)])
    found = None
    for start, _, end in parts[over:]:
        inside, others = _within(reader, start, end, since_us, until_us)
        if inside is None and others:
            break
        found = found if inside is None else inside
    for start, _, end in reversed(parts[:over] if found is None else []):
        found, _ = _within(reader, start, end, since_us, until_us)
        if found is not None:
            break
    return max(first, first if found is None else found)


def _first(reader: Reader, start: int, since_us: int, until_us: int) -> tuple[int | None, bool]:
    """The first entry in the range; whether it is the first of the log that has a time at all."""
    is_earliest = start == 0
    for piece in reader.pieces(start, reader.size):
        for index, at in times(piece):
            if since_us <= at < until_us:
                return index, is_earliest
            is_earliest = False
    return None, False


def _within(reader: Reader, start: int, end: int, since_us: int, until_us: int) -> tuple[int | None, bool]:
    """The last entry in the range among some; whether any of them has a time that is not in it."""
    found, others = None, False
    for piece in reader.pieces(start, end):
        for index, at in times(piece):
            if since_us <= at < until_us:
                found = index
            else:
                others = True
    return found, others


def begun_us(reader: Reader, until_us: int) -> int:
    """When the log began: its first segment, or what has the first time in it, which may have been made before."""
    first = next((at for piece in reader.pieces(0, reader.size) for _, at in times(piece)), until_us)
    return min([until_us, first, *(created for _, created in reader.begun()[:1])])


def times(piece: Piece) -> Iterator[tuple[int, int]]:
    """(index, time) of each entry in it that has one."""
    if piece.sealed_us is None:
        for index, entry in enumerate(piece.entries, piece.first_index):
            try:
                parsed = parse(entry)
            except Damaged:
                continue
            if isinstance(parsed, Heartbeat):
                yield index, parsed.t_us
        return
    if not piece.records:
        yield piece.first_index, piece.sealed_us
    for index, _, record in piece.records:
        found = _TIME.search(record)
        yield index, int(found[1]) if found is not None else piece.sealed_us


def heartbeats(reader: Reader, interval: Interval, size: int) -> tuple[int | None, int | None]:
    """The one before the interval and the one behind it, as far as the tree of `size` entries has them."""
    before = after = None
    for piece in reader.pieces(max(0, _some_before(reader, interval.first)), interval.first):
        for index in _beats(piece):
            before = index if index < interval.first else before
    for piece in reader.pieces(interval.end, size):
        after = next((index for index in _beats(piece) if interval.end <= index < size), None)
        if after is not None:
            break
    return before, after


def _beats(piece: Piece) -> list[int]:
    return [index for index, _ in times(piece)] if piece.sealed_us is None else []


def _some_before(reader: Reader, first: int) -> int:
    """The beginning of the segment before the entry's: heartbeats are more frequent than segments."""
    starts = [start for start, _ in reader.begun() if start <= first]
    return starts[-2] if len(starts) > 1 else 0


class Selected(NamedTuple):
    """Indices of records, in order: those asked for. Of an access of the range also an outcome that came later."""

    indices: array[int]
    configurations: list[str]  # that their decisions name
    unread: int  # records of the range that cannot be read


def select(reader: Reader, interval: Interval, wanted: Filter | None, size: int, progress: Progress) -> Selected:
    """`wanted` None: all. Late outcomes are looked for as far as the tree of `size` entries goes."""
    chosen: set[int] | None = None if wanted is None else set()
    late: list[int] = []
    every = array("Q")
    joiner = Joiner(reader.origin)
    configurations: set[str] = set()

    def take(found: Access) -> None:
        index = found.decision_index if found.decision is not None else found.outcome_index
        if index is None or not interval.first <= index < interval.end:
            return
        if chosen is not None and (wanted is None or not wanted.matches(found)):
            return
        if found.decision is not None:
            configurations.add(found.decision.configuration)
        own = [each for each in (index, found.outcome_index) if each is not None]
        late.extend(each for each in own if each >= interval.end)
        if chosen is not None:
            chosen.update(each for each in own if each < interval.end)

    reader.gaps.clear()
    for index, _, data in reader.disclosed(interval.first, size):
        if index < interval.end:
            every.append(index)
            progress(index - interval.first, interval.end - interval.first)
        elif not joiner.waiting:
            break
        elif not data.startswith(_OUTCOME):
            continue
        for found in joiner.add(index, data):
            if isinstance(found, Access):
                take(found)
    for found in joiner.rest():
        take(found)
    unread = sum(
        max(0, min(gap.first_index + gap.n, interval.end) - max(gap.first_index, interval.first))
        for gap in reader.gaps
    )
    kept = every if chosen is None else array("Q", sorted(chosen))
    return Selected(kept + array("Q", sorted(set(late))), sorted(configurations), unread)
