"""A segment's bytes, a record removed -> the bytes of the segment that takes its place (format 4).

The frames stay as they are, by number, entries and commitments, so the tree does not change; the sealed ones are
encrypted anew under another DEK, each record that stays with its salt beside it, and in the removed ones' place
what is said of that. Never gives bytes of which a record that stays could not be read: each is checked against
its commitment, before and after. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from gatebook.errors import Damaged
from gatebook.ledger import explicit, segment
from gatebook.ledger.explicit import Opened, Removed
from gatebook.ledger.segment import HEADER_BYTES, Keys, Memo, Sealed

Contents = dict[int, Opened | Removed]  # by index


def contents(data: bytes, keys: Keys) -> Contents:
    """All records of a segment, by index. Raises Damaged or Tampered unless all of them can be read."""
    header = segment.parse_header(data)
    found: Contents = {}
    for frame in segment.parse_frames(data, header.start):
        if isinstance(frame, Sealed):
            opened = segment.open_with_salts(data[:HEADER_BYTES], keys, frame)
            found.update(enumerate(opened, frame.place.first_index))
    return found


def without(
    data: bytes,
    known: Contents,
    removed: Mapping[int, str],
    dek_id: bytes,
    keys: Keys,
    compress: Callable[[bytes], bytes],
) -> bytes:
    """`known`: its `contents`. `removed`: index -> what shall be said of it. `keys` are of the new `dek_id`.

    Raises ValueError when a record is not in it.
    """
    if not removed.keys() <= known.keys():
        raise ValueError("a record that is to be removed is not in this segment")
    header = segment.parse_header(data)
    head = segment.encode_header(replace(header, dek_id=dek_id, rewritten=True))
    made = bytearray(head)
    for frame in segment.parse_frames(data, header.start):
        if not isinstance(frame, Sealed):
            made += data[frame.place.offset : frame.end]
            continue
        first = frame.place.first_index
        left = [
            Removed(removed[index]) if index in removed else known[index]
            for index in range(first, first + len(frame.commitments))
        ]
        packed = explicit.pack(left)
        if len(packed) > segment.MAX_PLAIN_BYTES:
            raise ValueError(f"frame {frame.place.number} has no room for its salts")
        times = frame.t_min_us, frame.t_max_us
        made += segment.seal(head, keys, frame.place, frame.commitments, times, compress(packed))
    _check(bytes(made), known, removed, keys)
    return bytes(made)


def _check(made: bytes, known: Contents, removed: Mapping[int, str], keys: Keys) -> None:
    """The old file is about to be destroyed: the new one has to hold all that stays, and nothing of the rest."""
    found = contents(made, keys)
    expected = {**known, **{index: Removed(why) for index, why in removed.items()}}
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
