"""Replayed decisions, counted. Bounded in memory, however many there are. Pure.

In: pairs of a decision and what came of it, the newest first. Out: counts by kind, route, rule and identity, why
others could not be judged, and the newest differences, at most as many as are wanted.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from gatebook import record
from gatebook.replay.judge import DIFFERENT, Replayed, Said

MAX_NAMES = 100_000
OTHERS = "others"


class Difference(NamedTuple):
    """`entry`: the decision's index in the ledger."""

    entry: int
    decision: record.Decision
    found: Replayed


class Tally:
    def __init__(self, limit: int) -> None:
        self.kinds: Counter[str] = Counter()
        self.routes: Counter[str] = Counter()
        self.rules: Counter[str] = Counter()
        self.identities: Counter[str] = Counter()
        self.why_unknown: Counter[str] = Counter()
        self.why_outside: Counter[str] = Counter()
        self.verdict_alone = 0  # of the unknown: the verdict is the same, the rule is not certain
        self.shadow = 0
        self.strangers = 0  # made under a configuration that is not at hand
        self.listed: list[Difference] = []
        self._limit = limit

    @property
    def decisions(self) -> int:
        return self.kinds.total()

    @property
    def different(self) -> int:
        return sum(self.kinds[kind] for kind in DIFFERENT)

    @property
    def judged(self) -> int:
        return self.kinds["same"] + self.different

    def add(self, index: int, decision: record.Decision, found: Replayed, *, stranger: bool) -> None:
        self.kinds[found.kind] += 1
        self.shadow += found.shadow
        self.strangers += stranger
        if found.kind == "unknown":
            self.why_unknown.update(found.why)
            self.verdict_alone += found.now is not None
        elif found.kind == "outside":
            self.why_outside.update(found.why)
        elif found.kind != "same" and found.now is not None:
            _count(self.routes, found.now.route or decision.request.route or "no route")
            _count(self.rules, f"{word(_recorded(decision))} -> {word(found.now)}")
            _count(self.identities, who(decision))
            if len(self.listed) < self._limit:
                self.listed.append(Difference(index, decision, found))

    def pass_over(self, why: str) -> None:
        self.kinds["outside"] += 1
        self.why_outside[why] += 1


def _count(counter: Counter[str], name: str) -> None:
    counter[name if name in counter or len(counter) < MAX_NAMES else OTHERS] += 1


def _recorded(decision: record.Decision) -> Said:
    made = decision.decision
    return Said(made.verdict, made.status, made.reason, made.rule, decision.request.route)


def word(said: Said) -> str:
    """The rule, with its route, where one decided; else the reason."""
    if said.rule is not None and said.reason in ("rule", "deny_rule", "condition_error"):
        return f"{said.route}/{said.rule}"
    return said.reason or f"{said.verdict}, by whichever rule"


def who(decision: record.Decision) -> str:
    part = decision.identity
    if part is None:
        return "nobody"
    return f"{part.provider}:{part.subject}" if part.subject is not None else f"{part.provider}?"
