"""The two erasures in the ledger itself: one record's bytes, and whole segments; by its writer, in its order.

A record goes by writing its segment anew without it, a segment by destroying its key, then its file. The tree
keeps every entry, so every proof holds. Never destroys entries that the public bundles do not hold, nor anything
before its ERASE entry is durable. What authorises it, and whether anything forbids it, is the caller's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gatebook.errors import Damaged
from gatebook.ledger import rewrite, segment, tiles
from gatebook.ledger.entry import Erase, Erased, EraseReason
from gatebook.ledger.erasing import Intent
from gatebook.ledger.explicit import Removed
from gatebook.ledger.keys import wrap
from gatebook.ledger.read import list_segments
from gatebook.ledger.rewrite import Contents
from gatebook.ledger.scan import Scanned, scan
from gatebook.ledger.segment import NO_DEK, Header, Keys
from gatebook.ledger.tree import TILE_WIDTH
from gatebook.ledger.writer import Writer

MAX_SEGMENT_BYTES = 256 << 20


@dataclass(frozen=True)
class Closed:
    """A closed segment, read as a whole."""

    path: Path
    data: bytes
    header: Header

    @classmethod
    def read(cls, path: Path) -> Closed:
        """Raises Damaged."""
        try:
            with path.open("rb") as stream:
                data = stream.read(MAX_SEGMENT_BYTES + 1)
        except OSError as error:
            raise Damaged(f"{path}: {(error.strerror or str(error)).lower()}") from error
        header = segment.parse_header(data)
        if header.file_name != path.name:
            raise Damaged(f"{path}: is the segment {header.file_name}; give it its name back")
        return cls(path, data, header)

    def contents(self, keys: Keys, only: Collection[int] | None = None) -> Contents:
        """`only`: of the frames that hold one of these. Raises Damaged or Tampered unless they can be read."""
        return rewrite.contents(self.data, keys, only)


def closed_segments(writer: Writer) -> list[Path]:
    """In order; not the one that is being written."""
    return [path for first, path in list_segments(writer.segments.folder) if first < writer.begun_at]


def holding(writer: Writer, index: int) -> Path | None:
    """The closed segment that should hold this entry; the present one is closed, should it be that.

    None: no segment does. That it does hold it is the caller's to see: segments may have been erased.
    """
    if not 0 <= index < writer.size:
        return None
    if index >= writer.begun_at:
        writer.roll()
    return next((path for path in reversed(closed_segments(writer)) if int(path.name[:16], 16) <= index), None)


class Anew(NamedTuple):
    """A segment as it is to be, in memory: `data` under a new DEK, without the records at `indices`."""

    old: Closed
    data: bytes
    dek_id: bytes
    dek: bytes
    indices: list[int]


def without(writer: Writer, old: Closed, keys: Keys, removed: Mapping[int, str]) -> Anew:
    """`removed`: index -> what is said in its place. `keys`: those it is sealed with. Changes nothing on disk.

    Raises ValueError or Damaged when it cannot be written anew.
    """
    segments = writer.segments
    dek_id, dek = segments.random(16), segments.random(32)
    data = rewrite.without(old.data, keys, removed, dek_id, segment.derive(dek), segments.compress)
    return Anew(old, data, dek_id, dek, sorted(removed))


def redact(writer: Writer, anew: Anew, reason: EraseReason, authorisation_sha256: bytes) -> None:
    """Put the segment in the old one's place, and destroy that for good: durable and signed for on return."""
    segments, (old, new, dek_id, dek, indices) = writer.segments, anew
    commitments = _commitments(old)

    def prepare() -> list[Erase]:
        segments.deks.put(dek_id, [wrap(dek, dek_id, one) for one in segments.recipients()])
        # A crash here, and up to the ERASE entries' sync: the next start removes key and file again.
        files = segments.files
        descriptor = files.create(old.path.with_name(old.path.name + ".new"))
        try:
            files.write(descriptor, new)
            files.sync(descriptor)
        finally:
            files.close(descriptor)
        files.sync_folder(segments.folder)
        before, after = hashlib.sha256(old.data).digest(), hashlib.sha256(new).digest()
        return [
            Erase(Erased.RECORD, commitments[index][:16], before, after, reason, authorisation_sha256)
            for index in indices
        ]

    replaced = ((old.path.name, dek_id),)
    writer.erase(Intent(writer.size, authorisation_sha256, replaced, (old.header.dek_id,)), prepare)


def _commitments(old: Closed) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for frame in segment.parse_frames(old.data, old.header.start):
        if isinstance(frame, segment.Sealed):
            found.update(enumerate(frame.commitments, frame.place.first_index))
    return found


def is_there(known: Contents, index: int) -> bool:
    """Whether it is a record that has not been removed."""
    return index in known and not isinstance(known[index], Removed)


# -- whole segments -----------------------------------------------------------------------------------------


class Old(NamedTuple):
    """A segment that may be destroyed, as far as the ledger goes."""

    path: Path
    dek_id: bytes
    first: int
    end: int
    times_us: tuple[int, int]
    sha256: bytes


def examine(writer: Writer, path: Path, log: Path) -> Old | None:
    """None for one without a key, which holds no record, or whose entries are not in durable bundles yet.

    Raises Damaged when it, or what stays of it, is not whole.
    """
    old = Closed.read(path)
    if old.header.dek_id == NO_DEK:
        return None
    found = scan(old.data, old.header.first_index, None)
    if not isinstance(found, Scanned):
        raise Damaged(f"{path}: is not whole")
    if found.end > writer.tiles_durable:
        return None
    _check_bundled(log, found)
    times = found.times or (old.header.created_us, old.header.created_us)
    return Old(path, old.header.dek_id, old.header.first_index, found.end, times, found.file_sha256)


def _check_bundled(log: Path, found: Scanned) -> None:
    """What is destroyed must not be the only copy of a public entry."""
    first = found.header.first_index
    for number in range(first // TILE_WIDTH, -(-found.end // TILE_WIDTH)):
        path = log / tiles.bundle_path(number)
        try:
            bundled = tiles.parse_bundle(path.read_bytes(), TILE_WIDTH)
        except OSError as error:
            raise Damaged(f"{path}: {(error.strerror or str(error)).lower()}") from error
        start = number * TILE_WIDTH
        low, high = max(first, start), min(found.end, start + TILE_WIDTH)
        if bundled[low - start : high - start] != found.entries[low - first : high - first]:
            raise Damaged(f"{path}: is not what the segment holds; restart, which writes it anew")


def destroy(writer: Writer, old: Sequence[Old], reason: EraseReason, authorisation_sha256: bytes) -> None:
    """Destroy keys and files for good; durable and signed for on return."""
    entries = [
        Erase(Erased.SEGMENT, one.dek_id, one.sha256, bytes(32), reason, authorisation_sha256) for one in old
    ]
    intent = Intent(
        writer.size,
        authorisation_sha256,
        keys=tuple(one.dek_id for one in old),
        segments=tuple(one.path.name for one in old),
    )
    writer.erase(intent, lambda: entries)
