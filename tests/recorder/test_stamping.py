"""Time stamps as the recorder takes them: an authority that misbehaves costs a stamp, and never anything else."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.ledger.caller import SIGNER, VERIFIER, Caller, Contents
from tests.pki import DAY, openssl
from tests.recorder.deployed import State, until
from tests.recorder.place import item
from tests.tsa import REPLY, STAMPING, Server, Stamper, query, serving, verified_by_openssl

from gatebook import wire
from gatebook.config.evidence import Timestamps
from gatebook.ledger.entry import Anchor, Heartbeat
from gatebook.ledger.files import Files
from gatebook.ledger.keys import load_verifier
from gatebook.ledger.lock import Promise, open_signed
from gatebook.ledger.timestamp import load_authorities
from gatebook.ledger.verify import Outside, verify
from gatebook.recorder.stamping import Office, Stamping


@pytest.fixture(scope="module")
def stamper(tmp_path_factory: pytest.TempPathFactory) -> Stamper:
    return Stamper(tmp_path_factory.mktemp("tsa") / "authority")


@pytest.fixture
def server(stamper: Stamper) -> Iterator[Server]:
    with serving(stamper) as server:
        yield server


class Desk:
    """What the recorder does for it, over a real ledger."""

    def __init__(self, root: Path, server: Server) -> None:
        self.server = server
        self.caller = Caller(root, now_us=self.now())
        self.anchors = root / "ledger" / "log" / "anchors"
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.ahead_us = 0
        self.anchored: list[Anchor] = []
        self.stamping = self.again()
        self.configure()

    def now(self) -> int:
        return time.time_ns() // 1000 + getattr(self, "ahead_us", 0)

    def again(self, files: Files | None = None) -> Stamping:
        office = Office(self._sign, self._anchor, lambda *said: self.said.append(said), self.now)
        return Stamping(self.anchors, office, files, first_wait_s=0.01)

    def configure(self, **changes: Any) -> None:
        asked = {"url": self.server.url, "certificates": self.server.stamper.roots, **changes}
        self.stamping.configure(Timestamps(**asked))

    async def _sign(self) -> Promise:
        self.caller.now_us = self.now()
        self.caller.heartbeat()
        self.caller.sync()
        self.caller.checkpoint()
        return self.caller.writer.promise

    def _anchor(self, entry: Anchor) -> None:
        self.anchored.append(entry)
        self.caller.writer.append_entry(entry)
        self.caller.sync()

    def files(self) -> list[str]:
        return sorted(path.name for path in self.anchors.iterdir()) if self.anchors.is_dir() else []

    def until(self, holds: Callable[[], Any]) -> None:
        """Run it until then."""

        async def work() -> None:
            running = asyncio.ensure_future(self.stamping.run())
            end = time.monotonic() + 30
            while not holds():
                assert time.monotonic() < end, "waited in vain"
                assert not running.done(), running.exception()
                await asyncio.sleep(0.01)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

        asyncio.run(work())

    def once(self) -> str:
        """One attempt at the end; what was wrong, or nothing."""
        asyncio.run(self.stamping.at_close())
        status = self.stamping.status()
        assert status is not None
        return str(status["failing"]["why"]) if status["failing"] else ""


@pytest.fixture
def desk(tmp_path: Path, server: Server) -> Iterator[Desk]:
    made = Desk(tmp_path, server)
    yield made
    made.caller.close()


# -- what is stored -----------------------------------------------------------------------------------------
def test_stamp_is_stored_beside_its_checkpoint_and_anchored_and_openssl_agrees(desk: Desk) -> None:
    desk.until(lambda: desk.anchored)
    (anchor,) = desk.anchored
    note, reply = (desk.anchors / f"{anchor.size}.{kind}" for kind in ("checkpoint", "tsr"))
    assert desk.files() == sorted([note.name, reply.name])
    checkpoint = open_signed(note.read_bytes(), VERIFIER).checkpoint
    assert checkpoint.size == anchor.size
    assert checkpoint.origin == SIGNER.name
    assert (anchor.kind, anchor.receipt_sha256) == (1, hashlib.sha256(reply.read_bytes()).digest())
    assert verified_by_openssl(note, reply, desk.server.stamper.roots)
    status = desk.stamping.status()
    assert status is not None
    assert status["failing"] is None
    assert status["last"]["size"] == anchor.size
    assert status["last"]["authority"] == "CN=stamps,O=Clocks Ltd"


def test_what_is_stamped_ends_with_a_heartbeat_so_that_the_log_says_what_time_it_was(desk: Desk) -> None:

    desk.until(lambda: desk.anchored)
    (anchor,) = desk.anchored
    last = Contents(desk.caller.root).parsed[anchor.size - 1]
    assert isinstance(last, Heartbeat)
    assert abs(last.t_us - desk.now()) < 60_000_000


def test_last_stamp_is_told_by_its_own_word_after_a_restart_not_by_its_files_time(desk: Desk) -> None:
    """A copy or a restored backup has new file times; the stamp has not."""
    desk.until(lambda: desk.anchored)
    before = desk.stamping.status()
    for path in desk.anchors.iterdir():
        os.utime(path, (0, 0))
    desk.stamping = desk.again()
    desk.configure()
    assert before is not None
    assert desk.stamping.status() == before
    newest = max(desk.anchors.glob("*.tsr"))
    newest.write_bytes(b"no stamp")
    desk.stamping = desk.again()
    desk.configure()
    assert desk.stamping.status() == {"last": None, "failing": None}


def test_next_stamp_waits_for_its_time_over_a_restart_too(desk: Desk) -> None:
    desk.until(lambda: desk.anchored)
    desk.stamping = desk.again()
    desk.configure()

    async def some_time() -> None:
        running = asyncio.ensure_future(desk.stamping.run())
        await asyncio.sleep(0.3)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(some_time())
    assert len(desk.server.asked) == 1
    desk.ahead_us = 3_600_000_000
    desk.stamping = desk.again()
    desk.configure()
    desk.until(lambda: len(desk.server.asked) > 1)


def test_each_question_is_another(desk: Desk) -> None:
    for _ in range(3):
        assert desk.once() == ""
    assert len(set(desk.server.asked)) == 3
    assert len({anchor.size for anchor in desk.anchored}) == 3


def test_nothing_is_asked_where_nothing_is_configured(desk: Desk) -> None:
    desk.stamping.configure(None)
    assert desk.stamping.status() is None
    asyncio.run(desk.stamping.at_close())
    assert desk.server.asked == []


# -- authorities that misbehave -------------------------------------------------------------------------------
def answering(body: bytes, status: int = 200, **headers: str) -> Callable[[Server], Any]:
    return lambda server: lambda asked: (status, {**REPLY, **headers}, body)


def wrong_nonce(server: Server) -> Any:
    """The right bytes, stamped for somebody else."""

    def answer(asked: bytes) -> tuple[int, dict[str, str], bytes]:
        at = asked.index(b"\x04\x20") + 2
        again = openssl("ts", "-query", "-sha256", "-cert", "-digest", asked[at : at + 32].hex())
        return 200, REPLY, server.stamper.reply(again)

    return answer


def replayed(server: Server) -> Any:
    kept = server.stamper.reply(query(b"yesterday's checkpoint"))
    return lambda asked: (200, REPLY, kept)


def expired(server: Server) -> Any:
    old = server.stamper.middle.issue("/CN=old", STAMPING, key="rsa", start=-10 * DAY, end=-DAY)
    return lambda asked: (200, REPLY, server.stamper.reply(asked, pair=old))


def halved(server: Server) -> Any:
    return lambda asked: (200, REPLY, server.stamper.reply(asked)[:-100])


@pytest.mark.parametrize(
    ("misbehave", "words"),
    [
        (answering(b""), "is no reply"),
        (answering(b"<html>down for maintenance</html>"), "is no reply"),
        (answering(bytes.fromhex("30053003020102")), "refusal of the authority: status 2"),
        (answering(b"gone", 404), "status 404"),
        (answering(b"busy", 503, **{"Retry-After": "86400"}), "status 503"),
        (answering(b"", 302, Location="http://127.0.0.1:1/"), "redirect"),
        (answering(bytes(1 << 20)), "more than 65536 bytes"),
        (answering(b"\x1f\x8b", 200, **{"Content-Encoding": "gzip"}), "compressed"),
        (wrong_nonce, "nonce"),
        (replayed, "of other bytes"),
        (expired, "expired"),
        (halved, "is no reply"),
    ],
)
def test_answer_that_proves_nothing_is_not_stored(
    desk: Desk, misbehave: Callable[[Server], Any], words: str
) -> None:
    desk.server.behave = misbehave(desk.server)
    assert words in desk.once()
    assert desk.files() == []
    assert desk.anchored == []
    desk.server.behave = desk.server.good
    assert desk.once() == ""
    assert len(desk.anchored) == 1


def test_authority_of_somebody_else_is_not_believed(desk: Desk, tmp_path: Path) -> None:
    stranger = Stamper(tmp_path / "stranger")
    desk.server.behave = lambda asked: (200, REPLY, stranger.reply(asked))
    assert "does not lead to a certificate that is trusted" in desk.once()
    assert desk.files() == []


def test_certificates_that_are_missing_are_said_and_put_back_without_a_restart(desk: Desk, tmp_path: Path) -> None:
    desk.configure(certificates=tmp_path / "roots.pem")
    assert "roots.pem: no such file" in desk.once()
    shutil.copy(desk.server.stamper.roots, tmp_path / "roots.pem")
    assert desk.once() == ""


@pytest.mark.parametrize("ahead_s", [-3600, 3600])
def test_clock_that_is_off_is_said_and_no_stamp_contradicts_the_log(desk: Desk, ahead_s: int) -> None:
    desk.ahead_us = ahead_s * 1_000_000
    assert "clock and this machine's differ by 3" in desk.once()
    assert desk.files() == []


def test_authority_that_is_down_is_asked_again_until_it_is_back(desk: Desk) -> None:
    def back_at_the_fourth(asked: bytes) -> tuple[int, dict[str, str], bytes]:
        return desk.server.good(asked) if len(desk.server.asked) == 4 else (503, REPLY, b"")

    desk.server.behave = back_at_the_fourth
    desk.until(lambda: desk.anchored)
    assert len(desk.server.asked) == 4
    status = desk.stamping.status()
    assert status is not None
    assert status["failing"] is None


def test_nobody_listening_is_said(desk: Desk) -> None:
    desk.configure(url="http://127.0.0.1:9/tsr")
    assert "no connection" in desk.once()


def test_change_of_the_configuration_is_not_waited_for(desk: Desk) -> None:
    """The next attempt would be far away."""
    desk.configure(url="http://127.0.0.1:9/tsr")
    desk.stamping._first_wait_s = 600.0

    def put_right() -> bool:
        if (desk.stamping.status() or {}).get("failing"):
            desk.configure()
        return bool(desk.anchored)

    desk.until(put_right)


def test_failing_for_long_is_on_record_once_and_so_is_its_end(desk: Desk) -> None:
    desk.server.behave = lambda asked: (500, REPLY, b"")
    desk.once()
    assert desk.said == []
    desk.ahead_us = 3_600_000_000
    desk.once()
    desk.once()
    ((event, detail),) = desk.said
    assert event == "timestamps.failing"
    assert "status 500" in detail["why"]
    desk.ahead_us = 0
    desk.server.behave = desk.server.good
    assert desk.once() == ""
    assert [event for event, _ in desk.said] == ["timestamps.failing", "timestamps.restored"]


def test_disk_that_takes_no_stamp_is_a_failure_like_any_other(desk: Desk) -> None:
    desk.anchors.write_bytes(b"in its place")
    assert "exists" in desk.once() or "directory" in desk.once().lower()
    assert desk.anchored == []


def test_link_in_a_stamps_place_is_replaced_not_followed(desk: Desk, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    desk.once()
    size = desk.anchored[-1].size
    for name in (f"{size + 2}.tsr", f"{size + 2}.checkpoint.new"):
        (desk.anchors / name).symlink_to(victim)
    for _ in range(3):
        assert desk.once() == ""
    assert victim.read_bytes() == b"mine"


# -- a disk that fails, a machine that dies ---------------------------------------------------------------------
STEPS = ("make_folder", "create", "write", "sync", "rename", "create", "write", "sync", "rename")


class Failing(Files):
    """The step of that number fails, done or not."""

    def __init__(self, at: int, *, done: bool) -> None:
        self.left = at
        self.done = done

    def _step(self, step: Callable[..., Any], *arguments: Any) -> Any:
        self.left -= 1
        if self.left == -1 and not self.done:
            raise OSError(errno.EIO, "i/o error")
        made = step(*arguments)
        if self.left == -1:
            raise OSError(errno.EIO, "i/o error")
        return made

    def make_folder(self, path: Path) -> None:
        self._step(super().make_folder, path)

    def create(self, path: Path) -> int:
        return int(self._step(super().create, path))

    def write(self, descriptor: int, data: bytes) -> None:
        self._step(super().write, descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._step(super().sync, descriptor)

    def rename(self, old: Path, new: Path) -> None:
        self._step(super().rename, old, new)


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("at", range(len(STEPS)))
def test_stop_within_any_write_leaves_a_ledger_that_is_good_and_a_next_stamp(
    desk: Desk, at: int, done: bool
) -> None:
    desk.stamping = desk.again(Failing(at, done=done))
    desk.configure()
    assert "i/o error" in desk.once()
    assert desk.anchored == []
    outside = Outside(authorities=load_authorities(desk.server.stamper.roots), demanded=False)

    def verified() -> list[Any]:
        return verify(
            desk.caller.root / "ledger", VERIFIER, lock=desk.caller.root / "lock", outside=outside
        ).findings

    assert verified() == []
    desk.stamping = desk.again()  # the next process
    desk.configure()
    assert desk.once() == ""
    desk.caller.checkpoint()
    assert verified() == []


def test_verification_beside_it_finds_nothing_at_any_moment(desk: Desk) -> None:
    """Checkpoint, stamp, ANCHOR and the next checkpoint come one after the other, under its eyes."""
    root, seen, over = desk.caller.root, [], threading.Event()
    outside = Outside(authorities=load_authorities(desk.server.stamper.roots), demanded=False)

    def look() -> None:
        while not over.is_set():
            seen.append(verify(root / "ledger", VERIFIER, lock=root / "lock", outside=outside))

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(8):
        assert desk.once() == ""
        desk.caller.checkpoint()
    over.set()
    looking.join()
    assert len(seen) > 8
    assert [finding for report in seen for finding in report.findings] == []


# -- in the recorder's process --------------------------------------------------------------------------------
@pytest.fixture
def state(tmp_path: Path, server: Server) -> Iterator[State]:
    made = State(tmp_path, timestamps={"url": server.url, "certificates": str(server.stamper.roots)})
    try:
        yield made
    finally:
        made.close()


def stamps(state: State) -> list[Path]:
    return sorted((state.paths.ledger / "log" / "anchors").glob("*.tsr"), key=lambda path: int(path.stem))


def test_recorder_stamps_after_its_start_and_at_its_end_and_all_is_good(state: State, server: Server) -> None:
    recorder = state.start()
    until(lambda: stamps(state), "the first stamp")
    recorder.append(item(1, os.getpid()))
    stands = recorder.stands()
    assert stands is not None
    assert json.loads(json.dumps(stands.outside))["timestamps"]["failing"] is None
    assert recorder.end() == 0
    assert len(stamps(state)) == 2
    for reply in stamps(state):
        assert verified_by_openssl(reply.with_suffix(".checkpoint"), reply, server.stamper.roots)
    state.verified()
    state.start().end()  # recovery is not disturbed by the folder
    state.verified()
    outside = Outside(authorities=load_authorities(server.stamper.roots))
    log_key = load_verifier(state.paths.keys)
    report = verify(state.paths.ledger, log_key, lock=state.paths.lock, outside=outside)
    assert report.findings == []
    assert report.levels[3] == "passed"
    assert any("time-stamped by CN=stamps" in text for text in report.rests_on)


def test_hanging_authority_delays_no_acknowledgement_and_a_stop_by_seconds_only(
    state: State, server: Server
) -> None:
    server.hang.clear()
    recorder = state.start()
    until(lambda: server.asked, "the question")
    for number in range(1, 50):
        recorder.append(item(number, os.getpid()))
    assert recorder.end() == 0
    assert stamps(state) == []
    server.hang.set()
    state.verified()


def test_authority_is_said_to_be_down_in_the_recorders_log_and_status(state: State, server: Server) -> None:
    server.behave = lambda asked: (500, REPLY, b"")
    recorder = state.start()
    stands: wire.Stands = until(
        lambda: (found := recorder.stands()) and found.outside["timestamps"]["failing"] and found, "the failure"
    )
    assert "status 500" in stands.outside["timestamps"]["failing"]["why"]
    assert "no time stamp" in recorder.said()
    assert recorder.end() == 0
    state.verified()
