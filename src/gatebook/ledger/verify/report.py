"""What a verification found, how far it came, and what its result rests on. Pure data.

A finding's kind decides the exit code: tampered (bytes contradict what was signed), damaged (bytes are
missing, or fail their own check sum), incomplete (what is there is genuine, but something is not there).
Memory stays bounded on a ledger that is wrong everywhere: beyond MAX_FINDINGS they are only counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from gatebook.errors import Damaged, Incomplete, LedgerError, Tampered
from gatebook.ledger.note import Checkpoint
from gatebook.ledger.verify.account import Account

MAX_FINDINGS = 1000
MAX_NOTES = 100

Kind = Literal["tampered", "damaged", "incomplete"]
ERRORS: dict[Kind, type[LedgerError]] = {"tampered": Tampered, "damaged": Damaged, "incomplete": Incomplete}


class Finding(NamedTuple):
    """One thing that is wrong. `place`: a file, or entries; `consequence`: what it means for who relies on it."""

    level: int
    kind: Kind
    place: str
    what: str
    consequence: str


class Remark(NamedTuple):
    """What a content check has to say about a record: a finding without its place."""

    kind: Kind
    what: str
    consequence: str


Reached = Literal["passed", "failed", "not tried"]


@dataclass
class Report:
    """`size` entries are signed for, `tail` more are there; of `records` the content was read."""

    checkpoint: Checkpoint | None = None
    tail: int = 0
    segments: int = 0
    records: int = 0
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[Kind] = field(default_factory=Counter)
    levels: dict[int, Reached] = field(default_factory=dict)
    why_not: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rests_on: list[str] = field(default_factory=list)
    forgotten: set[bytes] = field(default_factory=set)  # pseudonyms of which the log says that their row is gone
    account: Account = field(default_factory=Account)

    @property
    def size(self) -> int:
        return self.checkpoint.size if self.checkpoint is not None else 0

    @property
    def worst(self) -> Kind | None:
        kinds: tuple[Kind, ...] = ("tampered", "damaged", "incomplete")
        return next((kind for kind in kinds if self.counts[kind]), None)

    @property
    def exit_code(self) -> int:
        return ERRORS[self.worst].exit_code if self.worst is not None else 0

    def found(self, level: int, kind: Kind, place: str, what: str, consequence: str) -> None:
        self.counts[kind] += 1
        self.levels[level] = "failed"
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(level, kind, place, what, consequence))

    def note(self, text: str) -> None:
        """What one should know and what is not wrong."""
        if text not in self.notes and len(self.notes) < MAX_NOTES:
            self.notes.append(text)

    def skip(self, level: int, why: str) -> None:
        self.levels.setdefault(level, "not tried")
        self.why_not[level] = why

    def tried(self, level: int) -> None:
        self.levels.setdefault(level, "passed")


def entries(first: int, end: int) -> str:
    """`entry 7`, or `entries 7 to 9`; `end` is not included."""
    return f"entry {first}" if end - first == 1 else f"entries {first} to {end - 1}"
