"""Orders about keys, and whom the recorder seals for: the log's key rotates, former ones retire, DEKs get readers.

    keys.rotate {actor, reason}             a new log key, KEY by the old one, a checkpoint by both
    keys.retire {actor, reason}             former log keys sign no more, and their private halves are deleted
    keys.wrap   {dek id: base64 of reader 32 || wrapped 80, …}      each is added to that DEK
    keys.unwrap {reader, deks: [dek id, …]}                         that reader's part is taken from these DEKs

What is done is on record before it has any effect. Wrapping for a reader needs a reader's private key, so that is
the command's to do; here it is only stored. Never leaves a DEK without a reader.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from gatebook import record
from gatebook.errors import EnvironmentFault, GatebookError, LedgerError, UsageError
from gatebook.ledger import logkeys
from gatebook.ledger.deks import MAX_RECIPIENTS, ROW_BYTES, Deks
from gatebook.ledger.files import Files
from gatebook.ledger.keys import Recipient, Wrapped, named_recipients
from gatebook.ledger.note import Signer
from gatebook.recorder.orders import ORDERS, Hands, Parameters

MAX_DEKS: Final = 50  # an order; each is synced, and nobody else gets a turn meanwhile


class Readers:
    """Whom new segments are for: the files in keys/, looked at for each. `tell` hears of what changed."""

    def __init__(self, keys: Path, tell: Callable[[str, dict[str, Any]], None]) -> None:
        self._keys = keys
        self._tell = tell
        self._last: dict[str, Recipient] = {}
        self._why: str | None = None

    def __call__(self) -> Sequence[Recipient]:
        """Raises EnvironmentFault or Damaged the first time only: after that the last good ones serve."""
        try:
            found = named_recipients(self._keys)
        except (GatebookError, OSError) as error:
            if not self._last:
                raise
            if self._why != str(error):
                self._why = str(error)
                self._tell("recorder.readers_kept", {"why": self._why, "readers": self.named()})
            return list(self._last.values())
        changed = bool(self._last) and {one.id for one in found.values()} != {
            one.id for one in self._last.values()
        }
        self._last = found
        if changed or self._why is not None:
            self._tell("recorder.readers", {"readers": self.named()})
        self._why = None
        return list(found.values())

    def named(self) -> dict[str, str]:
        return {name: one.id.hex()[:16] for name, one in self._last.items()}


def rotate(hands: Hands, parameters: Parameters) -> dict[str, Any]:
    folder = hands.paths.keys
    old = logkeys.load_log_keys(folder).signer
    new = Signer.generate(old.name, os.urandom(32))
    _record(hands, "keys.rotate", parameters, old=old.vkey, new=new.vkey)
    # A crash here: on record, but not done; the old key is in force.
    logkeys.install(Files(), folder, new)
    # A crash from here on: the new key is in force, and the next start writes what is missing.
    index = hands.writer.hand_over(new)
    return {"index": index, "old": old.vkey, "new": new.vkey, "overlap_s": logkeys.OVERLAP_S}


def retire(hands: Hands, parameters: Parameters) -> dict[str, Any]:
    ids = [path.name[4:12] for path in logkeys.private_halves(hands.paths.keys)]
    if not ids:
        raise EnvironmentFault("no former log key signs any more: there is nothing to retire")
    _record(hands, "keys.retire", parameters, retired=ids)
    # A crash here: on record, but not done; they sign on until it is ordered again, or until their time is over.
    return {"retired": end_overlap(hands.paths.keys, hands.writer.retire)}


def end_overlap(
    folder: Path, retire: Callable[[Sequence[bytes]], None], *, before: float | None = None
) -> list[str]:
    """Former keys sign no more, all or those whose time is over at `before`; and are deleted. Their ids."""
    due = logkeys.private_halves(folder) if before is None else logkeys.over(folder, before)
    ids = [path.name[4:12] for path in due]
    if ids:
        retire([bytes.fromhex(one) for one in ids])
        logkeys.remove(Files(), folder, due)
    return ids


def wrap(hands: Hands, parameters: Parameters) -> dict[str, Any]:
    if not 1 <= len(parameters) <= MAX_DEKS:
        raise UsageError(f"1 to {MAX_DEKS} DEKs in an order, not {len(parameters)}")
    rows = {_dek_id(name): _row(row) for name, row in parameters.items()}
    deks, done, unreadable = Deks(hands.paths.deks), 0, 0
    for dek_id, row in rows.items():
        try:
            there = deks.get(dek_id)
        except LedgerError:  # what a crash left, or somebody broke: no reason to stop for the others
            unreadable += 1
            continue
        if there is None or any(one.recipient == row.recipient for one in there):
            continue
        if len(there) >= MAX_RECIPIENTS:
            raise EnvironmentFault(f"DEK {dek_id.hex()} has {MAX_RECIPIENTS} readers already; remove one first")
        deks.replace(dek_id, [*there, row])
        done += 1
    return {"changed": done, "unreadable": unreadable}


def unwrap(hands: Hands, parameters: Parameters) -> dict[str, Any]:
    reader, names = _bytes(parameters.get("reader"), 32), parameters.get("deks")
    if not isinstance(names, list) or not 1 <= len(names) <= MAX_DEKS:
        raise UsageError(f"1 to {MAX_DEKS} DEKs in an order")
    deks, done, alone, unreadable = Deks(hands.paths.deks), 0, 0, 0
    for dek_id in [_dek_id(name) for name in names]:
        try:
            there = deks.get(dek_id) or []
        except LedgerError:
            unreadable += 1
            continue
        left = [one for one in there if one.recipient != reader]
        if not left and there:
            alone += 1
        elif len(left) < len(there):
            deks.replace(dek_id, left)
            done += 1
    return {"changed": done, "only_reader": alone, "unreadable": unreadable}


def _record(hands: Hands, action: str, parameters: Parameters, **detail: object) -> None:
    actor, reason = parameters.get("actor"), parameters.get("reason", "")
    if not isinstance(actor, str) or not isinstance(reason, str) or len(reason) > 1000:
        raise UsageError(f"{action}: expected an actor, and a reason of at most 1000 characters")
    detail |= {"reason": reason} if reason else {}
    hands.record(record.Admin(time_us=time.time_ns() // 1000, action=action, actor=actor, detail=detail))
    hands.writer.sync()


def _dek_id(name: object) -> bytes:
    return _bytes(name, 16)


def _bytes(text: object, length: int) -> bytes:
    with contextlib.suppress(ValueError):
        if isinstance(text, str) and len(text) == 2 * length and bytes.fromhex(text).hex() == text:
            return bytes.fromhex(text)
    raise UsageError(f"expected {2 * length} hexadecimal digits, found {str(text)[:100]!r}")


def _row(text: object) -> Wrapped:
    with contextlib.suppress(binascii.Error, ValueError):
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
        if len(data) == ROW_BYTES:
            return Wrapped(data[:32], data[32:])
    raise UsageError(f"a wrapped DEK has {ROW_BYTES} bytes in base64")


ORDERS.update({"keys.rotate": rotate, "keys.retire": retire, "keys.wrap": wrap, "keys.unwrap": unwrap})
