"""An access record: a decision with its outcome, as it is shown, searched and exported. Pure.

JSON groups it as `identity`, `request`, `client`, `tls`, `decision`, `limit`, `issued`, `sealed`, `response`,
`upstream` and `error`, beside `id`, `time_us`, `origin`, `decision_index`, `outcome_index` and `signals`; what is
unknown is left out. An outcome without a decision (the gateway refused before it asked) is an access record too,
and so is a decision without an outcome: that one is `open`. Nothing is in here that no record says.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gatebook import record


class Access(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One access. `time_us` is its decision's, or else its outcome's. `open`: no outcome has been seen."""

    id: str | None = None
    time_us: int
    origin: str
    decision_index: int | None = None
    outcome_index: int | None = None
    trace_id: str | None = None
    open: bool = False
    identity: record.IdentityPart | None = None
    request: record.RequestPart | None = None
    client: record.ClientPart | None = None
    tls: record.TLSPart | None = None
    decision: record.DecisionPart | None = None
    limit: record.LimitPart | None = None
    issued: record.IssuedPart | None = None
    signals: tuple[str, ...] = ()
    sealed: record.SealedPart | None = None
    response: record.ResponsePart | None = None
    upstream: record.UpstreamPart | None = None
    error: record.ErrorPart | None = None

    @property
    def index(self) -> int:
        """Its place in the ledger's order, which is the order of decisions, whatever clocks said."""
        if self.decision_index is not None:
            return self.decision_index
        return self.outcome_index if self.outcome_index is not None else -1

    @property
    def status(self) -> int | None:
        """What the client got, or, when that is not known yet, what it will be told on a denial."""
        if self.response is not None:
            return self.response.status
        if self.decision is not None and self.decision.verdict == "deny" and self.open:
            return self.decision.status
        return None


class Event(msgspec.Struct, frozen=True):
    """A record of something other than an access."""

    index: int
    record: record.Admin | record.Alert | record.System


class Strange(msgspec.Struct, frozen=True):
    """A genuine record that this version cannot read."""

    index: int
    why: str


Found = Access | Event | Strange


class Placed(msgspec.Struct, frozen=True):
    """A decision or an outcome with its index in the ledger."""

    index: int
    record: Any


def access(origin: str, decision: Placed | None, outcome: Placed | None) -> Access:
    """Joins the two. At least one is there; what both say, the decision says: it was first and knows more."""
    first: record.Decision | None = decision.record if decision else None
    last: record.Outcome | None = outcome.record if outcome else None
    asked: record.Decision | record.Outcome | None = first or last
    if asked is None:
        raise ValueError("an access has a decision or an outcome")
    claimed = last.decision_index if last is not None else None
    return Access(
        id=asked.id,
        time_us=asked.time_us,
        origin=origin,
        decision_index=decision.index if decision else claimed,
        outcome_index=outcome.index if outcome else None,
        trace_id=first.trace_id if first else None,
        open=outcome is None,
        identity=first.identity if first else None,
        request=asked.request,
        client=asked.client,
        tls=asked.tls,
        decision=first.decision if first else None,
        limit=first.limit if first else None,
        issued=first.issued if first else None,
        signals=first.signals if first else (),
        sealed=first.sealed if first else None,
        response=last.response if last else None,
        upstream=_upstream(first, last),
        error=last.error if last else None,
    )


def _upstream(first: record.Decision | None, last: record.Outcome | None) -> record.UpstreamPart | None:
    """The outcome's, with the name that the decision gave; by name alone when nothing is known of it."""
    part = last.upstream if last is not None else None
    name = first.upstream if first is not None else None
    if part is None:
        return record.UpstreamPart(name=name) if name is not None else None
    if part.name is None and name is not None:
        return msgspec.structs.replace(part, name=name)
    return part


_encoder = msgspec.json.Encoder()


def as_json(found: Access) -> bytes:
    """One line of JSON, UTF-8, without its newline."""
    return _encoder.encode(found)


def read(index: int, data: bytes) -> record.Record | Strange:
    """A record's bytes -> the record, or why it cannot be read."""
    try:
        return record.decode(data)
    except ValueError as error:
        return Strange(index, str(error))
