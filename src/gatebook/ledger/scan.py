"""One segment's bytes -> what it holds and whether a crash tore its end. Needs no key. Pure.

Only the last segment can have been torn, and only beyond what was promised and synced: everything else that
is not whole is Damaged. Never repairs: a torn end is reported with what has to be kept of the file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

from gatebook.errors import Damaged
from gatebook.ledger import segment
from gatebook.ledger.entry import ERASE_PREFIX, KEY_PREFIX, Erase, Key, Segment, parse
from gatebook.ledger.segment import SEALED, Clear, Frame, FrameError, Header, Memo, Place, Sealed
from gatebook.ledger.torn import intact_frames, torn_from


class Torn(NamedTuple):
    """What a crash left behind the last whole frame. `keep` 0: not even one; nothing of the file counts.

    `lost`: first and last index of the entries torn off; None when that was but a new segment's beginning.
    """

    keep: int
    bytes: int
    lost: tuple[int, int] | None


@dataclass
class Scanned:
    """What a segment holds. `stated`: the SEGMENT entry that it begins with, about the one before.

    `keys` and `erased`: its KEY and ERASE entries, each with its index.
    """

    header: Header
    entries: list[bytes] = field(default_factory=list)
    records: int = 0
    memos: list[tuple[int, bytes]] = field(default_factory=list)
    stated: Segment | None = None
    keys: list[tuple[int, Key]] = field(default_factory=list)
    times: tuple[int, int] | None = None
    file_bytes: int = 0
    file_sha256: bytes = b""
    torn: Torn | None = None
    erased: list[tuple[int, Erase]] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.header.first_index + len(self.entries)

    def closing(self, previous: bytes) -> Segment:
        """The SEGMENT entry that the next segment has to begin with. `previous`: the leaf hash of `stated`."""
        low, high = self.times or (self.header.created_us, self.header.created_us)
        return Segment(
            segment_id=self.header.segment_id,
            first_index=self.header.first_index,
            entries=len(self.entries),
            t_min_us=low,
            t_max_us=high,
            file_bytes=self.file_bytes,
            file_sha256=self.file_sha256,
            dek_id=self.header.dek_id,
            previous=previous,
        )

    def _take(self, frame: Frame, pending: Memo | None) -> None:
        if pending is not None and pending.body:
            self.memos.append((pending.place.first_index, pending.body))
        if isinstance(frame, Clear) and not self.entries:
            first = parse(frame.entries[0])
            self.stated = first if isinstance(first, Segment) else None
        if isinstance(frame, Clear):
            self.keys += key_entries(frame.entries, frame.place.first_index)
            self.erased += erasures(frame.entries, frame.place.first_index)
        if isinstance(frame, Sealed):
            self.records += len(frame.commitments)
            low, high = self.times or (frame.t_min_us, frame.t_max_us)
            self.times = min(low, frame.t_min_us), max(high, frame.t_max_us)
        self.entries += frame.entries
        self.file_bytes = frame.end


def erasures(entries: list[bytes], first: int) -> list[tuple[int, Erase]]:
    """The ERASE entries among these, by index. Raises Damaged."""
    found = ((index, parse(data)) for index, data in enumerate(entries, first) if data[:4] == ERASE_PREFIX)
    return [(index, entry) for index, entry in found if isinstance(entry, Erase)]


def key_entries(entries: list[bytes], first: int) -> list[tuple[int, Key]]:
    """The KEY entries among these, by index. Raises Damaged."""
    found = ((index, parse(data)) for index, data in enumerate(entries, first) if data[:4] == KEY_PREFIX)
    return [(index, entry) for index, entry in found if isinstance(entry, Key)]


def scan(data: bytes, begins: int, promised: int | None) -> Scanned | Torn:
    """All of the segment whose name says that it begins with entry `begins`.

    `promised`: for the last segment, the signed size, beyond which it may be torn; None: it may not.
    A Torn in its place: a crash came before the segment had one whole frame of entries. Raises Damaged.
    """
    view = memoryview(data)
    try:
        header = segment.parse_header(data)
    except Damaged:
        if promised is None or begins < promised:
            raise
        return _unborn(view, Place(0, 0, begins, 0))
    scanned = Scanned(header)
    place, pending, bad = header.start, None, None
    try:
        for frame in segment.parse_frames(data, place):
            place = segment.after(frame)
            if isinstance(frame, Memo):
                pending = frame
            else:
                scanned._take(frame, pending)
                pending = None
    except FrameError as error:
        bad = error
    if not bad and not pending and scanned.entries:
        scanned.file_sha256 = hashlib.sha256(data).digest()
        return scanned
    if promised is None or place.first_index < promised:
        raise bad or Damaged("ends with a memo" if pending else "holds no entries")
    if not scanned.entries:
        return _unborn(view, place)
    lost = (place.first_index, torn_from(view, place))
    scanned.torn = Torn(scanned.file_bytes, len(data) - scanned.file_bytes, lost)
    scanned.file_sha256 = hashlib.sha256(view[: scanned.file_bytes]).digest()
    return scanned


def _unborn(view: memoryview, place: Place) -> Torn:
    """A segment's first frame is synced before anything else is appended, so no record can be in here."""
    torn_from(view, place)
    if any(frame.magic == SEALED for frame in intact_frames(view, 0)):
        raise Damaged("its beginning had been synced, and is damaged now: there are records behind it")
    return Torn(0, len(view), None)
