"""Who a worker is: this process, and not another that got its number."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from tests.recorder.place import Processes

from gatebook.recorder.worker import MAX_PID, PID_BITS, Workers, began, machine, uptime_ticks


def test_this_process_is_alive_and_has_a_past() -> None:
    workers = Workers(machine())
    worker = workers.worker(os.getpid())
    assert workers.alive(worker)
    assert worker & MAX_PID == os.getpid()
    since = workers.since(worker)
    assert since is not None
    assert 0 < since <= uptime_ticks()


def test_killed_process_that_nobody_has_waited_for_is_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        workers = Workers(machine())
        worker = workers.worker(process.pid)
        assert workers.alive(worker)
        process.kill()
        end = time.monotonic() + 20
        while workers.alive(worker):
            assert time.monotonic() < end
        assert began(process.pid) is None
        process.wait()
    assert not workers.alive(worker)


def test_process_whose_name_looks_like_the_end_of_its_name_is_found(tmp_path: object) -> None:
    script = "import ctypes, sys; ctypes.CDLL(None).prctl(15, b') Z 1 2 ('); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        since = began(process.pid)
        assert since is not None
        assert since <= uptime_ticks()


def test_process_that_got_the_number_is_somebody_else() -> None:
    processes = Processes(7)
    workers = processes.workers()
    worker = workers.worker(7)
    processes.began[7] += 1
    assert not workers.alive(worker)
    assert workers.worker(7) == worker  # until the next refresh, a second later
    workers.refresh()
    assert workers.worker(7) != worker


def test_after_a_reboot_everybody_is_somebody_else() -> None:
    processes = Processes(7)
    before = processes.workers("boot-1").worker(7)
    assert not processes.workers("boot-2").alive(before)


def test_who_has_gone_keeps_the_number_for_late_lines() -> None:
    processes = Processes(7)
    workers = processes.workers()
    worker = workers.worker(7)
    del processes.began[7]
    workers.refresh()
    assert workers.worker(7) == worker
    assert not workers.alive(worker)


def test_process_that_never_was_is_nobody() -> None:
    workers = Processes().workers()
    worker = workers.worker(7)
    assert worker >> PID_BITS == 0
    assert not workers.alive(worker)
    assert workers.since(worker) is None


def test_number_of_nobody_is_looked_up_once_and_anew_when_somebody_has_it() -> None:
    """Of a gateway that has ended while nobody read there may be many lines."""
    looks: list[int] = []

    def look(pid: int) -> int | None:
        looks.append(pid)
        return 5 if len(looks) > 1 else None

    workers = Workers("boot-1", look)
    assert [workers.worker(7) for _ in range(3)] == [7, 7, 7]
    assert looks == [7]
    workers.refresh()
    assert workers.worker(7) != 7


def test_many_processes_over_time_make_nobody_grow() -> None:
    processes = Processes(*range(1, 10_000))
    workers = processes.workers()
    for pid in range(1, 10_000):
        workers.worker(pid)
    workers.refresh()
    assert len(workers._known) <= 4096
