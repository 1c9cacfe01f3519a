"""What is appended to the ledger, which decisions are open, and the memos that make both survive a kill.

Batches wait in memory until `commit`, which appends them all, syncs once, and only then calls each batch's
`done`. Nothing is ever acknowledged before its sync. No clock, no socket, no log file in here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from gatebook.record import Decision, decode
from gatebook.recorder import memo
from gatebook.scrub import MASK
from gatebook.wire import Item

MAX_FRAME_RECORDS = 2048
MAX_FRAME_BYTES = 4 << 20


class Ledger(Protocol):
    """The part of `ledger.writer.Writer` that is used here."""

    def append(self, records: Sequence[bytes], memo: bytes = b"") -> int: ...
    def sync(self) -> None: ...


class Journal:
    def __init__(self) -> None:
        self.open: dict[int, int] = {}  # decision index -> gateway worker that will write its line
        self.cursor: memo.Cursor | None = None
        self.decisions = self.outcomes = 0  # since the last heartbeat
        self._by_id: dict[str, int] = {}
        self._ids: dict[int, str] = {}
        self._records: dict[int, bytes] = {}  # of open decisions made in this process's life
        self._batches: list[tuple[list[Item], Callable[[int], None]]] = []
        self._outcomes: list[tuple[bytes, int | None]] = []
        self._new_cursor: memo.Cursor | None = None

    def restore(self, memos: Sequence[tuple[int, bytes]]) -> None:
        restored = memo.restore(memos)
        self.open, self.cursor = restored.open, restored.cursor

    def snapshot(self) -> bytes:
        """The memo that a new segment begins with."""
        return memo.encode(memo.Snapshot(memo.runs(sorted(self.open.items())), self.cursor))

    def add(self, items: list[Item], done: Callable[[int], None]) -> None:
        """A batch that becomes durable as one unit; `done(first_index)` after its sync."""
        self._batches.append((items, done))

    def add_outcome(self, record: bytes, decision: int | None) -> None:
        """An outcome; it closes `decision`."""
        self._outcomes.append((record, decision))

    def move_cursor(self, cursor: memo.Cursor) -> None:
        """Becomes durable with the outcomes added since the last commit, never before them."""
        self._new_cursor = cursor

    def decision_of(self, request_id: str) -> int | None:
        """The open decision of a request whose log line does not know it (the guard's answer was lost)."""
        return self._by_id.get(request_id)

    def asked(self, index: int) -> str | None:
        """Method and path of an open decision as they came; None where its record does not say that exactly."""
        data = self._records.get(index)
        decision = decode(data) if data is not None else None
        if not isinstance(decision, Decision):
            return None
        path = decision.request.path
        if MASK in path or "\\" in path or not path.isascii():  # masked, spelt out or cut
            return None
        return f"{decision.request.method} {path}"

    @property
    def waiting(self) -> bool:
        return bool(self._batches or self._outcomes)

    @property
    def cursor_is_durable(self) -> bool:
        """After a commit: whether every line read so far is behind a durable cursor."""
        return self._new_cursor is None

    def commit(self, ledger: Ledger) -> None:
        """Append all that waits, sync, acknowledge. Raises LedgerFull: then nothing of it is acknowledged."""
        batches, self._batches = self._batches, []
        outcomes, self._outcomes = self._outcomes, []
        finished: list[tuple[Callable[[int], None], int]] = []
        for group in _groups(batches):
            items = [item for batch, _ in group for item in batch]
            first = self._append(ledger, items)
            for batch, done in group:
                finished.append((done, first))
                first += len(batch)
        self._append_outcomes(ledger, outcomes)
        # A crash before the sync: frames may be there or not; nobody was told that they are.
        ledger.sync()
        for done, index in finished:
            done(index)

    def _append(self, ledger: Ledger, items: list[Item]) -> int:
        opened = memo.runs((at, item.worker) for at, item in enumerate(items) if item.worker)
        change = memo.encode(memo.Change(opened)) if opened else b""
        first = ledger.append([item.record for item in items], change)
        for at, item in enumerate(items, first):
            if item.worker:
                self.open[at] = item.worker
                self._by_id[item.request_id] = at
                self._ids[at] = item.request_id
                self._records[at] = item.record
                self.decisions += 1
        return first

    def _append_outcomes(self, ledger: Ledger, outcomes: list[tuple[bytes, int | None]]) -> None:
        """One frame for all of them and the cursor: a crash keeps both or neither, so no line counts twice."""
        if not outcomes:
            return  # lines that made no record move the cursor with the next frame
        closed = [index for _, index in outcomes if index is not None and index in self.open]
        ledger.append([record for record, _ in outcomes], memo.encode(memo.Change([], closed, self._new_cursor)))
        self.cursor_written()
        for index in closed:
            self.open.pop(index, None)
            self._records.pop(index, None)
            request_id = self._ids.pop(index, None)
            if request_id is not None:
                self._by_id.pop(request_id, None)
        self.outcomes += len(outcomes)

    def pending_cursor(self) -> bytes:
        """The memo for a frame of somebody else's (a heartbeat), so that an idle log's cursor moves too."""
        return memo.encode(memo.Change([], [], self._new_cursor)) if self._new_cursor is not None else b""

    def cursor_written(self) -> None:
        """The frame with the new cursor is appended."""
        if self._new_cursor is not None:
            self.cursor, self._new_cursor = self._new_cursor, None


def _groups(
    batches: list[tuple[list[Item], Callable[[int], None]]],
) -> list[list[tuple[list[Item], Callable[[int], None]]]]:
    """Batches in order, as many to a frame as fit; a batch is never divided."""
    groups: list[list[tuple[list[Item], Callable[[int], None]]]] = []
    count = size = 0
    for batch in batches:
        records = len(batch[0])
        length = sum(len(item.record) for item in batch[0])
        if not groups or count + records > MAX_FRAME_RECORDS or size + length > MAX_FRAME_BYTES:
            groups.append([])
            count = size = 0
        groups[-1].append(batch)
        count += records
        size += length
    return groups
