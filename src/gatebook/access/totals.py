"""How many decisions and outcomes a ledger holds, and what is missing of them: a few numbers, whatever its size.

Filled by `pairing`, told by `gatebook verify`. Each decision is counted in exactly one of its kind's fields beside
`total`, and each outcome in exactly one place: `Totals.outcomes` adds them up. Plain data.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Kind:
    """Allowed decisions, or denied ones. `untold`: whether they have an outcome cannot be told."""

    total: int = 0
    outcome: int = 0
    unknown: int = 0  # outcome_unknown: that nobody knows is on record
    open: int = 0
    untold: int = 0


@dataclass
class Totals:
    """`alone`: outcomes without a decision, by what they blame (`none`: nothing failed).

    `missing` of the open decisions have an outcome that should be there; `undecided` requests were let through
    without a decision on record. `repeated` outcomes are of decisions that had one, or of none that is known.
    `checked` heartbeats were compared with the records since the one before, `contradicted` of them differ;
    `unchecked` times could not be, for a start or a hole ended them.
    `numbered` decisions, over HTTP/1, bear their request's number on its connection; `connections` begin with one.
    """

    allowed: Kind = field(default_factory=Kind)
    denied: Kind = field(default_factory=Kind)
    alone: Counter[str] = field(default_factory=Counter)
    others: int = 0
    missing: int = 0
    undecided: int = 0
    repeated: int = 0
    checked: int = 0
    contradicted: int = 0
    unchecked: int = 0
    numbered: int = 0
    connections: int = 0

    def kind(self, allowed: bool) -> Kind:
        return self.allowed if allowed else self.denied

    @property
    def decisions(self) -> int:
        return self.allowed.total + self.denied.total

    @property
    def outcomes(self) -> int:
        paired = sum(kind.outcome + kind.unknown for kind in (self.allowed, self.denied))
        return paired + self.repeated + self.alone.total()
