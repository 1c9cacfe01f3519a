"""A ledger's reader in memory, and records as the guard and the recorder make them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gatebook import record
from gatebook.record import (
    Decision,
    DecisionPart,
    ErrorPart,
    IdentityPart,
    Outcome,
    RequestPart,
    ResponsePart,
    UpstreamPart,
)

ORIGIN = "acme/node-1"
T0 = 1_700_000_000_000_000


def request_id(number: int) -> str:
    return f"{number:032x}"


def decision(number: int, **changes: Any) -> Decision:
    """Request `number`, allowed, made `number` seconds after T0."""
    verdict = changes.pop("verdict", "allow")
    fields: dict[str, Any] = {
        "id": request_id(number),
        "time_us": T0 + number * 1_000_000,
        "identity": IdentityPart(provider="staff", method="oidc", subject="ab" * 16, client="app"),
        "request": RequestPart(method="GET", path=f"/orders/{number}", route="read-order"),
        "decision": DecisionPart(
            verdict=verdict,
            status=200 if verdict == "allow" else 403,
            reason="rule" if verdict == "allow" else "no_rule",
            configuration="cd" * 32,
            durability="before-access",
            rule="readers" if verdict == "allow" else None,
        ),
        "upstream": "orders" if verdict == "allow" else None,
    }
    return Decision(**{**fields, **changes})


def outcome(number: int, index: int | None, status: int = 200, **changes: Any) -> Outcome:
    """What came of request `number`, whose decision has that index."""
    fields: dict[str, Any] = {
        "id": request_id(number),
        "time_us": T0 + number * 1_000_000 + 5_000,
        "decision_index": index,
        "response": ResponsePart(status=status, bytes_out=12, duration_us=5_000, complete=True),
        "upstream": UpstreamPart(address="127.0.0.1:9001", status=status),
    }
    return Outcome(**{**fields, **changes})


def unknown(index: int) -> Outcome:
    return Outcome(time_us=T0, decision_index=index, error=ErrorPart(source="gateway", detail="outcome_unknown"))


def refused(number: int, status: int = 400) -> Outcome:
    """A request that the gateway refused before it asked the guard."""
    return outcome(number, None, status, upstream=None, request=RequestPart(method="GET", path="/bad"))


def encoded(records: Sequence[record.Record | bytes]) -> list[bytes]:
    return [item if isinstance(item, bytes) else record.encode(item) for item in records]


class MemoryLedger:
    """`access.find.Source` over a list. `hidden` records are there, but not seen before `refresh`."""

    def __init__(self, *records: record.Record | bytes, hidden: Sequence[record.Record | bytes] = ()) -> None:
        self.data: list[bytes] = encoded(records)
        self.hidden = encoded(hidden)
        self.read = 0

    @property
    def origin(self) -> str:
        return ORIGIN

    @property
    def size(self) -> int:
        return len(self.data)

    def refresh(self) -> bool:
        fresh, self.hidden = self.hidden, []
        self.data += fresh
        return bool(fresh)

    def forwards(self, start: int) -> Iterator[tuple[int, bytes]]:
        yield from list(enumerate(self.data))[start:]

    def backwards(self) -> Iterator[tuple[int, bytes]]:
        for index in range(len(self.data) - 1, -1, -1):
            self.read += 1
            yield index, self.data[index]

    def record(self, index: int) -> bytes | None:
        return self.data[index] if 0 <= index < len(self.data) else None
