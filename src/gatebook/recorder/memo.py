"""What the recorder must still know after kill -9, kept in the ledger's memos beside the frames.

A memo is durable exactly when the frame behind it is. So a log line and the cursor that says it was read
become durable together, and each line counts once. Memos are clear: they hold positions and process ids,
never anything of a request. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

Offsets = dict[int, int]  # sequence number of a log file -> bytes read of it


class Cursor(msgspec.Struct, array_like=True):
    """Positions in the gateway's logs. `epoch` names the log folder's life: another one, other files."""

    epoch: str
    access: Offsets
    error: Offsets


class Change(msgspec.Struct, array_like=True, omit_defaults=True, tag="c"):
    """Goes with one frame. `opened`: [worker, position in the frame, count] runs; `closed`: indices."""

    opened: list[tuple[int, int, int]] = []
    closed: list[int] = []
    cursor: Cursor | None = None


class Snapshot(msgspec.Struct, array_like=True, tag="s"):
    """Goes with a segment's first frame: everything, as [worker, index, count] runs."""

    open: list[tuple[int, int, int]]
    cursor: Cursor | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Change | Snapshot)


def encode(memo: Change | Snapshot) -> bytes:
    return _encoder.encode(memo)


def runs(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(position, worker) pairs in order of position -> [worker, first position, count] runs."""
    out: list[tuple[int, int, int]] = []
    for position, worker in pairs:
        if out and out[-1][0] == worker and out[-1][1] + out[-1][2] == position:
            out[-1] = (worker, out[-1][1], out[-1][2] + 1)
        else:
            out.append((worker, position, 1))
    return out


@dataclass
class Restored:
    """What memos add up to: open decisions (index -> gateway worker) and where reading the logs goes on."""

    open: dict[int, int] = field(default_factory=dict)
    cursor: Cursor | None = None


def restore(memos: Sequence[tuple[int, bytes]]) -> Restored:
    """Replay (first index of the frame behind it, memo) pairs, a snapshot first."""
    state = Restored()
    for first, data in memos:
        memo = _decoder.decode(data)
        if isinstance(memo, Snapshot):
            state = Restored({}, memo.cursor)
            for worker, index, count in memo.open:
                state.open.update(dict.fromkeys(range(index, index + count), worker))
            continue
        for worker, position, count in memo.opened:
            start = first + position
            state.open.update(dict.fromkeys(range(start, start + count), worker))
        for index in memo.closed:
            state.open.pop(index, None)
        if memo.cursor is not None:
            state.cursor = memo.cursor
    return state
