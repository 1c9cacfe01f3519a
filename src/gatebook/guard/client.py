"""The guard's connection to the recorder: records go out in batches, receipts come back in order.

What is appended during one turn of the loop leaves as one message, with at most two on the way, so the
recorder's group commits grow by themselves under load. Whoever waits is told an index, or None: then
nothing may be let through. Never waits longer than the time-out for an acknowledgement: a recorder that
hangs is taken for dead, everybody who waits is told so, and a new connection is tried.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import structlog

from gatebook import wire
from gatebook.errors import RecorderUnavailable

MAX_ON_THE_WAY = 2
MAX_BATCH_ITEMS = 1024
MAX_BATCH_BYTES = 2 << 20
MAX_WAITING = 50_000
RETRY_S = 0.05
BEAT_S = 0.5

log = structlog.get_logger("guard")

Told = Callable[[int | None], None]
Handle = Callable[[wire.Reply | None], None]


class _Sent(NamedTuple):
    deadline: float
    batch: bool
    handle: Handle


class RecorderClient:
    """`up`: the recorder has answered lately. `append` and `ask` work only then."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.up = False
        self._path = str(path)
        self._link: _Link | None = None
        self._waiting: deque[tuple[wire.Item, Told]] = deque()
        self._sent: deque[_Sent] = deque()
        self._batches = 0
        self._scheduled = False
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._keep_connected())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._fail("the guard is stopping")

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._sent

    # -- what the guard wants ---------------------------------------------------------------------------
    def append(self, item: wire.Item, told: Told) -> None:
        """`told(index)` once the record is durable, or `told(None)`: it may or may not become so."""
        if not self.up or len(self._waiting) >= MAX_WAITING:
            told(None)
            return
        self._waiting.append((item, told))
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    async def ask(self, message: wire.Message) -> wire.Reply:
        """One question, one answer. Raises RecorderUnavailable."""
        if self._link is None:
            raise RecorderUnavailable("no connection to the recorder")
        future: asyncio.Future[wire.Reply | None] = asyncio.get_running_loop().create_future()

        def handle(reply: wire.Reply | None) -> None:
            if not future.done():
                future.set_result(reply)

        self._send(message, handle, batch=False)
        reply = await future
        if reply is None or isinstance(reply, wire.Refused):
            raise RecorderUnavailable("no answer" if reply is None else reply.why)
        return reply

    async def pseudonym(self, name: str) -> str:
        """32 hex digits; durable. Raises RecorderUnavailable."""
        reply = await self.ask(wire.Pseudonym(name))
        if not isinstance(reply, wire.Pseudonymous):
            raise RecorderUnavailable(f"answered {type(reply).__name__} when asked for a pseudonym")
        return reply.pseudonym.hex()

    # -- sending ----------------------------------------------------------------------------------------
    def _flush(self) -> None:
        self._scheduled = False
        while self._waiting and self._batches < MAX_ON_THE_WAY and self._link is not None:
            items: list[wire.Item] = []
            told: list[Told] = []
            size = 0
            while self._waiting and len(items) < MAX_BATCH_ITEMS and size < MAX_BATCH_BYTES:
                item, who = self._waiting.popleft()
                items.append(item)
                told.append(who)
                size += len(item.record)
            self._batches += 1
            self._send(wire.Append(items), _acknowledgement(told), batch=True)

    def _send(self, message: wire.Message, handle: Handle, batch: bool) -> None:
        assert self._link is not None  # noqa: S101 - both callers have looked
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        self._sent.append(_Sent(deadline, batch, handle))
        self._link.write(wire.pack(message))

    # -- hearing ----------------------------------------------------------------------------------------
    def heard(self, link: _Link, reply: wire.Reply) -> None:
        if link is not self._link:
            return
        if not self._sent:
            self.hung_up(link, "the recorder spoke unasked")
            return
        sent = self._sent.popleft()
        if sent.batch:
            self._batches -= 1
            if self._waiting:
                self._flush()
        sent.handle(reply)

    def hung_up(self, link: _Link, why: str) -> None:
        if link is self._link:
            self._fail(why)

    def _fail(self, why: str) -> None:
        """Tell everybody who waits; what they sent may or may not become durable."""
        link, self._link = self._link, None
        if self.up:
            log.warning("lost the recorder: every request is refused", why=why)
        self.up = False
        sent, self._sent = self._sent, deque()
        waiting, self._waiting = self._waiting, deque()
        self._batches = 0
        self._lost.set()
        if link is not None:
            link.abort()
        for each in sent:
            each.handle(None)
        for _, told in waiting:
            told(None)

    # -- staying connected ------------------------------------------------------------------------------
    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(OSError, RecorderUnavailable):
                self._lost.clear()
                _, self._link = await loop.create_unix_connection(lambda: _Link(self), self._path)
                await self.ask(wire.Status())  # it has opened its ledger and answers
                self.up = True
                log.info("connected to the recorder")
                await self._watch()
            self._fail("no connection")
            await asyncio.sleep(RETRY_S)

    async def _watch(self) -> None:
        """Until the connection is lost. A question now and then finds a recorder that hangs while nobody calls."""
        beat: asyncio.Task[wire.Reply] | None = None
        loop = asyncio.get_running_loop()
        next_beat = loop.time() + BEAT_S
        while not self._lost.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), min(0.05, self.timeout_s / 4))
            now = loop.time()
            if self._sent and self._sent[0].deadline < now:
                self._fail(f"no acknowledgement within {self.timeout_s:g} s")
            elif now >= next_beat and (beat is None or beat.done()):
                next_beat = now + BEAT_S
                beat = loop.create_task(self.ask(wire.Status()))
                beat.add_done_callback(lambda done: done.cancelled() or done.exception())


def _acknowledgement(told: list[Told]) -> Handle:
    def handle(reply: wire.Reply | None) -> None:
        first = reply.first_index if isinstance(reply, wire.Appended) else None
        for position, each in enumerate(told):
            try:
                each(None if first is None else first + position)
            except Exception:  # one that fails must not keep the others from their receipts
                log.exception("could not answer a request")

    return handle


class _Link(asyncio.Protocol):
    def __init__(self, client: RecorderClient) -> None:
        self._client = client
        self._framer = wire.Framer()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's class is not asyncio's

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._client.hung_up(self, "it hung up" if exc is None else str(exc))

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._framer.feed(data):
                self._client.heard(self, wire.unpack_reply(body))
        except ValueError as error:
            self._client.hung_up(self, f"not understood: {error}")

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
