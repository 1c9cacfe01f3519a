"""What fails, and what it must look like: 503 with a problem, nothing forwarded, nothing acknowledged lost."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import httpx2
import pytest
from tests.e2e.deployment import Deployment, until
from tests.e2e.load import Load


def refused(deployment: Deployment, token: str) -> None:
    """503 as a problem, and the upstream hears nothing of it."""
    before = len(deployment.upstream.seen)
    answer = deployment.ask("/orders/1", token)
    assert answer.status_code == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == 503
    assert len(deployment.upstream.seen) == before


def kill(deployment: Deployment, role: str) -> None:
    """kill -9, and wait until another is ready."""
    pid = deployment.pid(role)
    os.kill(pid, signal.SIGKILL)
    until(lambda: deployment.ready() and deployment.pid(role) != pid, "a restart")


def probe(deployment: Deployment) -> int:
    return deployment.ask("/.gatebook/ready").status_code


@pytest.mark.parametrize("role", ["guard 0", "recorder"])
def test_process_that_hangs_is_503_and_readiness_goes_red(fresh: Deployment, role: str) -> None:
    token = fresh.reader()
    assert fresh.ask("/orders/1", token).status_code == 200
    assert probe(fresh) == 200
    pid = fresh.pid(role)
    os.kill(pid, signal.SIGSTOP)
    try:
        refused(fresh, token)
        until(lambda: probe(fresh) == 503, "readiness to go red")
        refused(fresh, token)
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: probe(fresh) == 200, "readiness to come back")
    assert fresh.ask("/orders/1", token).status_code == 200
    fresh.verify()


@pytest.mark.parametrize("role", ["guard 0", "recorder", "gateway"])
def test_killed_process_is_restarted_at_once(fresh: Deployment, role: str) -> None:
    token = fresh.reader()
    assert fresh.ask("/orders/1", token).status_code == 200
    kill(fresh, role)
    assert fresh.ask("/orders/1", token).status_code == 200
    assert [p["restarts"] for p in fresh.status()["processes"] if p["role"] == role] == [1]
    fresh.verify()


@pytest.mark.parametrize("role", ["guard 0", "recorder", "gateway"])
def test_kill_under_load_loses_nothing(fresh: Deployment, role: str) -> None:
    """Every request that reached the upstream has a durable decision; every receipt is honoured."""
    load = Load(fresh)
    with load.running():
        until(lambda: load.passed() > 100, "load")
        for _ in range(3):
            kill(fresh, role)
            load.goes_on(50)
    assert set(load.statuses) <= {0, 200, 502, 503, 504}
    until(lambda: fresh.status()["open_decisions"] == 0, "every decision to have an outcome")
    records = fresh.log("--all")
    decisions = {r["id"]: r for r in records if "decision" in r and r.get("kind") not in ("admin", "system")}
    assert set(fresh.upstream.ids()) <= set(decisions)
    for request_id, index in load.receipts.items():
        assert decisions[request_id]["decision_index"] == index
    for record in decisions.values():
        assert "outcome_index" in record, record
        known = record["response"].get("status") if "response" in record else None
        assert known is not None or record["error"]["detail"] == "outcome_unknown"
    outcomes = [record["outcome_index"] for record in decisions.values()]
    assert len(set(outcomes)) == len(outcomes)
    fresh.verify()


def test_supervisor_that_is_killed_takes_everything_with_it_and_starts_again(fresh: Deployment) -> None:
    token = fresh.reader()
    assert fresh.ask("/orders/1", token).status_code == 200
    pids = fresh.pids()
    assert fresh.process is not None
    fresh.process.kill()
    fresh.process.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the children to end")
    fresh.start()
    assert fresh.ask("/orders/1", token).status_code == 200
    fresh.verify()


def test_new_ledger_in_the_place_of_a_deleted_one_takes_over_no_line_of_its_log(fresh: Deployment) -> None:
    fresh.ask("/healthz")
    pids = fresh.pids()
    assert fresh.process is not None
    for pid in (fresh.process.pid, fresh.pid("recorder")):
        os.kill(pid, signal.SIGKILL)
    fresh.process.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the children to end")
    stale = '{"i":"' + "f" * 32 + '","s":"200","t":"1.000","m":"GET","q":"/phantom","a":"192.0.2.1"}\n'
    (fresh.paths.logs / "access.log").write_text(stale)
    for folder in (fresh.folder / "state", fresh.folder / "tls"):
        shutil.rmtree(folder)
    fresh.config.unlink()
    (fresh.folder / "gatebook.schema.json").unlink()
    fresh.cli("init", str(fresh.folder))
    fresh.write()
    fresh.start()
    answer = fresh.ask("/healthz")
    found = fresh.access(answer.headers["X-Request-ID"])
    assert [record["id"] for record in fresh.log()] == [found["id"]]


def test_second_supervisor_on_the_same_state_refuses(fresh: Deployment) -> None:
    done = fresh.cli("run", "-c", str(fresh.config), check=False)
    assert done.returncode == 3
    assert "another `gatebook run`" in done.stderr
    assert fresh.ready()


def test_second_recorder_on_the_same_state_refuses(fresh: Deployment) -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "gatebook.recorder", str(fresh.paths.state)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 14
    assert fresh.ask("/orders/1", fresh.reader()).status_code == 200


def test_orderly_stop_finishes_what_is_under_way(fresh: Deployment) -> None:
    import threading

    answers: list[int] = []
    token = fresh.reader()
    slow = threading.Thread(target=lambda: answers.append(fresh.ask("/orders/trickle", token).status_code))
    slow.start()
    until(lambda: fresh.upstream.seen, "the request to arrive")
    pids = fresh.pids()
    assert fresh.stop() == 0
    slow.join()
    assert answers == [200]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert [r["response"]["status"] for r in fresh.log()] == [200]
    fresh.verify()
    assert not fresh.paths.control_socket.exists()


def test_tampered_ledger_is_never_continued(fresh: Deployment) -> None:
    token = fresh.reader()
    for _ in range(3):
        fresh.ask("/orders/1", token)
    assert fresh.stop() == 0
    (segment, *_) = sorted((fresh.paths.ledger / "segments").iterdir())
    data = bytearray(segment.read_bytes())
    data[-40] ^= 1
    segment.write_bytes(data)
    fresh.start(ready=False)
    until(lambda: "tamper" in fresh.said().lower() or "damage" in fresh.said().lower(), "a word about it")
    assert not fresh.status().get("ready")
    with pytest.raises(httpx2.HTTPError):
        fresh.ask("/orders/1", token)
    done = fresh.cli("verify", "-c", str(fresh.config), check=False)
    assert done.returncode in (11, 12)


def test_provider_that_goes_down_stops_nobody_who_is_known(fresh: Deployment) -> None:
    token = fresh.reader("early")
    assert fresh.ask("/orders/1", token).status_code == 200
    later = fresh.reader("late")
    fresh.issuer.stop()
    assert fresh.ask("/orders/1", later).status_code == 200


def test_provider_that_was_never_up_is_503_for_its_tokens_alone(stopped: Deployment) -> None:
    token = stopped.reader()
    stopped.issuer.stop()
    stopped.start()
    answer = stopped.ask("/orders/1", token)
    assert answer.status_code == 503
    assert stopped.access(answer.headers["X-Request-ID"])["decision"]["reason"] == "provider_unavailable"
    assert stopped.ask("/healthz").status_code == 200


def test_ten_thousand_routes(stopped: Deployment) -> None:
    first = stopped.configuration["routes"][1]
    stopped.configuration["routes"] += [
        {**first, "name": f"many-{n}", "path": f"/many/{n}/{{id}}"} for n in range(10_000)
    ]
    stopped.write()
    stopped.start()
    answer = stopped.ask("/many/9999/x", stopped.reader())
    assert answer.status_code == 200
    assert stopped.access(answer.headers["X-Request-ID"])["request"]["route"] == "many-9999"


def test_disk_full_is_503_and_nothing_acknowledged_is_lost(stopped: Deployment) -> None:
    """The ledger lies on a file system of 8 MB, half of it the reserve, where a test may mount one."""
    import subprocess

    ledger = stopped.paths.ledger
    ledger.mkdir(mode=0o700, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "gatebook-test", str(ledger)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode()}")
    try:
        stopped.start()
        load = Load(stopped)
        with load.running():
            until(lambda: load.statuses[503] > 20, "the disk to be full", 60)
        token = stopped.reader()
        refused(stopped, token)
        until(lambda: probe(stopped) == 503, "readiness to go red")
        filler = list(ledger.rglob("reserve*"))
        assert not any(path.stat().st_size for path in filler), "the reserve is used up"
        subprocess.run(["mount", "-o", "remount,size=64m", str(ledger)], check=True)
        until(lambda: stopped.ask("/orders/1", token).status_code == 200, "service to come back", 60)
        decisions = {r["id"]: r["decision_index"] for r in stopped.log() if "decision_index" in r}
        for request_id, index in load.receipts.items():
            assert decisions[request_id] == index
        assert set(stopped.upstream.ids()) <= set(decisions)
        stopped.verify()
        stopped.stop()
    finally:
        stopped.close()
        for _ in range(50):
            if subprocess.run(["umount", str(ledger)], capture_output=True).returncode == 0:
                break
            time.sleep(0.1)
