"""What a sink holds, against the ledger: its records are in the signed tree, and its fields say what they say.

In: lines of JSON as a sink gives them out, in any of our formats but OpenTelemetry's, alone or as Elasticsearch
(`_source`) and Splunk (`result`, `_raw`) wrap them; the public tree. Each record gives, with its salt, the entry
that the tree has to hold at its index. From the records the item is made once more, and every field of that has to
be in the line as it is: fields that a sink has added are passed over, those that were changed or taken away are
found. Believes nothing in a line.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Final, Literal, NamedTuple

from gatebook.access.found import Access, Event, Placed, access, read
from gatebook.errors import Tampered
from gatebook.ledger.entry import RECORD_PREFIX
from gatebook.ledger.prove import Tree
from gatebook.ledger.segment import commitment
from gatebook.record import Admin, Alert, Decision, Outcome, System
from gatebook.sinks.fields import Schema, document
from gatebook.sinks.item import Item, Kind, Part

MAX_LINE_BYTES: Final = 4 << 20
# What says who made the item, not what is in it: another version of gatebook may be looking.
_MAKER: Final = frozenset({"observer.version", "metadata.product.version", "metadata.version", "ecs.version"})
Verdict = Literal["verified", "a trial", "altered", "not in the log", "not proven", "unreadable"]


class Line(NamedTuple):
    """What one line turned out to be. `a trial`: of `gatebook sinks test`, which is in no ledger and says so.

    `not proven`: it has no salts, or no checkpoint covers it yet.
    """

    number: int
    id: str
    verdict: Verdict
    why: str = ""


def check(lines: Iterable[bytes], tree: Tree, origin: str) -> Iterator[Line]:
    """One verdict a line; empty ones have none. Raises Damaged or Tampered when there is no tree to go by."""
    tree.checkpoint()
    for number, data in enumerate(lines, 1):
        if data.strip():
            yield _check(number, data, tree, origin)


def lines_of(stream: BinaryIO) -> Iterator[bytes]:
    """Its lines; of one that is too long, no more than shows that it is."""
    while data := stream.readline(MAX_LINE_BYTES + 1):
        yield data
        while len(data) > MAX_LINE_BYTES and not data.endswith(b"\n"):
            data = stream.readline(MAX_LINE_BYTES + 1)


def _check(number: int, data: bytes, tree: Tree, origin: str) -> Line:
    try:
        body = _body(_strict(data)) if len(data) <= MAX_LINE_BYTES else None
        found = _unwrapped(body)
    except (ValueError, RecursionError):
        found = None
    if found is None:
        return Line(number, "", "unreadable", "no JSON object of ours")
    schema, told = found
    if len(told) == 1 and _is_trial(told[0]):
        return Line(number, "", "a trial")
    try:
        parts = [_part(one) for one in told]
    except (ValueError, TypeError, KeyError, binascii.Error) as error:
        return Line(number, "", "unreadable", f"its `ledger` is not as it was sent: {error}")
    if not parts:
        return Line(number, "", "not proven", "it holds no records")
    item = _item(parts, origin)
    if item is None:
        return Line(number, "", "altered", "its records do not belong together")
    if item.access is not None and item.access.decision is None and item.access.decision_index is not None:
        return Line(number, item.id, "not proven", "its decision, which says who it was, is not in it")
    for part in parts:
        if part.salt is None:
            return Line(number, item.id, "not proven", "it was sent without salts")
        entry = RECORD_PREFIX + commitment(part.salt, part.record)
        try:
            if tree.inclusion(part.index, entry) is None:
                return Line(number, item.id, "not proven", f"no checkpoint covers entry {part.index} yet")
        except Tampered:
            return Line(number, item.id, "not in the log", f"entry {part.index} is another record")
    wrong = next(_differences(_plain(document(item, schema)), body), None)
    if wrong is not None:
        return Line(number, item.id, "altered", f"{wrong} is not what the records say")
    return Line(number, item.id, "verified")


def _is_trial(told: Any) -> bool:
    if not isinstance(told, dict) or told.get("index") != -1 or not isinstance(told.get("record"), str):
        return False
    made = read(-1, told["record"].encode("utf-8", "surrogateescape"))
    return isinstance(made, System) and made.event == "sink.test"


def _body(made: Any) -> Any:
    """The document itself, out of what a sink wraps it in."""
    for name in ("_source", "result", "event"):
        if isinstance(made, dict) and isinstance(made.get(name), dict) and name != "event":
            made = made[name]
    if isinstance(made, dict) and isinstance(made.get("event"), dict) and "ledger" in made["event"]:
        made = made["event"]  # Splunk's envelope
    if isinstance(made, dict) and isinstance(made.get("_raw"), str):
        made = _strict(made["_raw"].encode())
    return made


def _unwrapped(body: Any) -> tuple[Schema, list[Any]] | None:
    """In whose words it is, and the records in it."""
    if not isinstance(body, dict):
        return None
    places: tuple[tuple[Schema, tuple[str, ...]], ...] = (
        ("ocsf", ("unmapped", "gatebook", "ledger")),
        ("datadog" if "ddsource" in body else "ecs", ("gatebook", "ledger")),
        ("cim" if "vendor_product" in body else "gatebook", ("ledger",)),
    )
    for schema, path in places:
        value: Any = body
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, list):
            return schema, value
    return None


def _part(told: Any) -> Part:
    if not isinstance(told["index"], int) or not 0 <= told["index"] < 1 << 62:
        raise ValueError("an index that is none")
    if not isinstance(told["record"], str):
        raise ValueError("a record that is none")
    salt = told.get("salt")
    raw = None if salt is None else base64.b64decode(salt, validate=True)
    if raw is not None and len(raw) != 32:
        raise ValueError("a salt that is none")
    return Part(told["index"], told["record"].encode("utf-8", "surrogateescape"), raw)


def _item(parts: list[Part], origin: str) -> Item | None:
    """The item that these records make; None when they make none."""
    made = [read(part.index, part.record) for part in parts]
    placed = [Placed(part.index, one) for part, one in zip(parts, made, strict=True)]
    match made:
        case [Decision() as decision, Outcome() as outcome]:
            if outcome.decision_index not in (None, parts[0].index) or not _same(decision, outcome):
                return None
            found: Access = access(origin, placed[0], placed[1])
        case [Decision()]:
            found = access(origin, placed[0], None)
        case [Outcome() as outcome]:
            found = access(origin, None, placed[0])
        case [(Admin() | Alert() | System()) as one]:
            kind: Kind = "admin" if isinstance(one, Admin) else "alert" if isinstance(one, Alert) else "system"
            index = parts[0].index
            return Item(f"{origin}/{index}", kind, index, one.time_us, Event(index, one), tuple(parts))
        case _:
            return None
    ident = f"{origin}/{found.index}" + ("/open" if found.open else "")
    return Item(ident, "access", found.index, found.time_us, found, tuple(parts))


def _same(decision: Decision, outcome: Outcome) -> bool:
    """Whether they are of one request: by the index, or where the outcome did not know it, by the id."""
    if outcome.id is None:
        return outcome.decision_index is not None
    return outcome.id == decision.id


def _strict(data: bytes) -> Any:
    """JSON without doubled names: programs differ in which of them they believe."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a name twice")
        return made

    return json.loads(data, object_pairs_hook=once)


def _plain(made: dict[str, Any]) -> Any:
    """As it looks behind JSON."""
    return json.loads(json.dumps(made))


def _differences(expected: Any, found: Any, path: str = "") -> Iterator[str]:
    """Fields of `expected` that are not so in `found`."""
    if isinstance(expected, dict):
        for name, value in expected.items():
            below = found.get(name) if isinstance(found, dict) else None
            yield from _differences(value, below, f"{path}.{name}" if path else name)
    elif expected != found and path not in _MAKER:
        yield path
