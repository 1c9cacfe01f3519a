"""Recomputes all that a bundle holds, from the signed root down: what is proven, what is missing, what it says.

In: a bundle's members, its manifest's claims, a checkpoint that is signed. Out: findings as `gatebook verify` has
them, and counts for people. Makes the report of a bundle that is being written, and judges one that was handed
over, by the same code. Never counts a record that the tree does not commit to; holds one block at a time.
"""

from __future__ import annotations

import base64
import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Final, NamedTuple

from gatebook.access.pairing import Pairing
from gatebook.errors import Damaged, LedgerError, Tampered
from gatebook.evidence.archive import Members
from gatebook.evidence.manifest import NAME as MANIFEST
from gatebook.evidence.manifest import Manifest
from gatebook.evidence.tally import Tally
from gatebook.evidence.tree import SignedTree, blocks_in, bundle_name
from gatebook.ledger.entry import Erase, Heartbeat, Loss, Segment, parse
from gatebook.ledger.note import Checkpoint, decode64
from gatebook.ledger.proof import MAX_RECORD_BYTES, SALT_BYTES, record_entry
from gatebook.ledger.recovery import chain
from gatebook.ledger.tree import TILE_WIDTH
from gatebook.ledger.verify.history import History, is_record
from gatebook.ledger.verify.report import Kind, Report, entries

RECORDS: Final = "records.jsonl"
ONE_RECORD, SEGMENT_KEY = 2, 3  # Erase.kind
MAX_LINE_BYTES: Final = MAX_RECORD_BYTES + 256
MAX_CONFIGURATION_BYTES: Final = 16 << 20

_LINE = re.compile(rb'\{"index":(0|[1-9][0-9]{0,18}),"salt":"([A-Za-z0-9+/=]{44})","record":(.+)\}\n', re.S)
_CONFIGURATION = re.compile(r"configurations/([0-9a-f]{64})\.json")

Progress = Callable[[int, int], None]


class Line(NamedTuple):
    """One record that is disclosed."""

    number: int
    salt: bytes
    record: bytes


def encode_line(number: int, salt: bytes, record: bytes) -> bytes:
    """The record stands in it byte for byte. Raises ValueError for one that is more than a line."""
    if b"\n" in record:
        raise ValueError(f"entry {number}: its record is more than one line")
    return b'{"index":%d,"salt":"%s","record":%s}\n' % (number, base64.b64encode(salt), record)


def parse_line(data: bytes) -> Line:
    """Raises Damaged."""
    found = _LINE.fullmatch(data)
    if found is None:
        raise Damaged(f"{RECORDS}: not a line of index, salt and record: {data[:80]!r}")
    salt = decode64(found[2].decode())
    if len(salt) != SALT_BYTES:
        raise Damaged(f"{RECORDS}: a salt of {len(salt)} bytes; expected {SALT_BYTES}")
    return Line(int(found[1]), salt, found[3])


@dataclass
class Examined:
    """`kinds`: entries of the range by type. `disclosed`: proven records; `late`: those behind the range.
    `withheld`: records of the range that are not disclosed; `erased`: of those, explained by an ERASE entry."""

    report: Report
    tally: Tally
    kinds: Counter[str] = field(default_factory=Counter)
    disclosed: int = 0
    late: int = 0
    withheld: int = 0
    erased: int = 0
    losses: list[tuple[int, Loss]] = field(default_factory=list)
    erasures: list[tuple[int, Erase]] = field(default_factory=list)
    before_us: int | None = None  # times of the heartbeats next to the range
    after_us: int | None = None
    configurations: dict[str, int] = field(default_factory=dict)  # digest -> bytes


def examine(members: Members, claims: Manifest, checkpoint: Checkpoint, progress: Progress) -> Examined:
    """All but the report, the manifest and the key. What is wrong is in the report; raises nothing."""
    return _Examination(members, claims, checkpoint, progress).run()


class _Examination:
    def __init__(self, members: Members, claims: Manifest, checkpoint: Checkpoint, progress: Progress) -> None:
        self._members = members
        self._claims = claims
        self._checkpoint = checkpoint
        self._progress = progress
        self._tree = SignedTree(members, checkpoint)
        self._report = Report(checkpoint=checkpoint)
        self._made = Examined(self._report, Tally(checkpoint.origin, claims.since_us, claims.until_us))
        self._history = History(self._report)
        self._history.lost()  # what came before the range is not known
        self._pairing = None if claims.filters else Pairing()
        self._missing: list[tuple[int, int]] = []  # runs of records that are not disclosed
        self._commitments = bytearray()  # of those, 16 bytes each
        self._numbers = array("Q")
        self._segments: list[Segment] = []

    def run(self) -> Examined:
        for level in (0, 1, 2):
            self._report.tried(level)
        try:
            self._tree.check_root()
        except LedgerError as error:
            self._wrong(error, "log/tile", "nothing in the bundle is proven")
            return self._made
        try:
            with self._members.open(RECORDS) as stream:
                self._walk(_lines(stream))
        except LedgerError as error:
            self._wrong(error, RECORDS, "records may be missing from here on", level=2)
        self._made.tally.finish()
        self._missed()
        self._check_configurations()
        self._report.records = self._made.disclosed
        if self._pairing is not None:
            for text in self._pairing.summary():
                self._report.note(text)
        return self._made

    def _wrong(self, error: LedgerError, place: str, meaning: str, level: int = 0) -> None:
        kind: Kind = "tampered" if isinstance(error, Tampered) else "damaged"
        said = str(error)
        name, colon, rest = said.partition(": ")
        if colon and (name in self._members or name.startswith("log/")):
            place, said = name, rest
        self._report.found(level, kind, place, said, meaning)

    # -- block by block -------------------------------------------------------------------------------------
    def _walk(self, lines: Iterator[Line]) -> None:
        claims, last = self._claims, -1
        line = next(lines, None)
        for number, behind in self._blocks():
            low, high = number * TILE_WIDTH, min(behind * TILE_WIDTH, self._tree.size)
            while line is not None and line.number < low:
                line = self._alone(line, lines)
            inside = self._entries(number, low, high)
            for index, entry in enumerate(inside, low):
                found = None
                if line is not None and line.number == index:
                    found, last = line, index
                    line = next(lines, None)
                    if line is not None and line.number <= last:
                        raise Damaged(f"{RECORDS}: entry {line.number} comes behind entry {last}")
                self._entry(index, entry, found)
            if not inside:
                while line is not None and line.number < high:
                    line = self._alone(line, lines)
            self._progress(max(0, min(high, claims.end) - claims.first), claims.end - claims.first)
        while line is not None:
            line = self._alone(line, lines)

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """Runs of blocks, first and behind the last: each that is there, alone; those of the range that are not,
        as one, since what is claimed may be longer than anybody could walk."""
        at, end = self._claims.first // TILE_WIDTH, -(-self._claims.end // TILE_WIDTH)
        if self._claims.end <= self._claims.first:
            end = at
        for number in blocks_in(self._members, self._tree.size):
            if at < min(number, end):
                yield at, min(number, end)
            yield number, number + 1
            at = max(at, number + 1)
        if at < end:
            yield at, end

    def _entries(self, number: int, low: int, high: int) -> list[bytes]:
        try:
            return self._tree.entries(number)
        except LedgerError as error:
            self._wrong(error, bundle_name(number, self._tree.size), f"{entries(low, high)} are not proven")
            self._history.lost()
            if self._pairing is not None:
                self._pairing.hole(low, high)
            return []

    def _alone(self, line: Line, lines: Iterator[Line]) -> Line | None:
        what = f"entry {line.number} is disclosed, but the entry itself is not in the bundle"
        self._report.found(2, "damaged", RECORDS, what, "that record is not proven")
        following = next(lines, None)
        if following is not None and following.number <= line.number:
            raise Damaged(f"{RECORDS}: entry {following.number} comes behind entry {line.number}")
        return following

    def _entry(self, index: int, entry: bytes, line: Line | None) -> None:
        inside = self._claims.first <= index < self._claims.end
        if line is not None:
            self._record(index, entry, line, inside)
        elif is_record(entry):
            if inside:
                self._withheld(index, entry)
        else:
            self._other(index, entry, inside)
        if inside and is_record(entry):
            self._made.kinds["Record"] += 1

    def _record(self, index: int, entry: bytes, line: Line, inside: bool) -> None:
        if record_entry(line.salt, line.record) != entry:
            what = "is not the record that the log holds there: it, or its salt, was changed"
            self._report.found(2, "tampered", f"{RECORDS}, entry {index}", what, "what it says is not evidence")
            if inside and self._pairing is not None:
                self._pairing.hole(index, index + 1)
            return
        self._made.disclosed += 1
        self._made.late += not inside
        self._made.tally.add(index, line.record)
        if self._pairing is not None:
            remark = self._pairing.record(index, line.record)
            if remark is not None:
                self._report.found(2, remark.kind, f"entry {index}", remark.what, remark.consequence)

    def _withheld(self, index: int, entry: bytes) -> None:
        self._made.withheld += 1
        if self._claims.filters:
            return
        if self._pairing is not None:
            self._pairing.hole(index, index + 1)
        self._numbers.append(index)
        self._commitments += entry[4:20]

    def _other(self, index: int, entry: bytes, inside: bool) -> None:
        try:
            parsed = parse(entry)
        except Damaged as error:
            if inside:
                self._report.found(1, "damaged", f"entry {index}", str(error), "what it says cannot be told")
            return
        beats = isinstance(parsed, Heartbeat) and index in (self._claims.before, self._claims.after)
        if inside or beats:
            self._history.entry(index, entry)
        if inside:
            self._made.kinds[type(parsed).__name__] += 1
            for remark in self._pairing.entry(index, parsed) if self._pairing is not None else ():
                self._report.found(2, remark.kind, f"entry {index}", remark.what, remark.consequence)
        match parsed:
            case Heartbeat() if index == self._claims.before:
                self._made.before_us = parsed.t_us
            case Heartbeat() if index == self._claims.after:
                self._made.after_us = parsed.t_us
            case Loss() if inside:
                self._made.losses.append((index, parsed))
            case Erase():
                self._made.erasures.append((index, parsed))
            case Segment():
                self._segments.append(parsed)
            case _:
                pass

    # -- what is not there ----------------------------------------------------------------------------------
    def _missed(self) -> None:
        destroyed = [erase for _, erase in self._made.erasures if erase.kind == SEGMENT_KEY]
        keys, files = {each.object_id for each in destroyed}, {each.old_file_sha256 for each in destroyed}
        one = [erase for _, erase in self._made.erasures if erase.kind == ONE_RECORD]
        erased = {each.object_id for each in one}
        anew = {each.old_file_sha256: each.new_file_sha256 for each in one}
        # A segment's file as it was closed, or as it was written anew without some records.
        gone = [
            each
            for each in self._segments
            if each.dek_id in keys or not files.isdisjoint(chain(each.file_sha256, anew))
        ]
        runs: list[list[int]] = []
        for at, index in enumerate(self._numbers):
            explained = bytes(self._commitments[16 * at : 16 * at + 16]) in erased or any(
                each.first_index <= index < each.first_index + each.entries for each in gone
            )
            if explained:
                self._made.erased += 1
            elif runs and runs[-1][1] == index:
                runs[-1][1] = index + 1
            else:
                runs.append([index, index + 1])
        if self._made.erased:
            self._report.note(f"{self._made.erased} records were erased on purpose: ERASE entries say so")
        for first, end in runs:
            meaning = "what they say is not in the bundle, and no ERASE entry says why"
            self._report.found(2, "incomplete", entries(first, end), "are records without their content", meaning)
        self._check_edges()

    def _check_edges(self) -> None:
        claims, made = self._claims, self._made
        for edge, at, index in (
            ("before", made.before_us, claims.before),
            ("behind", made.after_us, claims.after),
        ):
            if index is not None and at is None:
                what = f"the heartbeat {edge} the range, entry {index}, is not in the bundle"
                self._report.found(1, "damaged", "log/tile/entries", what, "the range may be shorter than claimed")
        for at, index in ((made.before_us, claims.before), (made.after_us, claims.after)):
            if at is not None and claims.since_us <= at < claims.until_us:
                what = f"the heartbeat outside of the range, entry {index}, has a time within it"
                meaning = "records of the range are not in the bundle, and not counted"
                self._report.found(1, "incomplete", MANIFEST, what, meaning)

    def _check_configurations(self) -> None:
        for name in self._members.names():
            found = _CONFIGURATION.fullmatch(name)
            if found is None:
                continue
            try:
                data = self._members.read(name, MAX_CONFIGURATION_BYTES)
            except LedgerError as error:
                self._wrong(error, name, "what was in force cannot be told")
                continue
            if hashlib.sha256(data).hexdigest() != found[1]:
                what = "is not the configuration of that SHA-256"
                self._report.found(2, "tampered", name, what, "decisions name another one")
            self._made.configurations[found[1]] = len(data)
        named = self._made.tally.configurations
        lacking = sum(digest not in self._made.configurations for digest in named)
        if lacking:
            self._report.note(f"{lacking} configurations that decisions name are not in the bundle")


def _lines(stream: IO[bytes]) -> Iterator[Line]:
    while data := stream.readline(MAX_LINE_BYTES):
        yield parse_line(data)
