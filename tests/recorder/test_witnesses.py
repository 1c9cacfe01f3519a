"""Witnesses, real ones of ours and lying ones, asked by the recorder's own rounds over a real ledger."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import uvicorn
from tests.ports import free_port
from tests.recorder.deployed import State, until
from tests.witness.misbehaving import Misbehaving, http

from gatebook import record
from gatebook.errors import LedgerBusy
from gatebook.ledger.consistency import consistency_from_tiles
from gatebook.ledger.entry import Anchor
from gatebook.ledger.keys import load_verifier
from gatebook.ledger.note import Checkpoint, Cosigner, check_note, open_note, parse_checkpoint
from gatebook.ledger.quorum import Quorum, parse_trust
from gatebook.ledger.writer import Writer
from gatebook.recorder import vouched
from gatebook.recorder.journal import Journal
from gatebook.recorder.process import open_writer
from gatebook.recorder.witnesses import SILENT_AFTER, Tell, Witnesses
from gatebook.witness import state as witness_state
from gatebook.witness.protocol import SIZE_TYPE, parse_request
from gatebook.witness.service import make_app

A, B = (Cosigner(f"witness.example/{name}", name.encode() * 32) for name in "ab")
NOW = time.time()
RECORD = record.encode(record.System(time_us=1, event="test"))


class Ours:
    """A witness of ours on a real socket, in this process's loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cosigner = witness_state.create(folder, "witness.example/ours")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Ours]:
        kept = witness_state.State(self.folder, time.time)
        server = uvicorn.Server(
            uvicorn.Config(make_app(kept), port=self.port, log_config=None, lifespan="off", ws="none")
        )
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.closing(kept))
            task = asyncio.get_running_loop().create_task(server.serve())
            while not server.started:  # noqa: ASYNC110 - of uvicorn, which tells in no other way
                await asyncio.sleep(0.01)
            yield self
            server.should_exit = True
            await task


class Rig:
    """A ledger, and what the recorder does of witnesses, a round at a time."""

    made: ClassVar[list[Rig]] = []

    def __init__(self, folder: Path, policy: str, timeout: str) -> None:
        self.policy = folder / "policy"
        self.policy.write_text(policy)
        self.state = State(folder, witnesses={"policy": str(self.policy), "timeout": timeout})
        self.log = self.state.paths.ledger / "log"
        self.own = load_verifier(self.state.paths.keys)
        self.told: list[tuple[str, dict[str, object]]] = []
        self.anchors: list[Anchor] = []
        self.now = NOW
        self.open()

    def open(self) -> None:
        self.writer: Writer = open_writer(self.state.configuration, self.state.paths, Journal())
        tell = Tell(
            lambda event, detail: self.told.append((event, detail)),
            lambda alert, detail: self.told.append((alert, detail)),
            self.anchors.append,
        )
        self.witnesses = Witnesses(self.state.paths, self.writer, tell, now_s=lambda: self.now)
        self.witnesses.configure(self.state.configuration.witnesses)

    async def reopen(self) -> None:
        await self.witnesses.close()
        self.writer.close()
        self.open()

    def grow(self, records: int = 1) -> Checkpoint:
        self.writer.append([RECORD] * records)
        self.writer.sync()
        plan = self.writer.plan_checkpoint()
        assert plan is not None
        plan.write()
        return self.writer.promise.checkpoint

    async def round(self) -> None:
        settings = self.state.configuration.witnesses
        assert settings is not None
        self.witnesses._not_before = {}  # as if long enough had passed
        await self.witnesses.round(settings)

    @property
    def checkpoint(self) -> bytes:
        return (self.log / "checkpoint").read_bytes()

    def quorum(self, name: str = "checkpoint") -> Quorum:
        trust = parse_trust(self.policy.read_bytes(), "policy")
        return trust.judge((self.log / name).read_bytes(), self.own)

    def row(self, name: str) -> vouched.Seen:
        (found,) = [seen for seen in vouched.read(self.state.paths.witnesses).witnesses if seen.name == name]
        return found


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """A witness of ours syncs before it answers, and a disk may be busy: it has time, unless a test says less."""
    Rig.made = []

    def make(policy: str, timeout: str = "30s") -> Rig:
        Rig.made.append(Rig(tmp_path, policy, timeout))
        return Rig.made[-1]

    yield make
    for each in Rig.made:
        each.writer.close()
        each.state.close()


@pytest.fixture
def ours(tmp_path: Path) -> Ours:
    return Ours(tmp_path / "witness")


def one(witness: Cosigner, url: str, name: str = "a") -> str:
    return f"witness {name} {witness.vkey} {url}\nquorum {name}\n"


def run(work: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work
        for each in Rig.made:
            await each.witnesses.close()

    asyncio.run(bounded())


def honestly(cosigner: Cosigner, asked: bytes) -> bytes:
    """What an honest witness that checks nothing answers."""
    text = parse_request(asked.partition(b"\r\n\r\n")[2]).note.rpartition(b"\n\n")[0].decode() + "\n"
    return http(200, str(cosigner.cosign(text, int(NOW))))


class Blind(Misbehaving):
    """Cosigns whatever it is shown."""

    def __init__(self, cosigner: Cosigner) -> None:
        super().__init__(b"")
        self.cosigner = cosigner
        self.meanwhile: Callable[[], object] = lambda: None

    async def _answer(self, writer: asyncio.StreamWriter, answer: bytes) -> None:
        self.meanwhile()
        await super()._answer(writer, answer or honestly(self.cosigner, self.asked[-1]))


# -- what goes well -----------------------------------------------------------------------------------------
def test_cosignature_is_published_with_the_same_text_and_survives_a_restart(
    rig: Callable[[str], Rig], ours: Ours
) -> None:
    made = rig(one(ours.cosigner, ours.url))
    witness_state.add_log(ours.folder, made.own.vkey)

    async def work() -> None:
        async with ours.serving():
            checkpoint = made.grow()
            before = made.checkpoint
            await made.round()
            assert made.checkpoint.startswith(before)
            assert made.quorum().met
            assert made.quorum("cosigned").checkpoint == checkpoint
            for _ in range(3):
                made.grow(300)
                await made.round()
            assert made.quorum().met
            await made.reopen()
            assert not made.quorum().met
            assert made.quorum("cosigned").met
            await made.round()
            assert made.quorum().met

    run(work())
    row = made.row("a")
    assert (row.size, row.error, row.failures) == (made.quorum().checkpoint.size, "", 0)
    assert made.told == []
    made.writer.close()
    made.state.verified()


def test_lost_memory_is_recovered_from_the_conflict(rig: Callable[[str], Rig], ours: Ours) -> None:
    made = rig(one(ours.cosigner, ours.url))
    witness_state.add_log(ours.folder, made.own.vkey)

    async def work() -> None:
        async with ours.serving():
            made.grow(5)
            await made.round()
            made.grow(500)
            made.state.paths.witnesses.unlink()
            await made.reopen()
            await made.round()
            assert made.quorum().met

    run(work())
    assert made.told == []


def test_checkpoint_that_was_overtaken_meanwhile_is_kept_beside_the_newest(rig: Callable[[str], Rig]) -> None:
    async def work() -> None:
        async with Blind(A).serving() as server:
            assert isinstance(server, Blind)
            made = rig(one(A, server.url))
            asked_for = made.grow()
            server.meanwhile = lambda: made.grow(2)
            await made.round()
            newest = parse_checkpoint(open_note(made.checkpoint, [made.own]).text)
            assert newest.size == asked_for.size + 2
            assert not made.quorum().met
            assert made.quorum("cosigned").checkpoint == asked_for
            consistency_from_tiles(made.log, asked_for.size, newest)

    run(work())


def test_nobody_is_asked_twice_for_one_checkpoint(rig: Callable[[str], Rig]) -> None:
    async def work() -> None:
        async with Blind(A).serving() as server:
            made = rig(one(A, server.url))
            made.grow()
            for _ in range(3):
                await made.round()
            assert len(server.asked) == 1

    run(work())


def test_anchor_names_the_receipt_and_the_log_does_not_grow_by_it(rig: Callable[[str], Rig]) -> None:
    async def work() -> None:
        async with Blind(A).serving() as server:
            made = rig(one(A, server.url))
            sizes = []
            for minutes in (0, 1, 30, 59, 61, 62, 130):
                made.now = NOW + minutes * 60
                sizes.append(made.grow().size)
                await made.round()
            assert [anchor.size for anchor in made.anchors] == [sizes[0], sizes[4], sizes[6]]
            for anchor in made.anchors:
                receipt = (made.log / "anchors" / f"{anchor.size}.cosigned").read_bytes()
                assert (anchor.kind, anchor.receipt_sha256) == (2, hashlib.sha256(receipt).digest())
                assert made.quorum(f"anchors/{anchor.size}.cosigned").met
            await made.reopen()
            made.grow()
            await made.round()
            assert len(made.anchors) == 3

    run(work())


def test_no_quorum_no_anchor_and_a_better_note_is_not_replaced_by_a_worse(rig: Callable[[str], Rig]) -> None:
    async def work() -> None:
        async with Blind(A).serving() as first, Blind(B).serving() as second:
            policy = (
                f"witness a {A.vkey} {first.url}\nwitness b {B.vkey} {second.url}\ngroup g all a b\nquorum g\n"
            )
            made = rig(policy)
            good = made.grow()
            await made.round()
            assert made.quorum("cosigned").met
            second.answers = [http(503)]
            made.grow()
            await made.round()
            assert set(made.quorum().signed) == {"a"}
            assert made.quorum("cosigned").checkpoint == good
            second.answers = [b""]
            await made.round()  # the second one alone is asked again
            assert made.quorum().met
            assert made.quorum("cosigned").checkpoint.size > good.size
            assert len(made.anchors) == 1
            assert len(first.asked) == 2

    run(work())


def test_policy_that_is_changed_holds_at_once_and_one_that_is_spoilt_never(rig: Callable[[str], Rig]) -> None:
    async def work() -> None:
        async with Blind(A).serving() as first, Blind(B).serving() as second:
            made = rig(one(A, first.url))
            made.grow()
            await made.round()
            made.policy.write_text("nonsense\n")
            made.grow()
            await made.round()
            assert "is no line of a policy" in vouched.read(made.state.paths.witnesses).error
            assert len(first.asked) == 2
            made.policy.write_text(one(B, second.url, "b"))
            made.grow()
            await made.round()
            kept = vouched.read(made.state.paths.witnesses)
            assert (kept.error, [seen.name for seen in kept.witnesses]) == ("", ["b"])
            assert (len(first.asked), len(second.asked)) == (2, 1)

    run(work())


# -- what goes wrong ----------------------------------------------------------------------------------------
def test_log_that_was_put_back_is_told_by_the_witness_and_recorded_once(
    rig: Callable[[str], Rig], ours: Ours, tmp_path: Path
) -> None:
    made = rig(one(ours.cosigner, ours.url))
    witness_state.add_log(ours.folder, made.own.vkey)

    async def work() -> None:
        async with ours.serving():
            made.grow(3)
            await made.round()
            await made.witnesses.close()
            made.writer.close()
            shutil.copytree(made.state.paths.state, tmp_path / "yesterday")
            made.open()
            made.grow(50)
            await made.round()
            assert made.told == []
            cosigned = made.row("a").size
            await made.witnesses.close()
            made.writer.close()
            shutil.rmtree(made.state.paths.state)
            shutil.copytree(tmp_path / "yesterday", made.state.paths.state)
            made.open()  # nothing local can tell
            made.grow()
            for _ in range(3):
                await made.round()
            ((alert, detail),) = made.told
            assert alert == "witness_disagrees"
            assert f"has cosigned {cosigned} entries" in str(detail["why"])
            made.grow(200)  # beyond what it saw, by another way
            await made.reopen()
            for _ in range(2):
                await made.round()
            assert len(made.told) == 1, "one alert is enough"
            assert "not the first of this log" in made.row("a").error
            assert made.row("a").disagrees
            assert not made.quorum().met
            assert list((ours.folder / "evidence").iterdir())

    run(work())


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ([http(409, "1000000\n", f"Content-Type: {SIZE_TYPE}")], "has cosigned 1000000 entries"),
        ([http(409, "1\n"), http(422)], "has cosigned 1 entries that are not the first"),
        (
            [http(409, "2\n", "Content-Type: text/plain"), http(409, "2\n")],
            "has cosigned 2 entries that are not those",
        ),
    ],
)
def test_witness_that_saw_another_history_raises_an_alert(
    rig: Callable[[str], Rig], answers: list[bytes], why: str
) -> None:
    async def work() -> None:
        async with Misbehaving(*answers).serving() as server:
            made = rig(one(A, server.url))
            if "those" in why:
                size = made.writer.promise.checkpoint.size
                server.answers = [http(409, f"{size}\n", "Content-Type: text/plain")]
                expected = why.replace("2", str(size))
            else:
                made.grow()
                expected = why
            await made.round()
            ((alert, detail),) = made.told
            assert alert == "witness_disagrees"
            assert expected in str(detail["why"])

    run(work())


@pytest.mark.parametrize(
    "answer",
    [
        http(200),
        http(200, "nonsense"),
        http(403),
        http(404),
        http(422),  # of one that never cosigned anything
        http(409),
        http(409, "soon"),
        http(429, "", "Retry-After: 1"),
        http(500),
        http(307, "", "Location: http://127.0.0.1:1/"),
        b"",
        b"nonsense\r\n\r\n",
    ],
)
def test_witness_that_fails_costs_a_row_and_one_record(rig: Callable[[str], Rig], answer: bytes) -> None:
    async def work() -> None:
        async with Misbehaving(answer, close=True).serving() as server:
            made = rig(one(A, server.url))
            made.grow()
            before = made.checkpoint
            for _ in range(SILENT_AFTER + 2):
                await made.round()
            assert made.checkpoint == before
            assert not (made.log / "cosigned").exists()
            ((event, detail),) = made.told
            assert (event, detail["witness"]) == ("witness.silent", "a")
            row = made.row("a")
            assert (row.failures, row.silent, row.size) == (SILENT_AFTER + 2, True, 0)
            assert row.error
            assert len(server.asked) >= SILENT_AFTER

    run(work())


def test_witness_that_comes_back_is_recorded_too(rig: Callable[[str], Rig]) -> None:
    async def work() -> None:
        async with Blind(A).serving() as server:
            server.answers = [http(503)]
            made = rig(one(A, server.url))
            made.grow()
            for _ in range(SILENT_AFTER):
                await made.round()
            server.answers = [b""]
            await made.round()
            assert [event for event, _ in made.told] == ["witness.silent", "witness.answers"]
            assert made.quorum().met

    run(work())


def test_one_dead_witness_takes_nothing_from_the_others(rig: Callable[..., Rig]) -> None:
    async def work() -> None:
        async with Blind(A).serving() as live, Misbehaving(b"").serving() as mute:
            dead = f"http://127.0.0.1:{free_port()}"
            c, d = (Cosigner(f"witness.example/{name}", name.encode() * 32) for name in "cd")
            made = rig(
                f"witness a {A.vkey} {live.url}\nwitness b {B.vkey} {mute.url}\nwitness c {c.vkey} {dead}\n"
                f"witness d {d.vkey}\nwitness e {Cosigner('e', bytes(32)).vkey} http://witness.example/\n"
                f"group g any a b c d e\nquorum g\n",
                timeout="1s",
            )
            made.grow()
            await made.round()
            assert made.quorum().met
            errors = {name: made.row(name).error for name in "abcde"}
            assert [bool(errors[name]) for name in "abcde"] == [False, True, True, False, True]
            assert "its URL is neither https" in errors["e"]

    run(work())


def test_failing_witness_is_asked_ever_more_rarely_and_as_it_asks(rig: Callable[[str], Rig]) -> None:
    async def work() -> None:
        async with Misbehaving(http(429, "", "Retry-After: 50")).serving() as server:
            made = rig(one(A, server.url))
            settings = made.state.configuration.witnesses
            assert settings is not None
            made.grow()
            for _ in range(3):
                await made.witnesses.round(settings)
            assert len(server.asked) == 1

    run(work())


def test_damaged_tiles_are_never_shown_as_a_proof(rig: Callable[[str], Rig], ours: Ours) -> None:
    made = rig(one(ours.cosigner, ours.url))
    witness_state.add_log(ours.folder, made.own.vkey)

    async def work() -> None:
        async with ours.serving():
            made.grow(5)
            await made.round()
            made.grow(5)
            for tile in (made.log / "tile/0/000.p").iterdir():
                tile.write_bytes(bytes(len(tile.read_bytes())))
            await made.round()
            assert "is not asked" in made.row("a").error
            assert made.told == []

    run(work())


def test_cosigning_shows_nothing_once_another_process_writes(rig: Callable[[str], Rig]) -> None:
    async def work() -> None:
        async with Blind(A).serving() as server:
            made = rig(one(A, server.url))
            made.grow()
            before = made.checkpoint
            held = made.state.paths.lock.with_name("lock.held")
            held.unlink()
            with pytest.raises(LedgerBusy):
                await made.round()
            assert made.checkpoint == before

    run(work())


# -- the whole process --------------------------------------------------------------------------------------
def test_recorder_asks_by_itself_and_puts_it_on_record(tmp_path: Path, ours: Ours) -> None:
    policy = tmp_path / "policy"
    dead = Cosigner("witness.example/dead", bytes(32))
    policy.write_text(
        f"witness ours {ours.cosigner.vkey} {ours.url}\n"
        f"witness dead {dead.vkey} http://127.0.0.1:{free_port()}/\nquorum ours\n"
    )
    state = State(tmp_path, witnesses={"policy": str(policy), "every": "1s"})
    own = load_verifier(state.paths.keys)
    witness_state.add_log(ours.folder, own.vkey)
    trust = parse_trust(policy.read_bytes(), "policy")

    def met() -> Any:
        with contextlib.suppress(FileNotFoundError):
            return trust.judge((state.paths.ledger / "log/checkpoint").read_bytes(), own).met

    async def work() -> None:
        async with ours.serving():
            recorder = state.start(wait=False)
            await asyncio.to_thread(recorder.until_ready)
            await asyncio.to_thread(until, met, "a cosigned checkpoint")
            await asyncio.to_thread(
                until, lambda: any(event == "witness.silent" for event, _ in state.events()), "witness.silent"
            )
            assert await asyncio.to_thread(recorder.end) == 0

    try:
        run(work())
        state.verified()
        last = open_note((state.paths.ledger / "log/checkpoint").read_bytes(), [own])
        kept = trust.judge((state.paths.ledger / "log/cosigned").read_bytes(), own).checkpoint
        assert parse_checkpoint(last.text).size == kept.size + 1, "all but the entry that states the last segment"
        (receipt,) = (state.paths.ledger / "log/anchors").iterdir()
        assert len(check_note(receipt.read_bytes(), [own, ours.cosigner.verifier]).signatures) == 2
        ((_, detail),) = [found for found in state.events() if found[0] == "witness.silent"]
        assert detail["witness"] == "dead"
    finally:
        state.close()
