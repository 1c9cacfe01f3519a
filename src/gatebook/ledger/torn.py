"""Tells a frame that a crash tore from one that was touched after it had been promised.

A crash may keep any part of what was written since the last sync, in any order: the first bad frame may have
whole ones behind it. Each group of frames begins with a memo that counts the frames synced before it; so a
memo behind the bad frame that counts it as synced proves that no crash did this. Works on hostile bytes in
bounded time. Never calls bytes torn that a later memo vouches for. Pure.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from gatebook.errors import Damaged
from gatebook.ledger.segment import CLEAR, MAX_FRAME_ENTRIES, MEMO, SEALED, Place

_HEAD: Final = struct.Struct(">4sIQII")
_EFFORT: Final = 4  # times the segment's length may be hashed in search of frames


class Intact(NamedTuple):
    """A whole frame at an offset where none was expected."""

    magic: bytes
    number: int
    first_index: int
    n: int


def intact_frames(view: memoryview, offset: int) -> Iterator[Intact]:
    """All whole frames that begin behind `offset`, wherever. Raises Damaged when the search takes too long."""
    data = bytes(view[offset:])
    effort = _EFFORT * len(view) + (1 << 20)
    at = data.find(b"GBF")
    while at >= 0:
        length = _length(data, at)
        if length is not None:
            effort -= length
            if effort < 0:
                raise Damaged("the segment's end is made of pieces of frames, as no crash leaves it")
            if hashlib.sha256(data[at : at + length - 32]).digest() == data[at + length - 32 : at + length]:
                yield Intact(*_HEAD.unpack_from(data, at)[:4])
        at = data.find(b"GBF", at + 1)


def _length(data: bytes, at: int) -> int | None:
    """How long the frame would be that begins here; None when it cannot be one."""
    if len(data) - at < _HEAD.size + 32:
        return None
    magic, _, _, n, length = _HEAD.unpack_from(data, at)
    if magic not in (SEALED, CLEAR, MEMO):
        return None
    whole = _HEAD.size + length + 32 + ((16 + 32 * n) if magic == SEALED else 0)
    return whole if whole <= len(data) - at else None


def torn_from(view: memoryview, place: Place) -> int:
    """The index of the last entry that was torn off with the bad frame at `place`; at least its first.

    Raises Damaged when a whole memo behind it says that it had been synced.
    """
    last = place.first_index
    if len(view) - place.offset >= _HEAD.size:
        magic, number, first, n, _ = _HEAD.unpack_from(view, place.offset)
        if magic in (SEALED, CLEAR) and (number, first) == (place.number, place.first_index):
            last = max(last, _last(Intact(magic, number, first, n), place))
    for frame in intact_frames(view, place.offset + 1):
        if frame.magic == MEMO and frame.n > place.number:
            raise Damaged(f"frame {place.number} at byte {place.offset} had been synced, and is damaged now")
        if frame.magic != MEMO:
            last = max(last, _last(frame, place))
    return last


def _last(frame: Intact, place: Place) -> int:
    """What the frame claims to end with, where that can be: torn heads claim anything."""
    ahead = frame.first_index - place.first_index
    if 0 <= ahead <= MAX_FRAME_ENTRIES and 1 <= frame.n <= MAX_FRAME_ENTRIES:
        return frame.first_index + frame.n - 1
    return place.first_index
