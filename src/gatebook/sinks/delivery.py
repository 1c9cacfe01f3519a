"""The one loop behind every sink: gather, encode, send, wait, split, set aside, and only then move the cursor.

The cursor moves past a chunk when each of its items is stored at the destination, or is durably listed as refused
for good. A stop at any point sends the chunk again: a duplicate at worst, under the same id. Waits double from
FIRST_WAIT_S to MAX_WAIT_S, with jitter, or last as long as the destination asks, up to MAX_ASKED_S. Blocks: it
has a thread of its own.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import structlog

from gatebook.errors import GatebookError
from gatebook.sinks.cursor import Book, Cursor, Refused, State
from gatebook.sinks.destination import Answer, Delivered, Destination, Divide, Partly, Pause, Piece, Retry, Unfit
from gatebook.sinks.item import Item
from gatebook.sinks.stream import Place, Stream

FIRST_WAIT_S: Final = 0.5
MAX_WAIT_S: Final = 60.0
MAX_ASKED_S: Final = 3600.0
PAUSE_S: Final = 30.0  # between two looks whether what was wrong has been put right
IDLE_S: Final = 0.2

log = structlog.get_logger("sinks")


class Stopped(Exception):
    """The process is ending: what was not noted as sent will be sent by the next."""


class Delivery:
    """`open_stream` reads on from a place; `wants` says which items go; `clock` is wall time in seconds."""

    def __init__(
        self,
        name: str,
        destination: Destination,
        open_stream: Callable[[Place], Stream],
        book: Book,
        cursor: Cursor,
        *,
        wants: Callable[[Item], bool],
        stop: threading.Event,
        clock: Callable[[], float] = time.time,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._name = name
        self._destination = destination
        self._open_stream = open_stream
        self._stream: Stream | None = None
        self._book = book
        self.cursor = cursor
        self._wants = wants
        self._stop = stop
        self._clock = clock
        self._wait = wait or stop.wait
        self._state: State | None = None
        self._chunk: Cursor = cursor  # what the cursor will be once the chunk is settled

    def run(self) -> None:
        """Until `stop` is set."""
        try:
            while True:
                self.step()
        except Stopped:
            return

    def step(self) -> bool:
        """One chunk; False when there was nothing to send. Raises Stopped."""
        try:
            stream = self._stream = self._stream or self._open_stream(self.cursor.place)
            items = self._gather(stream)
        except (GatebookError, OSError) as error:
            # What was gathered is read again, from the cursor on.
            self._stream = None
            self._hold("stuck", str(error), PAUSE_S, 1)
            return False
        self._chunk = self.cursor
        for batch in self._batches([item for item in items if self._wants(item)]):
            self._settle(batch)
        moved = stream.place
        if moved != self.cursor.place:
            self._move(msgspec.structs.replace(self._chunk, place=moved))
        self._tell("sending")
        return bool(items)

    # -- gathering ----------------------------------------------------------------------------------------
    def _gather(self, stream: Stream) -> list[Item]:
        """A chunk: about as much as one batch may hold, or what there is after `linger_s`."""
        limits = self._destination.limits
        items: list[Item] = []
        room = limits.batch_bytes
        until: float | None = None
        while len(items) < limits.items and room > 0:
            more = stream.read(limits.items - len(items), room)
            items += more
            room -= sum(item.bytes for item in more)
            if stream.behind == 0 and not stream.refresh():
                items += stream.notices(int(self._clock() * 1_000_000))
                if not items:
                    self._sleep(IDLE_S)
                    if stream.place != self.cursor.place:
                        return items  # decisions that wait: the cursor may move on
                    continue
                until = until if until is not None else self._clock() + limits.linger_s
                left = until - self._clock()
                if left <= 0:
                    break
                self._sleep(min(left, IDLE_S))
        return items

    def _batches(self, items: Sequence[Item]) -> list[list[Piece]]:
        limits = self._destination.limits
        batches: list[list[Piece]] = []
        unfit: list[tuple[Item, str]] = []
        size = 0
        for item in items:
            try:
                data = self._destination.encode(item)
                if len(data) > limits.item_bytes:
                    raise Unfit(f"{len(data)} bytes; it takes {limits.item_bytes}")
            except Unfit as error:
                unfit.append((item, str(error)))
                continue
            except Exception as error:
                # A fault of ours about one record may hold up no other; it is listed, and the ledger has it.
                log.exception("error of our own", sink=self._name, item=item.id)
                unfit.append((item, f"error of our own: {error!r}"))
                continue
            if not batches or len(batches[-1]) >= limits.items or size + len(data) > limits.batch_bytes:
                batches.append([])
                size = 0
            batches[-1].append(Piece(item, data))
            size += len(data)
        self._set_aside(unfit)
        return batches

    # -- one batch ----------------------------------------------------------------------------------------
    def _settle(self, batch: list[Piece]) -> None:
        """Returns when each item of it is stored or set aside."""
        attempts = 0
        while batch:
            answer = self._send(batch)
            match answer:
                case Delivered():
                    self._count(batch, answer.duplicates, answer.elsewhere)
                    if answer.note:
                        log.warning("delivered, but", sink=self._name, note=answer.note)
                    return
                case Partly():
                    done = [p for n, p in enumerate(batch) if n not in answer.refused and n not in answer.again]
                    self._count(done, answer.duplicates, answer.elsewhere)
                    self._set_aside([(batch[n].item, why) for n, why in answer.refused.items()])
                    attempts = 0 if done else attempts
                    batch = [batch[n] for n in answer.again]
                    if batch:
                        attempts += 1
                        self._back_off(answer.why, answer.after_s, attempts)
                case Divide(why=why):
                    if len(batch) == 1:
                        self._set_aside([(batch[0].item, why)])
                        return
                    middle = len(batch) // 2
                    self._settle(batch[:middle])
                    batch, attempts = batch[middle:], 0
                case Retry(why=why, after_s=after_s):
                    attempts += 1
                    self._back_off(why, after_s, attempts)
                case Pause(why=why):
                    attempts += 1
                    self._hold("paused", why, PAUSE_S, attempts)

    def _send(self, batch: list[Piece]) -> Answer:
        if self._stop.is_set():
            raise Stopped
        try:
            return self._destination.send(batch)
        except Exception as error:
            # A fault of ours may not lose a record either: it is tried again, loudly.
            log.exception("error of our own", sink=self._name)
            return Retry(f"error of our own: {error!r}")

    def _back_off(self, why: str, asked_s: float | None, attempts: int) -> None:
        longest = min(MAX_WAIT_S, FIRST_WAIT_S * 2 ** min(attempts - 1, 10))
        wait_s = random.uniform(longest / 2, longest)  # noqa: S311 - so that not all come back at once
        if asked_s is not None:
            wait_s = max(wait_s, min(asked_s, MAX_ASKED_S))
        self._hold("waiting", why, wait_s, attempts)

    def _hold(self, doing: str, why: str, seconds: float, attempts: int) -> None:
        self._tell(doing, why, attempts)
        self._sleep(seconds)

    def _sleep(self, seconds: float) -> None:
        if self._wait(seconds):
            raise Stopped

    # -- what is kept -------------------------------------------------------------------------------------
    def _count(self, done: Sequence[Piece], duplicates: int, elsewhere: int) -> None:
        chunk = self._chunk
        newest = max((piece.item.time_us for piece in done), default=0)
        self._chunk = msgspec.structs.replace(
            chunk,
            sent=chunk.sent + len(done),
            duplicates=chunk.duplicates + duplicates,
            elsewhere=chunk.elsewhere + elsewhere,
            sent_us=max(chunk.sent_us, newest),
        )

    def _set_aside(self, refused: list[tuple[Item, str]]) -> None:
        """Durably listed, with the reason; while the disk does not take that, nothing goes on."""
        if not refused:
            return
        now_us = int(self._clock() * 1_000_000)
        lines = [
            Refused(id=item.id, indices=[part.index for part in item.parts], why=why[:500], time_us=now_us)
            for item, why in refused
        ]
        self._persist(lambda: self._book.refuse(lines))
        log.error("set aside what it refuses for good", sink=self._name, items=len(lines), why=lines[0].why)
        self._chunk = msgspec.structs.replace(self._chunk, refused=self._chunk.refused + len(lines))

    def _move(self, cursor: Cursor) -> None:
        self._persist(lambda: self._book.move(cursor))
        self.cursor = self._chunk = cursor

    def _persist(self, write: Callable[[], None]) -> None:
        attempts = 0
        while True:
            try:
                return write()
            except OSError as error:
                attempts += 1
                self._hold("stuck", f"{error.filename or 'disk'}: {error.strerror or error}", PAUSE_S, attempts)

    def _tell(self, doing: str, why: str = "", attempts: int = 0) -> None:
        state = self._state
        if state is not None and (state.doing, state.why, state.attempts) == (doing, why, attempts):
            return
        if doing != "sending" and (state is None or state.why != why):
            log.warning("not sending", sink=self._name, doing=doing, why=why)
        if doing == "sending" and state is not None and state.doing != "sending":
            log.info("sending again", sink=self._name)
        since_us = int(self._clock() * 1_000_000)
        if state is not None and state.doing == doing:
            since_us = state.since_us
        self._state = State(doing=doing, why=why, since_us=since_us, attempts=attempts)  # type: ignore[arg-type]
        self._book.tell(self._state)


def begin(book: Book, origin: str, size: int, start: str) -> Cursor:
    """Where a sink goes on; or begins, which is noted first. Raises EnvironmentFault or OSError."""
    known = book.cursor(origin)
    if known is not None:
        return known
    first = size if start == "now" else 0
    made = Cursor(origin=origin, place=Place(next=first), first=first)
    book.move(made)
    return made
