"""The recorder's real process, killed at its system calls one after the other, or refused by the kernel.

By strace: `signal=KILL:when=N` kills at the N-th call of a name, before it is carried out, over a start, an append
and an orderly end; `error=EIO` fails it. The next process goes on in the same state folder. A sample is tried;
with GATEBOOK_FAULTS=all every call, and file systems that are really small, which only root can mount.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.recorder.deployed import State, until
from tests.recorder.place import item, request_id

from gatebook import record
from gatebook.access.pairing import Pairing
from gatebook.errors import Damaged, EnvironmentFault, LedgerBusy, LedgerFull, RecorderUnavailable
from gatebook.ledger import keys
from gatebook.ledger.verify import Outside, Private, verify
from gatebook.ledger.verify.outside import read_kept

SELF = os.getpid()  # stands for a gateway's worker: a process that lives
ALL = os.environ.get("GATEBOOK_FAULTS") == "all"
SYNCS = "fdatasync,fsync,syncfs"
WRITES = "write,pwrite64,writev,ftruncate,fallocate"
NAMES = "rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat"
CHANGES = f"{SYNCS},{WRITES},{NAMES}"


class Call(NamedTuple):
    """`number`: how many of that name there were, this one included."""

    name: str
    number: int
    text: str


class Tried:
    """One state folder in which recorder after recorder comes to grief. `told`: what was acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.state = State(folder)
        self.told: dict[int, str] = {}
        self._kept = folder / "kept"
        self._kept.mkdir()
        self._number = 0

    def strace(self, what: str, calls: str) -> list[str]:
        """A command that becomes the recorder, with a tracer beside it."""
        tracing = ["-e", f"trace={calls}", *(["-e", f"inject={calls}:{what}"] if what else [])]
        return ["strace", "-D", "-f", "-qq", "-y", "-o", str(self._kept.parent / "trace"), *tracing]

    def calls(self) -> list[Call]:
        """What such a process does to files, call by call."""
        for _ in range(2):  # the first makes folders, and is like no other
            assert self.live(self.strace("", CHANGES)) == 0
        counts: Counter[str] = Counter()
        found = []
        for line in (self._kept.parent / "trace").read_text().splitlines():
            pid, _, text = line.partition(" ")
            name = text.strip().partition("(")[0]
            if int(pid) == self.state.started[-1].popen.pid and name in CHANGES.split(","):
                counts[name] += 1
                found.append(Call(name, counts[name], text))
        return found

    def live(self, wrapper: Sequence[str] = ()) -> int:
        """Start, append, end, as far as it comes; the exit code. Who was shown a checkpoint keeps it."""
        process = self.state.start(wait=False, wrapper=wrapper)
        try:
            until(lambda: process.popen.poll() is not None or process.stands(), "a start or an end")
            for _ in range(2):
                self._number += 1
                self.told[process.append(item(self._number, SELF))] = request_id(self._number)
        except (RecorderUnavailable, OSError, AssertionError):
            pass  # nothing was promised
        if process.popen.poll() is None:
            process.popen.send_signal(signal.SIGTERM)
        code = process.exits()
        published = self.state.paths.ledger / "log" / "checkpoint"
        if published.exists():
            shutil.copy(published, self._kept / str(self._number))
        return code

    def judge(self) -> None:
        """Nothing that was told is gone, and no size ever had two roots."""
        paths, state = self.state.paths, self.state
        assert self.live() == 0
        found = {index: each.id for index, each in state.records() if isinstance(each, record.Decision)}
        assert self.told.items() <= found.items()
        verifier = keys.load_verifier(paths.keys)
        kept = [read_kept(path, verifier.name) for path in self._kept.iterdir()]
        private = Private(paths.deks, keys.load_reader(paths.keys), Pairing())
        report = verify(paths.ledger, verifier, lock=paths.lock, private=private, outside=Outside(kept=kept))
        assert report.exit_code == 0, report.findings
        assert set(report.levels.values()) == {"passed"}, report

    def close(self) -> None:
        self.state.close()


@pytest.fixture
def tried(tmp_path: Path) -> Iterator[Tried]:
    made = Tried(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    made = Tried(tmp_path_factory.mktemp("calls"))
    try:
        return made.calls()
    finally:
        made.close()


def sample(calls: list[Call], n: int) -> list[Call]:
    return calls if ALL else calls[len(calls) // (2 * n) :: len(calls) // n][:n]


def test_kill_at_any_system_call_takes_nothing_that_was_told(tried: Tried, calls: list[Call]) -> None:
    assert len(calls) > 60
    assert [tried.live(), tried.live()] == [0, 0]
    codes = []
    for call in sample(calls, 6):
        codes.append(tried.live(tried.strace(f"signal=KILL:when={call.number}", call.name)))
        # What is left to do is not the same each time: some may not come.
        assert codes[-1] in (0, -signal.SIGKILL), tried.state.started[-1].said()
    assert codes.count(0) < len(codes) / 3
    tried.judge()


def refused(calls: list[Call]) -> Iterator[tuple[str, Call]]:
    for call in sample([call for call in calls if call.name in SYNCS.split(",")], 2):
        yield "EIO", call
    # To files: other writes are answers, words to people, and what wakes up a loop.
    for call in sample([call for call in calls if call.name == "write" and "/state/" in call.text], 2):
        yield "ENOSPC", call
    for call in sample([call for call in calls if call.name in ("rename", "mkdir")], 2):
        yield "ENOSPC", call


def test_kernel_that_refuses_a_call_ends_the_recorder_and_takes_nothing_that_was_told(
    tried: Tried, calls: list[Call]
) -> None:
    assert [tried.live(), tried.live()] == [0, 0]
    codes = []
    for error, call in refused(calls):
        codes.append(tried.live(tried.strace(f"error={error}:when={call.number}", call.name)))
        assert codes[-1] in (0, 1, LedgerFull.exit_code), tried.state.started[-1].said()
    assert codes.count(LedgerFull.exit_code) >= len(codes) / 2
    tried.judge()


def test_file_that_cannot_be_read_is_refused_or_not_needed_and_changes_nothing(tried: Tried) -> None:
    assert [tried.live(), tried.live()] == [0, 0]
    state = tried.state.paths.state
    known = {path: path.read_bytes() for path in sorted(state.rglob("*")) if path.is_file()}
    last = [path for path in known if path.suffix == ".gbseg"][-1]
    for path in known if ALL else (tried.state.paths.lock, last):
        wrapper = ["strace", "-D", "-f", "-qq", "-o", str(state.parent / "trace"), "-P", str(path)]
        code = tried.live([*wrapper, "-e", "trace=openat", "-e", "inject=openat:error=EIO"])
        assert code in (0, EnvironmentFault.exit_code, Damaged.exit_code, LedgerFull.exit_code), path
    for path, data in known.items():
        if "segments" in path.parts:
            assert path.read_bytes() == data
    tried.judge()


def test_of_many_recorders_at_once_one_writes(tried: Tried) -> None:
    """And when it is killed, others may."""
    for number in range(5 if ALL else 2):
        several = [tried.state.start(wait=False) for _ in range(3)]
        until(lambda several=several: sum(each.popen.poll() is None for each in several) == 1, "one to stay")  # type: ignore[misc]
        (one,) = [each for each in several if each.popen.poll() is None]
        assert {each.popen.returncode for each in several if each is not one} == {LedgerBusy.exit_code}
        one.until_ready()
        tried.told[one.append(item(1000 + number, SELF))] = request_id(1000 + number)
        one.kill()
    tried.judge()


def fill(folder: Path) -> None:
    """Until nothing is taken any more; then somebody makes room."""
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(2 << 20))
    tried = Tried(folder)
    try:
        process = tried.state.start()
        for number in range(10_000):
            try:
                index = process.append(item(number, SELF, "/" + os.urandom(9000).hex()))
            except (OSError, RecorderUnavailable, AssertionError):
                break
            tried.told[index] = request_id(number)
        assert process.exits() == LedgerFull.exit_code
        assert len(tried.told) > 50
        # Where the last words have left room for another reserve it may go on for a while.
        assert tried.live() in (0, LedgerFull.exit_code)
        ballast.unlink()
        tried.judge()
    finally:
        tried.close()


if ALL:

    @pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
    def test_small_file_system_that_fills_up_takes_nothing_that_was_told(tmp_path: Path, kind: str) -> None:
        folder = tmp_path / "small"
        folder.mkdir()
        if kind == "tmpfs":
            mount = ["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", str(folder)]
        else:
            image = tmp_path / "image"
            with image.open("wb") as stream:
                stream.truncate(14 << 20)
            subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", str(image)], check=True)
            mount = ["mount", "-o", "loop", str(image), str(folder)]
        subprocess.run(mount, check=True)
        try:
            fill(folder)
        finally:
            subprocess.run(["umount", str(folder)], check=True)
