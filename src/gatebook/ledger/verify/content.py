"""Level 2: what the frames hold, decrypted, each record against its commitment; and what the records say.

Knows no record: a `Reading` of the caller's judges each one and what they say together. In: frames in the
order of the log, the key store and a reader's key. Never gives a record to `Reading` that its commitment does
not name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from gatebook.errors import Damaged, LedgerError, Tampered
from gatebook.ledger import keys, segment
from gatebook.ledger.deks import Deks
from gatebook.ledger.entry import Entry, parse
from gatebook.ledger.read import unwrap
from gatebook.ledger.segment import NO_DEK, Clear, Header, Sealed
from gatebook.ledger.verify.report import Remark, Report, entries


class Reading(Protocol):
    """Judges records, in the log's order, with the entries between them.

    `hole`: what is there may have been records, and is not known; every record that is not given is in one.
    """

    def record(self, index: int, data: bytes) -> Remark | None: ...
    def entry(self, index: int, entry: Entry) -> list[Remark]: ...
    def hole(self, first: int, end: int) -> None: ...
    def summary(self) -> list[str]: ...


class Content:
    """`store.Contents` with a key."""

    def __init__(self, deks: Path, reader: keys.Reader, reading: Reading | None, report: Report) -> None:
        self._deks = Deks(deks)
        self._reader = reader
        self._reading = reading
        self._report = report
        self._head = b""
        self._keys: segment.Keys | None = None
        self._dek_id = NO_DEK
        self.unreadable: dict[bytes, tuple[int, int, str]] = {}  # dek id -> first, end, why

    def begin(self, header: Header, head: bytes) -> None:
        self._head, self._keys, self._dek_id = head, None, header.dek_id
        if header.dek_id == NO_DEK:
            return
        try:
            self._keys = unwrap(self._deks, header.dek_id, self._reader)
        except LedgerError as error:
            self.unreadable[header.dek_id] = (header.first_index, header.first_index, str(error))

    def frame(self, path: Path, frame: Sealed | Clear) -> None:
        if isinstance(frame, Clear):
            self._clear(frame)
            return
        first, end = frame.place.first_index, frame.place.first_index + len(frame.commitments)
        if self._keys is None:
            self._no_key(path, first, end)
            return
        try:
            records = segment.open_frame(self._head, self._keys, frame)
        except Tampered as error:
            place = f"segments/{path.name}, byte {frame.place.offset}"
            what = f"frame {frame.place.number}: {str(error).partition(': ')[2]}"
            self._report.found(2, "tampered", place, what, f"the records of {entries(first, end)} are not there")
            self.hole(first, end)
            return
        self._report.records += len(records)
        if self._reading is not None:
            for index, data in enumerate(records, first):
                self._remark(index, self._reading.record(index, data))

    def _no_key(self, path: Path, first: int, end: int) -> None:
        if self._dek_id == NO_DEK:
            place, meaning = f"segments/{path.name}", f"the records of {entries(first, end)} cannot be read"
            self._report.found(2, "tampered", place, "holds records, but names no key", meaning)
        else:
            begun, _, why = self.unreadable[self._dek_id]
            self.unreadable[self._dek_id] = (begun, end, why)
        self.hole(first, end)

    def _clear(self, frame: Clear) -> None:
        if self._reading is None:
            return
        for index, entry in enumerate(frame.entries, frame.place.first_index):
            try:
                parsed = parse(entry)
            except Damaged:
                continue  # `history` says so
            for remark in self._reading.entry(index, parsed):
                self._remark(index, remark)

    def _remark(self, index: int, remark: Remark | None) -> None:
        if remark is not None:
            self._report.found(2, remark.kind, f"entry {index}", remark.what, remark.consequence)

    def hole(self, first: int, end: int) -> None:
        if self._reading is not None:
            self._reading.hole(first, end)
