"""A state folder as `gatebook init` leaves it, the recorder's process in it, and what an auditor finds there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.guard.place import configured

from gatebook import record, wire
from gatebook.access.pairing import Pairing
from gatebook.config import effective
from gatebook.ledger import keys
from gatebook.ledger.read import Reader
from gatebook.ledger.verify import Private, Report, verify
from gatebook.paths import Paths, make_private
from gatebook.recorder.submit import ask

DEADLINE_S = 30.0
ORIGIN = "acme/node-1"


def until(holds: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + DEADLINE_S
    while not (found := holds()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        threading.Event().wait(0.01)
    return found


class State:
    def __init__(self, folder: Path, **sections: Any) -> None:
        self.paths = Paths(folder / "state")
        self.configuration = configured(self.paths.state, **sections)
        for private in (self.paths.state, self.paths.keys, self.paths.runtime, self.paths.logs):
            make_private(private)
        keys.create_keys(self.paths.keys, ORIGIN)
        (self.paths.keys / "pseudonym.key").write_bytes(bytes(range(32)))
        effective.write(self.configuration, self.paths.effective)
        self.started: list[Process] = []

    def start(
        self, wait: bool = True, prepare: Callable[[], None] | None = None, wrapper: Sequence[str] = ()
    ) -> Process:
        """`prepare` runs in the process before its program does; `wrapper` is a command that becomes it."""
        process = Process(self.paths, prepare, wrapper)
        self.started.append(process)
        if wait:
            process.until_ready()
        return process

    def records(self) -> list[tuple[int, record.Record]]:
        reader = Reader(self.paths.ledger, ORIGIN, self.paths.deks, keys.load_reader(self.paths.keys))
        found = [(index, record.decode(data)) for index, data in reader.forwards()]
        assert not reader.gaps
        return found

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        return [(each.event, each.detail) for _, each in self.records() if isinstance(each, record.System)]

    def verified(self) -> Report:
        """The verdict on everything, records and their pairing included; it must be good."""
        private = Private(self.paths.deks, keys.load_reader(self.paths.keys), Pairing())
        verifier = keys.load_verifier(self.paths.keys)
        report = verify(self.paths.ledger, verifier, lock=self.paths.lock, private=private)
        assert report.exit_code == 0, report
        return report

    def close(self) -> None:
        for process in self.started:
            process.close()
        shutil.rmtree(self.paths.runtime)


class Process:
    """`python -m gatebook.recorder STATE`."""

    def __init__(
        self, paths: Paths, prepare: Callable[[], None] | None = None, wrapper: Sequence[str] = ()
    ) -> None:
        self.paths = paths
        self.log = paths.state.parent / "recorder.log"
        with self.log.open("ab") as log:
            command = [*wrapper, sys.executable, "-m", "gatebook.recorder", str(paths.state)]
            self.popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, umask=0o077, preexec_fn=prepare
            )

    def said(self) -> str:
        return self.log.read_text()

    def ask(self, message: wire.Message) -> wire.Reply:
        return ask(self.paths, message, DEADLINE_S)

    def stands(self) -> wire.Stands | None:
        """None while nobody listens."""
        try:
            reply = self.ask(wire.Status())
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        return reply if isinstance(reply, wire.Stands) else None

    def is_ready(self) -> bool:
        assert self.popen.poll() is None, f"the recorder has ended:\n{self.said()}"
        stands = self.stands()
        return stands is not None and stands.pid == self.popen.pid

    def until_ready(self) -> None:
        until(self.is_ready, "the recorder")

    def append(self, *items: wire.Item) -> int:
        reply = self.ask(wire.Append(list(items)))
        assert isinstance(reply, wire.Appended), reply
        return reply.first_index

    def kill(self) -> None:
        os.kill(self.popen.pid, signal.SIGKILL)
        self.popen.wait(DEADLINE_S)

    def end(self) -> int:
        """SIGTERM; the exit code."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(DEADLINE_S)

    def exits(self) -> int:
        return self.popen.wait(DEADLINE_S)

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGCONT)
            self.popen.kill()
        self.popen.wait(DEADLINE_S)
