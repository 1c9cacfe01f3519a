"""The recorder's socket: nobody is told too soon, nobody waits for another, no error is taken for success."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from tests.ledger.disk import Disk, Step
from tests.recorder.place import Book, item

from gatebook import record, wire
from gatebook.errors import EnvironmentFault, LedgerError
from gatebook.ledger.entry import Policy
from gatebook.recorder.journal import MAX_FRAME_RECORDS
from gatebook.recorder.once import Once
from gatebook.recorder.service import Connection, Service
from gatebook.recorder.vault import Vault

DIGEST = b"d" * 32
ADMIN = record.encode(record.Admin(time_us=1, action="configuration.apply", actor="os:0"))


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def send(self, *messages: wire.Message) -> None:
        self.writer.write(b"".join(wire.pack(message) for message in messages))

    async def reply(self) -> wire.Reply:
        length = int.from_bytes(await self._reader.readexactly(4), "big")
        return wire.unpack_reply(await self._reader.readexactly(length))

    async def ask(self, message: wire.Message) -> wire.Reply:
        self.send(message)
        return await self.reply()

    async def ended(self) -> bool:
        return await self._reader.read() == b""


class Served:
    """A service on a real socket, with a real ledger behind it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fault: tuple[str, BaseException] | None = None  # the disk's next step of that name, and what it does
        self.syncs = 0
        state = folder / "state"
        self.book = Book(state, files=Disk(state, self._disk))
        self.vault = Vault(folder / "vault.sqlite", b"k" * 32)
        self.once = Once(folder / "once.sqlite")
        self.failures: list[BaseException] = []
        self.prepared: list[bytes] = []
        self.applied: list[tuple[bytes, int]] = []
        self.service = Service(
            self.book.writer,
            self.book.journal,
            self.vault,
            self.once,
            failed=self.failures.append,
            prepare=self._prepare,
            obey=self._obey,
        )

    def _disk(self, step: Step) -> None:
        self.syncs += step.name == "sync"
        if self.fault is not None and step.name == self.fault[0]:
            fault, self.fault = self.fault[1], None
            raise fault

    def _obey(self, verb: str, parameters: bytes) -> bytes:
        if verb != "write":
            raise EnvironmentFault(f"{verb}: not today")
        size = self.book.writer.synced
        self.book.writer.append([parameters])
        self.book.writer.sync()
        return str(size).encode()

    def _prepare(self, digest: bytes) -> Callable[[], None]:
        if digest != DIGEST:
            raise EnvironmentFault("another configuration lies there")
        self.prepared.append(digest)
        return lambda: self.applied.append((digest, self.book.writer.synced))

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        made = Client(*await asyncio.open_unix_connection(str(self.folder / "socket")))
        try:
            yield made
        finally:
            made.writer.close()

    def run(self, scene: Callable[[Served], Coroutine[Any, Any, None]]) -> None:
        async def serve() -> None:
            loop = asyncio.get_running_loop()
            server = await loop.create_unix_server(lambda: Connection(self.service), str(self.folder / "socket"))
            try:
                async with asyncio.timeout(20):
                    await scene(self)
            finally:
                server.close()
                for connection in list(self.service.connections):
                    connection.close()

        try:
            uvloop.run(serve())
        finally:
            self.vault.close()
            self.once.close()
            with contextlib.suppress(LedgerError):
                self.book.close()


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return Served(tmp_path)


def test_batch_is_one_unit_and_durable_when_it_is_answered(served: Served) -> None:
    async def scene(served: Served) -> None:
        async with served.client() as client:
            reply = await client.ask(wire.Append([item(1), item(2)]))
            assert reply == wire.Appended(1)
            assert served.book.writer.synced == 3
            assert await client.ask(wire.Append([item(3)])) == wire.Appended(3)
            stands = await client.ask(wire.Status())
            assert isinstance(stands, wire.Stands)
            assert (stands.size, stands.open) == (4, 3)

    served.run(scene)


def test_replies_come_in_the_order_of_the_questions(served: Served) -> None:
    async def scene(served: Served) -> None:
        async with served.client() as client:
            client.send(
                wire.Pseudonym("alice"),
                wire.Append([item(1)]),
                wire.Status(),
                wire.Append([]),
                wire.Once(b"o" * 32, 1 << 60),
                wire.Append([item(2)]),
            )
            kinds = [type(await client.reply()) for _ in range(6)]
            assert kinds == [
                wire.Pseudonymous,
                wire.Appended,
                wire.Stands,
                wire.Refused,
                wire.Used,
                wire.Appended,
            ]

    served.run(scene)


def test_message_in_pieces_is_one_message(served: Served) -> None:
    async def scene(served: Served) -> None:
        async with served.client() as client:
            for byte in wire.pack(wire.Append([item(1)])):
                client.writer.write(bytes([byte]))
                await client.writer.drain()
                await asyncio.sleep(0)
            assert await client.reply() == wire.Appended(1)

    served.run(scene)


def test_what_comes_together_is_synced_together(served: Served) -> None:
    async def scene(served: Served) -> None:
        before = served.syncs
        async with served.client() as client:
            client.send(*(wire.Append([item(number)]) for number in range(40)))
            replies = [await client.reply() for _ in range(40)]
            assert replies == [wire.Appended(1 + number) for number in range(40)]
            assert served.syncs - before < 10

    served.run(scene)


# -- senders that misbehave -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">I", wire.MAX_MESSAGE_BYTES + 1),
        struct.pack(">I", 3) + b"\xc1\xc1\xc1",
        struct.pack(">I", 1) + b"\x90",
        struct.pack(">I", 9) + b"\x92\xa6append\x01",
        wire.pack(wire.Appended(1)),
    ],
)
def test_nonsense_ends_its_connection_and_nobody_elses(served: Served, data: bytes) -> None:
    async def scene(served: Served) -> None:
        async with served.client() as other, served.client() as client:
            client.writer.write(data)
            assert await client.ended()
            assert await other.ask(wire.Append([item(1)])) == wire.Appended(1)
        assert served.failures == []

    served.run(scene)


@pytest.mark.parametrize(
    "items",
    [
        [],
        [wire.Item(b"")],
        [wire.Item(b"x" * (record.MAX_RECORD_BYTES + 1))],
        [item(1), wire.Item(b"")],
        [item(1, worker=-1)],
        [item(1, worker=1 << 22)],
        [wire.Item(b"x")] * (MAX_FRAME_RECORDS + 1),
    ],
    ids=["none", "empty", "too long", "one of two", "negative worker", "no process", "too many"],
)
def test_batch_that_no_frame_can_hold_is_refused_as_a_whole_and_hurts_nobody(
    served: Served, items: list[wire.Item]
) -> None:
    async def scene(served: Served) -> None:
        async with served.client() as client:
            assert isinstance(await client.ask(wire.Append(items)), wire.Refused)
            assert await client.ask(wire.Append([item(9)])) == wire.Appended(1)
        assert served.failures == []

    served.run(scene)


def test_largest_batch_is_taken(served: Served) -> None:
    async def scene(served: Served) -> None:
        async with served.client() as client:
            batch = [wire.Item(b"x" * 1000)] * MAX_FRAME_RECORDS
            assert await client.ask(wire.Append(batch)) == wire.Appended(1)
            large = [wire.Item(b"y" * record.MAX_RECORD_BYTES)] * 200
            assert await client.ask(wire.Append(large)) == wire.Appended(1 + MAX_FRAME_RECORDS)

    served.run(scene)


def test_sender_that_leaves_holds_up_nobody(served: Served) -> None:
    async def scene(served: Served) -> None:
        async with served.client() as other:
            for number in range(20):
                async with served.client() as client:
                    client.send(wire.Append([item(number)]))
                    other.send(wire.Append([item(100 + number)]))
                    client.writer.transport.abort()
                assert isinstance(await other.reply(), wire.Appended)
        assert served.failures == []

    served.run(scene)


def test_sender_that_never_reads_holds_up_nobody(served: Served) -> None:
    async def scene(served: Served) -> None:
        async with served.client() as deaf, served.client() as other:
            for number in range(200):
                deaf.send(*[wire.Status()] * 100)
                await deaf.writer.drain()
                assert await other.ask(wire.Append([item(number)])) == wire.Appended(1 + number)

    served.run(scene)


# -- errors -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError(), RuntimeError("a bug")])
@pytest.mark.parametrize("step", ["write", "sync"])
def test_after_any_error_nobody_is_acknowledged_any_more(served: Served, error: Exception, step: str) -> None:
    """Nor left without an answer: a guard would wait, and its client with it."""

    async def scene(served: Served) -> None:
        async with served.client() as client, served.client() as other:
            assert await client.ask(wire.Append([item(1)])) == wire.Appended(1)
            served.fault = step, error
            client.send(wire.Append([item(2)]), wire.Pseudonym("alice"))
            assert [type(await client.reply()) for _ in range(2)] == [wire.Refused, wire.Refused]
            for message in (
                wire.Append([item(4)]),
                wire.Status(),
                wire.Pseudonym("bob"),
                wire.Apply(DIGEST, ADMIN),
            ):
                assert isinstance(await other.ask(message), wire.Refused)
        assert len(served.failures) == 1
        assert served.applied == []

    served.run(scene)


def test_pseudonym_for_which_there_is_no_room_is_not_given_out(served: Served) -> None:
    async def scene(served: Served) -> None:
        served.vault._db.execute("PRAGMA max_page_count = 1")
        async with served.client() as client:
            client.send(*(wire.Pseudonym(f"name {number}") for number in range(500)))
            assert {type(await client.reply()) for _ in range(500)} == {wire.Refused}
        assert len(served.failures) == 1

    served.run(scene)


def test_pseudonym_that_was_given_out_survives_a_kill(served: Served) -> None:
    async def scene(served: Served) -> None:
        async with served.client() as client:
            told = await client.ask(wire.Pseudonym("alice"))
        assert isinstance(told, wire.Pseudonymous)
        copy = served.folder / "copy"
        copy.mkdir()
        for path in served.folder.glob("vault.sqlite*"):
            shutil.copy(path, copy)
        after = Vault(copy / "vault.sqlite", b"k" * 32)
        assert after.pseudonym("alice") == told.pseudonym
        after.close()

    served.run(scene)


def test_what_happens_once_is_told_once(served: Served) -> None:
    async def scene(served: Served) -> None:
        async with served.client() as client:
            client.send(*[wire.Once(b"o" * 32, 1 << 60)] * 3)
            assert [await client.reply() for _ in range(3)] == [
                wire.Used(True),
                wire.Used(False),
                wire.Used(False),
            ]

    served.run(scene)


# -- configurations ---------------------------------------------------------------------------------------
def test_configuration_is_on_record_before_it_is_applied(served: Served) -> None:
    async def scene(served: Served) -> None:
        async with served.client() as client:
            assert await client.ask(wire.Apply(DIGEST, ADMIN)) == wire.Appended(1)
        assert served.applied == [(DIGEST, 3)]
        assert served.book.entries(Policy) == [Policy(DIGEST, 1)]
        assert [type(each) for each in served.book.records()] == [record.Admin]

    served.run(scene)


def test_other_configuration_than_the_one_that_lies_there_is_refused_and_nothing_is_on_record(
    served: Served,
) -> None:
    async def scene(served: Served) -> None:
        async with served.client() as client:
            reply = await client.ask(wire.Apply(b"x" * 32, ADMIN))
            assert reply == wire.Refused("another configuration lies there")
            assert isinstance(await client.ask(wire.Apply(DIGEST, b"")), wire.Refused)
            assert await client.ask(wire.Append([item(1)])) == wire.Appended(1)
        assert served.applied == []
        assert served.book.entries(Policy) == []

    served.run(scene)


def test_configuration_whose_sync_fails_is_not_applied(served: Served) -> None:
    async def scene(served: Served) -> None:
        served.fault = "sync", OSError(28, "No space left on device")
        async with served.client() as client:
            assert isinstance(await client.ask(wire.Apply(DIGEST, ADMIN)), wire.Refused)
        assert served.applied == []

    served.run(scene)


def test_policies_are_numbered(served: Served) -> None:
    async def scene(served: Served) -> None:
        served.service.enter_policy(b"0" * 32)
        served.service.commit()
        async with served.client() as client:
            await client.ask(wire.Apply(DIGEST, ADMIN))
        assert served.book.entries(Policy) == [Policy(b"0" * 32, 1), Policy(DIGEST, 2)]

    served.run(scene)


def test_order_finds_all_that_came_before_it_durable_and_nothing_of_what_comes_after(served: Served) -> None:
    async def scene(served: Served) -> None:
        async with served.client() as client:
            before = served.book.writer.synced
            client.send(
                wire.Append([item(1), item(2)]),
                wire.Order("write", b"{}"),
                wire.Append([item(3)]),
            )
            assert await client.reply() == wire.Appended(before)
            assert await client.reply() == wire.Obeyed(str(before + 2).encode())
            assert await client.reply() == wire.Appended(before + 3)

    served.run(scene)


def test_refused_order_changes_nothing_and_stops_nobody(served: Served) -> None:
    async def scene(served: Served) -> None:
        async with served.client() as client:
            before = served.book.writer.synced
            assert await client.ask(wire.Order("sing", b"{}")) == wire.Refused("sing: not today")
            assert await client.ask(wire.Append([item(1)])) == wire.Appended(before)
        assert served.failures == []

    served.run(scene)


def test_order_that_fails_half_way_ends_the_service(served: Served) -> None:
    async def scene(served: Served) -> None:
        async with served.client() as client:
            served.fault = "sync", OSError(5, "Input/output error")
            assert isinstance(await client.ask(wire.Order("write", b"{}")), wire.Refused)
            assert isinstance(await client.ask(wire.Append([item(1)])), wire.Refused)
        assert len(served.failures) == 1

    served.run(scene)
