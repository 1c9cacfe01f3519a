"""Reads a ledger beside its writer: records by index, forwards, backwards, and as they come.

What it shows is fixed by `refresh`: whole frames on disk then, signed for or not yet. A record is given out
only when its bytes are what its entry commits to; whether the entry is in the signed tree is
`prove.Tree`'s to say. What cannot be read is counted in `gaps`, never passed over in silence. Never
writes, never takes the ledger's lock. Trust: the folder may be hostile; reading it may fail, not mislead.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gatebook.errors import Damaged, LedgerError
from gatebook.ledger import keys, segment
from gatebook.ledger.deks import Deks
from gatebook.ledger.explicit import Opened, Removed
from gatebook.ledger.holes import Holes

MAX_SEGMENT_BYTES = 256 << 20
_KEPT_SEGMENTS = 4


class Span(NamedTuple):
    """Where a frame of entries lies in its segment; `n` entries from `place.first_index` on."""

    place: segment.Place
    end: int
    n: int
    sealed: bool


class Gap(NamedTuple):
    """Entries that could not be read, and why. `erased`: they were removed on purpose."""

    first_index: int
    n: int
    why: str
    erased: bool = False


class Piece(NamedTuple):
    """What a frame holds. Of a sealed one: when it was sealed, and (index, salt, record) of what can be read."""

    first_index: int
    entries: list[bytes]
    sealed_us: int | None
    records: list[tuple[int, bytes, bytes]]


class SegmentFile:
    """One segment: which frames it has, and their bytes. Frames at its end that are not whole do not count."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inode = path.stat().st_ino
        self.head = self._read(0, segment.HEADER_BYTES)
        self.header = segment.parse_header(self.head)
        self.spans: list[Span] = []
        self.trouble: segment.FrameError | None = None
        self._next = self.header.start

    @property
    def end_index(self) -> int:
        """The index behind its last entry."""
        return self._next.first_index

    @property
    def is_current(self) -> bool:
        """Whether it is still the file of that name: one that a record is removed from is written anew."""
        try:
            return self.path.stat().st_ino == self._inode
        except OSError:
            return False

    def _read(self, offset: int, count: int) -> bytes:
        with self.path.open("rb", buffering=0) as stream:
            return os.pread(stream.fileno(), count, offset)

    def scan(self) -> None:
        """Find the frames that have been written since the last time."""
        base = self._next.offset
        with self.path.open("rb") as stream:
            stream.seek(base)
            data = stream.read(MAX_SEGMENT_BYTES)
        self.trouble = None
        start = self._next._replace(offset=0)
        try:
            for frame in segment.parse_frames(data, start):
                place = frame.place._replace(offset=base + frame.place.offset)
                behind = segment.after(frame)
                self._next = behind._replace(offset=base + behind.offset)
                if not isinstance(frame, segment.Memo):
                    n = behind.first_index - place.first_index
                    self.spans.append(Span(place, self._next.offset, n, isinstance(frame, segment.Sealed)))
        except segment.FrameError as error:
            self.trouble = error

    def frame(self, span: Span) -> segment.Sealed | segment.Clear:
        """Raises Damaged when the bytes are no longer those that were found there."""
        data = self._read(span.place.offset, span.end - span.place.offset)
        frame = segment.parse_frame(memoryview(data), span.place._replace(offset=0))
        if isinstance(frame, segment.Memo):
            raise Damaged(f"{self.path}: changed while it was read")
        return frame

    def at(self, index: int) -> Span | None:
        """The frame that holds the entry."""
        found = bisect_right(self.spans, index, key=lambda span: span.place.first_index) - 1
        if found < 0 or index >= self.spans[found].place.first_index + self.spans[found].n:
            return None
        return self.spans[found]


class Reader:
    """A ledger's records, as far as `key` opens them."""

    def __init__(self, ledger: Path, origin: str, deks: Path, key: keys.Reader) -> None:
        self.origin = origin
        self.gaps: list[Gap] = []
        self._folder = ledger / "segments"
        self._holes = Holes(ledger / "log")
        self._deks = Deks(deks)
        self._key = key
        self._paths: list[Path] = []
        self._starts: list[int] = []
        self._kept: OrderedDict[Path, SegmentFile] = OrderedDict()
        self._opened: OrderedDict[bytes, segment.Keys | str] = OrderedDict()
        self._tail: SegmentFile | None = None
        self.size = 0
        self.refresh()

    def refresh(self) -> bool:
        """See what has been written since. True when there is more."""
        listed = list_segments(self._folder)
        self._paths = [path for _, path in listed]
        self._starts = [start for start, _ in listed]
        if not listed:
            return False
        path, end = self._paths[-1], self._starts[-1]
        try:
            if self._tail is None or self._tail.path != path:
                self._tail = SegmentFile(path)
            self._tail.scan()
            end = self._tail.end_index
        except (LedgerError, OSError):
            # A segment that is being made has no whole header yet; a damaged one is `verify`'s to explain.
            self._tail = None
        before, self.size = self.size, max(self.size, end)
        return self.size > before

    def _segment(self, path: Path) -> SegmentFile:
        if self._tail is not None and path == self._tail.path and self._tail.is_current:
            return self._tail
        if path in self._kept and self._kept[path].is_current:
            self._kept.move_to_end(path)
            return self._kept[path]
        try:
            made = SegmentFile(path)
            made.scan()
        except OSError as error:
            raise Damaged(f"{path}: {(error.strerror or str(error)).lower()}") from error
        self._kept[path] = made
        if len(self._kept) > _KEPT_SEGMENTS:
            self._kept.popitem(last=False)
        return made

    def _keys(self, header: segment.Header) -> segment.Keys | str:
        """The segment's keys, or why there are none."""
        if header.dek_id not in self._opened:
            self._opened[header.dek_id] = self._unwrap(header.dek_id)
            if len(self._opened) > _KEPT_SEGMENTS:
                self._opened.popitem(last=False)
        return self._opened[header.dek_id]

    def _unwrap(self, dek_id: bytes) -> segment.Keys | str:
        try:
            return unwrap(self._deks, dek_id, self._key)
        except LedgerError as error:
            return str(error)

    def _gap(self, first: int, n: int, why: str, *, erased: bool = False) -> None:
        gap = Gap(first, n, why, erased)
        if n > 0 and gap not in self.gaps:
            self.gaps.append(gap)

    def _spans(self, number: int, start: int) -> tuple[SegmentFile, list[Span], segment.Keys] | None:
        """The sealed frames of a segment that hold records from `start` on, below `size`."""
        path, first = self._paths[number], self._starts[number]
        end = self._starts[number + 1] if number + 1 < len(self._starts) else self.size
        try:
            found = self._segment(path)
        except Damaged as error:
            self._gap(first, end - first, str(error))
            return None
        if found.end_index < end:
            self._hole(found, end)
        spans = [
            s for s in found.spans if s.sealed and start < s.place.first_index + s.n and s.place.first_index < end
        ]
        if not spans:
            return None
        opened = self._keys(found.header)
        if isinstance(opened, str):
            self._gap(spans[0].place.first_index, sum(span.n for span in spans), opened)
            return None
        return found, spans, opened

    def _hole(self, found: SegmentFile, end: int) -> None:
        """What lies behind this segment and before the next."""
        first, name = found.end_index, found.path.name
        if found.trouble is not None:
            self._gap(first, end - first, f"{name}: {found.trouble}")
        else:
            self._missing(first, end, f"no segment behind {name} holds them")

    def _missing(self, first: int, end: int, why: str) -> None:
        if self._holes.erased(first, end, self.size):
            self._gap(first, end - first, "erased by retention, as ERASE entries say", erased=True)
        else:
            self._gap(first, end - first, why)

    def _open(
        self, found: SegmentFile, span: Span, opened: segment.Keys, start: int = 0, end: int | None = None
    ) -> list[tuple[int, Opened]]:
        """The frame's records with their salts, by index, from `start` on, below `end`."""
        try:
            frame = found.frame(span)
            if not isinstance(frame, segment.Sealed):
                return []
            contents = segment.open_with_salts(found.head, opened, frame)
        except (LedgerError, OSError) as error:
            self._gap(span.place.first_index, span.n, f"{found.path.name}: {error}")
            return []
        there = []
        for index, one in enumerate(contents, span.place.first_index):
            if index < start or (end is not None and index >= end):
                continue
            if isinstance(one, Removed):
                self._gap(index, 1, one.why, erased=True)
            else:
                there.append((index, one))
        return there

    def forwards(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """(index, record) from `start` on."""
        first = max(bisect_right(self._starts, start) - 1, 0)
        for number in range(first, len(self._paths)):
            part = self._spans(number, start)
            if part is None:
                continue
            found, spans, opened = part
            for span in spans:
                for index, one in self._open(found, span, opened, start):
                    yield index, one.record

    def backwards(self) -> Iterator[tuple[int, bytes]]:
        """(index, record), the newest first."""
        for number in range(len(self._paths) - 1, -1, -1):
            part = self._spans(number, 0)
            if part is None:
                continue
            found, spans, opened = part
            for span in reversed(spans):
                for index, one in reversed(self._open(found, span, opened)):
                    yield index, one.record

    def record(self, index: int) -> bytes | None:
        """One record. None: that entry is no record, or it cannot be read."""
        found, span = self._find(index)
        if found is None or span is None or not span.sealed:
            return None
        opened = self._keys(found.header)
        if isinstance(opened, str):
            self._gap(span.place.first_index, span.n, opened)
            return None
        there = self._open(found, span, opened, index, index + 1)
        return there[0][1].record if there else None

    def dek(self, index: int) -> tuple[bytes, bytes] | None:
        """Id and DEK of the segment that holds this entry. None: no segment does. Raises Damaged or Tampered."""
        found, _ = self._find(index)
        return (
            None
            if found is None
            else (
                found.header.dek_id,
                unwrap_dek(self._deks, found.header.dek_id, self._key),
            )
        )

    def entry(self, index: int) -> bytes | None:
        """The entry's own bytes, without any key."""
        found, span = self._find(index)
        if found is None or span is None:
            return None
        try:
            return found.frame(span).entries[index - span.place.first_index]
        except (Damaged, OSError):
            return None

    def disclosed(self, start: int, end: int) -> Iterator[tuple[int, bytes, bytes]]:
        """(index, salt, record) of what can be read from `start` on, below `end`. A salt opens its entry."""
        for piece in self.pieces(start, end):
            for index, salt, data in piece.records:
                if start <= index < end:
                    yield index, salt, data

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        """The frames that hold any entry from `start` on, below `end`, in order."""
        first = max(bisect_right(self._starts, start) - 1, 0)
        if self._starts and start < min(end, self._starts[0]):
            self._missing(start, self._starts[0], "no segment holds them")
        for number in range(first, len(self._paths)):
            if self._starts[number] >= end:
                return
            try:
                found = self._segment(self._paths[number])
            except Damaged as error:
                self._gap(self._starts[number], self._end(number) - self._starts[number], str(error))
                continue
            below = min(end, self._end(number))
            if found.end_index < below and start < self._end(number):
                self._hole(found, self._end(number))
            spans = [s for s in found.spans if start < s.place.first_index + s.n and s.place.first_index < below]
            sealed = [span for span in spans if span.sealed]
            opened = self._keys(found.header) if sealed else ""
            if sealed and isinstance(opened, str):
                self._gap(sealed[0].place.first_index, sum(span.n for span in sealed), opened)
            for span in spans:
                yield self._piece(found, span, opened)

    def others(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """(index, entry) of the entries that are no records, from `start` on, below `end`; without any key."""
        first = max(bisect_right(self._starts, start) - 1, 0)
        for number in range(first, len(self._paths)):
            if self._starts[number] >= end:
                return
            try:
                found = self._segment(self._paths[number])
                for span in found.spans:
                    at = span.place.first_index
                    if not span.sealed and start < at + span.n and at < min(end, self._end(number)):
                        inside = enumerate(found.frame(span).entries, at)
                        yield from ((index, entry) for index, entry in inside if start <= index < end)
            except (Damaged, OSError) as error:
                self._gap(self._starts[number], self._end(number) - self._starts[number], str(error))

    def _end(self, number: int) -> int:
        return self._starts[number + 1] if number + 1 < len(self._starts) else self.size

    def _piece(self, found: SegmentFile, span: Span, opened: segment.Keys | str) -> Piece:
        at = span.place.first_index
        try:
            frame = found.frame(span)
        except (Damaged, OSError) as error:
            self._gap(at, span.n, f"{found.path.name}: {error}")
            return Piece(at, [], None, [])
        if not isinstance(frame, segment.Sealed):
            return Piece(at, frame.entries, None, [])
        if isinstance(opened, str):
            return Piece(at, frame.entries, frame.t_min_us, [])
        there = [(index, *one) for index, one in self._open(found, span, opened)]
        return Piece(at, frame.entries, frame.t_min_us, there)

    def begun(self) -> list[tuple[int, int]]:
        """(first index, when it was begun) of each segment whose header can be read, in order."""
        times = []
        for start, path in zip(self._starts, self._paths, strict=True):
            try:
                with path.open("rb") as stream:
                    times.append((start, segment.parse_header(stream.read(segment.HEADER_BYTES)).created_us))
            except (Damaged, OSError):
                continue
        return times

    def _find(self, index: int) -> tuple[SegmentFile | None, Span | None]:
        number = bisect_right(self._starts, index) - 1
        if number < 0 or index >= self.size:
            return None, None
        try:
            found = self._segment(self._paths[number])
        except Damaged:
            return None, None
        return found, found.at(index)


def entries_since(folder: Path, start: int) -> Iterator[tuple[int, bytes]]:
    """(index, entry) from `start` on, of all that is whole on disk; needs no key. Raises Damaged, OSError."""
    listed = list_segments(folder)
    first = max(bisect_right([first for first, _ in listed], start) - 1, 0)
    for _, path in listed[first:]:
        found = SegmentFile(path)
        found.scan()
        for span in found.spans:
            if span.place.first_index + span.n > start:
                inside = enumerate(found.frame(span).entries, span.place.first_index)
                yield from ((index, entry) for index, entry in inside if index >= start)


def list_segments(folder: Path) -> list[tuple[int, Path]]:
    """(first index, path), in order, by the files' names. Other files are passed over."""
    listed = []
    try:
        names = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Damaged(f"{folder}: {(error.strerror or str(error)).lower()}") from error
    for name in names:
        stem, _, suffix = name.partition(".")
        first, _, rest = stem.partition("-")
        if suffix == "gbseg" and len(first) == 16 and len(rest) == 8:
            try:
                listed.append((int(first, 16), folder / name))
            except ValueError:
                continue
    return listed


def unwrap(deks: Deks, dek_id: bytes, key: keys.Reader) -> segment.Keys:
    """A segment's keys. Raises as `unwrap_dek`."""
    return segment.derive(unwrap_dek(deks, dek_id, key))


def unwrap_dek(deks: Deks, dek_id: bytes, key: keys.Reader) -> bytes:
    """A segment's DEK. Raises Damaged when it is gone or is not wrapped for this reader, or Tampered."""
    wrapped = deks.get(dek_id)
    if wrapped is None:
        raise Damaged(f"key {dek_id.hex()} is not in the key store: it was destroyed, or has to be restored")
    for one in wrapped:
        if one.recipient == key.id:
            return keys.unwrap(one, dek_id, key)
    raise Damaged(f"key {dek_id.hex()} is not wrapped for this reader")
