"""Verifies a ledger's folder: what was signed is there, unchanged and whole, as far as this copy can show.

Level 0: signature, tiles, bundles, root. Level 1: segments, and what entries state of them and of the time.
Level 2, with a reader's key: every record against its commitment, and what `reading` makes of the records.
Level 3: what others hold against it.
Recomputes everything and believes no cache, no name and no neighbour. Never writes, never takes the lock,
and may run beside a writer: the checkpoint is read first, so all that it promises is on disk already; what
lies beyond it is a tail that nobody has signed for yet. Specified in docs/verify.md.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from gatebook.errors import Damaged, EnvironmentFault, LedgerError, Tampered
from gatebook.ledger import keys
from gatebook.ledger.entry import Erase
from gatebook.ledger.lock import Signed, open_signed, parse_promise
from gatebook.ledger.note import MAX_NOTE_BYTES, Checkpoint, Verifier
from gatebook.ledger.scan import erasures
from gatebook.ledger.tree import TILE_WIDTH, perfect_root
from gatebook.ledger.verify.anchors import Against
from gatebook.ledger.verify.blocks import Block, Blocks, Roots
from gatebook.ledger.verify.content import Content, Reading
from gatebook.ledger.verify.history import History, all_records, is_record
from gatebook.ledger.verify.outside import NOTHING_OUTSIDE, Level3, Outside
from gatebook.ledger.verify.public import Public, block_range, can_hold, read_file
from gatebook.ledger.verify.report import Finding, Kind, Remark, Report, entries
from gatebook.ledger.verify.store import Run, Store
from gatebook.ledger.verify.turns import Turns

__all__ = ["Finding", "Kind", "Outside", "Private", "Reading", "Remark", "Report", "verify"]

Progress = Callable[[int, int], None]


class Private(NamedTuple):
    """What reading records needs. `reading` None: they are decrypted and checked, but not judged."""

    deks: Path
    reader: keys.Reader
    reading: Reading | None = None


def verify(
    ledger: Path,
    verifier: Verifier,
    *,
    lock: Path | None = None,
    private: Private | None = None,
    outside: Outside = NOTHING_OUTSIDE,
    progress: Progress = lambda _done, _total: None,
) -> Report:
    """`ledger` holds `log/` and `segments/`; `lock` is the writer's own last promise, where there is one.

    Raises EnvironmentFault when there is no ledger at all, or when what is `outside` cannot be used; everything
    else is in the report.
    """
    if not (ledger / "log").is_dir() and not (ledger / "segments").is_dir():
        raise EnvironmentFault(f"{ledger}: no ledger, there is neither log/ nor segments/ in it")
    return _Verification(ledger, verifier, lock, private, outside, progress).run()


class _Verification:
    def __init__(
        self,
        ledger: Path,
        verifier: Verifier,
        lock: Path | None,
        private: Private | None,
        outside: Outside,
        progress: Progress,
    ) -> None:
        self._ledger = ledger
        self._lock = lock
        self._private = private
        self._progress = progress
        self._report = Report()
        self._turns = Turns(verifier, ledger / "log", self._report)
        for kept in outside.kept:
            kept.check(self._turns.known)
        self._level3 = Level3(outside, ledger / "log", self._report)
        self._history = History(self._report)
        self._history.watch(self._level3.anchors.stamps)
        self._times: deque[tuple[int, int]] = deque()  # first entry of a sealed frame, its time

    def run(self) -> Report:
        report = self._report
        report.tried(0)
        published, promised = self._checkpoints()
        signed = [checkpoint for checkpoint in (published, promised) if checkpoint is not None]
        if not signed:
            for level in (1, 2, 3):
                report.skip(level, "there is no signed checkpoint to compare with")
            report.rests_on.append("nothing: no checkpoint with a good signature was found")
            return report
        checkpoint = report.checkpoint = max(signed, key=lambda one: one.size)
        if not can_hold(self._ledger, checkpoint.size):
            what = "are not here: the files of this copy can hold no more than a small part of them"
            report.found(
                0, "damaged", entries(0, checkpoint.size), what, "nothing was compared with what was signed"
            )
            for level in (1, 2, 3):
                report.skip(level, "most of what was signed for is not here")
            report.rests_on.append("nothing: what is here is not the log that was signed, or hardly any of it")
            return report
        content = self._content()
        store = self._store(checkpoint, content)
        public = Public(self._ledger / "log", checkpoint)
        blocks = Blocks(public, report)
        self._walk(checkpoint.size, blocks, store)
        roots = blocks.finish()
        self._compare_roots(signed, public, roots)
        self._turns.judge(self._history.keys, whole=not self._history.broken)
        if store is not None:
            self._history.finish(store.found, store.holes, store.explained, checkpoint.size)
            report.tail = max(0, store.end - checkpoint.size)
        self._finish_content(content)
        against = Against(
            checkpoint.size,
            lambda size: checkpoint.root if size == checkpoint.size else self._root_at(size, public, roots),
            self._history.clock_at,
            self._history.oldest_before,
            self._turns.known,
        )
        self._level3.judge(checkpoint, against, self._history.anchors)
        self._conclude(checkpoint)
        return report

    # -- what was signed ------------------------------------------------------------------------------------
    def _checkpoints(self) -> tuple[Checkpoint | None, Checkpoint | None]:
        """The published one first, then the lock's: a writer changes them in the other order."""
        published = self._published()
        promised = self._promised()
        if published is None or promised is None:
            return published, promised
        meaning = "somebody put back an older lock, or the log was forked: two histories may have been signed"
        if published.size > promised.size:
            what = f"knows {promised.size} entries, but {published.size} are published"
            self._report.found(0, "tampered", "lock", what, meaning)
        elif published.size == promised.size and published.root != promised.root:
            what = f"has another root than log/checkpoint for the same {published.size} entries"
            self._report.found(0, "tampered", "lock", what, meaning)
        elif published.size < promised.size:
            self._report.note(
                f"log/checkpoint is signed for {published.size} entries, the lock already for {promised.size}: "
                f"about to be published, or an older one was put back; the lock's counts"
            )
        return published, promised

    def _published(self) -> Checkpoint | None:
        meaning = "what was promised to others cannot be told"
        try:
            data = read_file(self._ledger / "log" / "checkpoint", MAX_NOTE_BYTES)
            signed = open_signed(data, *self._turns.known)
        except Tampered as error:
            self._report.found(0, "tampered", "log/checkpoint", str(error), meaning)
            return None
        except Damaged as error:
            self._report.found(0, "damaged", "log/checkpoint", str(error), meaning)
            return None
        for line in self._level3.strangers(signed.unknown):
            self._report.note(f"log/checkpoint is also signed by {line.name}, whose key is not known here")
        self._turns.signed("log/checkpoint", signed)
        return signed.checkpoint

    def _promised(self) -> Checkpoint | None:
        if self._lock is None:
            return None
        meaning = "whether newer checkpoints were signed cannot be told"
        try:
            promise = parse_promise(read_file(self._lock, 2 * MAX_NOTE_BYTES), *self._turns.known)
        except LedgerError as error:
            kind: Kind = "tampered" if isinstance(error, Tampered) else "damaged"
            self._report.found(0, kind, "lock", str(error), meaning)
            return None
        self._turns.signed("lock", Signed(promise.checkpoint, promise.by))
        return promise.checkpoint

    # -- the entries ----------------------------------------------------------------------------------------
    def _content(self) -> Content | None:
        if self._private is None:
            self._report.skip(2, "no reader's key: the records themselves were not looked at")
            return None
        private = self._private
        return Content(private.deks, private.reader, private.reading, self._report)

    def _store(self, checkpoint: Checkpoint, content: Content | None) -> Store | None:
        folder = self._ledger / "segments"
        if not folder.is_dir() and self._lock is None:
            why = "there are no segments here: a copy of the public files alone"
            self._report.skip(1, why)
            self._report.why_not.setdefault(2, why)
            self._report.skip(2, why)
            return None
        origin = hashlib.sha256(checkpoint.origin.encode()).digest()
        return Store(folder, origin, checkpoint.size, self._report, content)

    def _walk(self, size: int, blocks: Blocks, store: Store | None) -> None:
        source = _Source(store.runs() if store is not None else iter(()), self._times)
        for number in range(-(-size // TILE_WIDTH)):
            first, end = block_range(number, size)
            self._tell(first, blocks.check(number, source.take(first, end)))
            self._progress(end, size)
        self._history.erasures.unsigned += source.rest(size)

    def _tell(self, first: int, block: Block) -> None:
        """The block's entries that are no records, and the times in between, in order."""
        if block.entries is None:
            self._history.lost()
        inside = block.entries or []
        others = [] if all_records(inside) else [(n, e) for n, e in enumerate(inside, first) if not is_record(e)]
        end = first + len(inside)
        while self._times and self._times[0][0] < end:
            index, t_us = self._times.popleft()
            while others and others[0][0] < index:
                self._history.entry(*others.pop(0))
            self._history.alive(index, t_us)
        for index, entry in others:
            self._history.entry(index, entry)

    # -- afterwards -----------------------------------------------------------------------------------------
    def _compare_roots(self, signed: list[Checkpoint], public: Public, roots: Roots) -> None:
        for checkpoint in signed:
            root = self._root_at(checkpoint.size, public, roots)
            if checkpoint.size < public.size and root is not None and root != checkpoint.root:
                what = f"is signed for another tree of {checkpoint.size} entries than the lock's"
                self._report.found(0, "tampered", "log/checkpoint", what, "two histories have been signed: a fork")
        for index, boot in self._history.boots:
            root = self._root_at(boot.size, public, roots)
            if boot.size > index or (root is not None and root != boot.root):
                what = f"BOOT found another root signed for {boot.size} entries than this log has"
                self._report.found(1, "tampered", f"entry {index}", what, "the log was not continued, but forked")

    def _root_at(self, size: int, public: Public, roots: Roots) -> bytes | None:
        """The root over the first `size` entries; None when a tile is missing that it needs."""
        known = roots.at(size)
        full, rest = divmod(size, TILE_WIDTH)
        if known is not None or full >= len(roots.levels[1]):
            return known
        try:
            leaves = public.hashes(0, full)
        except Damaged:
            return None
        return roots.over(full, leaves[:rest]) if perfect_root(leaves) == roots.levels[1][full] else None

    def _finish_content(self, content: Content | None) -> None:
        if content is None or self._private is None:
            return
        for dek_id, (first, end, why) in content.unreadable.items():
            if dek_id in self._history.erasures.destroyed:
                self._report.note(f"{entries(first, end)}: their key was erased; the proofs hold")
            elif end > first:
                meaning = f"records among {entries(first, end)} cannot be read with this key store and this key"
                self._report.found(2, "damaged", f"deks/{dek_id.hex()}.dek", why, meaning)
        self._history.erasures.compare(content.removed, content.opened)
        if self._private.reading is not None:
            for text in self._private.reading.summary():
                self._report.note(text)

    def _conclude(self, checkpoint: Checkpoint) -> None:
        report = self._report
        for level in (1, 2):
            if level not in report.why_not:
                report.tried(level)
        report.rests_on += self._level3.grounds(checkpoint.size, self._turns.in_force) + self._turns.said()


class _Source:
    """Entries by blocks, out of runs that come in order and may have holes between them."""

    def __init__(self, runs: Iterator[Run], times: deque[tuple[int, int]]) -> None:
        self._runs = runs
        self._times = times
        self._buffer: list[bytes] = []
        self._first = 0  # index of the buffer's first entry
        self._next: Run | None = None

    def take(self, first: int, end: int) -> list[bytes] | None:
        """All entries from `first` to `end`, or None."""
        while self._first + len(self._buffer) < end:
            run = self._next or next(self._runs, None)
            self._next = None
            if run is None:
                break
            if run.first != self._first + len(self._buffer):
                if run.first >= end:
                    self._next = run
                    break
                self._buffer, self._first = [], run.first
            self._buffer += run.entries
            if run.t_us is not None:
                self._times.append((run.first, run.t_us))
        taken = self._buffer[first - self._first : end - self._first] if self._first <= first else []
        skip = min(max(0, end - self._first), len(self._buffer))
        del self._buffer[:skip]
        self._first += skip
        return taken if len(taken) == end - first else None

    def rest(self, size: int) -> list[tuple[int, Erase]]:
        """The tail beyond the checkpoint, read so that its segments are checked too; its ERASE entries."""
        kept = [Run(self._first, self._buffer, None), *filter(None, [self._next])]
        found: list[tuple[int, Erase]] = []
        for run in (*kept, *self._runs):
            with contextlib.suppress(Damaged):
                found += [(index, entry) for index, entry in erasures(run.entries, run.first) if index >= size]
        return found
