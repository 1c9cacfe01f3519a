"""Whose turn it was to sign: from the one key that the caller trusts, along KEY entries, to the keys that signed.

In: that key, `log/keys`, the KEY entries of the tree, and who signed what. Out: findings, and what to say of it.
A key of `log/keys` opens a checkpoint only for the time being: unless KEY entries lead to it, that is a finding.
Never takes a superseded key's word beyond its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gatebook.errors import Damaged, LedgerError, Tampered
from gatebook.ledger.chain import KEYS_FILE, MAX_KEYS_BYTES, Chain, long_id, parse_keys
from gatebook.ledger.entry import Key
from gatebook.ledger.lock import Signed
from gatebook.ledger.note import Verifier
from gatebook.ledger.verify.public import Missing, read_file
from gatebook.ledger.verify.report import Report

_FORGED = "whoever has that key may have written what is signed here"


class Turns:
    """Ask for `known`, tell it what they `signed`, then `judge`. `in_force`: the newest key that counts."""

    def __init__(self, given: Verifier, log: Path, report: Report) -> None:
        self.given = given
        self.in_force = given
        self.known = list(dict.fromkeys([given, *_listed(log, given.name, report)]))
        self._report = report
        self._chain = Chain(self.known)
        self._signed: list[tuple[str, Signed]] = []

    def signed(self, place: str, by: Signed) -> None:
        self._signed.append((place, by))

    def judge(self, keys: Sequence[tuple[int, Key]], *, whole: bool) -> None:
        """`keys`: the KEY entries that are signed for, in order. `whole`: none can have escaped."""
        for index, entry in keys:
            self._take(index, entry)
        own = long_id(self.given)
        if not self._chain.holds(own):
            what = f"is of a log that key {self.given.key_id.hex()} never signed for, as its KEY entries say"
            self._report.found(0, "tampered" if whole else "damaged", "log/checkpoint", what, _FORGED)
            return
        for place, signed in self._signed:
            self._compare(place, signed, self._chain.at(signed.checkpoint.size) or own, whole)

    def _take(self, index: int, entry: Key) -> None:
        try:
            self._chain.take(index, entry)
        except LedgerError as error:
            tampered = isinstance(error, Tampered)
            meaning = "who may sign from here on cannot be told"
            self._report.found(1, "tampered" if tampered else "damaged", f"entry {index}", str(error), meaning)

    def _compare(self, place: str, signed: Signed, due: bytes, whole: bool) -> None:
        found = self._chain.by_id(due)
        if found is not None and found in signed.by:
            self.in_force = found
            return
        by = ", ".join(one.key_id.hex() for one in signed.by)
        what = f"is signed by key {by}; for {signed.checkpoint.size} entries it is the turn of key {due[:4].hex()}"
        if found is None:
            what += f", whose public key is not in log/{KEYS_FILE}: copy that file too"
        self._report.found(0, "tampered" if whole and found is not None else "damaged", place, what, _FORGED)

    def said(self) -> list[str]:
        """What the result rests on because of it."""
        if self.in_force == self.given or not self._chain.handovers:
            return []
        steps = ", ".join(
            f"key {one.old_id[:4].hex()} to {one.new_id[:4].hex()} at entry {one.at}"
            for one in self._chain.handovers
        )
        return [
            f"the key that was given, {self.given.key_id.hex()}, is not the one in force: KEY entries lead from "
            f"one to the other ({steps}), each signed by the key before; whoever has one of those could have led "
            f"elsewhere"
        ]


def _listed(log: Path, name: str, report: Report) -> list[Verifier]:
    try:
        return parse_keys(read_file(log / KEYS_FILE, MAX_KEYS_BYTES), name)
    except Missing:
        return []
    except Damaged as error:
        report.note(f"log/{KEYS_FILE} cannot be used: {error}")
        return []
