"""A child is restarted, with growing patience, and leaves nobody behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gatebook.supervisor.child import LAST_DELAY_S, Child, restart_delay_s

SLEEPS = [sys.executable, "-c", "import time; time.sleep(60)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)",
]
# A parent that starts one more process and shows its id, as a gateway's master does with its workers.
BREEDS = [
    sys.executable,
    "-c",
    "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
    "open(sys.argv[1], 'w').write(str(p.pid)); time.sleep(60)",
]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.01)


def watched(child: Child, scene: Callable[[], Awaitable[None]]) -> None:
    """Run a scene with the child watched as the supervisor watches it."""

    async def run() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, child.look)
        child.start()
        try:
            await scene()
        finally:
            await child.stop(5.0)

    asyncio.run(run())


def test_first_death_costs_nothing_and_later_ones_ever_more() -> None:
    delays = [restart_delay_s(deaths) for deaths in range(1, 12)]
    assert delays[:4] == [0.0, 0.2, 0.4, 0.8]
    assert delays == sorted(delays)
    assert delays[-1] == LAST_DELAY_S


def test_killed_child_is_started_again() -> None:
    child = Child("sleeper", SLEEPS)

    async def scene() -> None:
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: child.pid not in (None, first))
        assert child.restarts == 1

    watched(child, scene)


def test_members_of_a_dead_childs_group_are_ended_before_it_starts_again(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    child = Child("breeder", [*BREEDS, str(note)])

    async def scene() -> None:
        await until(lambda: note.exists() and note.read_text())
        grandchild, first = int(note.read_text()), child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: not alive(grandchild))

    watched(child, scene)


def test_child_that_will_not_end_is_killed() -> None:
    child = Child("deaf", DEAF)

    async def run() -> None:
        child.start()
        pid = child.pid
        assert pid is not None
        await asyncio.sleep(0.3)
        await child.stop(0.1)
        assert not alive(pid)

    asyncio.run(run())


def test_child_that_is_being_stopped_is_not_started_again() -> None:
    child = Child("sleeper", SLEEPS)

    async def scene() -> None:
        await child.stop(5.0)
        await asyncio.sleep(0.1)
        assert not child.running
        assert child.restarts == 0

    watched(child, scene)


def test_program_that_is_not_there_is_an_error_at_once() -> None:
    with pytest.raises(FileNotFoundError):
        Child("nobody", ["/nowhere/at/all"]).start()


def test_children_die_with_a_supervisor_that_is_killed() -> None:
    script = (
        "import sys, time; from gatebook.supervisor.child import Child; "
        "c = Child('sleeper', [sys.executable, '-c', 'import time; time.sleep(60)']); c.start(); "
        "sys.stdout.write(f'{c.pid}\\n'); sys.stdout.flush(); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        line = next(line for line in parent.stdout if line.strip().isdigit())
        assert alive(int(line))
        parent.kill()
        parent.wait()
        end = time.monotonic() + 20
        while alive(int(line)):
            assert time.monotonic() < end, "it lives on"
            time.sleep(0.01)
