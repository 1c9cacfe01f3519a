"""`gatebook serve-log`: the command itself; what it serves is tests/test_serve_log.py's."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.cli.logged import Logged

Run = Callable[..., Any]


def test_command_serves_the_deployments_log_and_ends_when_told(tmp_path: Path) -> None:
    logged = Logged(tmp_path / "deployment")
    command = [sys.executable, "-m", "gatebook", "serve-log", "-c", str(logged.config), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+/", said)
        assert url is not None, said
        answer = httpx2.get(f"{url[0]}checkpoint", trust_env=False)
        assert answer.content == (logged.paths.ledger / "log" / "checkpoint").read_bytes()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read() == ""


@pytest.mark.parametrize("listen", ["8650", "localhost:8650", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:x", ""])
def test_address_that_is_none_is_wrong_usage(run: Run, tmp_path: Path, listen: str) -> None:
    ran = run("serve-log", "--listen", listen)
    assert ran.code == 2
    assert "expected" in ran.err


def test_address_that_is_taken_is_said(run: Run, tmp_path: Path) -> None:
    logged = Logged(tmp_path / "deployment")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = run("serve-log", "-c", str(logged.config), "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert ran.code == 3
    assert "--listen" in ran.err
