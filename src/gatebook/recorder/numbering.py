"""Whether a line is missing: each request on a connection has a number, the one before it plus one. Pure.

In: worker, connection and number of each line. Out: numbers that no line ever came for, once none can come any
more. HTTP/1 alone is judged, where a request's line is written before the next request begins; over HTTP/2 a line
may come hours after those behind it (docs/decisions/0004-request-numbers.md). Never calls a line missing that
another process may have read, or that went to another log. Bounded: what is forgotten is not judged, but no gap is
forgotten, nor by the next process (`gaps`).
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gatebook.recorder.memo import Gap
from gatebook.recorder.worker import MAX_PID

PATIENCE_S: Final = 10.0  # two files may be read in turns when the gateway has just changed from one to the other
MAX_CONNECTIONS: Final = 50_000
MAX_KEPT: Final = 256  # gaps that the next process is told of; they stand in every frame of the ledger
ALL_UNKNOWN: Final = 1 << 62  # higher than any connection's number


class Missing(NamedTuple):
    worker: int
    connection: int
    first: int
    last: int

    @property
    def worker_pid(self) -> int:
        return self.worker & MAX_PID

    @property
    def producer(self) -> bytes:
        """Who numbers these requests, as a LOSS entry names it."""
        return struct.pack(">II", self.worker_pid, self.connection & 0xFFFF_FFFF)


@dataclass(slots=True)
class _Connection:
    next: int  # the lowest number that is above all that were seen
    missing: list[tuple[int, int, float]] = field(default_factory=list)  # first, last, and since when


class Numbering:
    """`highest`: of each worker the highest connection that any line has named, for the cursor."""

    def __init__(
        self,
        highest: dict[int, int],
        ours_from_birth: Callable[[int], bool],
        gaps: Iterable[Gap] = (),
        now: float = 0.0,
    ) -> None:
        """`ours_from_birth`: whether this worker has never written to another log than this one.

        `gaps`: those of the process before. Their lines may still come.
        """
        self.highest = highest
        self._ours_from_birth = ours_from_birth
        self._connections: OrderedDict[tuple[int, int], _Connection] = OrderedDict()
        self._waiting: dict[tuple[int, int], _Connection] = {}  # those with gaps, also if they are forgotten above
        for worker, connection, following, first, last in gaps:
            found = self._waiting.setdefault((worker, connection), _Connection(following))
            found.missing.append((first, last, now))
        self._connections.update(self._waiting)

    def saw(self, worker: int, connection: int, number: int, now: float) -> None:
        key = worker, connection
        found = self._connections.get(key)
        if found is None:
            first = 1 if self._is_new(worker, connection) else number
            found = self._connections[key] = self._waiting.get(key) or _Connection(first)
            if len(self._connections) > MAX_CONNECTIONS:
                self._connections.popitem(last=False)
        else:
            self._connections.move_to_end(key)
        if number == found.next:
            found.next += 1
        elif number > found.next:
            found.missing.append((found.next, number - 1, now))
            self._waiting[key] = found
            found.next = number + 1
        elif found.missing:
            found.missing = [part for gap in found.missing for part in _without(gap, number)]

    def _is_new(self, worker: int, connection: int) -> bool:
        """Whether no line of this connection was ever read: connections are numbered as they come."""
        if worker not in self.highest:
            self.highest[worker] = 0 if self._ours_from_birth(worker) else ALL_UNKNOWN
        highest = self.highest[worker]
        self.highest[worker] = max(highest, connection)
        return connection > highest

    def gaps(self) -> list[Gap]:
        """What is missing so far, for the cursor."""
        found = [(*key, each.next, *gap[:2]) for key, each in self._waiting.items() for gap in each.missing]
        return found[:MAX_KEPT]

    def missing(self, now: float, most: int, patience_s: float = PATIENCE_S) -> list[Missing]:
        """What has been missing for so long; each is given once. Ask only when all that was written is read."""
        out: list[Missing] = []
        for key, found in list(self._waiting.items()):
            late = [gap for gap in found.missing if now - gap[2] >= patience_s][: most - len(out)]
            out += [Missing(*key, first, last) for first, last, _ in late]
            found.missing = [gap for gap in found.missing if gap not in late]
            if not found.missing:
                del self._waiting[key]
        return out

    def forget(self, worker: int) -> None:
        """This worker writes no more lines, and all of its lines are read. What is missing stays so."""
        self.highest.pop(worker, None)


def _without(gap: tuple[int, int, float], number: int) -> Iterator[tuple[int, int, float]]:
    first, last, since = gap
    if not first <= number <= last:
        yield gap
        return
    if first < number:
        yield first, number - 1, since
    if number < last:
        yield number + 1, last, since
