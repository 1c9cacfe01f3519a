"""What is appended to the ledger, which decisions are open, and the memos that make both survive a kill.

Batches, log lines and entries wait in memory until `commit`, which appends them all, syncs once, and only then
calls each batch's `done`. Nothing is ever acknowledged before its sync. A log line's outcome joins its decision
by index, or, where the guard's answer was lost or did not wait, by the request's id, whichever of the two comes
first. What is lost becomes a LOSS entry, owed from the very frame on that knows of it: a kill in between writes it
later, and never twice. No clock, no socket, no log file in here.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from gatebook.errors import Damaged
from gatebook.ledger.entry import Entry, Loss
from gatebook.record import Decision, decode
from gatebook.recorder import memo
from gatebook.recorder.memo import Open, Owed
from gatebook.scrub import MASK
from gatebook.wire import Item

MAX_FRAME_RECORDS = 2048
MAX_FRAME_BYTES = 4 << 20
MAX_EARLY = 10_000
_OUTCOME = b'{"v":1,"kind":"outcome"'

Done = Callable[[int], None]


class Ledger(Protocol):
    """The part of `ledger.writer.Writer` that is used here."""

    def append(self, records: Sequence[bytes], memo: bytes = b"") -> int: ...
    def append_entry(self, entry: Entry, memo: bytes = b"") -> int: ...
    def sync(self) -> None: ...


class Told(NamedTuple):
    """A record of the recorder's own, an outcome mostly; it closes `decision`.

    An outcome of a request whose decision has not come gives its id, so that it is not opened any more; if it was
    let through, `undecided` is the LOSS that there is unless its decision comes, and since when it is waited for.
    """

    record: bytes
    decision: int | None = None
    request_id: str = ""
    undecided: tuple[Owed, float] | None = None


class Journal:
    def __init__(self, key: bytes = b"", worker: Callable[[int], int] = lambda pid: pid) -> None:
        """`key` is for tags; `worker` says which process an id is."""
        self.open: dict[int, Open] = {}
        self.cursor: memo.Cursor | None = None
        self.owed: list[Owed] = []
        self.undecided: dict[str, tuple[Owed, float]] = {}  # let through, without a decision so far: by request id
        self.decisions = self.outcomes = 0  # since the last heartbeat
        self._tagger = hashlib.blake2b(digest_size=memo.TAG_BYTES, key=key)
        self._worker = worker
        self._by_tag: dict[bytes, int] = {}
        self._early: OrderedDict[bytes, None] = OrderedDict()  # tags of requests whose outcome is there already
        self._records: dict[int, bytes] = {}  # of open decisions made in this process's life
        self._batches: list[tuple[list[Item], Done]] = []
        self._told: list[Told] = []
        self._entries: list[Callable[[], Entry]] = []
        self._new_cursor: memo.Cursor | None = None
        self._new_owed: list[Owed] = []
        self._cursor_is_synced = True

    def restore(self, memos: Sequence[tuple[int, bytes]]) -> None:
        """Raises Damaged when they are no memos of ours."""
        try:
            restored = memo.restore(memos)
        except ValueError as error:
            why = f"the last segment's memos are not the recorder's: {error}"
            raise Damaged(f"{why}; bring the segment back from a copy") from error
        self.open, self.cursor, self.owed = restored.open, restored.cursor, restored.owed
        self._by_tag = {opened.tag: index for index, opened in self.open.items()}

    def snapshot(self) -> bytes:
        """The memo that a new segment begins with."""
        return memo.encode(memo.Snapshot(*memo.runs(self.open.items()), self.cursor, self.owed))

    def add(self, items: list[Item], done: Done) -> None:
        """A batch that becomes durable as one unit; `done(first_index)` after its sync."""
        self._batches.append((items, done))

    def tell(self, told: Iterable[Told], cursor: memo.Cursor | None = None, owed: Sequence[Owed] = ()) -> None:
        """What was made of log lines, with the cursor behind them, and what is owed from then on.

        All of it becomes durable together, or nothing. Nothing is owed without a record that tells of it.
        """
        self._new_owed += owed
        for each in told:
            self._told.append(each)
            if each.decision is None and each.request_id:
                self._early[self._tag(each.request_id)] = None
                if each.undecided is not None:
                    self.undecided[each.request_id] = each.undecided
        while len(self._early) > MAX_EARLY:
            self._early.popitem(last=False)
        self._new_cursor = cursor or self._new_cursor

    def enter(self, make: Callable[[], Entry]) -> None:
        """An entry that is no record; `make` is called in its place, when all that waits before it is counted."""
        self._entries.append(make)

    def decision_of(self, request_id: str) -> int | None:
        """The open decision of a request whose log line does not name it."""
        return self._by_tag.get(self._tag(request_id))

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

    def _tag(self, request_id: str) -> bytes:
        tagger = self._tagger.copy()
        tagger.update(request_id.encode("utf-8", "surrogateescape"))
        return tagger.digest()

    @property
    def waiting(self) -> bool:
        return bool(self._batches or self._told or self._entries or self.owed)

    @property
    def cursor_is_durable(self) -> bool:
        """Whether every line read so far is behind a durable cursor; never again after a commit that failed."""
        return self._new_cursor is None and self._cursor_is_synced

    def commit(self, ledger: Ledger) -> None:
        """Append all that waits, sync, acknowledge. Raises LedgerError: then nothing of it is acknowledged."""
        batches, self._batches = self._batches, []
        told, self._told = self._told, []
        entries, self._entries = self._entries, []
        finished: list[tuple[Done, int]] = []
        for group in _groups(batches):
            first = self._append([item for items, _ in group for item in items], ledger)
            for items, done in group:
                finished.append((done, first))
                first += len(items)
        self._append_told(told, ledger)
        self._pay(ledger)
        for make in entries:
            # What was told is appended by now, so an idle log's cursor may go with any entry.
            change = memo.encode(memo.Change(cursor=self._new_cursor)) if self._new_cursor is not None else b""
            ledger.append_entry(make(), change)
            self._cursor_written()
        # A crash before the sync: frames may be there or not; nobody was told that they are.
        ledger.sync()
        self._cursor_is_synced = True
        for done, index in finished:
            done(index)

    def _append(self, items: list[Item], ledger: Ledger) -> int:
        opened = []
        for at, item in enumerate(items):
            if not item.worker:
                continue
            self.decisions += 1
            self.undecided.pop(item.request_id, None)
            tag = self._tag(item.request_id)
            if tag in self._early:
                del self._early[tag]
            else:
                opened.append((at, Open(self._worker(item.worker), tag)))
        change = memo.encode(memo.Change(*memo.runs(opened))) if opened else b""
        first = ledger.append([item.record for item in items], change)
        for at, each in opened:
            self.open[first + at] = each
            self._by_tag[each.tag] = first + at
            self._records[first + at] = items[at].record
        return first

    def _append_told(self, told: list[Told], ledger: Ledger) -> None:
        """One frame for all of it and the cursor: a crash keeps both or neither, so no line counts twice."""
        if not told:
            return  # lines that made no record move the cursor with the next frame
        closed = [each.decision for each in told if each.decision is not None and each.decision in self.open]
        owed = [*self.owed, *self._new_owed] if self._new_owed else None
        change = memo.encode(memo.Change(closed=closed, cursor=self._new_cursor, owed=owed))
        ledger.append([each.record for each in told], change)
        self._cursor_written()
        if owed is not None:
            self.owed, self._new_owed = owed, []
        for index in closed:
            opened = self.open.pop(index, None)
            self._records.pop(index, None)
            if opened is not None and self._by_tag.get(opened.tag) == index:
                del self._by_tag[opened.tag]
        self.outcomes += sum(each.record.startswith(_OUTCOME) for each in told)

    def _pay(self, ledger: Ledger) -> None:
        """The LOSS entries that are owed, each in a frame that says what is owed besides."""
        while self.owed:
            loss, *rest = self.owed
            ledger.append_entry(Loss(*loss), memo.encode(memo.Change(owed=rest)))
            self.owed = rest

    def _cursor_written(self) -> None:
        if self._new_cursor is not None:
            self.cursor, self._new_cursor, self._cursor_is_synced = self._new_cursor, None, False


def _groups(batches: list[tuple[list[Item], Done]]) -> list[list[tuple[list[Item], Done]]]:
    """Batches in order, as many to a frame as fit; a batch is never divided."""
    groups: list[list[tuple[list[Item], Done]]] = []
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
