"""Our witness as a process: over real sockets, asked by our own client and by clients that mean no good."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.ports import free_port
from tests.witness.logs import Log
from tests.witness.running import Running, gatebook

from gatebook.identity.fetch import new_client
from gatebook.ledger.note import check_note
from gatebook.witness.asking import Answer, Conflict, Contradicted, Failed, Vouched, ask
from gatebook.witness.protocol import MAX_REQUEST_BYTES, SIZE_TYPE, Request
from gatebook.witness.state import origin_hash

LOG = Log()


def asked(witness: Running, log: Log, old: int, new: int) -> Answer:
    async def run() -> Answer:
        async with new_client(None, 10.0) as client:
            request = Request(old, log.proof(old, new), log.note(new))
            return await ask(client, witness.url, witness.verifier, request, 10.0, time.time())

    return asyncio.run(run())


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = gatebook("init", tmp_path / "w", "--name", "witness.example/w1")
    assert made.returncode == 0, made.stderr
    assert made.stdout == (tmp_path / "w" / "witness.pub").read_text()
    (tmp_path / "log.pub").write_text(LOG.signer.vkey + "\n")
    assert gatebook("add", tmp_path / "w", tmp_path / "log.pub").returncode == 0
    witness = Running(tmp_path / "w")
    witness.start()
    yield witness
    if witness.process is not None and witness.process.poll() is None:
        witness.stop()


def test_log_is_cosigned_and_monitors_can_read_it(running: Running) -> None:
    before = int(time.time())
    found = asked(running, LOG, 0, 5)
    assert isinstance(found, Vouched)
    assert before <= found.time_s <= time.time()
    assert asked(running, LOG, 3, 9) == Conflict(5)
    assert asked(running, Log(fork_at=2), 5, 9) == Contradicted()
    assert isinstance(asked(running, Log("acme/other"), 0, 1), Failed)
    read = httpx2.get(f"{running.url}/{origin_hash(LOG.signer.name)}/checkpoint")
    assert read.headers["content-type"].startswith("text/plain")
    assert len(check_note(read.content, [running.verifier, LOG.signer.verifier]).signatures) == 2
    for path in ("", "..%2f..%2fwitness.key", origin_hash("acme/other"), "witness.key"):
        assert httpx2.get(f"{running.url}/{path}/checkpoint").status_code == 404
    (told,) = [json.loads(line) for line in gatebook("list", running.folder, "--json").stdout.splitlines()]
    assert (told["origin"], told["size"], told["time_s"]) == ("acme/node-1", 5, found.time_s)
    assert "acme/node-1" in gatebook("list", running.folder).stdout


def test_conflict_has_the_content_type_of_the_protocol(running: Running) -> None:
    answer = httpx2.post(f"{running.url}/add-checkpoint", content=LOG.ask(3, 5))
    assert (answer.status_code, answer.headers["content-type"], answer.text) == (409, SIZE_TYPE, "0\n")


def test_kill_9_and_a_clean_end_forget_nothing(running: Running) -> None:
    assert isinstance(asked(running, LOG, 0, 5), Vouched)
    running.stop(signal.SIGKILL)
    running.start()
    assert asked(running, LOG, 0, 9) == Conflict(5)
    assert asked(running, Log(fork_at=2), 5, 9) == Contradicted()
    assert isinstance(asked(running, LOG, 5, 9), Vouched)
    assert running.stop() == 0
    running.start()
    assert asked(running, LOG, 0, 9) == Conflict(9)


def test_request_without_end_is_cut_off(running: Running) -> None:
    def endless() -> Iterator[bytes]:
        yield b"old 0\n\n"
        for _ in range(1000):
            yield b"x" * 65536

    with contextlib.suppress(httpx2.WriteError, httpx2.RemoteProtocolError, httpx2.ReadError):
        assert httpx2.post(f"{running.url}/add-checkpoint", content=endless()).status_code == 413
    long = b"x" * (MAX_REQUEST_BYTES + 1)
    with contextlib.suppress(httpx2.WriteError, httpx2.RemoteProtocolError, httpx2.ReadError):
        assert httpx2.post(f"{running.url}/add-checkpoint", content=long).status_code == 413
    assert isinstance(asked(running, LOG, 0, 5), Vouched)


def test_disk_that_refuses_is_told_and_nothing_is_cosigned(running: Running) -> None:
    assert isinstance(asked(running, LOG, 0, 5), Vouched)
    obstacle = running.folder / "logs" / f"{origin_hash(LOG.signer.name)}.checkpoint.new"
    obstacle.mkdir()
    found = asked(running, LOG, 5, 9)
    assert isinstance(found, Failed)
    assert "status 500" in found.why
    obstacle.rmdir()
    assert asked(running, LOG, 9, 9) == Conflict(5)
    assert isinstance(asked(running, LOG, 5, 9), Vouched)


def test_other_methods_and_paths_are_nothing(running: Running) -> None:
    assert httpx2.get(f"{running.url}/add-checkpoint").status_code == 405
    assert httpx2.post(f"{running.url}/").status_code == 404
    assert httpx2.post(f"{running.url}/add-checkpoint", content=b"").status_code == 400


def test_second_server_on_one_folder_is_turned_away(running: Running) -> None:
    second = gatebook("serve", running.folder, "--listen", f"127.0.0.1:{free_port()}")
    assert second.returncode == 3
    assert "another process" in second.stderr


def test_wrong_words_are_told(tmp_path: Path) -> None:
    assert gatebook("init", tmp_path / "w", "--name", "two words").returncode == 2
    assert gatebook("serve", tmp_path / "none").returncode == 3
    assert gatebook("serve", tmp_path / "none", "--listen", "everywhere").returncode == 2
    assert gatebook("init", tmp_path / "w", "--name", "w").returncode == 0
    assert gatebook("init", tmp_path / "w", "--name", "w").returncode == 3
    assert "no log yet" in gatebook("list", tmp_path / "w").stderr
    assert gatebook("add", tmp_path / "w", tmp_path / "w" / "witness.pub").returncode == 3
    assert gatebook("add", tmp_path / "w", tmp_path / "none").returncode == 3
    os.chmod(tmp_path / "w", 0o755)  # noqa: PTH101 - as an operator would
    assert "chmod 700" in gatebook("list", tmp_path / "w").stderr
