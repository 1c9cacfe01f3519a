"""What is sent: an access, or a record of another kind, with what it takes to check it against the ledger. Pure.

An item's id is `<origin>/<index>`, the same whenever it is sent; a stream that is still going on has `/open`
behind it, so that its end is another item and not a second copy.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from gatebook.access.found import Access, Event, Strange

Kind = Literal["access", "admin", "alert", "system", "unreadable"]


@dataclass(frozen=True, slots=True)
class Part:
    """One record of the ledger. `salt` and the exact bytes give the commitment that the tree holds."""

    index: int
    record: bytes
    salt: bytes | None = None

    def plain(self) -> dict[str, Any]:
        """For JSON: the record's exact text, the salt in base64."""
        told: dict[str, Any] = {"index": self.index, "record": self.record.decode("utf-8", "surrogateescape")}
        if self.salt is not None:
            told["salt"] = base64.b64encode(self.salt).decode()
        return told


@dataclass(frozen=True, slots=True)
class Item:
    """`parts`: a decision and its outcome, or the one of them that there is; of other kinds the record itself."""

    id: str
    kind: Kind
    index: int
    time_us: int
    found: Access | Event | Strange
    parts: tuple[Part, ...]

    @property
    def bytes(self) -> int:
        """Of its records; what is sent of it has more, as a rule."""
        return sum(len(part.record) for part in self.parts)

    @property
    def access(self) -> Access | None:
        return self.found if isinstance(self.found, Access) else None


_encoder = msgspec.json.Encoder()


def plain(item: Item) -> dict[str, Any]:
    """Our own form: the access record or the record, its kind and id, and its parts under `ledger`."""
    match item.found:
        case Access():
            body = msgspec.to_builtins(item.found)
        case Event(record=record):
            body = msgspec.to_builtins(record)
        case Strange(why=why):
            body = {"why": why}
    body.pop("v", None)
    return {"id": item.id, "kind": item.kind, **{k: v for k, v in body.items() if k not in ("id", "kind")}} | {
        "request_id": body.get("id"),
        "ledger": [part.plain() for part in item.parts],
    }


def encode(document: Any) -> bytes:
    """JSON, on one line."""
    return _encoder.encode(document)
