"""The connection to the recorder: whoever waits hears once, and never of a receipt that cannot be theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from tests.guard.twin import Twin, looped, until

from gatebook import wire
from gatebook.errors import RecorderUnavailable
from gatebook.guard import client as module
from gatebook.guard.client import RecorderClient

PATIENT_S, IMPATIENT_S = 20.0, 0.2


@asynccontextmanager
async def connected(folder: Path, timeout_s: float = PATIENT_S) -> AsyncIterator[tuple[Twin, RecorderClient]]:
    twin = Twin(folder / "recorder.sock")
    await twin.start()
    client = RecorderClient(twin.path, timeout_s)
    client.start()
    try:
        await until(lambda: client.up, "the connection")
        yield twin, client
    finally:
        await client.stop()
        twin.die()


class Heard:
    """What was said about some records, by name."""

    def __init__(self, client: RecorderClient) -> None:
        self._client = client
        self.of: dict[str, list[int | None]] = {}

    def append(self, *names: str) -> None:
        for name in names:
            assert self._client.append(item(name), self.of.setdefault(name, []).append)

    @property
    def all(self) -> bool:
        return all(self.of.values())


def item(name: str) -> wire.Item:
    return wire.Item(name.encode(), 1, name)


async def sent() -> None:
    """What has been appended leaves, if it may."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def batches(twin: Twin) -> list[list[str]]:
    return [[each.request_id for each in message.items] for message in twin.asked_to(wire.Append)]


# -- what goes well --------------------------------------------------------------------------------------
@looped
async def test_receipt_names_the_place_of_its_own_record(tmp_path: Path) -> None:
    async with connected(tmp_path) as (twin, client):
        heard = Heard(client)
        for turn in range(5):
            heard.append(*(f"{turn}.{number}" for number in range(7)))
            await asyncio.sleep(0)
        await until(lambda: heard.all)
        assert all(twin.items[places[0] or 0].request_id == name for name, places in heard.of.items())
        assert all(len(places) == 1 for places in heard.of.values())
        assert client.idle


@looped
async def test_one_turn_of_the_loop_is_one_message_and_two_at_most_are_under_way(tmp_path: Path) -> None:
    async with connected(tmp_path) as (twin, client):
        heard = Heard(client)
        twin.holds = True
        for turn in "abcd":
            heard.append(turn + "1", turn + "2")
            await sent()
        await until(lambda: len(batches(twin)) == 2)
        assert not client.idle
        twin.release()
        await until(lambda: heard.all)
        assert batches(twin) == [["a1", "a2"], ["b1", "b2"], ["c1", "c2", "d1", "d2"]]


@looped
async def test_batches_are_bounded_by_count_and_by_size(tmp_path: Path) -> None:
    async with connected(tmp_path) as (twin, client):
        told: list[int | None] = []
        for _ in range(module.MAX_BATCH_ITEMS + 1):
            client.append(item("small"), told.append)
        large = wire.Item(bytes(module.MAX_BATCH_BYTES // 2))
        for _ in range(3):
            client.append(large, told.append)
        await until(lambda: len(told) == module.MAX_BATCH_ITEMS + 4)
        assert [len(batch) for batch in batches(twin)] == [module.MAX_BATCH_ITEMS, 3, 1]
        assert told == list(range(len(told)))


@looped
async def test_full_queue_takes_nothing_and_says_so_until_there_is_room(tmp_path: Path) -> None:
    async with connected(tmp_path) as (_, client):
        told: list[int | None] = []
        large = wire.Item(bytes(4 << 20))
        count = 0
        while client.append(large, told.append):
            count += 1
            assert count <= module.MAX_WAITING_BYTES // (4 << 20)
        assert not told
        await until(lambda: len(told) == count)
        assert None not in told
        assert client.append(large, told.append)
        await until(lambda: len(told) == count + 1)


# -- a recorder that is not there, dies, hangs, refuses ------------------------------------------------------
@looped
async def test_nothing_is_taken_while_there_is_no_recorder(tmp_path: Path) -> None:
    twin = Twin(tmp_path / "recorder.sock")
    client = RecorderClient(twin.path, PATIENT_S)
    told: list[int | None] = []
    assert not client.append(item("before the start"), told.append)
    client.start()
    await asyncio.sleep(0.05)
    assert not client.append(item("before the recorder"), told.append)
    for question in (client.pseudonym("subject:partners:ann"), client.first_use(bytes(32), 1)):
        with pytest.raises(RecorderUnavailable):
            await question
    await twin.start()
    await until(lambda: client.up)
    assert not told
    await client.stop()
    assert not client.append(item("after the end"), told.append)
    twin.die()
    assert not told


@looped
async def test_recorder_that_dies_is_told_once_to_each_who_waits(tmp_path: Path) -> None:
    async with connected(tmp_path) as (twin, client):
        heard = Heard(client)
        twin.holds = True
        for name in ("first batch", "second batch", "still waiting"):
            heard.append(name)
            await sent()
        await until(lambda: len(batches(twin)) == 2)
        twin.die()
        await until(lambda: heard.all)
        assert list(heard.of.values()) == [[None]] * 3
        assert not client.append(item("later"), heard.of.setdefault("later", []).append)
        twin.holds = False
        await twin.start()
        await until(lambda: client.up)
        heard.append("after its return")
        await until(lambda: heard.of["after its return"])
        assert heard.of["after its return"] == [0]
        assert list(heard.of.values())[:3] == [[None]] * 3


@looped
async def test_recorder_that_hangs_is_taken_for_dead_and_its_late_answer_for_nothing(tmp_path: Path) -> None:
    async with connected(tmp_path, IMPATIENT_S) as (twin, client):
        heard = Heard(client)
        twin.holds = True
        heard.append("a")
        await until(lambda: heard.all)
        assert heard.of["a"] == [None]
        twin.release()  # on a connection that nobody reads any more
        await until(lambda: client.up, "the new connection")
        heard.append("b")
        await until(lambda: heard.all)
        assert heard.of["a"] == [None]
        assert len(heard.of["b"]) == 1
        assert twin.items[heard.of["b"][0] or 0].request_id == "b"


@looped
async def test_recorder_that_hangs_while_nobody_calls_is_found_out(tmp_path: Path) -> None:
    async with connected(tmp_path, IMPATIENT_S) as (twin, client):
        twin.holds = True
        await until(lambda: not client.up)


@looped
async def test_recorder_that_is_well_and_idle_keeps_its_connection(tmp_path: Path) -> None:
    async with connected(tmp_path) as (twin, client):
        client.timeout_s = module.BEAT_S / 10
        beats = len(twin.asked_to(wire.Status))
        await until(lambda: len(twin.asked_to(wire.Status)) > beats + 1, "two beats")
        assert client.up
        assert client.idle
        assert twin.accepted == 1


@looped
async def test_recorder_that_accepts_and_says_nothing_is_not_up(tmp_path: Path) -> None:
    twin = Twin(tmp_path / "recorder.sock")
    twin.holds = True
    await twin.start()
    client = RecorderClient(twin.path, IMPATIENT_S / 4)
    client.start()
    await until(lambda: twin.accepted >= 3, "further attempts")
    assert not client.up
    await client.stop()
    twin.die()


@looped
async def test_recorder_that_refuses_to_say_how_it_stands_is_not_up(tmp_path: Path) -> None:
    twin = Twin(tmp_path / "recorder.sock")
    twin.judge = lambda message: wire.Refused("the ledger is broken")
    await twin.start()
    client = RecorderClient(twin.path, PATIENT_S)
    client.start()
    await until(lambda: twin.accepted >= 2, "further attempts")
    assert not client.up
    await client.stop()
    twin.die()


@pytest.mark.parametrize("more", [b"\xff\xff\xff\xff", wire.pack(wire.Stands(0, 0, 1))])
@looped
async def test_recorder_that_talks_nonsense_from_the_start_is_not_up(tmp_path: Path, more: bytes) -> None:
    """The nonsense comes with an answer that is right, in one piece."""
    twin = Twin(tmp_path / "recorder.sock")
    twin.judge = lambda message: wire.pack(wire.Stands(0, 0, 1)) + more
    await twin.start()
    client = RecorderClient(twin.path, PATIENT_S)
    client.start()
    await until(lambda: twin.accepted >= 3, "further attempts")
    assert not client.up
    twin.judge = twin.honestly
    await until(lambda: client.up)
    await client.stop()
    twin.die()


@looped
async def test_refusal_is_for_its_batch_alone(tmp_path: Path) -> None:
    async with connected(tmp_path) as (twin, client):
        heard = Heard(client)
        twin.judge = lambda message: wire.Refused("no")
        heard.append("a", "b")
        await until(lambda: heard.all)
        with pytest.raises(RecorderUnavailable, match="no"):
            await client.pseudonym("subject:partners:ann")
        twin.judge = twin.honestly
        heard.append("c")
        await until(lambda: heard.all)
        assert heard.of == {"a": [None], "b": [None], "c": [0]}
        assert twin.accepted == 1


# -- a recorder that talks nonsense --------------------------------------------------------------------------
def lies(message: wire.Message) -> wire.Reply | bytes | None:
    """What is true of a question stays true; only answers to batches are twisted by the tests below."""
    return wire.Stands(2, 0, 1) if isinstance(message, wire.Status) else None


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x00\x00\x00\x01\xc1",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x00",
        b"HTTP/1.1 200 OK\r\n\r\n",
        wire.Stands(3, 0, 1),
        wire.Pseudonymous(bytes(16)),
        wire.Append([wire.Item(b"x")]),
        wire.Appended(-1),
        wire.Appended(0),
        wire.Appended(1),
    ],
)
@looped
async def test_answer_that_cannot_be_is_no_receipt_and_ends_the_connection(
    tmp_path: Path, nonsense: bytes | wire.Reply
) -> None:
    """Two records have been acknowledged before: no index below 2 may be given out again."""
    async with connected(tmp_path) as (twin, client):
        heard = Heard(client)
        heard.append("a", "b")
        await until(lambda: heard.all)
        twin.judge = lambda message: lies(message) or nonsense
        heard.append("c")
        await until(lambda: heard.all)
        assert heard.of == {"a": [0], "b": [1], "c": [None]}
        twin.judge = twin.honestly
        await until(lambda: client.up and twin.accepted == 2, "a new connection")
        heard.append("d")
        await until(lambda: heard.all)
        assert heard.of["d"] == [2]


@looped
async def test_recorder_that_speaks_unasked_is_not_believed_afterwards(tmp_path: Path) -> None:
    async with connected(tmp_path) as (twin, client):
        for connection in twin.open:
            connection.write(wire.pack(wire.Appended(7)))
        await until(lambda: twin.accepted == 2, "a new connection")
        await until(lambda: client.up)
        heard = Heard(client)
        heard.append("a")
        await until(lambda: heard.all)
        assert heard.of["a"] == [0]


@looped
async def test_answers_in_another_order_are_nobodys(tmp_path: Path) -> None:
    async with connected(tmp_path) as (twin, client):
        heard = Heard(client)
        twin.holds = True
        asking = asyncio.ensure_future(client.pseudonym("subject:partners:ann"))
        await until(lambda: twin.asked_to(wire.Pseudonym))
        heard.append("a")
        await until(lambda: batches(twin))
        twin.release(1, 0)
        with pytest.raises(RecorderUnavailable, match="Appended instead of Pseudonymous"):
            await asking
        await until(lambda: heard.all)
        assert heard.of["a"] == [None]


@looped
async def test_batches_acknowledged_in_another_order_are_noticed(tmp_path: Path) -> None:
    async with connected(tmp_path) as (twin, client):
        heard = Heard(client)
        twin.holds = True
        for name in "ab":
            heard.append(name)
            await sent()
        await until(lambda: len(batches(twin)) == 2)
        answers = {"a": wire.Appended(0), "b": wire.Appended(1)}
        twin.judge = lambda message: (
            answers[message.items[0].request_id] if isinstance(message, wire.Append) else None
        )
        twin.release(1, 0)
        await until(lambda: heard.all)
        assert heard.of["b"] == [None]
        assert not client.up


@looped
async def test_recorder_that_lost_what_it_acknowledged_is_never_up_again(tmp_path: Path) -> None:
    async with connected(tmp_path) as (twin, client):
        heard = Heard(client)
        heard.append("a", "b")
        await until(lambda: heard.all)
        del twin.items[1]
        twin.hang_up()
        with structlog.testing.capture_logs() as said:
            await until(lambda: twin.accepted >= 4, "further attempts")
            assert not client.up
        whys = [entry.get("why", "") for entry in said]
        assert sum("1 entries, but 2 were acknowledged" in why for why in whys) == 1
        twin.items.append(item("b"))  # it was another ledger; this one is whole
        await until(lambda: client.up)


@pytest.mark.parametrize("length", [0, 15, 17])
@looped
async def test_pseudonym_of_another_length_is_none(tmp_path: Path, length: int) -> None:
    async with connected(tmp_path) as (twin, client):
        twin.judge = lambda message: wire.Pseudonymous(bytes(length))
        with pytest.raises(RecorderUnavailable, match=f"{length} bytes"):
            await client.pseudonym("subject:partners:ann")


# -- those who wait -----------------------------------------------------------------------------------------
@looped
async def test_one_who_fails_on_hearing_keeps_nobody_from_their_receipt(tmp_path: Path) -> None:
    async with connected(tmp_path) as (_, client):
        heard = Heard(client)

        def fail(_index: int | None) -> None:
            raise RuntimeError("a client that left, perhaps")

        heard.append("a")
        client.append(item("b"), fail)
        heard.append("c")
        with structlog.testing.capture_logs() as said:
            await until(lambda: heard.all)
        assert heard.of == {"a": [0], "c": [2]}
        assert [entry["event"] for entry in said] == ["could not answer a request"]


@looped
async def test_one_who_appends_on_hearing_is_served_too(tmp_path: Path) -> None:
    async with connected(tmp_path) as (_, client):
        told: list[int | None] = []

        def again(index: int | None) -> None:
            told.append(index)
            client.append(item("b"), told.append)

        client.append(item("a"), again)
        await until(lambda: len(told) == 2)
        assert told == [0, 1]


@looped
async def test_record_that_cannot_be_sent_takes_its_batch_with_it_and_nobody_else(tmp_path: Path) -> None:
    async with connected(tmp_path) as (twin, client):
        heard = Heard(client)
        heard.append("a")
        client.append(wire.Item(b"x", 1 << 70), heard.of.setdefault("poison", []).append)
        await until(lambda: heard.all)
        heard.append("b")
        await until(lambda: heard.all)
        assert heard.of == {"a": [None], "poison": [None], "b": [0]}
        assert twin.accepted == 1


@looped
async def test_pseudonym_is_hex_and_stays(tmp_path: Path) -> None:
    async with connected(tmp_path) as (twin, client):
        first = await client.pseudonym("subject:partners:ann")
        assert await client.pseudonym("subject:partners:bob") != first
        assert await client.pseudonym("subject:partners:ann") == first
        assert bytes.fromhex(first.pseudonym) == twin.names["subject:partners:ann"]


@looped
async def test_first_use_is_the_first_only(tmp_path: Path) -> None:
    async with connected(tmp_path) as (_, client):
        assert [await client.first_use(key * 32, 1) for key in (b"a", b"b", b"a")] == [True, True, False]


@looped
async def test_refusal_to_say_is_no_first_use(tmp_path: Path) -> None:
    async with connected(tmp_path) as (twin, client):
        twin.judge = lambda message: wire.Refused("no")
        with pytest.raises(RecorderUnavailable):
            await client.first_use(bytes(32), 1)


@looped
async def test_one_who_stops_waiting_does_not_shift_the_answers_of_others(tmp_path: Path) -> None:
    async with connected(tmp_path) as (twin, client):
        twin.holds = True
        leaving = asyncio.ensure_future(client.pseudonym("subject:partners:ann"))
        await until(lambda: twin.asked_to(wire.Pseudonym))
        staying = asyncio.ensure_future(client.pseudonym("subject:partners:bob"))
        leaving.cancel()
        await until(lambda: len(twin.asked_to(wire.Pseudonym)) == 2)
        twin.release()
        assert bytes.fromhex((await staying).pseudonym) == twin.names["subject:partners:bob"]
        assert leaving.cancelled()


@looped
async def test_recorder_that_dies_while_asked_is_said_with_the_reason(tmp_path: Path) -> None:
    async with connected(tmp_path) as (twin, client):
        twin.holds = True
        asking = asyncio.ensure_future(client.pseudonym("subject:partners:ann"))
        await until(lambda: twin.asked_to(wire.Pseudonym))
        twin.die()
        with pytest.raises(RecorderUnavailable, match="it hung up"):
            await asking


@looped
async def test_stopping_tells_everybody_who_waits(tmp_path: Path) -> None:
    async with connected(tmp_path) as (twin, client):
        heard = Heard(client)
        twin.holds = True
        heard.append("a")
        await until(lambda: batches(twin))
        await client.stop()
        assert heard.of["a"] == [None]
        assert client.idle


# -- what it says of itself ----------------------------------------------------------------------------------
@looped
async def test_recorder_that_is_away_for_long_is_complained_of_once(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as said:
        client = RecorderClient(tmp_path / "nobody.sock", PATIENT_S)
        client.start()
        await asyncio.sleep(module.RETRY_S * 4)
        await client.stop()
    assert len([entry for entry in said if "No such file" in entry.get("why", "")]) == 1


@looped
async def test_fault_of_ours_does_not_end_the_attempts(tmp_path: Path) -> None:
    client = RecorderClient(tmp_path / "\ud800", PATIENT_S)  # a name that no file can have
    with structlog.testing.capture_logs() as said:
        client.start()
        await asyncio.sleep(module.RETRY_S * 4)
    assert [entry["event"] for entry in said if entry["log_level"] == "error"] == [
        "error in the connection to the recorder"
    ]
    client._path = str(tmp_path / "recorder.sock")  # as if the fault had passed
    twin = Twin(tmp_path / "recorder.sock")
    await twin.start()
    await until(lambda: client.up)
    await client.stop()
    twin.die()


def test_constants_leave_room_for_a_whole_batch_in_one_message() -> None:
    largest = module.MAX_BATCH_BYTES + (32 << 10) + module.MAX_BATCH_ITEMS * 64
    assert largest < wire.MAX_MESSAGE_BYTES
