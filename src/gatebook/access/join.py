"""Records in the ledger's order -> access records, as they complete. Pure.

An outcome names its decision by index. Where the gateway's line did not know it (the guard's answer was
lost, or did not wait), the request's id joins them, whichever of the two comes first. Never drops a record:
when more decisions are open than may be held, the oldest is given as open and its outcome finds it again
through `lookup`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from gatebook import record
from gatebook.access.found import Access, Event, Found, Placed, Strange, access, read

MAX_OPEN = 100_000
MAX_REMEMBERED = 10_000

Lookup = Callable[[int], bytes | None]


def no_lookup(_index: int) -> bytes | None:
    return None


def outcome_unknown(outcome: record.Outcome) -> bool:
    return outcome.error is not None and outcome.error.detail == "outcome_unknown"


def belong_together(decision: record.Decision, outcome: record.Outcome) -> bool:
    """Whether an outcome that names this decision's index is its outcome."""
    return outcome.id is None or outcome.id == decision.id


class Joiner:
    """Feed it every record from some index on. `lookup` gives the bytes of an earlier record."""

    def __init__(self, origin: str, lookup: Lookup = no_lookup, max_open: int = MAX_OPEN) -> None:
        self._origin = origin
        self._lookup = lookup
        self._max_open = max_open
        self._open: OrderedDict[int, record.Decision] = OrderedDict()
        self._by_id: dict[str, int] = {}
        self._told: set[int] = set()
        # Outcomes that came before their decision, by request id; and decisions closed by id alone, for
        # which the recorder, not knowing, may still say `outcome_unknown`.
        self._early: OrderedDict[str, Placed] = OrderedDict()
        self._closed_by_id: OrderedDict[int, None] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many decisions wait for their outcome."""
        return len(self._open)

    def add(self, index: int, data: bytes) -> list[Found]:
        """What this record completes: nothing for a decision, as a rule."""
        made = read(index, data)
        match made:
            case record.Decision():
                return self._decision(Placed(index, made))
            case record.Outcome():
                return self._outcome(Placed(index, made))
            case Strange():
                return [made]
            case _:
                return [Event(index, made)]

    def _decision(self, placed: Placed) -> list[Found]:
        decision: record.Decision = placed.record
        early = self._early.pop(decision.id, None)
        if early is not None:
            self._remember_closed(placed.index)
            return [access(self._origin, placed, early)]
        self._open[placed.index] = decision
        self._by_id[decision.id] = placed.index
        if len(self._open) <= self._max_open:
            return []
        oldest = next(iter(self._open))
        shown = oldest in self._told
        given = access(self._origin, Placed(oldest, self._close(oldest)), None)
        return [] if shown else [given]

    def _outcome(self, placed: Placed) -> list[Found]:
        outcome: record.Outcome = placed.record
        index = outcome.decision_index
        if index is None:
            index = self._by_id.get(outcome.id) if outcome.id is not None else None
            if index is None:
                self._remember_early(placed)
                return [access(self._origin, None, placed)]
            self._remember_closed(index)
        elif index in self._closed_by_id and outcome_unknown(outcome):
            del self._closed_by_id[index]
            return []
        decision = self._open.get(index) or self._earlier(index)
        if decision is None or not belong_together(decision, outcome):
            return [access(self._origin, None, placed)]
        if index in self._open:
            self._close(index)
        return [access(self._origin, Placed(index, decision), placed)]

    def _earlier(self, index: int) -> record.Decision | None:
        data = self._lookup(index)
        found = read(index, data) if data is not None else None
        return found if isinstance(found, record.Decision) else None

    def _close(self, index: int) -> record.Decision:
        decision = self._open.pop(index)
        if self._by_id.get(decision.id) == index:
            del self._by_id[decision.id]
        self._told.discard(index)
        return decision

    def _remember_early(self, placed: Placed) -> None:
        if placed.record.id is not None:
            self._early[placed.record.id] = placed
            if len(self._early) > MAX_REMEMBERED:
                self._early.popitem(last=False)

    def _remember_closed(self, index: int) -> None:
        self._closed_by_id[index] = None
        if len(self._closed_by_id) > MAX_REMEMBERED:
            self._closed_by_id.popitem(last=False)

    def overdue(self, before_us: int) -> Iterator[Access]:
        """Open decisions of before that time, each once: a stream may go on for hours."""
        for index, decision in self._open.items():
            if decision.time_us < before_us and index not in self._told:
                self._told.add(index)
                yield access(self._origin, Placed(index, decision), None)

    def rest(self) -> Iterator[Access]:
        """All decisions that are open now, in order."""
        for index, decision in self._open.items():
            yield access(self._origin, Placed(index, decision), None)
