"""The demo's processes: none is left behind, however the demo ends, and a failed start says why."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gatebook.demo import children as module
from gatebook.demo.children import Children
from gatebook.errors import EnvironmentFault

DEADLINE_S = 20.0
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)
FAMILY = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(600)\n"
)
DEMO = (
    "import sys, time\n"
    "from pathlib import Path\n"
    "from gatebook.demo.children import Children\n"
    "with Children(Path(sys.argv[1])) as children:\n"
    "    child = children.start('sleeper', sys.executable, '-c', 'import time; time.sleep(600)')\n"
    "    print(child.process_id, flush=True)\n"
    "    time.sleep(600)\n"
)


def alive(pid: int) -> bool:
    """A zombie is not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def gone(pid: int) -> bool:
    end = time.monotonic() + DEADLINE_S
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


def python(children: Children, text: str) -> module.Child:
    return children.start("a child", sys.executable, "-c", text)


def test_process_that_ignores_sigterm_is_ended_all_the_same(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAIN_S", 0.2)
    with Children(logs) as children:
        child = python(children, STUBBORN)
        child.until(lambda: "up" in child.said())
    assert not alive(child.process_id)


def test_grandchild_is_ended_too(logs: Path) -> None:
    with Children(logs) as children:
        child = python(children, FAMILY)
        child.until(lambda: child.said().endswith("\n"))
        grandchild = int(child.said())
        assert alive(grandchild)
    assert gone(grandchild)


def test_grandchild_of_a_dead_child_is_ended_too(logs: Path) -> None:
    with Children(logs) as children:
        child = python(children, FAMILY)
        child.until(lambda: child.said().endswith("\n"))
        os.kill(child.process_id, signal.SIGKILL)
        grandchild = int(child.said())
    assert gone(grandchild)


def test_killed_demo_leaves_no_process_behind(logs: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", DEMO, str(logs)], stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        child = int(demo.stdout.readline())
        assert alive(child)
        demo.kill()
    assert gone(child)


def test_ctrl_c_reaches_the_demo_alone(logs: Path) -> None:
    with Children(logs) as children:
        child = python(children, "import os; print(os.getsid(0) == os.getpid(), flush=True)")
        child.until(lambda: child.said().endswith("\n"))
        assert child.said() == "True\n"


def test_children_can_be_stopped_by_signals_that_were_blocked_while_they_started(logs: Path) -> None:
    with Children(logs) as children:
        child = python(children, "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []), flush=True)")
        child.until(lambda: child.said().endswith("\n"))
        assert child.said() == "set()\n"


def test_child_that_ends_instead_of_starting_is_quoted(logs: Path) -> None:
    with Children(logs) as children:
        child = python(children, "print('the port is taken'); raise SystemExit(3)")
        with pytest.raises(EnvironmentFault, match=r"a child ended instead of starting(.|\n)*the port is taken"):
            child.until(lambda: False)
        assert children.dead() is child


def test_child_that_is_never_ready_is_not_waited_for_forever(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START_S", 0.1)
    with Children(logs) as children:
        child = python(children, "import time; time.sleep(600)")
        with pytest.raises(EnvironmentFault, match="was not ready"):
            child.address()
        assert children.dead() is None
