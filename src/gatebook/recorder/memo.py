"""What the recorder must still know after kill -9, kept in the ledger's memos beside the frames.

A memo is durable exactly when the frame behind it is. So a log line and the cursor that says it was read
become durable together, and each line counts once. Memos are clear: they hold positions and processes, and of
a request nothing but a tag, which is a keyed hash of its id and says nothing without the key. Pure.
Specified in docs/decisions/0003-keyless-frames.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

TAG_BYTES: Final = 8

Offsets = dict[int, int]  # sequence number of a log file -> bytes read of it

Gap = tuple[
    int, int, int, int, int
]  # worker, connection, the number to come next; first and last that are missing


class Cursor(msgspec.Struct, array_like=True):
    """Positions in the gateway's logs. `epoch` names the log folder's life: another one, other files.

    `workers`: the highest number of a connection that has been read of, for each worker. `gaps`: where
    no line has come for some numbers yet.
    """

    epoch: str
    access: Offsets
    error: Offsets
    workers: dict[int, int] = {}
    gaps: list[Gap] = []


class Owed(NamedTuple):
    """A LOSS entry that has to be written: its fields."""

    producer: bytes
    first: int
    last: int
    reason: int


class Change(msgspec.Struct, array_like=True, tag="c"):
    """Goes with one frame. `opened`: [worker, position in the frame, count] runs, `tags` of all of them in order;
    `closed`: indices. `owed`: all that is owed from here on; None: what was before."""

    opened: list[tuple[int, int, int]] = []
    tags: bytes = b""
    closed: list[int] = []
    cursor: Cursor | None = None
    owed: list[Owed] | None = None


class Snapshot(msgspec.Struct, array_like=True, tag="s"):
    """Goes with a segment's first frame: everything, as [worker, index, count] runs, with `tags` likewise."""

    open: list[tuple[int, int, int]]
    tags: bytes
    cursor: Cursor | None = None
    owed: list[Owed] = []


class Open(NamedTuple):
    """A decision that waits for its outcome: which worker will write the line, and the tag of the request's id."""

    worker: int
    tag: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Change | Snapshot)


def encode(memo: Change | Snapshot) -> bytes:
    return _encoder.encode(memo)


def runs(positions: Iterable[tuple[int, Open]]) -> tuple[list[tuple[int, int, int]], bytes]:
    """(position, decision) in order of position -> [worker, first position, count] runs, and the tags."""
    out: list[tuple[int, int, int]] = []
    tags: list[bytes] = []
    for position, (worker, tag) in positions:
        tags.append(tag)
        if out and out[-1][0] == worker and out[-1][1] + out[-1][2] == position:
            out[-1] = (worker, out[-1][1], out[-1][2] + 1)
        else:
            out.append((worker, position, 1))
    return out, b"".join(tags)


def spread(runs: Iterable[tuple[int, int, int]], tags: bytes) -> Iterable[tuple[int, Open]]:
    """What `runs` was made of."""
    at = 0
    for worker, first, count in runs:
        for position in range(first, first + count):
            yield position, Open(worker, tags[at : at + TAG_BYTES])
            at += TAG_BYTES


@dataclass
class Restored:
    """What memos add up to: open decisions by index, where reading the logs goes on, and what is owed."""

    open: dict[int, Open] = field(default_factory=dict)
    cursor: Cursor | None = None
    owed: list[Owed] = field(default_factory=list)


def restore(memos: Sequence[tuple[int, bytes]]) -> Restored:
    """Replay (first index of the frame behind it, memo) pairs, a snapshot first. Raises ValueError (msgspec's)."""
    state = Restored()
    for first, data in memos:
        memo = _decoder.decode(data)
        if isinstance(memo, Snapshot):
            state = Restored(dict(spread(memo.open, memo.tags)), memo.cursor, memo.owed)
            continue
        for position, opened in spread(memo.opened, memo.tags):
            state.open[first + position] = opened
        for index in memo.closed:
            state.open.pop(index, None)
        if memo.cursor is not None:
            state.cursor = memo.cursor
        if memo.owed is not None:
            state.owed = memo.owed
    return state
