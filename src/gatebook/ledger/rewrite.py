"""A segment's bytes, a record removed -> the bytes of the segment that takes its place (format 4).

The frames stay as they are, by number, entries and commitments, so the tree does not change; the sealed ones are
encrypted anew under another DEK, each record that stays with its salt beside it, and in the removed ones' place
what is said of that. Never gives bytes of which a record that stays could not be read: each is checked against
its commitment, before and after. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from gatebook.errors import Damaged
from gatebook.ledger import explicit, segment
from gatebook.ledger.explicit import Opened, Removed
from gatebook.ledger.segment import HEADER_BYTES, Keys, Memo, Sealed

Contents = dict[int, Opened | Removed]  # by index


def contents(data: bytes, keys: Keys, only: Collection[int] | None = None) -> Contents:
    """All records of a segment, by index; `only`: those of the frames that hold one of these.

    Raises Damaged or Tampered unless all of them can be read.
    """
    header = segment.parse_header(data)
    found: Contents = {}
    for frame in segment.parse_frames(data, header.start):
        if not isinstance(frame, Sealed):
            continue
        first = frame.place.first_index
        if only is None or any(first <= index < first + len(frame.commitments) for index in only):
            found.update(enumerate(segment.open_with_salts(data[:HEADER_BYTES], keys, frame), first))
    return found


def without(
    data: bytes,
    old: Keys,
    removed: Mapping[int, str],
    dek_id: bytes,
    keys: Keys,
    compress: Callable[[bytes], bytes],
) -> bytes:
    """`old`: its keys. `removed`: index -> what shall be said of it. `keys` are of the new `dek_id`.

    Opens a frame at a time, never more. Raises ValueError when a record is not in it, Damaged or Tampered unless
    all of it can be read.
    """
    header = segment.parse_header(data)
    head = segment.encode_header(replace(header, dek_id=dek_id, rewritten=True))
    made = bytearray(head)
    expected: list[bytes] = []  # the hash of what each sealed frame has to hold
    missing = set(removed)
    for frame in segment.parse_frames(data, header.start):
        if not isinstance(frame, Sealed):
            made += data[frame.place.offset : frame.end]
            continue
        opened = segment.open_with_salts(data[:HEADER_BYTES], old, frame)
        numbered = enumerate(opened, frame.place.first_index)
        packed = explicit.pack([Removed(removed[index]) if index in removed else one for index, one in numbered])
        missing.difference_update(range(frame.place.first_index, frame.place.first_index + len(opened)))
        if len(packed) > segment.MAX_PLAIN_BYTES:
            raise ValueError(f"frame {frame.place.number} has no room for its salts")
        expected.append(hashlib.sha256(packed).digest())
        times = frame.t_min_us, frame.t_max_us
        made += segment.seal(head, keys, frame.place, frame.commitments, times, compress(packed))
    if missing:
        raise ValueError("a record that is to be removed is not in this segment")
    _check(made, keys, expected)
    return bytes(made)


def _check(made: bytearray, keys: Keys, expected: list[bytes]) -> None:
    """The old file is about to be destroyed: the new one has to hold all that stays, and nothing of the rest."""
    head = bytes(made[:HEADER_BYTES])
    found = [
        hashlib.sha256(explicit.pack(segment.open_with_salts(head, keys, frame))).digest()
        for frame in segment.parse_frames(memoryview(made), segment.parse_header(head).start)
        if isinstance(frame, Sealed)
    ]
    if found != expected:
        raise Damaged("the segment written anew does not hold what it has to; nothing was changed")


def same_entries(old: bytes, new: bytes) -> bool:
    """Whether two files of a segment hold the same entries."""
    return _entries(old) == _entries(new)


def _entries(data: bytes) -> list[bytes]:
    header = segment.parse_header(data)
    return [
        entry
        for frame in segment.parse_frames(data, header.start)
        if not isinstance(frame, Memo)
        for entry in frame.entries
    ]
