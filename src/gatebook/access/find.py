"""Access records out of a ledger's reader: the newest, one request's, and those still to come.

The newest are read from the ledger's end backwards, outcomes before their decisions, so that the answer
takes the same time however long the log is. Never holds more than the answer, the decisions that are open,
and the outcomes whose decision lies further back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from gatebook import record
from gatebook.access.filter import Filter
from gatebook.access.found import Access, Event, Found, Placed, Strange, access, read
from gatebook.access.join import Joiner, belong_together, outcome_unknown

LOOK_BACK = 10_000  # entries between a decision and an outcome that does not know its index
CLOCK_SLACK_US = 3_600_000_000  # clocks may have gone back by so much between two records


class Source(Protocol):
    """The part of `ledger.read.Reader` that is used here. What it shows changes with `refresh` alone."""

    @property
    def origin(self) -> str: ...
    @property
    def size(self) -> int: ...
    def refresh(self) -> bool: ...
    def forwards(self, start: int) -> Iterator[tuple[int, bytes]]: ...
    def backwards(self) -> Iterator[tuple[int, bytes]]: ...
    def record(self, index: int) -> bytes | None: ...


@dataclass
class _Backwards:
    """Joins records that come newest first."""

    origin: str
    wanted: Filter
    count: int
    found: dict[int, Found] = field(default_factory=dict)
    outcomes: dict[int, Placed] = field(default_factory=dict)  # decision's index -> its outcome
    loose: dict[str, Placed] = field(default_factory=dict)  # request id -> outcome that knows no index
    open: dict[str, Placed] = field(default_factory=dict)  # request id -> decision without an outcome

    @property
    def enough(self) -> bool:
        return len(self.found) >= self.count

    def take(self, index: int, found: Found) -> None:
        if self.wanted.matches(found):
            self.found[index] = found

    def decision(self, placed: Placed) -> None:
        decision: record.Decision = placed.record
        outcome = self.outcomes.pop(placed.index, None)
        if outcome is not None and not belong_together(decision, outcome.record):
            self.take(outcome.index, access(self.origin, None, outcome))
            outcome = None
        if outcome is None or outcome_unknown(outcome.record):
            outcome = self.loose.pop(decision.id, outcome)
        if outcome is None:
            self.open[decision.id] = placed
        self.take(placed.index, access(self.origin, placed, outcome))

    def outcome(self, placed: Placed) -> None:
        outcome: record.Outcome = placed.record
        index = outcome.decision_index
        if index is not None and index < placed.index and index not in self.outcomes:
            self.outcomes[index] = placed
        elif index is None and outcome.id in self.open:
            decision = self.open.pop(outcome.id)
            self.found.pop(decision.index, None)
            self.take(decision.index, access(self.origin, decision, placed))
        elif index is None and outcome.id is not None:
            if not self.enough:  # what lies further back than enough answers is no answer itself
                self.loose[outcome.id] = placed
        else:
            self.take(placed.index, access(self.origin, None, placed))

    def settle(self, before: int) -> None:
        """Loose outcomes from further on than `before` have no decision."""
        while self.loose:
            key, placed = next(iter(self.loose.items()))
            if placed.index < before:
                return
            del self.loose[key]
            self.take(placed.index, access(self.origin, None, placed))

    def end(self) -> None:
        """The log's beginning: nothing can be joined any more."""
        self.settle(0)
        for placed in self.outcomes.values():
            self.take(placed.index, access(self.origin, None, placed))


def newest(source: Source, count: int, wanted: Filter) -> list[Found]:
    """The `count` newest that are wanted, in the ledger's order."""
    joining = _Backwards(source.origin, wanted, count)
    for index, data in source.backwards():
        made = read(index, data)
        joining.settle(index + LOOK_BACK)
        if joining.enough and not joining.loose:
            break
        if wanted.since_us is not None and _time(made) < wanted.since_us - CLOCK_SLACK_US:
            joining.settle(0)
            break
        match made:
            case record.Decision():
                joining.decision(Placed(index, made))
            case record.Outcome():
                joining.outcome(Placed(index, made))
            case Strange():
                joining.take(index, made)
            case _:
                joining.take(index, Event(index, made))
    else:
        joining.end()
    return [found for _, found in sorted(joining.found.items())][-count:] if count else []


def _time(made: record.Record | Strange) -> int:
    return made.time_us if not isinstance(made, Strange) else 1 << 63


class Follower:
    """What is new each time it is asked, from `start` on."""

    def __init__(self, source: Source, start: int) -> None:
        self._source = source
        self._next = start
        self._joiner = Joiner(source.origin, source.record)

    def adopt(self, index: int) -> None:
        """A decision from before `start` that has not been shown: it will be, with its outcome or as open."""
        data = self._source.record(index)
        if data is not None:
            self._joiner.add(index, data)

    def new(self, open_before_us: int) -> Iterator[Found]:
        """What has been completed since; and decisions older than that time that are still open, each once."""
        self._source.refresh()
        for index, data in self._source.forwards(self._next):
            self._next = index + 1
            yield from self._joiner.add(index, data)
        yield from self._joiner.overdue(open_before_us)


def by_request_id(source: Source, prefix: str) -> list[Access]:
    """Every access whose request id begins with `prefix`; with a whole id, at most one is looked for."""
    needle = f'"id":"{prefix}'.encode()
    whole = len(prefix) == 32
    decisions: dict[str, Placed] = {}
    outcomes: dict[str, Placed] = {}
    stop = -1
    for index, data in source.backwards():
        if index < stop:
            break
        if needle not in data:
            continue
        made = read(index, data)
        if isinstance(made, record.Decision) and made.id.startswith(prefix):
            stop = index - LOOK_BACK if whole else stop
            decisions[made.id] = Placed(index, made)
        elif isinstance(made, record.Outcome) and made.id is not None and made.id.startswith(prefix):
            outcomes.setdefault(made.id, Placed(index, made))
        if whole and decisions and outcomes:
            break
    for request_id, decision in decisions.items():
        outcome = outcomes.get(request_id) or _outcome_after(source, decision)
        if outcome is not None:
            outcomes[request_id] = outcome
    ids = sorted(decisions.keys() | outcomes.keys())
    return [access(source.origin, decisions.get(name), outcomes.get(name)) for name in ids]


def by_index(source: Source, index: int) -> Access | None:
    """The access that the record of that index belongs to, as a receipt names it."""
    data = source.record(index)
    made = read(index, data) if data is not None else None
    if isinstance(made, record.Outcome):
        if made.decision_index is not None and made.decision_index < index:
            return by_index(source, made.decision_index)
        return access(source.origin, None, Placed(index, made))
    if not isinstance(made, record.Decision):
        return None
    decision = Placed(index, made)
    outcome = _outcome_after(source, decision)
    if outcome is not None:
        return access(source.origin, decision, outcome)
    return next(iter(by_request_id(source, made.id)), None)


def _outcome_after(source: Source, decision: Placed) -> Placed | None:
    """The first outcome behind it that names it, be it by index alone, as `outcome_unknown` does."""
    index, request_id = decision.index, decision.record.id
    by_number, by_id = f'"decision_index":{index}'.encode(), f'"id":"{request_id}"'.encode()
    for at, data in source.forwards(index + 1):
        if by_number in data or by_id in data:
            made = read(at, data)
            if isinstance(made, record.Outcome) and (
                made.id == request_id or (made.id is None and made.decision_index == index)
            ):
                return Placed(at, made)
    return None
