"""A real litewitness (filippo.io/torchwood) on loopback, with a key in an ssh-agent of its own.

`make test-peers` builds the program from the Go module proxy. Its companion that adds logs to the database cannot
be built from there, so a log is added as that one does it: a row in each of two tables.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.ports import free_port

from gatebook.ledger.note import Verifier

PROGRAM = Path(__file__).parents[1] / ".peers" / "bin" / "litewitness"
NAME = "witness.example/litewitness"
START_S = 30.0


class Litewitness:
    """`folder` lies at a short path: the agent's socket is in it."""

    def __init__(self, folder: Path) -> None:
        for program in ("ssh-agent", "ssh-add", "ssh-keygen"):
            assert shutil.which(program), f"litewitness wants {program}; on Debian: apt-get install openssh-client"
        self.folder = folder
        self.socket = folder / "agent"
        self.database = folder / "db"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        key = folder / "key"
        self._run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key))
        self._fingerprint = self._run("ssh-keygen", "-l", "-f", str(key)).split()[1]
        self.public = base64.b64decode((folder / "key.pub").read_text().split()[1])[-32:]
        self._agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(self.socket)], stdout=subprocess.DEVNULL)
        self._until(self.socket.exists)
        self._run("ssh-add", "-q", str(key))

    def _run(self, *command: str) -> str:
        environment = {**os.environ, "SSH_AUTH_SOCK": str(self.socket)}
        return subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
        ).stdout

    def _until(self, holds: object) -> None:
        end = time.monotonic() + START_S
        while not holds():  # type: ignore[operator]
            assert time.monotonic() < end, (self.folder / "log").read_text()
            time.sleep(0.02)

    def _listens(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
            return True
        return False

    def start(self) -> Verifier:
        """The key that it says it has."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(PROGRAM),
                    f"-db={self.database}",
                    f"-name={NAME}",
                    f"-key={self._fingerprint}",
                    f"-ssh-agent={self.socket}",
                    f"-listen=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
            )
        self._until(self._listens)
        said = (self.folder / "log").read_text()
        (vkey,) = {word[5:].strip('"') for word in said.split() if word.startswith("vkey=")}
        return Verifier.from_vkey(vkey.replace('\\"', ""))

    def add_log(self, log: Verifier) -> None:
        with contextlib.closing(sqlite3.connect(self.database, timeout=10)) as database, database:
            empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="  # the root of no leaves
            database.execute("INSERT INTO log (origin, tree_size, tree_hash) VALUES (?, 0, ?)", (log.name, empty))
            database.execute("INSERT INTO key (origin, key) VALUES (?, ?)", (log.name, log.vkey))

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        self.kill()
        self._agent.terminate()
        self._agent.wait()


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Litewitness]:
    made = Litewitness(folder)
    try:
        yield made
    finally:
        made.close()
