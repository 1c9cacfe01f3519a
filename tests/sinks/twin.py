"""A ledger in memory, a destination that answers as it is told, and a sink that can be stopped at any point."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.access.ledger import MemoryLedger

from gatebook.ledger.read import Gap
from gatebook.sinks.cursor import Book
from gatebook.sinks.delivery import Delivery, Stopped, begin
from gatebook.sinks.destination import Answer, Delivered, Limits, Piece, Unfit
from gatebook.sinks.item import Item, encode, plain
from gatebook.sinks.stream import Place, Stream


def salt(index: int) -> bytes:
    return hashlib.sha256(b"salt %d" % index).digest()


class Ledger(MemoryLedger):
    """`unreadable`: indices that cannot be read; `erased`: that were removed on purpose."""

    def __init__(self, *records: object, **more: object) -> None:
        super().__init__(*records, **more)  # type: ignore[arg-type]
        self.gaps: list[Gap] = []
        self.unreadable: set[int] = set()
        self.erased: set[int] = set()

    def disclosed(self, start: int, end: int) -> Iterator[tuple[int, bytes, bytes]]:
        for index in range(start, min(end, self.size)):
            if index in self.unreadable | self.erased:
                self.gaps.append(Gap(index, 1, "no key", index in self.erased))
            else:
                yield index, salt(index), self.data[index]


class Store:
    """A destination. `answers` are given one after the other, then everything is taken."""

    def __init__(
        self, *answers: Answer | Callable[[Sequence[Piece]], Answer], limits: Limits | None = None
    ) -> None:
        self.limits = limits or Limits(items=4, batch_bytes=1 << 20, item_bytes=1 << 16, linger_s=0.0)
        self.answers = list(answers)
        self.got: list[str] = []
        self.tries: list[list[str]] = []
        self.unfit: set[str] = set()

    def encode(self, item: Item) -> bytes:
        if item.id in self.unfit:
            raise Unfit("not for me")
        return encode(plain(item))

    def send(self, batch: Sequence[Piece]) -> Answer:
        self.tries.append([piece.item.id for piece in batch])
        answer = self.answers.pop(0) if self.answers else Delivered()
        if callable(answer):
            return answer(batch)
        if isinstance(answer, Delivered):
            self.take(batch)
        return answer

    def take(self, batch: Sequence[Piece]) -> None:
        self.got += [piece.item.id for piece in batch]

    def close(self) -> None:
        pass


class Sink:
    """One sink on a folder of its own. `waits` are the times that it was told to wait, in seconds."""

    def __init__(self, folder: Path, ledger: Ledger, store: Store) -> None:
        self.folder = folder
        self.ledger = ledger
        self.store = store
        self.waits: list[float] = []
        self.now = 2_000_000_000.0
        self.stop = threading.Event()
        self.book = Book(folder, "twin")
        self.idle = 0

    def open(self) -> Delivery:
        """Another process on the same cursor."""
        cursor = begin(self.book, self.ledger.origin, self.ledger.size, "beginning")
        return Delivery(
            "twin",
            self.store,
            lambda place: Stream(self.ledger, place),
            self.book,
            cursor,
            wants=lambda _: True,
            stop=self.stop,
            clock=lambda: self.now,
            wait=self._wait,
        )

    def _wait(self, seconds: float) -> bool:
        """Ends the run when it idles: all that there is has been sent."""
        self.now += seconds
        if seconds > 0.2:
            self.waits.append(seconds)
            return len(self.waits) > 200
        self.idle += 1
        return self.idle > 8

    def run(self) -> Delivery:
        """Until there is nothing more to do."""
        delivery = self.open()
        self.idle = 0
        try:
            while True:
                if delivery.step():
                    self.idle = 0
        except Stopped:
            return delivery

    @property
    def place(self) -> Place:
        cursor = self.book.cursor(self.ledger.origin)
        assert cursor is not None
        return cursor.place

    def refused(self) -> list[dict[str, object]]:
        if not self.book.refused.exists():
            return []
        return [json.loads(line) for line in self.book.refused.read_bytes().splitlines()]
