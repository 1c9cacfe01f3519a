"""The segments, read one after the other: whole or not, in order or not, and the entries they hold.

Frames are believed to say what they hold, never that it was signed: `blocks` compares with the tree, and
`history` with what SEGMENT entries state of each file. Behind a damaged frame reading goes on at the next
whole one, so that one bad byte hides as little as it can. Beyond the checkpoint a torn end is no finding: it
is being written, or a crash left it and nobody was told that it was written.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from gatebook.errors import Damaged
from gatebook.ledger import segment
from gatebook.ledger.segment import Clear, Frame, FrameError, Header, Memo, Place, Sealed
from gatebook.ledger.torn import torn_from
from gatebook.ledger.verify.public import Missing, read_beginning, read_file
from gatebook.ledger.verify.report import Report, entries

MAX_SEGMENT_BYTES = 256 << 20
_EFFORT = 4  # times a segment's length may be hashed in search of the next whole frame


@dataclass
class SegmentInfo:
    """What a segment's file turned out to be. `whole`: every byte of it belongs to a good frame."""

    path: Path
    header: Header
    end: int
    length: int
    sha256: bytes
    times: tuple[int, int] | None
    whole: bool


class Run(NamedTuple):
    """Consecutive entries out of one frame; of records, with the time that the frame claims."""

    first: int
    entries: list[bytes]
    t_us: int | None


class Hole(NamedTuple):
    """Entries that no segment here holds."""

    first: int
    end: int


class Contents(Protocol):
    """Reads what frames hold (level 2); `content.Content`."""

    def begin(self, header: Header, head: bytes) -> None: ...
    def frame(self, path: Path, frame: Sealed | Clear) -> None: ...
    def hole(self, first: int, end: int) -> None: ...


class Store:
    """`runs` gives the entries in order; afterwards `found` and `holes` are complete."""

    def __init__(
        self, folder: Path, origin_sha256: bytes, size: int, report: Report, contents: Contents | None
    ) -> None:
        self._folder = folder
        self._origin = origin_sha256
        self._size = size
        self._report = report
        self._contents = contents
        self._at = 0
        self.found: list[SegmentInfo] = []
        self.holes: list[Hole] = []
        self.explained: list[int] = []  # entries at which a finding says why they cannot be read

    @property
    def end(self) -> int:
        """The index behind the last entry."""
        return self._at

    def _files(self) -> list[tuple[Header, Path]]:
        headers = []
        try:
            paths = sorted(self._folder.iterdir())
        except OSError:
            return []
        for path in paths:
            if path.suffix != ".gbseg":
                self._report.note(f"segments/{path.name}: not a segment, passed over")
                continue
            header = self._header(path, is_last=path == paths[-1])
            if header is not None:
                headers.append((header, path))
        return sorted(headers, key=lambda pair: (pair[0].first_index, pair[0].created_us))

    def _header(self, path: Path, *, is_last: bool) -> Header | None:
        try:
            return segment.parse_header(read_beginning(path, segment.HEADER_BYTES))
        except Damaged as error:
            if is_last and not _claims_less(path, self._size):
                self._report.note(f"segments/{path.name}: has just been begun")
                return None
            self._unreadable(path, str(error))
            return None

    def _unreadable(self, path: Path, what: str) -> None:
        self._report.found(1, "damaged", f"segments/{path.name}", what, "its entries cannot be read here")
        with contextlib.suppress(ValueError):
            self.explained.append(int(path.name[:16], 16))

    def runs(self) -> Iterator[Run]:
        files = self._files()
        for header, path in files:
            is_last = path == files[-1][1]
            if header.file_name != path.name:
                self._wrong(
                    path, f"is the segment {header.file_name}", "it was renamed, or put in another's place"
                )
            if header.origin_sha256 != self._origin:
                self._wrong(path, "belongs to another log", "it is passed over")
                continue
            yield from self._segment(header, path, is_last=is_last)
        self._hole(self._size)
        self._report.segments = len(self.found)

    def _wrong(self, path: Path, what: str, consequence: str) -> None:
        self._report.found(1, "tampered", f"segments/{path.name}", what, consequence)

    def _hole(self, end: int) -> None:
        if end > self._at:
            self.holes.append(Hole(self._at, end))
            if self._contents is not None:
                self._contents.hole(self._at, end)
            self._at = end

    def _segment(self, header: Header, path: Path, *, is_last: bool) -> Iterator[Run]:
        try:
            data = read_file(path, MAX_SEGMENT_BYTES)
        except Missing:
            return  # the hole it leaves is found by its neighbours
        except Damaged as error:
            self._unreadable(path, str(error))
            return
        info = SegmentInfo(path, header, header.first_index, len(data), hashlib.sha256(data).digest(), None, True)
        self.found.append(info)
        if self._contents is not None:
            self._contents.begin(header, data[: segment.HEADER_BYTES])
        for frame in self._frames(info, data, is_last=is_last):
            if isinstance(frame, Memo):
                continue
            run = self._place(info, frame)
            if self._contents is not None:
                self._contents.frame(path, frame)
            if run is not None:
                yield run

    def _place(self, info: SegmentInfo, frame: Sealed | Clear) -> Run | None:
        first, inside, t_us = frame.place.first_index, frame.entries, None
        if isinstance(frame, Sealed):
            t_us = frame.t_max_us
            low, high = info.times or (frame.t_min_us, frame.t_max_us)
            info.times = min(low, frame.t_min_us), max(high, frame.t_max_us)
        end = first + len(inside)
        info.end = end
        if end <= self._at or first < self._at:
            again = entries(first, min(end, self._at))
            self._wrong(
                info.path, f"holds {again}, which another segment holds", "one of the two is not the log's"
            )
            return None
        self._hole(first)
        self._at = end
        return Run(first, inside, t_us)

    def _frames(self, info: SegmentInfo, data: bytes, *, is_last: bool) -> Iterator[Frame]:
        """All whole frames, reporting what lies between them."""
        view, place = memoryview(data), info.header.start
        effort = _EFFORT * len(data) + (1 << 20)
        while place.offset < len(view):
            try:
                for frame in segment.parse_frames(view, place):
                    yield frame
                    place = segment.after(frame)
                return
            except FrameError as error:
                info.whole = False
                following = resume(view, error.place, effort)
                if is_last and error.place.first_index >= self._size and _as_a_crash_leaves_it(view, error.place):
                    rest = len(view) - error.place.offset
                    self._report.note(
                        f"segments/{info.path.name}: {rest} bytes beyond the checkpoint are no whole frame: "
                        f"being written, or left by a crash before anybody was told of them"
                    )
                    return
                self._bad_frame(info, view, error, following)
                if following is None:
                    return
                effort -= following.offset - error.place.offset
                place = following

    def _bad_frame(self, info: SegmentInfo, view: memoryview, error: FrameError, following: Place | None) -> None:
        place = error.place
        intact = hash_of_frame_is_right(view, place.offset)
        self.explained.append(place.first_index)
        if following is None:
            lost = f"the records of entries from {place.first_index} on cannot be read here"
        elif following.first_index == place.first_index:  # a memo
            lost = "no entry is lost with it"
        else:
            lost = f"{entries(place.first_index, following.first_index)} cannot be read here"
        self._report.found(
            1,
            "tampered" if intact else "damaged",
            f"segments/{info.path.name}, byte {place.offset}",
            f"frame {place.number}: {str(error).partition(': ')[2]}",
            lost,
        )


def _as_a_crash_leaves_it(view: memoryview, place: Place) -> bool:
    """Whether no memo behind the bad frame vouches that it had been synced."""
    try:
        torn_from(view, place)
    except Damaged:
        return False
    return True


def _claims_less(path: Path, size: int) -> bool:
    """Whether the file's name says that it begins below `size`."""
    try:
        return int(path.name[:16], 16) < size
    except ValueError:
        return True


def hash_of_frame_is_right(view: memoryview, offset: int) -> bool:
    """Whether these are the bytes that somebody wrote as a frame, whatever they say."""
    end = frame_end(view, offset)
    return end is not None and hashlib.sha256(view[offset : end - 32]).digest() == view[end - 32 : end]


def frame_end(view: memoryview, offset: int) -> int | None:
    """Where the frame would end that begins here; None when none can."""
    head = bytes(view[offset : offset + 24])
    if len(head) < 24 or head[:4] not in (segment.SEALED, segment.CLEAR, segment.MEMO):
        return None
    n, length = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    end = offset + 24 + (16 + 32 * n if head[:4] == segment.SEALED else 0) + length + 32
    return end if end <= len(view) else None


def resume(view: memoryview, bad: Place, effort: int) -> Place | None:
    """The next whole frame behind a bad one, if there is any to be found within `effort` hashed bytes."""
    data = bytes(view[bad.offset :])
    at = data.find(b"GBF", 1)
    while at >= 0 and effort > 0:
        offset = bad.offset + at
        end = frame_end(view, offset)
        if end is not None:
            effort -= end - offset
            head = data[at : at + 24]
            number, first = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:16], "big")
            if number > bad.number and first >= bad.first_index and hash_of_frame_is_right(view, offset):
                # Which records of the segment these are: the bad frame held records, unless it says otherwise.
                clear = data[:4] in (segment.CLEAR, segment.MEMO)
                skipped = 0 if clear else first - bad.first_index
                return Place(offset, number, first, bad.first_record + skipped)
        at = data.find(b"GBF", at + 1)
    return None
