"""The guard's connection to the recorder: records go out in batches, receipts come back in order.

What is appended during one turn of the loop leaves as one message, with at most two on the way, so the
recorder's group commits grow by themselves under load. Whoever waits is told an index, or None: then
nothing may be let through. Never waits longer than the time-out for an answer, and never believes one that
cannot be: a recorder that hangs or talks nonsense is taken for dead, everybody who waits is told so, and a
new connection is tried. Trust: the recorder is ours; what it says is durable is durable, and stays so.
"""

from __future__ import annotations

import asyncio
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
MAX_WAITING_BYTES = 64 << 20  # of records; nginx bounds those who wait, but not who has been let through before
RETRY_S = 0.05
BEAT_S = 0.4  # so long may it take until somebody who was forgotten is forgotten here
KEY_BYTES = 32
_STOPPING = "this process is stopping"

log = structlog.get_logger("guard")

_BEAT = wire.pack(wire.Status())
_OWN_FAULT = "an error of the guard's own"

Told = Callable[[int | None], None]
Handle = Callable[[wire.Reply | None], None]


class _Sent(NamedTuple):
    """So many `records`, or a question (0). `expects` is what may come back, besides a refusal."""

    deadline: float
    records: int
    expects: type[wire.Reply]
    handle: Handle


class Resolved(NamedTuple):
    """A name's pseudonym, 32 hex digits, its key where that was asked for, and until when both are good."""

    pseudonym: str
    key: bytes
    until: float


class RecorderClient:
    """`up`: the recorder has answered lately. `append` works only then.

    `on_erasure` is called when somebody was forgotten: what is remembered of names may be theirs.
    """

    def __init__(self, path: Path, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.up = False
        self.on_erasure: Callable[[], None] = _nothing
        self._erasures: int | None = None
        self._beating = False
        self._path = str(path)
        self._link: _Link | None = None
        self._waiting: deque[tuple[wire.Item, Told]] = deque()
        self._waiting_bytes = 0
        self._sent: deque[_Sent] = deque()
        self._batches = 0
        self._next_index = 0  # no record may get an index below: the ledger only grows
        self._complaint = ""
        self._scheduled = False
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._keep_connected())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.up, self._complaint = False, _STOPPING
        self._fail(_STOPPING)  # which is nothing to complain of

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._batches

    # -- what the guard wants ---------------------------------------------------------------------------
    def append(self, item: wire.Item, told: Told) -> bool:
        """`told(index)` once the record is durable, or `told(None)`: it may or may not become so.

        False when the record is not even taken: then `told` is not called, and nothing has happened.
        """
        if not self.up or self._waiting_bytes >= MAX_WAITING_BYTES:
            return False
        self._waiting.append((item, told))
        self._waiting_bytes += len(item.record)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)
        return True

    async def pseudonym(self, name: str, sealing: bool = False) -> Resolved:
        """Durable. Raises RecorderUnavailable."""
        reply = await self._ask(wire.Pseudonym(name, sealing), wire.Pseudonymous)
        assert isinstance(reply, wire.Pseudonymous)  # noqa: S101 - `_wrong` has looked
        if sealing and len(reply.key) != KEY_BYTES:
            raise RecorderUnavailable(f"it gave out a key of {len(reply.key)} bytes")
        return Resolved(reply.pseudonym.hex(), reply.key, reply.until)

    async def first_use(self, key: bytes, until_us: int) -> bool:
        """Whether nobody has used it before; from then on it is used. Raises RecorderUnavailable."""
        reply = await self._ask(wire.Once(key, until_us), wire.Used)
        assert isinstance(reply, wire.Used)  # noqa: S101 - `_wrong` has looked
        return reply.first

    async def _ask(self, message: wire.Message, expects: type[wire.Reply]) -> wire.Reply:
        """One question, one answer of that type. Raises RecorderUnavailable."""
        if not self.up:
            raise RecorderUnavailable("no recorder")
        return await self._answered(message, expects)

    async def _answered(self, message: wire.Message, expects: type[wire.Reply]) -> wire.Reply:
        data = wire.pack(message)
        if self._link is None:
            raise RecorderUnavailable("it hung up")
        future: asyncio.Future[wire.Reply | None] = asyncio.get_running_loop().create_future()

        def handle(reply: wire.Reply | None) -> None:
            if not future.done():
                future.set_result(reply)

        self._send(self._link, data, 0, expects, handle)
        reply = await future
        if reply is None or isinstance(reply, wire.Refused):
            raise RecorderUnavailable(self._complaint if reply is None else reply.why)
        return reply

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
            self._waiting_bytes -= size
            try:
                data = wire.pack(wire.Append(items))
            except Exception:  # one that cannot be packed takes its batch with it, and nobody else
                log.exception("could not pack decisions: refused")
                _tell(told, None)
            else:
                self._send(self._link, data, len(items), wire.Appended, _acknowledgement(told))

    def _send(self, link: _Link, data: bytes, records: int, expects: type[wire.Reply], handle: Handle) -> None:
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        self._sent.append(_Sent(deadline, records, expects, handle))
        self._batches += records > 0
        link.write(data)

    # -- hearing ----------------------------------------------------------------------------------------
    def made(self, link: _Link) -> None:
        self._link = link

    def heard(self, link: _Link, reply: wire.Reply) -> None:
        if link is not self._link:
            return
        wrong = self._wrong(reply)
        if wrong is not None:
            self._fail(wrong)
            return
        sent = self._sent.popleft()
        if sent.records:
            self._batches -= 1
            if isinstance(reply, wire.Appended):
                self._next_index = reply.first_index + sent.records
            if self._waiting:
                self._flush()
        elif isinstance(reply, wire.Stands | wire.Pseudonymous):
            self._see_erasures(reply.erasures)
        sent.handle(reply)

    def _see_erasures(self, erasures: int) -> None:
        known, self._erasures = self._erasures, erasures
        if known is not None and known != erasures:
            self.on_erasure()

    def _wrong(self, reply: wire.Reply) -> str | None:
        """Why this cannot be the answer to what was sent first. A receipt must never stand for another record."""
        if not self._sent:
            return "it spoke unasked"
        sent = self._sent[0]
        if isinstance(reply, wire.Refused):
            return None
        if not isinstance(reply, sent.expects):
            return f"it answered {type(reply).__name__} instead of {sent.expects.__name__}"
        if isinstance(reply, wire.Appended) and reply.first_index < self._next_index:
            return f"it gave out index {reply.first_index} where {self._next_index} is the lowest that can be"
        if isinstance(reply, wire.Pseudonymous) and len(reply.pseudonym) != 16:
            return f"it gave out a pseudonym of {len(reply.pseudonym)} bytes"
        return None

    def hung_up(self, link: _Link, why: str) -> None:
        if link is self._link:
            self._fail(why)

    def _fail(self, why: str) -> None:
        """Tell everybody who waits; what they sent may or may not become durable."""
        link, self._link = self._link, None
        if self.up or why != self._complaint:
            log.warning("no recorder: every request is refused", why=why)
        self._complaint = why
        self.up = False
        sent, self._sent = self._sent, deque()
        waiting, self._waiting = self._waiting, deque()
        self._batches = self._waiting_bytes = 0
        self._lost.set()
        if link is not None:
            link.abort()
        for each in sent:
            each.handle(None)
        _tell([told for _, told in waiting], None)

    # -- staying connected ------------------------------------------------------------------------------
    async def _keep_connected(self) -> None:
        while True:
            try:
                self._lost.clear()
                await self._connect()
                await self._watch()
            except (OSError, RecorderUnavailable) as error:  # a TimeoutError is an OSError
                self._fail(str(error) or "no answer when connecting")
            except Exception:
                if self._complaint != _OWN_FAULT:
                    log.exception("error in the connection to the recorder")
                self._fail(_OWN_FAULT)
            await asyncio.sleep(RETRY_S)

    async def _connect(self) -> None:
        """Up only once it has said that its ledger is open, and complete. Raises OSError, RecorderUnavailable."""
        async with asyncio.timeout(self.timeout_s):
            await asyncio.get_running_loop().create_unix_connection(lambda: _Link(self), self._path)
            stands = await self._answered(wire.Status(), wire.Stands)
        assert isinstance(stands, wire.Stands)  # noqa: S101 - `_wrong` has looked
        if stands.size < self._next_index:
            raise RecorderUnavailable(
                f"its ledger has {stands.size} entries, but {self._next_index} were acknowledged: some are lost"
            )
        if self._link is None:
            raise RecorderUnavailable("it hung up")
        self._next_index = stands.size
        self._complaint = ""
        self.up = True
        log.info("connected to the recorder")

    async def _watch(self) -> None:
        """Until the connection is lost. A question now and then finds a recorder that hangs while nobody calls."""
        loop = asyncio.get_running_loop()
        next_beat = loop.time() + BEAT_S
        while not self._lost.is_set():
            await asyncio.sleep(min(0.05, self.timeout_s / 4))
            now = loop.time()
            if self._sent and self._sent[0].deadline < now:
                self._fail(f"no answer within {self.timeout_s:g} s")
            elif now >= next_beat and self._link is not None and not self._beating:
                next_beat = now + BEAT_S
                self._beating = True
                self._send(self._link, _BEAT, 0, wire.Stands, self._beaten)

    def _beaten(self, _reply: wire.Reply | None) -> None:
        """A beat's answer; that it came is all, or that it will not."""
        self._beating = False


def _nothing() -> None:
    """Nobody remembers names."""


def _acknowledgement(told: list[Told]) -> Handle:
    def handle(reply: wire.Reply | None) -> None:
        _tell(told, reply.first_index if isinstance(reply, wire.Appended) else None)

    return handle


def _tell(told: list[Told], first: int | None) -> None:
    for position, each in enumerate(told):
        try:
            each(None if first is None else first + position)
        except Exception:  # one that fails must not keep the others from their receipts
            log.exception("could not answer a request")


class _Link(asyncio.Protocol):
    def __init__(self, client: RecorderClient) -> None:
        self._client = client
        self._framer = wire.Framer()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's class is not asyncio's
        self._client.made(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._client.hung_up(self, "it hung up" if error is None else str(error))

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._framer.feed(data):
                self._client.heard(self, wire.unpack_reply(body))
        except ValueError as error:
            self._client.hung_up(self, f"not understood: {error}")

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
