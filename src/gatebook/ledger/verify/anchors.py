"""What lies in `log/anchors/`: time stamps of checkpoints, and the receipts that ANCHOR entries name.

    <size>.checkpoint, <size>.tsr     a checkpoint, and an authority's time stamp of its bytes (RFC 3161)
    <size>.cosigned                   a checkpoint with its witnesses' cosignatures

In: the folder, with suspicion; the ANCHOR entries; the log's own clock. Out: findings, and the newest stamp that
counts. A stamp proves that its entries were there by then; that they were not there long before, the log says
itself: each stamped checkpoint ends with a heartbeat, so a history that was written anew, and stamped anew,
contradicts itself. Never counts a stamp whose certificates the caller does not trust.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509

from gatebook.errors import Damaged, LedgerError
from gatebook.ledger import timestamp
from gatebook.ledger.entry import Anchor
from gatebook.ledger.lock import open_signed
from gatebook.ledger.note import MAX_NOTE_BYTES, Verifier, parse_checkpoint, parse_note
from gatebook.ledger.verify.public import Missing, read_file
from gatebook.ledger.verify.report import Kind, Report, entries

LEVEL: Final = 3
FOLDER: Final = "anchors"
MAX_DRIFT_US: Final = 600 * 1_000_000  # the recorder stores no stamp that is off by half of it
_ENDINGS: Final = {1: "tsr", 2: "cosigned"}  # by Anchor.kind
_NAME: Final = re.compile(r"(0|[1-9][0-9]{0,18})\.(tsr|cosigned)")
_KINDS: Final[dict[str, Kind]] = {"unreadable": "damaged", "wrong": "tampered"}

RootAt = Callable[[int], bytes | None]


class Against(NamedTuple):
    """The ledger, as far as it has been read: `size` entries are signed for."""

    size: int
    root_at: RootAt
    clock_at: Callable[[int], int | None]
    oldest_before: Callable[[int], int | None]  # since the stamp before
    known: Sequence[Verifier]


class Stamped(NamedTuple):
    size: int
    stamp: timestamp.Stamp
    counted: int  # how many stamps count, this one being the newest
    waited_us: int  # how long an entry waited for its first stamp at most, by the log's own times


class Anchors:
    """Make it before the checkpoint is read: what is listed then is no newer than that."""

    def __init__(self, log: Path, report: Report) -> None:
        self._folder = log / FOLDER
        self._report = report
        self._stamps: list[int] = []
        self.cosigned: list[int] = []
        self.is_there = self._folder.is_dir()
        try:
            names = [found for path in self._folder.iterdir() if (found := _NAME.fullmatch(path.name))]
        except OSError:
            names = []
        for found in names:
            (self._stamps if found[2] == "tsr" else self.cosigned).append(int(found[1]))
        self._stamps.sort()
        self.cosigned.sort()

    @property
    def stamps(self) -> list[int]:
        """The sizes that are stamped, in order."""
        return list(self._stamps)

    def read(self, name: str) -> bytes:
        """Raises Damaged."""
        return read_file(self._folder / name, max(MAX_NOTE_BYTES, timestamp.MAX_REPLY_BYTES))

    # -- the receipts that the log names ----------------------------------------------------------------------
    def check_receipts(self, named: Sequence[tuple[int, Anchor]]) -> None:
        """Each ANCHOR entry's receipt: there, and the one that was meant."""
        absent = 0
        for index, anchor in named:
            ending = _ENDINGS.get(anchor.kind)
            if ending is None:
                self._report.note(
                    f"entry {index}: anchored at size {anchor.size}; its receipt is not checked here"
                )
                continue
            name = f"{anchor.size}.{ending}"
            meaning = f"who vouched for {entries(0, anchor.size)} then cannot be shown any more"
            try:
                receipt = self.read(name)
            except Missing:
                absent += 1
                if self.is_there:
                    self._found("damaged", name, f"is missing, though entry {index} names it", meaning)
                continue
            except Damaged as error:
                self._found("damaged", name, str(error), meaning)
                continue
            if hashlib.sha256(receipt).digest() != anchor.receipt_sha256:
                self._found("tampered", name, f"is not the receipt that entry {index} names", meaning)
        if absent and not self.is_there:
            self._report.note(
                f"{absent} receipts of witnesses or time stamps are not here: log/{FOLDER}/ is missing"
            )

    # -- time stamps ------------------------------------------------------------------------------------------
    def check_stamps(self, authorities: Sequence[x509.Certificate], against: Against) -> Stamped | None:
        """The newest one that counts."""
        newest: Stamped | None = None
        oldest_us: list[int] = []  # what the entries since the last stamp that counts say
        untrusted: list[tuple[int, str]] = []
        for size in self._stamps:
            oldest_us += filter(None, [against.oldest_before(size)])
            try:
                stamp = self._check(size, authorities, against)
            except timestamp.Unusable as error:
                if error.kind == "untrusted":
                    untrusted.append((size, str(error)))
                else:
                    meaning = f"that {entries(0, size)} were there at that time is not proven"
                    self._found(_KINDS[error.kind], f"{size}.tsr", str(error), meaning)
                continue
            if stamp is not None:
                waited_us = max(0, stamp.time_us - min(oldest_us, default=stamp.time_us))
                before, longest_us = (newest.counted, newest.waited_us) if newest else (0, 0)
                newest = Stamped(size, stamp, before + 1, max(waited_us, longest_us))
                oldest_us = []
        if untrusted:
            size, why = untrusted[-1]
            self._report.note(
                f"{len(untrusted)} time stamps do not count: the one at size {size} {why}; were others given?"
            )
        return newest

    def _check(
        self, size: int, authorities: Sequence[x509.Certificate], against: Against
    ) -> timestamp.Stamp | None:
        """None when it proves nothing of this ledger. Raises timestamp.Unusable."""
        name = f"{size}.checkpoint"
        try:
            note = self.read(name)
            checkpoint = parse_checkpoint(parse_note(note).text)
            reply = self.read(f"{size}.tsr")
        except Damaged as error:
            self._found("damaged", name, str(error), "what was stamped cannot be told")
            return None
        stamp = timestamp.check(reply, note, authorities)
        if checkpoint.size > against.size:
            self._report.note(
                f"log/{FOLDER}/{name} is newer than the checkpoint that is here: copied later, or an older "
                f"checkpoint was put back"
            )
            return None
        root = against.root_at(checkpoint.size)
        if root is None:
            self._found("damaged", name, "the tiles that lead to its root are missing", "it was not compared")
        elif (checkpoint.origin, checkpoint.size) != (against.known[0].name, size):
            what = f"is of {checkpoint.origin} with {checkpoint.size} entries"
            self._found("tampered", name, what, "the stamp is not of what its name says")
        elif root != checkpoint.root:
            self._other_history(name, note, stamp, against)
        elif self._agrees(size, stamp, against.clock_at(size)):
            return stamp  # whoever signed it: the authority vouches that somebody knew this root then
        return None

    def _other_history(self, name: str, note: bytes, stamp: timestamp.Stamp, against: Against) -> None:
        what = "has another root for as many entries than this log"
        try:
            open_signed(note, *against.known)
        except LedgerError:
            self._found("damaged", name, f"{what}, and is not signed by it", "what was stamped cannot be told")
        else:
            meaning = f"two histories have been signed; the other one was there at {moment(stamp.time_us)}"
            self._found("tampered", name, what, meaning)

    def _agrees(self, size: int, stamp: timestamp.Stamp, clock_us: int | None) -> bool:
        if clock_us is None or abs(stamp.time_us - clock_us) <= MAX_DRIFT_US:
            return True
        what = f"is of {moment(stamp.time_us)}, but by the log itself it was {moment(clock_us)} then"
        meaning = (
            f"{entries(0, size)} were not written when they say: the log was written anew, or its clock was wrong"
        )
        self._found("tampered", f"{size}.tsr", what, meaning)
        return False

    def _found(self, kind: Kind, name: str, what: str, meaning: str) -> None:
        self._report.found(LEVEL, kind, f"log/{FOLDER}/{name}", what, meaning)


def moment(time_us: int) -> str:
    """`2026-11-24 20:26:01 UTC`; what no calendar holds stays a number."""
    try:
        found = datetime.datetime.fromtimestamp(time_us // 1_000_000, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return f"{time_us} us since 1970"
    return found.strftime("%Y-%m-%d %H:%M:%S UTC")
