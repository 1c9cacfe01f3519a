"""`gatebook demo` as a person runs it: it tells what happens, its lines work, and nothing is left behind.

Every process of a run carries a mark in its environment, by which those that are left are found.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gatebook.demo import run as module
from gatebook.demo import traffic
from gatebook.demo.traffic import STEPS
from gatebook.errors import GatebookError
from gatebook.paths import Paths

DEADLINE_S = 60.0
UP = "Ctrl-C stops everything."


class Demo:
    """One run, with a folder of its own for temporary files."""

    def __init__(self, folder: Path) -> None:
        self.temporary, self.mark = folder / "tmp", secrets.token_hex(16)
        self.temporary.mkdir()
        self.output = folder / "output"
        self.environment = os.environ | {"TMPDIR": str(self.temporary), "MARK": self.mark, "COLUMNS": "200"}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, terminal: int | None = None) -> subprocess.Popen[bytes]:
        """Output goes to a file, or to a terminal that closes with its other side."""
        on_terminal = terminal is not None
        with self.output.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gatebook", "demo", *arguments],
                env=self.environment,
                stdin=terminal if on_terminal else subprocess.DEVNULL,
                stdout=terminal if on_terminal else stream,
                stderr=subprocess.STDOUT,
                start_new_session=on_terminal,
                preexec_fn=take_terminal if on_terminal else None,
            )
        return self.process

    def said(self) -> str:
        return self.output.read_text("utf-8", "replace")

    def until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < end, self.said()
            time.sleep(0.05)

    def until_up(self) -> None:
        assert self.process is not None
        process = self.process
        self.until(lambda: UP in self.said() or process.poll() is not None)
        assert process.poll() is None, self.said()

    def ends(self) -> int:
        assert self.process is not None
        return self.process.wait(DEADLINE_S)

    def left(self) -> list[str]:
        """Command lines of processes that carry the mark."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and f"MARK={self.mark}".encode() in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found

    def shell(self, script: str) -> str:
        done = subprocess.run(
            ["/bin/sh", "-c", script],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def lines(self) -> list[str]:
        """Those that it says to try."""
        return re.findall(r"^  (?!#)(\S.*)$", self.said().partition("Try it yourself")[2], re.M)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    made = Demo(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait()


def test_once_shows_every_request_its_record_and_the_verdict(demo: Demo) -> None:
    demo.start("--once")
    code = demo.ends()
    said = demo.said()
    assert code == 0, said
    for step in STEPS:
        assert re.search(rf"^{re.escape(step.what)} +{step.method} .* {step.status} ", said, re.M), step.what
    shown = said.partition("gatebook log ")[2]
    assert all(str(step.status) in shown for step in STEPS)
    assert "gatebook verify" in shown
    assert said.endswith("stays up to be tried.\n")
    assert "secret" not in said
    assert demo.left() == []
    assert list(demo.temporary.iterdir()) == []
    state = re.search(r"Setting up in (\S+)", said)
    assert state is not None
    assert not Paths(Path(state[1]) / "state").runtime.exists()


def test_lines_that_it_prints_work_as_printed_and_ctrl_c_ends_everything(demo: Demo, tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    demo.start("--folder", str(folder))
    demo.until_up()
    token, read, write, nobody, *commands, follow = demo.lines()
    assert "HTTP/1.1 200" in (allowed := demo.shell(f"{token}\n{read}")) or "HTTP/2 200" in allowed
    assert re.search("^HTTP/[0-9.]+ 403", demo.shell(f"{token}\n{write}"))
    assert re.search("^HTTP/[0-9.]+ 401", demo.shell(nobody))
    log, show, verify, status = [demo.shell(line) for line in commands]
    assert "403" in log
    assert "no_rule" in show
    assert verify
    assert "ready" in status
    watch(demo, follow, nobody)

    assert demo.process is not None
    demo.process.send_signal(signal.SIGINT)
    assert demo.ends() == 0
    assert demo.left() == []
    assert demo.said().endswith(f"Stopped. The log is kept in {folder}.\n")
    demo.shell(commands[2])  # what is kept can still be verified


def watch(demo: Demo, follow: str, other: str) -> None:
    """`gatebook log --follow` shows what happens while it runs."""
    seen = demo.output.with_name("seen")
    with (
        seen.open("wb") as stream,
        subprocess.Popen(
            ["/bin/sh", "-c", f"exec {follow}"], env=demo.environment, stdout=stream, stderr=stream
        ) as following,
    ):
        try:
            request_id = ""
            end = time.monotonic() + DEADLINE_S
            while not request_id or request_id[:8] not in seen.read_text():
                assert time.monotonic() < end, seen.read_text()
                assert following.poll() is None, seen.read_text()
                if not seen.read_text().count("credential_missing"):
                    found = re.search(r"(?mi)^x-request-id: (\w+)", demo.shell(other))
                    assert found is not None
                    request_id = found[1]
                time.sleep(0.2)
                if "credential_missing" in seen.read_text():
                    break
        finally:
            following.terminate()


def test_closed_terminal_leaves_nothing_behind(demo: Demo) -> None:
    ours, theirs = pty.openpty()
    try:
        demo.start(terminal=theirs)
        os.close(theirs)
        seen = b""
        while UP.encode() not in seen:
            seen += os.read(ours, 65536)
    finally:
        os.close(ours)
    assert demo.ends() == 0
    assert demo.left() == []
    assert list(demo.temporary.iterdir()) == []


def take_terminal() -> None:
    """Make standard input the controlling terminal of the new session."""
    os.close(os.open(os.ttyname(0), os.O_RDWR))


def test_killed_demo_leaves_no_process_behind(demo: Demo) -> None:
    process = demo.start()
    demo.until_up()
    assert len(demo.left()) >= 6  # itself, API, provider, supervisor, recorder, guard
    (place,) = demo.temporary.iterdir()
    # nginx writes its title over the mark.
    nginx = Path(f"/proc/{(place / 'state' / 'nginx' / 'nginx.pid').read_text().strip()}")
    assert nginx.exists()
    process.kill()
    process.wait()
    demo.until(lambda: demo.left() == [] and not nginx.exists())
    for folder in demo.temporary.iterdir():
        shutil.rmtree(Paths(folder / "state").runtime, ignore_errors=True)


def test_demo_that_is_stopped_while_it_starts_leaves_nothing_behind(demo: Demo) -> None:
    process = demo.start()
    demo.until(lambda: "Setting up" in demo.said())
    process.send_signal(signal.SIGTERM)
    assert demo.ends() != 0
    assert demo.left() == []
    assert list(demo.temporary.iterdir()) == []


def test_process_that_dies_while_it_is_up_is_told_and_ends_it(demo: Demo) -> None:
    demo.start()
    demo.until_up()
    (api,) = [
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit() and is_marked(folder, demo.mark, b"gatebook.demo.api")
    ]
    os.kill(api, signal.SIGKILL)
    assert demo.ends() == 3
    assert "demo API ended unexpectedly" in demo.said()
    assert demo.left() == []


def is_marked(folder: Path, mark: str, what: bytes) -> bool:
    with contextlib.suppress(OSError):
        return what in (folder / "cmdline").read_bytes() and mark.encode() in (folder / "environ").read_bytes()
    return False


def test_answer_that_is_not_expected_ends_it_with_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = STEPS[0]._replace(status=418)
    monkeypatch.setattr(traffic, "STEPS", (wrong, STEPS[2]))
    with pytest.raises(GatebookError, match=r"a public route: GET /healthz gave 200, expected 418"):
        module.run(tmp_path / "folder", once=True)
    assert "no credential" in capsys.readouterr().out


def test_folder_of_a_deployment_is_refused(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "gatebook.yaml").write_text("precious")
    demo.start("--once", "--folder", str(tmp_path))
    assert demo.ends() == 3
    assert "there is already" in demo.said()
    assert (tmp_path / "gatebook.yaml").read_text() == "precious"
    assert demo.left() == []
