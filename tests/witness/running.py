"""`gatebook witness` as people run it: its commands, and the process that serves."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.ports import free_port

from gatebook.ledger.note import Verifier


def gatebook(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gatebook", "witness", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


class Running:
    """`gatebook witness serve`, on a port that stays the same over restarts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.verifier = Verifier.from_vkey((folder / "witness.pub").read_text())
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "gatebook", "witness", "serve", str(self.folder)]
        self.process = subprocess.Popen(
            [*command, "--listen", f"127.0.0.1:{self.port}"], stderr=subprocess.DEVNULL
        )
        for _ in range(400):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
                return
            time.sleep(0.05)
        raise AssertionError("the witness does not listen")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=30)
