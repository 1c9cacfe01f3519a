"""Sends outside the loop that runs: one marked record, or a range once more. Moves no sink's cursor.

A range goes through the same loop as everything else, with a cursor of its own that is thrown away.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gatebook import record
from gatebook.access.found import Event
from gatebook.config.sinks import Sink
from gatebook.sinks.cursor import Book, Cursor
from gatebook.sinks.delivery import Delivery
from gatebook.sinks.destination import Delivered, Destination, Partly, Piece, Unfit
from gatebook.sinks.item import Item, Part
from gatebook.sinks.stream import Place, Source, Stream
from gatebook.sinks.wanted import wanted


class Range(NamedTuple):
    """From entry `first`, or from `since_us` on; up to `until_us`; below `size`."""

    first: int | None
    since_us: int | None
    until_us: int | None
    size: int


def marked(origin: str, now_us: int) -> Item:
    """A record that is in no ledger, and says so: its id has no index."""
    made = record.System(time_us=now_us, event="sink.test", detail={"not_in_the_ledger": True})
    part = Part(-1, record.encode(made))
    return Item(f"{origin}/test/{now_us}", "system", -1, now_us, Event(-1, made), (part,))


def send_one(destination: Destination, item: Item) -> tuple[bool, str]:
    """Whether it was stored, and what was answered."""
    try:
        answer = destination.send([Piece(item, destination.encode(item))])
    except Unfit as error:
        return False, str(error)
    match answer:
        case Delivered(note=note):
            return True, note or "stored"
        case Partly(refused=refused, again=again, why=why):
            return not refused and not again, "; ".join([*refused.values(), why]).strip("; ") or "stored"
        case _:
            return False, answer.why


def resend(
    name: str,
    destination: Destination,
    settings: Sink,
    source: Source,
    chosen: Range,
    stop: threading.Event,
    progress: Callable[[int, int], None],
) -> dict[str, int]:
    """Until all of the range is stored or refused; how many of each."""
    first = chosen.first or 0
    asked = wanted(settings)

    def wants(item: Item) -> bool:
        early = chosen.since_us is not None and item.time_us < chosen.since_us
        late = chosen.until_us is not None and item.time_us >= chosen.until_us
        return asked(item) and not early and not late

    with tempfile.TemporaryDirectory(prefix="gatebook-replay-") as folder:
        cursor = Cursor(origin=source.origin, place=Place(next=first), first=first)
        delivery = Delivery(
            name,
            destination,
            lambda place: Stream(source, place, salts=settings.salts),
            Book(Path(folder), name),
            cursor,
            wants=wants,
            stop=stop,
        )
        while delivery.cursor.place.next < chosen.size:
            delivery.step()
            progress(delivery.cursor.sent, max(0, chosen.size - delivery.cursor.place.next))
        done = delivery.cursor
    return {"sent": done.sent, "refused": done.refused, "duplicates": done.duplicates}
