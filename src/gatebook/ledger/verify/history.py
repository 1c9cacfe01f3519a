"""What the entries that are no records say together: of segments, starts, heartbeats, gaps and erasures.

In: entries that `blocks` has found to be the signed ones, in order; and what `store` found the files to be.
A statement that a file contradicts makes the file wrong, not the statement. Silence that no entry explains
is a finding; what an entry explains is a note. Never judges an entry that the tree does not hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gatebook.errors import Damaged
from gatebook.ledger.entry import (
    CLOCK,
    RECORD_PREFIX,
    Anchor,
    Boot,
    Close,
    Entry,
    Erase,
    Heartbeat,
    Key,
    Loss,
    LossReason,
    Policy,
    Segment,
    parse,
)
from gatebook.ledger.tree import leaf_hash
from gatebook.ledger.verify.erased import Erasures
from gatebook.ledger.verify.report import Report, entries
from gatebook.ledger.verify.store import Hole, SegmentInfo

RECORD_BYTES = 36
MAX_SILENCE_US = 180_000_000  # heartbeats come every 60 s
CLOCK_TOLERANCE_US = 60_000_000
_OWN_LOSSES = frozenset({LossReason.TORN, LossReason.NOT_WRITTEN})
_LOSSES: dict[int, tuple[str, str]] = {
    LossReason.NO_LINE: (
        "the gateway's log has no line of them",
        "requests have no outcome, and perhaps no record",
    ),
    LossReason.UNREADABLE: ("lines of the gateway's log could not be read", "requests may have no outcome"),
    LossReason.NO_DECISION: ("let through, but not decided on in the log", "decisions are not in the log"),
}
_UNKNOWN_LOSS = ("missing, and why is not known to this version", "of its messages are not in the log")


@dataclass
class History:
    """Feed it each entry that is no record; then the times of sealed frames; at last `finish`."""

    report: Report
    stated: list[tuple[int, Segment]] = field(default_factory=list)
    boots: list[tuple[int, Boot]] = field(default_factory=list)
    erasures: Erasures = field(init=False)
    closed_at: int | None = None
    keys: list[tuple[int, Key]] = field(default_factory=list)
    anchors: list[tuple[int, Anchor]] = field(default_factory=list)
    _unreadable: int = 0  # lines that LOSS entries say so of, since the last heartbeat or start
    _sign_us: int | None = None  # the last sign of life since a start
    _previous: bytes | None = bytes(32)  # leaf hash of the last SEGMENT; None: it is not known
    _expected: int | None = 0  # the index behind what is stated
    broken: bool = False
    _watched: list[int] = field(default_factory=list)  # tree sizes, the smallest last
    _clocks: dict[int, int | None] = field(default_factory=dict)
    _clock_us: int | None = None
    _leasts: dict[int, int | None] = field(default_factory=dict)
    _least_us: int | None = None  # since the last watched size

    def watch(self, sizes: Iterable[int]) -> None:
        """Call before anything else: what `clock_at` will be asked."""
        self._watched = sorted(sizes, reverse=True)

    def clock_at(self, size: int) -> int | None:
        """What time it was by the log itself when it had so many entries; None where it does not say."""
        return self._clocks.get(size, self._clock_us)

    def __post_init__(self) -> None:
        self.erasures = Erasures(self.report)

    def oldest_before(self, size: int) -> int | None:
        """The earliest time that the log states between the watched size before this one and this one."""
        return self._leasts.get(size, self._least_us)

    def entry(self, index: int, data: bytes) -> None:
        """One entry that is no record; `data` is what the tree commits to."""
        try:
            parsed = parse(data)
        except Damaged as error:
            self.report.found(1, "damaged", f"entry {index}", str(error), "what it says cannot be told")
            return
        self._take(index, parsed, data)

    def _take(self, index: int, parsed: Entry, data: bytes) -> None:
        if self.closed_at is not None:
            meaning = "the log had been closed"
            self.report.found(1, "tampered", f"entry {index}", f"comes after CLOSE at {self.closed_at}", meaning)
        match parsed:
            case Segment():
                self._segment(index, parsed, data)
            case Boot():
                self.boots.append((index, parsed))
                self._sign_us = None
                self._unreadable = 0
                self.report.account.boot(parsed)
                if not parsed.clean:
                    self.report.note(f"entry {index}: started again after a stop that was not clean")
            case Heartbeat():
                self.alive(index, parsed.t_us, is_heartbeat=True)
                self.report.account.heartbeats += 1
                self.report.account.last_us = parsed.t_us
                lost, self._unreadable = parsed.lost - self._unreadable, 0
                if lost > 0:
                    what = f"{lost} lines of the gateway's log could not be read, and no LOSS says so"
                    self.report.found(1, "incomplete", f"entry {index}", what, "as many requests have no outcome")
            case Loss():
                self._loss(index, parsed)
            case Erase():
                self.erasures.signed.append((index, parsed))
            case Anchor():
                self.anchors.append((index, parsed))
            case Policy():
                self.report.account.policies += 1
            case Key():
                self.keys.append((index, parsed))
            case Close():
                self.closed_at = index
            case _:
                pass

    def _segment(self, index: int, stated: Segment, data: bytes) -> None:
        if self._previous is not None and stated.previous != self._previous:
            what, meaning = (
                "SEGMENT does not continue the one before",
                "segments may have been left out of the log",
            )
            self.report.found(1, "tampered", f"entry {index}", what, meaning)
        end, expected = stated.first_index + stated.entries, self._expected
        if end != index or expected not in (None, stated.first_index):
            what = f"SEGMENT states {entries(stated.first_index, end)}; expected {entries(expected or 0, index)}"
            self.report.found(1, "tampered", f"entry {index}", what, "segments do not cover the log without a gap")
        self.stated.append((index, stated))
        self._previous, self._expected = leaf_hash(data), index

    def lost(self) -> None:
        """Entries come next that nobody knows: what they may have stated is not held against the rest."""
        self._previous = self._expected = self._sign_us = self._clock_us = None
        self.broken = True

    def _loss(self, index: int, loss: Loss) -> None:
        if (loss.producer, loss.reason) == (CLOCK, LossReason.CLOCK_SET):
            self._clock_set(index, loss)
            return
        self.report.account.loss(loss)
        count = loss.last_seq - loss.first_seq + 1
        if loss.reason in _OWN_LOSSES:
            self.report.note(f"entry {index}: LOSS of {count} entries that nobody had been told were written")
            return
        if loss.reason == LossReason.UNREADABLE:
            self._unreadable += count
        what, meaning = _LOSSES.get(loss.reason, _UNKNOWN_LOSS)
        where = f"LOSS: producer {loss.producer.hex()}, {loss.first_seq} to {loss.last_seq}"
        self.report.found(1, "incomplete", f"entry {index}", f"{where}: {what}", f"{count} {meaning}")

    def _clock_set(self, index: int, loss: Loss) -> None:
        """Until the clock was set time has passed as ever; what it has left out was no silence."""
        self.alive(index, loss.first_seq * 1_000_000)
        seconds = loss.last_seq - loss.first_seq
        self.report.note(f"entry {index}: the clock was set ahead by {seconds} s; the order of entries holds")
        self._sign_us = self._clock_us = loss.last_seq * 1_000_000

    def alive(self, index: int, t_us: int, *, is_heartbeat: bool = False) -> None:
        """The log's clock at that entry. Only heartbeats are signs of life; records show that time passed."""
        while self._watched and self._watched[-1] <= index:
            size = self._watched.pop()
            self._clocks[size], self._leasts[size], self._least_us = self._clock_us, self._least_us, None
        self._clock_us = t_us
        self._least_us = t_us if self._least_us is None else min(t_us, self._least_us)
        last, account = self._sign_us, self.report.account
        if last is not None:
            account.silence_us = max(account.silence_us, t_us - last)
        if last is not None and t_us - last > MAX_SILENCE_US:
            seconds = (t_us - last) // 1_000_000
            meaning = "nothing vouches that nothing happened in that time"
            self.report.found(
                1, "incomplete", f"entry {index}", f"no heartbeat for {seconds} s before it", meaning
            )
            self._sign_us = t_us
        elif last is not None and last - t_us > CLOCK_TOLERANCE_US:
            seconds = (last - t_us) // 1_000_000
            self.report.note(f"entry {index}: the clock went back by {seconds} s; the order of entries holds")
            self._sign_us = t_us
        if is_heartbeat or last is None:
            self._sign_us = t_us

    # -- the files against what is stated of them -----------------------------------------------------------
    def finish(self, found: list[SegmentInfo], holes: list[Hole], explained: list[int], size: int) -> None:
        """`found`, `holes` and `explained` are what the store has, `size` what is signed for."""
        by_id = {info.header.segment_id: info for info in found}
        missing: list[tuple[int, int]] = []
        for _, stated in self.stated:
            info = by_id.pop(stated.segment_id, None)
            if info is not None:
                self._compare(stated, info)
                continue
            end = stated.first_index + stated.entries
            missing.append((stated.first_index, end))
            self._not_there(stated, end)
        last = self.stated[-1][0] if self.stated else 0
        for info in by_id.values():
            if info.end <= size and info.header.first_index != last and not self.broken:
                what = "is a segment that the log does not know"
                self.report.found(
                    1, "tampered", f"segments/{info.path.name}", what, "what it holds is not the log's"
                )
        self.erasures.finish((stated for _, stated in self.stated), broken=self.broken)
        for hole in holes:
            self._unexplained(hole, missing, explained)

    def _compare(self, stated: Segment, info: SegmentInfo) -> None:
        if not info.whole:
            return  # the frames that are wrong have been named
        created = info.header.created_us
        times = info.times or (created, created)
        differ = [
            name
            for name, says, has in (
                ("first entry", stated.first_index, info.header.first_index),
                ("number of entries", stated.entries, info.end - info.header.first_index),
                ("times", (stated.t_min_us, stated.t_max_us), times),
                ("key", stated.dek_id, info.header.dek_id),
                ("length", stated.file_bytes, info.length),
                ("SHA-256", stated.file_sha256, info.sha256),
            )
            if says != has
        ]
        explained = self.erasures.explains(stated, info)
        if differ and not (explained and {"key", "length", "SHA-256"}.issuperset(differ)):
            what = f"is not the file that was closed: {', '.join(differ)} changed"
            self.report.found(1, "tampered", f"segments/{info.path.name}", what, "it was written to since")

    def _not_there(self, stated: Segment, end: int) -> None:
        name = f"segments/{stated.first_index:016x}-{stated.segment_id[:4].hex()}.gbseg"
        held = entries(stated.first_index, end)
        if self.erasures.missing(stated):
            return
        self.report.found(1, "damaged", name, "is missing", f"the records of {held} cannot be read")

    def _unexplained(self, hole: Hole, missing: list[tuple[int, int]], explained: list[int]) -> None:
        """A hole is explained by a segment that was named as missing, or by a finding about what is in it."""
        at = hole.first
        for first, end in sorted(missing):
            if first <= at < end:
                at = end
        if at < hole.end and not any(at <= index < hole.end for index in explained):
            where = entries(at, hole.end)
            self.report.found(
                1, "damaged", "segments", f"no segment holds {where}", "those records cannot be read"
            )


def is_record(entry: bytes) -> bool:
    return len(entry) == RECORD_BYTES and entry[:4] == RECORD_PREFIX


def all_records(inside: list[bytes]) -> bool:
    """`is_record` of each, without looking at each: the usual block holds nothing else."""
    if set(map(len, inside)) != {RECORD_BYTES}:
        return False
    joined, n = b"".join(inside), len(inside)
    return all(joined[at::RECORD_BYTES] == RECORD_PREFIX[at : at + 1] * n for at in range(len(RECORD_PREFIX)))
