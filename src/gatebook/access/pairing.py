"""What `verify` asks of records: each can be read, and each decision has its outcome, or waits for it openly.

The recorder's heartbeats say how many decisions were open; when more are open here, as many outcomes are
missing from the log. A decision that is open at the log's end is not held against it: the request may still
be running, and its gateway's death would be an outcome of its own. Bounded: beyond MAX_OPEN open decisions
the oldest is no longer followed, and that is said.
"""

from __future__ import annotations

from collections import OrderedDict

from gatebook.access.found import Strange, read
from gatebook.ledger.verify import Remark
from gatebook.record import Decision, Outcome

MAX_OPEN = 1_000_000


class Pairing:
    """`ledger.verify.Reading` for access records."""

    def __init__(self, max_open: int = MAX_OPEN) -> None:
        self._max_open = max_open
        self._open: OrderedDict[int, tuple[str, int]] = OrderedDict()  # index -> request id, time
        self._by_id: dict[str, int] = {}
        self._early: OrderedDict[str, None] = OrderedDict()
        self._unfollowed = 0
        self._missing = 0  # outcomes that a heartbeat has shown to be missing
        self.decisions = self.outcomes = self.unknown = self.others = self.allowed = 0

    def record(self, index: int, data: bytes) -> Remark | None:
        made = read(index, data)
        match made:
            case Decision():
                self._decision(index, made)
            case Outcome():
                return self._outcome(made)
            case Strange(why=why):
                what = f"is genuine, but no record that this version knows: {why}"
                return Remark("damaged", what, "what it says cannot be told; a newer gatebook may have written it")
            case _:
                self.others += 1
        return None

    def _decision(self, index: int, made: Decision) -> None:
        self.decisions += 1
        self.allowed += made.decision.verdict == "allow"
        if made.id in self._early:
            del self._early[made.id]
            return
        self._open[index] = made.id, made.time_us
        self._by_id[made.id] = index
        if len(self._open) > self._max_open:
            self._close(next(iter(self._open)))
            self._unfollowed += 1

    def _outcome(self, made: Outcome) -> Remark | None:
        self.outcomes += 1
        index = made.decision_index
        if index is None and made.id is not None:
            index = self._by_id.get(made.id)
            if index is None:
                self._early[made.id] = None
                if len(self._early) > self._max_open:
                    self._early.popitem(last=False)
        if made.error is not None and made.error.detail == "outcome_unknown":
            self.unknown += 1
        if index is not None and index in self._open:
            request_id, _ = self._open[index]
            if made.id not in (None, request_id):
                what = f"is the outcome of request {made.id}, but names the decision of {request_id}"
                return Remark("incomplete", what, f"what came of request {request_id} is not in the log")
            self._close(index)
        return None

    def _close(self, index: int) -> None:
        request_id, _ = self._open.pop(index)
        if self._by_id.get(request_id) == index:
            del self._by_id[request_id]

    def heartbeat(self, index: int, open_: int) -> Remark | None:  # noqa: ARG002 - the protocol's
        missing = len(self._open) - self._missing - open_
        if missing <= 0:
            return None
        self._missing += missing
        oldest = next(iter(self._open))
        what = f"the recorder knew of {open_} open decisions, but {missing} more have no outcome"
        return Remark("incomplete", what, f"what came of them is not in the log; the oldest is entry {oldest}")

    def hole(self, first: int, end: int) -> None:  # noqa: ARG002 - the protocol's
        """Outcomes may be in there: what is open now is no longer followed."""
        self._unfollowed += len(self._open) - self._missing
        self._missing = 0
        self._open.clear()
        self._by_id.clear()

    def summary(self) -> list[str]:
        counts = f"{self.decisions} decisions ({self.allowed} allowed), {self.outcomes} outcomes"
        said = [f"{counts}, {self.others} other records"]
        if self.unknown:
            said.append(f"{self.unknown} decisions have an outcome that nobody knows (outcome_unknown)")
        waiting = len(self._open) - self._missing
        if waiting > 0:
            index, (request_id, _) = next(iter(self._open.items()))
            said.append(
                f"{waiting} decisions wait for their outcome; the oldest is entry {index}, request {request_id}"
            )
        if self._unfollowed:
            said.append(f"of {self._unfollowed} decisions it cannot be told whether they have an outcome")
        return said
