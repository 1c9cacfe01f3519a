"""What is in a frame of a segment that was written anew: each record with its salt, or what stands in its place.

    n times u32_le length | n salts of 32 | the records          bit 31 of a length: the record was removed

Derived salts would give a removed record's salt to every reader of the others, so here each stands beside its
record, and that one nowhere. In the place of a removed record lie words for people, to which nothing commits but
the file's own hash. Checking records against commitments is `segment`'s. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

MAX_WHY_BYTES: Final = 2 << 10
_REMOVED = 1 << 31
_NO_SALT = bytes(32)


class Opened(NamedTuple):
    """A record, and the salt that its commitment was made with."""

    salt: bytes
    record: bytes


class Removed(NamedTuple):
    """In a removed record's place: when and why, in words."""

    why: str


def pack(contents: Sequence[Opened | Removed]) -> bytes:
    """Raises ValueError when too much is said of a removed record."""
    said = [one.why.encode() if isinstance(one, Removed) else one.record for one in contents]
    marks = [_REMOVED if isinstance(one, Removed) else 0 for one in contents]
    if any(mark and len(data) > MAX_WHY_BYTES for mark, data in zip(marks, said, strict=True)):
        raise ValueError(f"more than {MAX_WHY_BYTES} bytes are said of a removed record")
    lengths = [mark | len(data) for mark, data in zip(marks, said, strict=True)]
    salts = [_NO_SALT if isinstance(one, Removed) else one.salt for one in contents]
    return struct.pack(f"<{len(contents)}I", *lengths) + b"".join(salts) + b"".join(said)


def unpack(data: bytes, n: int) -> list[Opened | Removed]:
    """Raises ValueError on anything that `pack` does not give."""
    at = 36 * n
    if len(data) < at:
        raise ValueError(f"{len(data)} bytes hold no {n} lengths and salts")
    contents: list[Opened | Removed] = []
    for number, length in enumerate(struct.unpack_from(f"<{n}I", data)):
        salt = data[4 * n + 32 * number : 4 * n + 32 * number + 32]
        end = at + (length & ~_REMOVED)
        if not length & _REMOVED:
            contents.append(Opened(salt, data[at:end]))
        elif salt != _NO_SALT or end - at > MAX_WHY_BYTES:
            raise ValueError("a removed record has left something")
        else:
            contents.append(Removed(data[at:end].decode()))
        at = end
    if at != len(data):
        raise ValueError(f"lengths add up to {at} bytes; there are {len(data)}")
    return contents
