"""Counts over the disclosed records of a bundle, for people: verdicts over time, routes, reasons, callers, errors.

In: records in the log's order. Out: plain counts, the same for the same records. Bounded: of names that anybody
can make up (callers, routes) beyond MAX_NAMES the rest is counted under one. Pure.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from gatebook import record
from gatebook.access.found import Access, Event
from gatebook.access.join import Joiner

Key = TypeVar("Key")

MAX_NAMES: Final = 50_000
MAX_EVENTS: Final = 200
OTHERS: Final = "(others)"
WIDTHS_S: Final = (
    *(1, 5, 15, 60, 300, 900, 1800, 3600, 10_800, 21_600, 43_200),
    *(86_400, 172_800, 604_800, 2_592_000, 31_536_000),
)
MAX_BARS: Final = 48


class Verdicts(NamedTuple):
    """`refused`: by the gateway, before anybody decided."""

    allowed: int = 0
    denied: int = 0
    refused: int = 0

    @property
    def total(self) -> int:
        return sum(self)

    def plus(self, other: Verdicts) -> Verdicts:
        return Verdicts(*(a + b for a, b in zip(self, other, strict=True)))


NOTHING: Final = Verdicts()
_ALLOWED, _DENIED, _REFUSED = Verdicts(1), Verdicts(0, 1), Verdicts(0, 0, 1)


@dataclass
class Tally:
    """Feed it `add` for each record, in order; then `finish`."""

    origin: str
    since_us: int
    until_us: int
    verdicts: Verdicts = NOTHING
    open: int = 0
    unknown: int = 0  # outcome_unknown
    earlier: int = 0  # outcomes of decisions that are not in the bundle
    unreadable: int = 0
    over_time: list[Verdicts] = field(default_factory=list)
    routes: dict[str, Verdicts] = field(default_factory=dict)
    callers: dict[tuple[str, str], Verdicts] = field(default_factory=dict)  # provider, subject or client
    reasons: Counter[str] = field(default_factory=Counter)  # of denials
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)  # source, detail
    statuses: Counter[str] = field(default_factory=Counter)
    signals: Counter[str] = field(default_factory=Counter)
    shadow: int = 0
    configurations: Counter[str] = field(default_factory=Counter)
    acts: Counter[str] = field(default_factory=Counter)
    events: list[Event] = field(default_factory=list)  # the first MAX_EVENTS, but for the system's own
    events_left_out: int = 0

    def __post_init__(self) -> None:
        self._joiner = Joiner(self.origin)
        span_s = max(1, -(-(self.until_us - self.since_us) // 1_000_000))
        self.width_s = next((width for width in WIDTHS_S if span_s <= width * MAX_BARS), WIDTHS_S[-1])
        self.begin_s = self.since_us // 1_000_000 // self.width_s * self.width_s
        bars = (self.until_us - 1 - self.begin_s * 1_000_000) // (self.width_s * 1_000_000) + 1
        self.over_time = [NOTHING] * max(1, min(bars, 2 * MAX_BARS))

    def add(self, index: int, data: bytes) -> None:
        for found in self._joiner.add(index, data):
            if isinstance(found, Access):
                self._access(found)
            elif isinstance(found, Event):
                self._event(found)
            else:
                self.unreadable += 1

    def finish(self) -> None:
        for found in self._joiner.rest():
            self._access(found)

    def _access(self, found: Access) -> None:
        decision, error = found.decision, found.error
        if decision is None and found.decision_index is not None:
            self.earlier += 1
            return
        if decision is None:
            one = _REFUSED
        else:
            one = _ALLOWED if decision.verdict == "allow" else _DENIED
            self.configurations[decision.configuration] += 1
            self.shadow += decision.shadow is not None
            if one is _DENIED:
                self.reasons[decision.reason] += 1
        self.verdicts = self.verdicts.plus(one)
        bar = (found.time_us // 1_000_000 - self.begin_s) // self.width_s
        bar = min(max(0, bar), len(self.over_time) - 1)
        self.over_time[bar] = self.over_time[bar].plus(one)
        route = found.request.route if found.request is not None else None
        _count(self.routes, route or "(none)", one, OTHERS)
        who = found.identity
        caller = (who.provider, who.subject or who.client or "") if who is not None else ("", "")
        _count(self.callers, caller, one, ("", OTHERS))
        self.open += found.open
        self.signals.update(found.signals)
        if found.status is not None:
            self.statuses[f"{found.status // 100}xx"] += 1
        if error is not None:
            self.errors[error.source, error.detail] += 1
            self.unknown += error.detail == "outcome_unknown"

    def _event(self, found: Event) -> None:
        match found.record:
            case record.Admin(action=action):
                self.acts[action] += 1
            case record.Alert(alert=alert):
                self.acts[f"alert {alert}"] += 1
            case record.System(event=event):
                self.acts[event] += 1
                return
        if len(self.events) < MAX_EVENTS:
            self.events.append(found)
        else:
            self.events_left_out += 1


def _count(counts: dict[Key, Verdicts], key: Key, one: Verdicts, others: Key) -> None:
    if key not in counts and len(counts) >= MAX_NAMES:
        key = others
    counts[key] = counts.get(key, NOTHING).plus(one)
