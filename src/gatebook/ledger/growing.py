"""The segment that is being written: numbers its frames, counts, hashes, and says what closing it will say.

Only appends, through one descriptor that was opened when the file was made. A group is what is written
between two syncs; it begins with a memo, empty or not, that tells how many frames were synced before it, so
that recovery knows a frame that was never promised from one that was. Never reuses a frame number for
another encryption: after a failure nothing more is sealed here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gatebook.ledger.deks import Deks
from gatebook.ledger.entry import Segment
from gatebook.ledger.files import Files
from gatebook.ledger.keys import Recipient, wrap
from gatebook.ledger.segment import (
    NO_DEK,
    Header,
    Keys,
    Place,
    clear_frame,
    derive,
    encode_header,
    memo_frame,
    seal_frame,
)

MAX_RECORDS: Final = 65_536
MAX_BYTES: Final = 64 << 20
MAX_AGE_US: Final = 5 * 60 * 1_000_000

Compress = Callable[[bytes], bytes]


class Growing:
    """One segment. After an OSError it is of no more use but to be closed."""

    def __init__(
        self, files: Files, path: Path, header: Header, keys: Keys | None, compress: Compress, descriptor: int
    ) -> None:
        self.header = header
        self.path = path
        self.place = header.start  # of the next frame
        self.durable = header.start  # the same, as of the last sync
        self._files = files
        self._keys = keys
        self._compress = compress
        self._descriptor = descriptor
        self._head = encode_header(header)
        self._sha256 = hashlib.sha256()
        self._times: tuple[int, int] | None = None

    @classmethod
    def begin(
        cls,
        files: Files,
        path: Path,
        header: Header,
        keys: Keys | None,
        compress: Compress,
        snapshot: bytes,
        entries: Sequence[bytes],
    ) -> Growing:
        """Make the file, with its first frame: `entries`, behind the memo `snapshot`. Durable on return.

        `keys` None: it will hold no records.
        """
        made = cls(files, path, header, keys, compress, files.create(path))
        try:
            # A crash from here to the end leaves a segment without one whole frame: recovery removes it,
            # and the memos of the segment before stay in force.
            made._put(made._head + made._memo(snapshot) + made._clear(entries))
            made.sync()
            files.sync_folder(path.parent)
        except BaseException:
            made.close()
            raise
        return made

    def append(self, records: Sequence[bytes], memo: bytes, now_us: int) -> list[bytes]:
        """One sealed frame; its commitments. Not durable before `sync`."""
        if self._keys is None:
            raise ValueError(f"{self.path.name} has no key, so it takes no records")
        before = self._memo(memo)
        frame, made = seal_frame(self._head, self._keys, self.place, records, (now_us, now_us), self._compress)
        self._advance(len(frame), len(records), len(records))
        low, high = self._times or (now_us, now_us)
        self._times = min(low, now_us), max(high, now_us)
        self._put(before + frame)
        return made

    def append_entries(self, entries: Sequence[bytes], memo: bytes) -> None:
        """One frame of entries that are no records. Not durable before `sync`."""
        before = self._memo(memo)
        self._put(before + self._clear(entries))

    def _memo(self, body: bytes) -> bytes:
        """The memo frame for the frame to come: always at a group's beginning, else only for a memo's sake."""
        if not body and self.place.number != self.durable.number:
            return b""
        frame = memo_frame(self.place, self.durable.number, body)
        self._advance(len(frame), 0, 0)
        return frame

    def _clear(self, entries: Sequence[bytes]) -> bytes:
        frame = clear_frame(self.place, entries)
        self._advance(len(frame), len(entries), 0)
        return frame

    def _advance(self, length: int, entries: int, records: int) -> None:
        at = self.place
        self.place = Place(at.offset + length, at.number + 1, at.first_index + entries, at.first_record + records)

    def _put(self, data: bytes) -> None:
        self._sha256.update(data)
        self._files.write(self._descriptor, data)

    def sync(self) -> None:
        """All that was appended is durable on return. Never call it again after it has failed."""
        self._files.sync(self._descriptor)
        self.durable = self.place

    def amend(self, entries: Sequence[bytes]) -> None:
        """After a failure: take back what was not synced, and append `entries` in its place. Durable on return.

        On a descriptor of its own, since the other one's sync may never be asked again. No number is used
        for a second encryption: these entries are clear, and nothing can be appended any more after them.
        """
        self.place = self.durable
        data = self._memo(b"") + self._clear(entries)
        descriptor = self._files.reopen(self.path)
        try:
            self._files.truncate(descriptor, self.durable.offset)
            # A crash here: the segment ends with what was synced.
            self._files.write(descriptor, data)
            self._files.sync(descriptor)
            # A crash before here: the new frame is whole or torn, and what it replaced is gone either way.
        finally:
            self._files.close(descriptor)
        self.durable = self.place

    def is_due(self, records: int, now_us: int) -> bool:
        """Whether a frame of so many records belongs in a new segment. A clock that jumps makes it due too."""
        held = self.place.first_record
        return (
            (held > 0 and held + records > MAX_RECORDS)
            or self.place.offset >= MAX_BYTES
            or abs(now_us - self.header.created_us) >= MAX_AGE_US
        )

    def closing(self, previous: bytes) -> Segment:
        """What its SEGMENT entry says, if nothing more is appended. `previous`: the last one's leaf hash."""
        low, high = self._times or (self.header.created_us, self.header.created_us)
        return Segment(
            segment_id=self.header.segment_id,
            first_index=self.header.first_index,
            entries=self.place.first_index - self.header.first_index,
            t_min_us=low,
            t_max_us=high,
            file_bytes=self.place.offset,
            file_sha256=self._sha256.digest(),
            dek_id=self.header.dek_id,
            previous=previous,
        )

    def close(self) -> None:
        """Give the descriptor back; syncs nothing."""
        self._files.close(self._descriptor)


@dataclass(frozen=True)
class Segments:
    """Makes segments: where, for whom, and on whose clock and randomness."""

    files: Files
    folder: Path
    deks: Deks
    origin: str
    recipients: Callable[[], Sequence[Recipient]]
    now_us: Callable[[], int]
    random: Callable[[int], bytes]
    compress: Compress

    def now(self) -> int:
        return max(0, self.now_us())

    def header(self, first_index: int, *, sealed: bool) -> Header:
        """A new segment's, never used before; `sealed`: it gets a key, and so can hold records."""
        dek_id = self.random(16) if sealed else NO_DEK
        origin = hashlib.sha256(self.origin.encode()).digest()
        return Header(self.random(16), dek_id, first_index, self.now(), origin)

    def begin(self, header: Header, snapshot: bytes, entries: Sequence[bytes]) -> Growing:
        """The segment with its first frame, durable. Its DEK is durable before its file has a name."""
        keys = None
        if header.dek_id != NO_DEK:
            dek = self.random(32)
            self.deks.put(header.dek_id, [wrap(dek, header.dek_id, one) for one in self.recipients()])
            # A crash here leaves a DEK that no segment names, and nothing sealed with it.
            keys = derive(dek)
        path = self.folder / header.file_name
        return Growing.begin(self.files, path, header, keys, self.compress, snapshot, entries)
