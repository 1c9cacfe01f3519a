"""The whole recorder in this process, on a disk that fails as told and by a clock that nobody waits for.

`Machine` is one life of the real `Recorder` in a state folder: socket, service, journal, vault, memory of what was
used once, gateway's logs, checkpoints, heartbeats. Its loop moves the clock to the next timer when nothing is left
to do, so a minute takes milliseconds and every run is the same. `Told` is what clients may rely on afterwards.
Keys and the two SQLite files lie beside the disk that fails: what they were before each step is remembered too.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import hmac
import os
import selectors
import shutil
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from tests.faults.breaking import Breaking
from tests.ledger.caller import READER, SIGNER
from tests.ledger.disk import Policy, after_crash
from tests.recorder.deployed import State
from tests.recorder.place import Gateway, item

from gatebook import wire
from gatebook.config.model import Configuration
from gatebook.errors import Damaged, GatebookError
from gatebook.ledger.deks import Deks
from gatebook.ledger.keys import unwrap
from gatebook.paths import Paths, make_private
from gatebook.recorder.process import Recorder

T0_US = 1_700_000_000_000_000
SELF = os.getpid()  # stands for a gateway's worker: a process that lives
_BESIDE = ("vault.sqlite", "vault.sqlite-wal", "once.sqlite", "once.sqlite-wal", "keys/*")


class _Impatient(selectors.DefaultSelector):
    """Never waits: what would have been waited is added to `clock`."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found and timeout != 0:
            assert timeout is not None, "everybody waits for somebody else"
            self.clock += timeout
        return found


class Loop(asyncio.SelectorEventLoop):
    """Time passes when there is nothing to do. What is meant for a thread is done on the spot."""

    def __init__(self) -> None:
        self.impatient = _Impatient()
        super().__init__(self.impatient)

    def time(self) -> float:
        return self.impatient.clock

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass
class Told:
    """What clients have been told: records by index, pseudonyms by name, what was used, what is gone for good."""

    records: dict[int, bytes] = field(default_factory=dict)
    names: dict[str, bytes] = field(default_factory=dict)
    used: set[bytes] = field(default_factory=set)
    removed: set[int] = field(default_factory=set)
    forgotten: dict[str, bytes] = field(default_factory=dict)


class Client:
    """Asks, and keeps what it was promised. An answer of None: refused, or hung up."""

    def __init__(self, machine: Machine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._machine = machine
        self._reader = reader
        self._writer = writer
        self._framer = wire.Framer()

    async def ask(self, message: wire.Message) -> wire.Reply | None:
        with contextlib.suppress(OSError):
            self._writer.write(wire.pack(message))
            while data := await self._reader.read(65536):
                for body in self._framer.feed(data):
                    reply = wire.unpack_reply(body)
                    return None if isinstance(reply, wire.Refused) else reply
        return None

    async def decide(self, *numbers: int, lines: bool = True) -> None:
        """Requests that are allowed, and what the gateway writes of them."""
        items = [item(number, SELF, f"/orders/{number}") for number in numbers]
        reply = await self.ask(wire.Append(items))
        first = reply.first_index if isinstance(reply, wire.Appended) else None
        if first is not None:
            self._machine.told.records.update(enumerate((each.record for each in items), first))
        for at, number in enumerate(numbers):
            if lines:
                self._machine.gateway.line(number, None if first is None else first + at, worker=SELF, n="0")

    async def name(self, name: str) -> None:
        reply = await self.ask(wire.Pseudonym(name))
        if isinstance(reply, wire.Pseudonymous):
            known = self._machine.told.names.setdefault(name, reply.pseudonym)
            assert reply.pseudonym == known, "the same person has another pseudonym"

    async def use(self, key: bytes) -> None:
        reply = await self.ask(wire.Once(key, T0_US + 3_600_000_000))
        if isinstance(reply, wire.Used):
            assert not (reply.first and key in self._machine.told.used), "used a second time"
            self._machine.told.used.add(key)

    async def redact(self, index: int) -> None:
        """From when it is asked for nothing is promised of the record, until it is told that it is gone."""
        told, paths = self._machine.told, self._machine.paths
        told.records.pop(index, None)
        store, opened = Deks(paths.deks), {}
        for path in paths.deks.glob("*.dek"):
            with contextlib.suppress(Damaged):  # where a recorder failed on it
                (row,) = store.get(bytes.fromhex(path.stem)) or []
                opened[path.stem] = unwrap(row, bytes.fromhex(path.stem), READER).hex()
        asked = {
            "indices": [index],
            "keys": opened,
            "because": "secret",
            "reason": "a secret in the path",
            "actor": "os:0",
        }
        if await self._obeyed("redact", asked):
            told.removed.add(index)

    async def forget(self, name: str) -> None:
        """Likewise of the name's pseudonym."""
        told = self._machine.told
        key = (self._machine.paths.keys / "pseudonym.key").read_bytes()
        known = told.names.pop(name, b"")
        lookup = hmac.digest(key, name.encode(), "sha256").hex()
        if await self._obeyed("forget", {"lookup": lookup, "provider": None, "reason": "asked", "actor": "os:0"}):
            told.forgotten[name] = known

    async def rotate(self) -> None:
        """The log gets another signing key; the old one signs along for a while."""
        await self._obeyed("keys.rotate", {"actor": "os:0", "reason": "a year is over"})

    async def _obeyed(self, verb: str, parameters: dict[str, Any]) -> bool:
        return isinstance(await self.ask(wire.Order(verb, msgspec.json.encode(parameters))), wire.Obeyed)

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


Story = Callable[["Machine"], Awaitable[None]]


class Machine:
    """A state folder, and one recorder after the other in it."""

    def __init__(
        self, paths: Paths, configuration: Configuration, disk: Breaking, told: Told, now_us: int
    ) -> None:
        self.paths = paths
        self.configuration = configuration
        self.disk = disk
        self.told = told
        self.now_us = now_us  # when the loop's clock was at its beginning
        self.set_by_us = 0  # somebody has set the clock by so much
        self.promises: list[tuple[int, Told]] = []  # after so many steps clients had been told this
        self.beside: list[tuple[int, dict[str, bytes]]] = []  # and these were the files beside it
        self.stands: wire.Stands | None = None
        for private in (paths.runtime, paths.logs):
            make_private(private)
        self.gateway = Gateway(paths.logs, SELF)
        self._loop: Loop | None = None
        self._clients: list[Client] = []
        self._seen: list[tuple[str, int, int]] = []
        disk.before = self._look

    @classmethod
    def new(cls, folder: Path, **broken: Any) -> Machine:
        """As `gatebook init` leaves it, with keys that tests know. A copy of that stays in `folder`/before."""
        folder.mkdir()
        state = State(folder)
        keys = state.paths.keys
        (keys / "log.key").write_text(SIGNER.skey + "\n")
        (keys / "log.pub").write_text(SIGNER.vkey + "\n")
        (keys / "reader.key").write_bytes(
            READER.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        (keys / "reader.pub").write_bytes(
            READER.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        shutil.copytree(state.paths.state, folder / "before")
        return cls(state.paths, state.configuration, Breaking(state.paths.state, **broken), Told(), T0_US)

    # -- what is remembered of each step --------------------------------------------------------------------
    def _look(self) -> None:
        at = len(self.disk.steps)
        if self.told != (self.promises[-1][1] if self.promises else Told()):
            self.promises.append((at, copy.deepcopy(self.told)))
        state = self.paths.state
        paths = [path for pattern in _BESIDE for path in sorted(state.glob(pattern))]
        seen = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
        if seen != self._seen:
            self._seen = seen
            self.beside.append((at, {str(path.relative_to(state)): path.read_bytes() for path in paths}))

    def told_at(self, step: int) -> Told:
        """What had been told when so many steps were done."""
        return next((told for at, told in reversed(self.promises) if at < step), Told())

    def remains(self, left: Path, step: int, policy: Policy, seed: int = 0) -> None:
        """Build in `left` what there may be of the state folder when the power fails after so many steps."""
        before = self.paths.state.parent / "before"
        after_crash(left, self.disk.steps[:step], policy, before=before, seed=seed)
        shutil.rmtree(left / "keys")
        (left / "keys").mkdir(mode=0o700)
        for name, data in next(files for at, files in reversed(self.beside) if at < max(step, 1)).items():
            (left / name).write_bytes(data)
            (left / name).chmod(0o600)

    # -- lives ----------------------------------------------------------------------------------------------
    def clock(self) -> int:
        assert self._loop is not None
        return max(0, self.now_us + self.set_by_us + int((self._loop.time() - 1000.0) * 1e6))

    async def passes(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def client(self) -> Client:
        self._clients.append(Client(self, *await asyncio.open_unix_connection(str(self.paths.recorder_socket))))
        return self._clients[-1]

    async def _tell(self, story: Story) -> None:
        try:
            await story(self)
        except GatebookError as error:  # not the recorder's, for once
            raise AssertionError(f"the story itself failed: {error}") from error
        finally:
            for client in self._clients:
                await client.close()
            self._clients.clear()

    def live(self, story: Story) -> GatebookError | None:
        """A recorder starts, the story happens to it, SIGTERM; how it ended. Its lock is let go, as at a death."""
        self._loop = loop = Loop()
        recorder: Recorder | None = None
        try:
            recorder = Recorder(
                self.paths,
                self.configuration,
                clock=self.clock,
                monotonic=loop.time,
                files=self.disk,
            )
            loop.run_until_complete(self._live(recorder, story))
        except GatebookError as error:
            return error
        finally:
            self._look()
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            if recorder is not None:
                if not recorder._writer._closed:
                    recorder._writer._let_go()
                recorder._vault.close()
                recorder._once.close()
            self.now_us += int((loop.time() - 1000.0) * 1e6) + 1
        return None

    async def _live(self, recorder: Recorder, story: Story) -> None:
        running = asyncio.ensure_future(recorder.run())
        while not (self.paths.recorder_socket.exists() or running.done()):
            await asyncio.wait({running}, timeout=0)
        try:
            if not running.done():
                client = await self.client()
                reply = await client.ask(wire.Status())
                self.stands = reply if isinstance(reply, wire.Stands) else None
                await client.close()
                self.gateway.starts()
                await self._tell(story)
        finally:
            if not running.done():
                signal.raise_signal(signal.SIGTERM)
            try:
                await running
            finally:
                self.paths.recorder_socket.unlink(missing_ok=True)

    def close(self) -> None:
        self.gateway.close()
        shutil.rmtree(self.paths.runtime, ignore_errors=True)
