"""The ledger's one writer: appends, syncs, plans checkpoints, rolls segments, and stops at the first failure.

Order of writes: frame, sync, tree, tiles, lock, published checkpoint (docs/format.md). Nothing may be
acknowledged before `sync` has returned. Opening is recovering, always: it finds out what a stop left, makes
the one cut that may be made, and goes on in a new segment. Never appends to a segment of another process,
never syncs a descriptor again whose sync has failed. Everything here belongs to one thread; a plan may be
written in another.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import zstandard

from gatebook.errors import LedgerError, LedgerFull
from gatebook.ledger.boot import first_entries, known_keys, make_cut, make_folder, missing_handover
from gatebook.ledger.chain import hand_over
from gatebook.ledger.deks import Deks
from gatebook.ledger.entry import (
    PRODUCER,
    Boot,
    Entry,
    Erase,
    Key,
    Loss,
    LossReason,
    Record,
    Segment,
    encode,
    encode_records,
)
from gatebook.ledger.erasing import Erasing, Intent
from gatebook.ledger.files import Files, full
from gatebook.ledger.growing import MAX_RECORDS, Growing, Segments
from gatebook.ledger.keys import Recipient
from gatebook.ledger.lock import Held, Promise
from gatebook.ledger.note import Checkpoint, Signer, Verifier
from gatebook.ledger.publish import Plan, Publisher
from gatebook.ledger.recovery import Recovered, entries_from, recover
from gatebook.ledger.reserve import Reserve
from gatebook.ledger.segment import MAX_PLAIN_BYTES
from gatebook.ledger.tiles import Tiler
from gatebook.ledger.tree import leaf_hash

COMPRESSION_LEVEL: Final = 1
RESERVE_BYTES: Final = 4 << 20

Memos = Sequence[tuple[int, bytes]]


class Writer:
    """Open with `Writer.open`. After a LedgerError every call raises one again, but `close`, which lets go."""

    def __init__(
        self,
        segments: Segments,
        held: Held,
        reserve: Reserve,
        publisher: Publisher,
        tiler: Tiler,
        snapshot: Callable[[], bytes],
        recovered: Recovered,
        first: Growing,
        previous: bytes,
        erasing: Erasing,
    ) -> None:
        self.recovered = recovered
        self.segments = segments
        self._erasing = erasing
        self._held = held
        self._reserve = reserve
        self._publisher = publisher
        self._tiler = tiler
        self._snapshot = snapshot
        self._segment = first
        self._previous = previous  # leaf hash of the last SEGMENT entry
        self._pending: list[bytes] = []  # entries that are appended but not synced
        self._failure: LedgerError | None = None
        self._closed = False

    @classmethod
    def open(
        cls,
        *,
        ledger: Path,
        lock: Path,
        deks: Path,
        signer: Signer,
        recipients: Callable[[], Sequence[Recipient]],
        boot_digest: bytes,
        restore: Callable[[Memos], None],
        snapshot: Callable[[], bytes],
        now_us: Callable[[], int],
        reserve_bytes: int = RESERVE_BYTES,
        files: Files | None = None,
        random: Callable[[int], bytes] = os.urandom,
        also: Sequence[Signer] = (),
        former: Sequence[Verifier] = (),
    ) -> Writer:
        """Lock, recover, begin a new segment; the checkpoint over it is published on return.

        `restore` gets the recovered memos before `snapshot` is asked for the first time. `recipients` is asked for
        each new segment. `also` are former keys that still sign beside `signer`, `former` all that are known, the
        newest first. Raises LedgerBusy, Tampered, Damaged or EnvironmentFault, nothing having been changed; or
        LedgerFull.
        """
        if not recipients():
            raise ValueError("there is no recipient: nobody could ever read what is sealed")
        files = files or Files()
        compress = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress
        segments = Segments(
            files, ledger / "segments", Deks(deks, files), signer.name, recipients, now_us, random, compress
        )
        try:
            for folder in (ledger, ledger / "log", ledger / "segments", deks):
                make_folder(files, folder)
            held = Held(lock)
        except OSError as error:
            raise full(error) from error
        try:
            verifiers = known_keys(
                ledger / "log", signer, [*(Verifier.from_vkey(one.vkey) for one in also), *former]
            )
            found = recover(ledger, lock, *verifiers)
            handover = missing_handover(found.in_force, signer, also)
            segments.deks.sweep()  # nothing has been changed before this
            reserve = Reserve(files, ledger / "reserve", reserve_bytes)
            reserve.make()
            signers = [signer, *(one for one in also if one.public != signer.public)]
            publisher = Publisher(files, ledger, lock, signers, verifiers[1:], held, found.promise, segments.now)
            make_cut(files, found.recovered.cut)
            erasing = Erasing(files, lock.with_name("erasing"), segments.folder, segments.deks)
            erasing.settle(found.base.size, found.erased)
            tiler = publisher.rebuild(found.base, found.recovered.size, entries_from(found, ledger / "log"))
            restore(found.recovered.memos)
            entries = first_entries(found, random(16), boot_digest) + ([encode(handover)] if handover else [])
            header = segments.header(tiler.size, sealed=True)
            first = segments.begin(header, snapshot(), entries)
        except OSError as error:
            held.release()
            raise full(error) from error
        except BaseException:
            held.release()
            raise
        previous = leaf_hash(entries[0]) if found.last else bytes(32)
        writer = cls(
            segments, held, reserve, publisher, tiler, snapshot, found.recovered, first, previous, erasing
        )
        try:
            tiler.extend(entries)
            writer._plan().write()
        except BaseException:
            writer._let_go()
            raise
        return writer

    @property
    def size(self) -> int:
        """How many entries there are, the last of them perhaps not durable."""
        return self._tiler.size + len(self._pending)

    @property
    def synced(self) -> int:
        """How many entries are durable, and so may be acknowledged."""
        return self._tiler.size

    @property
    def promise(self) -> Promise:
        """The last checkpoint that was signed."""
        assert self._publisher.promise is not None  # noqa: S101 - `open` signs one
        return self._publisher.promise

    def append(self, records: Sequence[bytes], memo: bytes = b"") -> int:
        """One frame of records; the index of the first. Durable after `sync`, the memo with them.

        Raises ValueError, nothing having been appended, for what no frame can hold.
        """
        self._check_usable()
        if not 1 <= len(records) <= MAX_RECORDS or sum(map(len, records)) + len(memo) > MAX_PLAIN_BYTES:
            raise ValueError(
                f"a frame has 1 to {MAX_RECORDS} records, of at most {MAX_PLAIN_BYTES} bytes together"
            )
        now = self.segments.now()
        if self._segment.is_due(len(records), now):
            self._roll(len(records))
        first = self.size
        with self._failing(len(records)):
            made = self._segment.append(records, memo, now)
            # A crash here, or anywhere before `sync` returns: the frame is whole, torn or missing, the memo
            # exactly as the frame; nobody was told of it.
        self._pending += encode_records(made)
        return first

    def append_entry(self, entry: Entry, memo: bytes = b"") -> int:
        """One entry that is no record, in a frame of its own; its index. Durable after `sync`."""
        if isinstance(entry, Key):
            raise ValueError("Key entries are the writer's own")
        return self._append_entries([entry], memo)

    def hand_over(self, new: Signer) -> int:
        """The log's next key: a KEY entry by the present one, and a checkpoint over it by both; its index.

        Durable on return. `new` has to lie on the disk as the key in force already: after a crash within this, the
        next start goes on with it, and makes up for the entry if it is missing.
        """
        self._check_usable()
        self.sync()
        index = self._append_entries([hand_over(self._publisher.signer, new)], b"")
        self.sync()
        # A crash here: the entry is in the log, and no checkpoint covers it; the next start signs one by both.
        plan = self._plan()
        self._publisher.hand_over(new, plan.size, plan.root, plan.tiles)
        return index

    def retire(self, key_ids: Sequence[bytes]) -> None:
        """From here on these former keys sign no more, by the ids in notes. Their private halves may go."""
        self._publisher.retire(key_ids)

    def _append_entries(self, entries: Sequence[Entry], memo: bytes) -> int:
        """In one frame, so that a crash keeps all of them or none; the index of the first."""
        self._check_usable()
        for entry in entries:
            if isinstance(entry, Record | Segment | Boot):
                raise ValueError(f"{type(entry).__name__} entries are the writer's own")
        made = [encode(entry) for entry in entries]
        if self._segment.is_due(0, self.segments.now()):
            self._roll(len(made))
        first = self.size
        with self._failing(len(made)):
            self._segment.append_entries(made, memo)
        self._pending += made
        return first

    def sync(self) -> None:
        """All that was appended is durable on return. Raises LedgerFull: then none of it may be acknowledged."""
        self._check_usable()
        if not self._pending:
            return
        with self._failing(0):
            self._segment.sync()
            # A crash here: durable, not acknowledged, not in the tree; recovery puts it there.
        self._tiler.extend(self._pending)
        self._pending = []

    def roll_if_due(self) -> None:
        """Begin a new segment when the present one is full or old enough. `append` does so by itself."""
        self._check_usable()
        if self._segment.is_due(0, self.segments.now()):
            self._roll(0)

    def roll(self) -> None:
        """Begin a new segment now: the present one is closed, and may be written anew."""
        self._check_usable()
        self._roll(0)

    @property
    def begun_at(self) -> int:
        """The index of the present segment's first entry: what lies before it is in closed segments."""
        return self._segment.header.first_index

    @property
    def tiles_durable(self) -> int:
        """Up to that tree size tiles and bundles are on disk for good."""
        return self._publisher.promise.tiles_durable if self._publisher.promise else 0

    def erase(self, intent: Intent, prepare: Callable[[], Sequence[Erase]]) -> int:
        """Destroy what the intent names, on record by the entries that `prepare` returns; the first one's index.

        What orders it is on record before it begins. `prepare` makes what is to take the place of what is
        destroyed, durably. On return all is done and signed for, and what was destroyed cannot be read any more.
        """
        self._check_usable()
        self.sync()
        with self._failing(0):
            self._erasing.begin(intent)
            entries = prepare()
            # A crash here, or before: the next start undoes it.
        first = self._append_entries(entries, b"")
        # A crash here: the entries are there, all of them, or none is; the next start finishes, or undoes.
        self.sync()
        with self._failing(0):
            # A crash here, or anywhere before the end: the next start finishes, before it signs for the entries.
            self._erasing.finish(intent)
        self._plan().write()
        return first

    def plan_checkpoint(self) -> Plan | None:
        """The checkpoint over all that is durable; None when it is published already. Cheap."""
        self._check_usable()
        promise = self._publisher.promise
        if promise is not None and promise.checkpoint.size >= self.synced:
            return None
        return self._plan()

    def show_cosigned(self, checkpoint: Checkpoint, note: bytes, *, newest: bool, receipt: bool) -> None:
        """`Publisher.show_cosigned`; may run in any thread."""
        self._check_usable()
        self._publisher.show_cosigned(checkpoint, note, newest=newest, receipt=receipt)

    def close(self) -> None:
        """State the last segment, publish the last checkpoint, make all durable, let go. May be repeated.

        After a failure it only lets go. Raises LedgerError when the end could not be written.
        """
        if self._closed:
            return
        try:
            if self._failure is None and self._publisher.failure is None:
                self.sync()
                self._begin_next(0, sealed=False)
                self._plan().write()
                # A crash here: all is signed and published, so the next start finds a clean end.
                self._publisher.settle()
        finally:
            self._let_go()

    def _plan(self) -> Plan:
        written = self._publisher.written
        self._tiler.forget(written)
        return Plan(self._publisher, self.synced, self._tiler.root(), self._tiler.files(written))

    def _roll(self, attempted: int) -> None:
        """The next segment states this one. `attempted`: how many entries wait for it, for the case it fails."""
        self.sync()
        self._begin_next(attempted, sealed=True)

    def _begin_next(self, attempted: int, *, sealed: bool) -> None:
        snapshot = self._snapshot()
        entry = encode(self._segment.closing(self._previous))
        header = self.segments.header(self.size, sealed=sealed)
        with self._failing(attempted, unborn=self.segments.folder / header.file_name):
            # A crash here: the old segment is whole and synced; the next start states it.
            following = self.segments.begin(header, snapshot, [entry])
            # A crash here: the old segment is stated, and the snapshot takes the place of its memos.
            self._segment.close()
        self._segment = following
        self._previous = leaf_hash(entry)
        self._tiler.extend([entry])

    def _check_usable(self) -> None:
        if self._closed:
            raise ValueError("this ledger is closed")
        failure = self._failure or self._publisher.failure
        if failure is not None:
            raise type(failure)(str(failure))

    @contextlib.contextmanager
    def _failing(self, attempted: int, unborn: Path | None = None) -> Iterator[None]:
        """A step that may not be taken twice: whatever stops it, nothing follows but the last words."""
        try:
            yield
        except OSError as error:
            self._failure = full(error)
            with contextlib.suppress(OSError, LedgerError):
                self._say_last_words(attempted, unborn)
            raise self._failure from error
        except BaseException as error:
            self._failure = LedgerFull(f"stopped within a write by {error!r}; start again")
            raise

    def _say_last_words(self, attempted: int, unborn: Path | None) -> None:
        """Use the reserve's room to say what was refused. Where this fails too, the next start makes a cut."""
        self._reserve.release()
        if unborn is not None and unborn.exists():
            self.segments.files.remove(unborn)
            self.segments.files.sync_folder(unborn.parent)
        waiting = len(self._pending) + attempted
        if waiting:
            loss = encode(Loss(PRODUCER, self.synced, self.synced + waiting - 1, LossReason.NOT_WRITTEN))
            self._segment.amend([loss])
            self._pending = []
            self._tiler.extend([loss])
            self._plan().write()

    def _let_go(self) -> None:
        self._closed = True
        self._publisher.stop()
        with contextlib.suppress(OSError):
            self._segment.close()
        self._held.release()
