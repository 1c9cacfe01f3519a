"""What `verify` asks of records: each can be read, each decision has its outcome or waits for it openly, and their
numbers are those that the recorder's heartbeats state.

When more decisions are open here than a heartbeat says, as many outcomes are missing; when it counts other numbers
than the log holds since the one before, records are missing or are not the recorder's. A request that was let
through without a decision on record is told once its decision cannot come any more. What is open at the log's end
is not held against it: the request may still be running. Bounded: what is no longer followed is counted as such.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from gatebook.access.found import Strange, read
from gatebook.access.totals import Totals
from gatebook.ledger.entry import Boot, Entry, Heartbeat
from gatebook.ledger.verify import Remark
from gatebook.record import Admin, Alert, Decision, Outcome, System

MAX_OPEN = 1_000_000  # the recorder gives up those beyond 200,000
MAX_EARLY = 20_000  # the recorder remembers 10,000
MAX_COUNT = (1 << 32) - 1  # what a heartbeat can say: so many, or more
# Erase.kind -> what an order of it is called
ERASING = {1: "erase.subject", 2: "erase.record", 3: "erase.segment"}


class _Open(NamedTuple):
    request_id: str
    allowed: bool


@dataclass(slots=True)
class _Since:
    """What there was since the last heartbeat or start. `lines`: outcomes that are of a line of the log."""

    decisions: int = 0
    outcomes: int = 0
    lines: int = 0


class Pairing:
    """`ledger.verify.Reading` for access records. `totals` is complete at the end."""

    def __init__(self, max_open: int = MAX_OPEN, max_early: int = MAX_EARLY) -> None:
        self.totals = Totals()
        self._max_open = max_open
        self._max_early = max_early
        self._open: OrderedDict[int, _Open] = OrderedDict()  # by index
        self._by_id: dict[str, int] = {}
        self._early: OrderedDict[str, str] = OrderedDict()  # outcomes before their decision: id -> source
        # Those of them that were let through, with their index: since the last heartbeat, and before it.
        self._fresh: dict[str, int] = {}
        self._aged: dict[str, int] = {}
        self._missing = 0  # of the open ones
        self._since: _Since | None = None  # None: something in between is not known
        self._excused = 0  # so many open decisions may wait for an outcome that was erased
        self._disagreed: list[int] = []  # alerts that a witness has seen another history
        self._orders: dict[tuple[int, str], int] = {}  # ERASE entries by kind, and whose order they name

    def record(self, index: int, data: bytes) -> Remark | None:
        made = read(index, data)
        match made:
            case Decision():
                self._decision(index, made)
            case Outcome():
                return self._outcome(index, made)
            case Strange(why=why):
                self._since = None
                what = f"is genuine, but no record that this version knows: {why}"
                return Remark("damaged", what, "what it says cannot be told; a newer gatebook may have written it")
            case System(event="gateway.log_gone", detail={"why": "removed"}):
                self.totals.others += 1
                what = "the gateway's log was removed or emptied before it was read to its end"
                return Remark("incomplete", what, "how many requests are missing is not known")
            case Alert(alert="witness_disagrees"):
                self.totals.others += 1
                self._disagreed.append(index)
            case _:
                self.totals.others += 1
        return None

    def _decision(self, index: int, made: Decision) -> None:
        allowed = made.decision.verdict == "allow"
        kind = self.totals.kind(allowed)
        kind.total += 1
        if self._since is not None:
            self._since.decisions += 1
        if made.connection_request and (made.request.protocol or "").startswith("1"):
            self.totals.numbered += 1
            self.totals.connections += made.connection_request == 1
        source = self._early.pop(made.id, None)
        if source is not None:
            self._let_through(made.id)
            self.totals.alone[source] -= 1
            kind.outcome += 1
            return
        kind.open += 1
        self._open[index] = _Open(made.id, allowed)
        self._by_id[made.id] = index
        if len(self._open) > self._max_open:
            self._forget(next(iter(self._open)))

    def _outcome(self, index: int, made: Outcome) -> Remark | None:
        unknown = made.error is not None and made.error.detail == "outcome_unknown"
        if self._since is not None:
            self._since.outcomes += 1
            self._since.lines += made.id is not None
        decision = made.decision_index
        if decision is None and made.id is not None:
            decision = self._by_id.get(made.id)
        if decision is None:
            return self._without_decision(index, made)
        if decision not in self._open:
            self.totals.repeated += 1
            return None
        of = self._close(decision)
        kind = self.totals.kind(of.allowed)
        kind.open -= 1
        if unknown:
            kind.unknown += 1
        else:
            kind.outcome += 1
        if made.id not in (None, of.request_id):
            what = f"is the outcome of request {made.id}, but names the decision of {of.request_id}"
            return Remark("incomplete", what, f"what came of request {of.request_id} is not in the log")
        return None

    def _without_decision(self, index: int, made: Outcome) -> Remark | None:
        source = made.error.source if made.error is not None else "none"
        self.totals.alone[source] += 1
        if made.id is None:
            return None
        self._early[made.id] = source
        if made.upstream is not None and made.upstream.name is not None:
            self._fresh[made.id] = index
        if len(self._early) <= self._max_early:
            return None
        oldest = self._let_through(self._early.popitem(last=False)[0])
        return None if oldest is None else self._undecided([oldest])

    def _let_through(self, request_id: str) -> int | None:
        """Where the outcome is of a request that was let through; it is not waited for any more."""
        return self._aged.pop(request_id, self._fresh.pop(request_id, None))

    def _close(self, index: int) -> _Open:
        of = self._open.pop(index)
        if self._by_id.get(of.request_id) == index:
            del self._by_id[of.request_id]
        self._missing = min(self._missing, len(self._open))
        return of

    def _forget(self, index: int) -> None:
        kind = self.totals.kind(self._close(index).allowed)
        kind.open -= 1
        kind.untold += 1

    def _undecided(self, indices: list[int]) -> Remark:
        self.totals.undecided += len(indices)
        what = f"{len(indices)} requests were let through, but their decisions are not in the log"
        return Remark("incomplete", what, f"on whose word is not known; the first outcome of them is {indices[0]}")

    def removed(self, index: int) -> None:  # noqa: ARG002 - the protocol's
        """A record was erased: nobody knows any more whether it was a decision, an outcome or another one."""
        self._excused += 1
        self._since = None

    def erasure(self, index: int, kind: int, order: bytes) -> Remark | None:
        """An ERASE entry, and the record that it says has ordered it."""
        made = read(index, order)
        if not isinstance(made, Admin) or made.action != ERASING.get(kind):
            what = "ERASE names a record that orders no such erasure"
            return Remark("incomplete", what, "nobody can tell on whose word it was erased")
        self._orders[kind, made.actor] = self._orders.get((kind, made.actor), 0) + 1
        return None

    # -- the entries between records ------------------------------------------------------------------------
    def entry(self, index: int, entry: Entry) -> list[Remark]:  # noqa: ARG002 - the protocol's
        if isinstance(entry, Heartbeat):
            found = [self._compare(entry), self._count_open(entry), self._grow_old(ended=False)]
            self._since = _Since()
            return [remark for remark in found if remark is not None]
        if isinstance(entry, Boot):
            self.totals.unchecked += self._since is not None and self._since != _Since()
            self._since = _Since()
            # A guard that has lost its recorder never sends a record again.
            late = self._grow_old(ended=True)
            return [late] if late is not None else []
        return []

    def _compare(self, beat: Heartbeat) -> Remark | None:
        """What it counts since the one before, or since the start, against what there is."""
        since = self._since
        if since is None:
            self.totals.unchecked += 1
            return None
        self.totals.checked += 1
        wrong = [
            f"{stated} {name} where the log holds {counted}"
            for name, stated, counted in (
                ("decisions", beat.decisions, since.decisions),
                ("outcomes", beat.outcomes, since.outcomes),
            )
            if stated != min(counted, MAX_COUNT)
        ]
        # A line that failed us when it had been counted is counted as lost, too.
        if not beat.requests - beat.lost <= min(since.lines, MAX_COUNT) <= beat.requests:
            wrong.append(f"{beat.requests} requests of the gateway's log where {since.lines} have an outcome")
        if not wrong:
            return None
        self.totals.contradicted += 1
        what = f"HEARTBEAT counts {', '.join(wrong)}, since the one before"
        return Remark("incomplete", what, "records are missing, or are none that the recorder wrote")

    def _count_open(self, beat: Heartbeat) -> Remark | None:
        missing = len(self._open) - self._missing - self._excused - beat.open
        if missing <= 0:
            return None
        self._missing += missing
        self.totals.missing += missing
        oldest = next(iter(self._open))
        what = f"the recorder knew of {beat.open} open decisions, but {missing} more have no outcome"
        return Remark("incomplete", what, f"what came of them is not in the log; the oldest is entry {oldest}")

    def _grow_old(self, *, ended: bool) -> Remark | None:
        """Those that were let through a whole heartbeat ago, or before a start: their decisions do not come."""
        late = [*self._aged.values(), *(self._fresh.values() if ended else ())]
        self._aged, self._fresh = {} if ended else self._fresh, {}
        return self._undecided(late) if late else None

    def hole(self, first: int, end: int) -> None:  # noqa: ARG002 - the protocol's
        """Outcomes and decisions may be in there: what is open now is no longer followed."""
        self._since = None
        for index in list(self._open):
            self._forget(index)
        self._early.clear()
        self._fresh, self._aged = {}, {}

    def summary(self) -> list[str]:
        said = []
        if self._open:
            index, oldest = next(iter(self._open.items()))
            said.append(f"the oldest open decision is entry {index}, request {oldest.request_id}")
        if self._disagreed:
            count, last = len(self._disagreed), self._disagreed[-1]
            said.append(
                f"{count} alerts say that a witness has seen another history of this log, the last is entry {last}"
            )
        for (kind, actor), count in sorted(self._orders.items()):
            said.append(f"{count} ERASE entries ({ERASING[kind]}) are on the order of {actor}")
        return said
