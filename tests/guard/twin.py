"""The recorder's twin: speaks its protocol on a real unix socket, remembers what it acknowledged, and misbehaves
as a test tells it. Nothing in here knows the guard.

`judge` says what becomes of a message: a reply, raw bytes, or None for silence. While it `holds`, messages
wait in `held`. `Aside` runs one in a thread of its own, for guards that are processes.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from gatebook import record, wire

DEADLINE_S = 20.0
T = TypeVar("T")


class Twin:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.items: list[wire.Item] = []  # what is durable
        self.asked: list[wire.Message] = []
        self.names: dict[str, bytes] = {}
        self.used: set[bytes] = set()
        self.erasures = 0
        self.until = 0.0
        self.accepted = 0  # connections, ever
        self.open: set[_Connection] = set()
        self.held: list[tuple[_Connection, wire.Message]] = []
        self.holds = False
        self.judge: Callable[[wire.Message], wire.Reply | bytes | None] = self.honestly
        self._server: asyncio.Server | None = None

    @property
    def decisions(self) -> list[record.Decision]:
        found = [record.decode(item.record) for item in self.items]
        return [each for each in found if isinstance(each, record.Decision)]

    def asked_to(self, kind: type[wire.Message]) -> list[Any]:
        return [message for message in self.asked if isinstance(message, kind)]

    # -- life -------------------------------------------------------------------------------------------
    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _Connection(self), str(self.path))

    def die(self) -> None:
        """As a killed process: the socket file stays, nobody listens, connections break."""
        assert self._server is not None
        self._server.close()
        self.hang_up()

    def hang_up(self) -> None:
        for connection in list(self.open):
            connection.abort()
        self.held.clear()

    # -- answering --------------------------------------------------------------------------------------
    def honestly(self, message: wire.Message) -> wire.Reply:
        match message:
            case wire.Append(items):
                first = len(self.items)
                self.items += items
                return wire.Appended(first)
            case wire.Pseudonym(name, sealing):
                made = self.names.setdefault(name, len(self.names).to_bytes(16, "big"))
                return wire.Pseudonymous(made, made * 2 if sealing else b"", self.until, self.erasures)
            case wire.Once(key, _):
                first = key not in self.used
                self.used.add(key)
                return wire.Used(first)
            case wire.Status():
                return wire.Stands(len(self.items), 0, 1, self.erasures)
            case wire.Apply() | wire.Order():
                raise AssertionError("a guard applies no configuration and gives no order")

    def heard(self, connection: _Connection, message: wire.Message) -> None:
        self.asked.append(message)
        if self.holds:
            self.held.append((connection, message))
        else:
            self._answer(connection, message)

    def release(self, *order: int) -> None:
        """Answer what is held, all of it in order, or the messages of these numbers in this order."""
        held = self.held
        for number in order or range(len(held)):
            self._answer(*held[number])
        if not order:
            held.clear()
            self.holds = False

    def _answer(self, connection: _Connection, message: wire.Message) -> None:
        said = self.judge(message)
        if said is not None:
            connection.write(said if isinstance(said, bytes) else wire.pack(said))


class _Connection(asyncio.Protocol):
    def __init__(self, twin: Twin) -> None:
        self._twin = twin
        self._framer = wire.Framer()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's class is not asyncio's
        self._twin.accepted += 1
        self._twin.open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._twin.open.discard(self)

    def data_received(self, data: bytes) -> None:
        for body in self._framer.feed(data):
            self._twin.heard(self, wire.unpack_message(body))

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def until(holds: Callable[[], Any], what: str = "that") -> None:
    """Give way to others until it holds."""
    end = asyncio.get_running_loop().time() + DEADLINE_S
    while not holds():
        assert asyncio.get_running_loop().time() < end, f"waited in vain for {what}"
        await asyncio.sleep(0.001)


def looped(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that is a coroutine function, on a loop as guards have it."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        uvloop.run(test(*args, **kwargs))

    return run


class Aside:
    """A twin in a thread. Whatever changes it goes through `do`."""

    def __init__(self, path: Path) -> None:
        self.twin = Twin(path)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.run(self.twin.start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE_S)

    def do(self, work: Callable[[], T]) -> T:
        async def call() -> T:
            return work()

        return self.run(call())

    def until(self, holds: Callable[[], Any], what: str = "that") -> None:
        self.run(until(holds, what))

    def stop(self) -> None:
        self.do(self.twin.die)
        self.run(asyncio.sleep(0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
