"""Level 2: what the frames hold, decrypted, each record against its commitment; and what the records say.

Knows no record: a `Reading` of the caller's judges each one and what they say together. In: frames in the
order of the log, the key store and a reader's key. Never gives a record to `Reading` that its commitment does
not name.
"""

from __future__ import annotations

import hashlib
from collections import deque
from pathlib import Path
from typing import Final, Protocol

from gatebook.errors import Damaged, LedgerError, Tampered
from gatebook.ledger import keys, segment
from gatebook.ledger.deks import Deks
from gatebook.ledger.entry import Entry, Erase, parse
from gatebook.ledger.explicit import Removed
from gatebook.ledger.read import unwrap
from gatebook.ledger.segment import NO_DEK, Clear, Header, Sealed
from gatebook.ledger.verify.report import Remark, Report, entries

_ORDER_WITHIN: Final = 64  # entries between an order and its ERASE entries, at most


class Reading(Protocol):
    """Judges records, in the log's order, with the entries between them.

    `hole`: what is there may have been records, and is not known; every record that is not given is in one.
    """

    def record(self, index: int, data: bytes) -> Remark | None: ...
    def removed(self, index: int) -> None: ...
    def erasure(self, index: int, kind: int, order: bytes) -> Remark | None: ...
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
        self.removed: dict[int, bytes] = {}  # index -> the first 16 bytes of its commitment
        self.opened: set[bytes] = set()  # DEK ids
        self._before: deque[bytes] = deque(maxlen=_ORDER_WITHIN)  # the last records
        self._blind_at = -_ORDER_WITHIN - 1  # the last entry that could not be read
        self.unreadable: dict[bytes, tuple[int, int, str]] = {}  # dek id -> first, end, why

    def begin(self, header: Header, head: bytes) -> None:
        self._head, self._keys, self._dek_id = head, None, header.dek_id
        if header.dek_id == NO_DEK:
            return
        try:
            self._keys = unwrap(self._deks, header.dek_id, self._reader)
            self.opened.add(header.dek_id)
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
        for index, data in enumerate(records, first):
            if isinstance(data, Removed):
                self._removed(index, frame.commitments[index - first])
                continue
            self._report.records += 1
            if self._reading is not None:
                self._remark(index, self._reading.record(index, data))
        self._before.extend(data for data in records[-_ORDER_WITHIN:] if isinstance(data, bytes))

    def _no_key(self, path: Path, first: int, end: int) -> None:
        if self._dek_id == NO_DEK:
            place, meaning = f"segments/{path.name}", f"the records of {entries(first, end)} cannot be read"
            self._report.found(2, "tampered", place, "holds records, but names no key", meaning)
        else:
            begun, _, why = self.unreadable[self._dek_id]
            self.unreadable[self._dek_id] = (begun, end, why)
        self.hole(first, end)

    def _removed(self, index: int, commitment: bytes) -> None:
        self.removed[index] = commitment[:16]  # it was no order: those are never removed
        if self._reading is not None:
            self._reading.removed(index)

    def _clear(self, frame: Clear) -> None:
        for index, entry in enumerate(frame.entries, frame.place.first_index):
            try:
                parsed = parse(entry)
            except Damaged:
                continue  # `history` says so
            if self._reading is not None:
                for remark in self._reading.entry(index, parsed):
                    self._remark(index, remark)
            if isinstance(parsed, Erase):
                self._order(index, parsed)

    def _order(self, index: int, erased: Erase) -> None:
        """An order comes right before what it orders, but for a segment's end and others of the same order."""
        wanted = erased.authorisation_sha256
        order = next((one for one in reversed(self._before) if hashlib.sha256(one).digest() == wanted), None)
        if order is not None:
            if self._reading is not None:
                self._remark(index, self._reading.erasure(index, erased.kind, order))
        elif self._blind_at >= index - _ORDER_WITHIN:
            self._report.note(f"entry {index}: who ordered this erasure cannot be read here")
        else:
            meaning = "nobody can tell on whose word it was erased"
            what = "ERASE names an order that is not on record before it"
            self._report.found(2, "incomplete", f"entry {index}", what, meaning)

    def _remark(self, index: int, remark: Remark | None) -> None:
        if remark is not None:
            self._report.found(2, remark.kind, f"entry {index}", remark.what, remark.consequence)

    def hole(self, first: int, end: int) -> None:
        self._blind_at = end - 1
        if self._reading is not None:
            self._reading.hole(first, end)
