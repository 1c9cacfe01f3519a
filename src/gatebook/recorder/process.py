"""The recorder's process: open the ledger, serve the socket, read the gateway's logs, sign each second.

Start order: lock and recover the ledger, restore open decisions and the cursor from its memos, say in the
ledger that it started and under which configuration, and only then listen. Any ledger error ends the
process with its exit code, after refusing everybody; the supervisor starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
import uvloop

from gatebook import __version__, ownlog, record
from gatebook.config import effective
from gatebook.config.model import Configuration
from gatebook.errors import EnvironmentFault, GatebookError, LedgerError
from gatebook.ledger.entry import Heartbeat
from gatebook.ledger.keys import load_recipients, load_signer
from gatebook.ledger.writer import Writer
from gatebook.paths import Paths, check_private, make_private
from gatebook.recorder.gatewaylog import GatewayLog
from gatebook.recorder.journal import Journal
from gatebook.recorder.once import Once
from gatebook.recorder.service import Connection, Service
from gatebook.recorder.vault import Vault

TICK_S = 0.1
CHECKPOINT_S = 1.0
CHECKPOINT_ENTRIES = 8192
HEARTBEAT_S = 60.0
BURY_S = 1.0
DRAIN_S = 5.0

log = structlog.get_logger("recorder")


def now_us() -> int:
    return time.time_ns() // 1000


def open_writer(configuration: Configuration, paths: Paths, journal: Journal) -> Writer:
    """The ledger, locked and recovered. Raises LedgerBusy when another process holds it."""
    check_private(paths.state)
    return Writer.open(
        ledger=paths.ledger,
        lock=paths.lock,
        deks=paths.deks,
        signer=load_signer(paths.keys),
        recipients=load_recipients(paths.keys),
        boot_digest=hashlib.sha256(__version__.encode() + configuration.digest()).digest(),
        restore=journal.restore,
        snapshot=journal.snapshot,
        now_us=now_us,
    )


def reopen_logs(pid_file: Path) -> None:
    """Ask nginx to open its log files anew; no running nginx is no error."""
    with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
        os.kill(int(pid_file.read_text()), signal.SIGUSR1)


class Recorder:
    def __init__(self, paths: Paths, configuration: Configuration) -> None:
        self._paths = paths
        self._configuration = configuration
        self._journal = Journal()
        self._writer = open_writer(configuration, paths, self._journal)
        self._vault = Vault(paths.vault, (paths.keys / "pseudonym.key").read_bytes())
        self._once = Once(paths.once)
        self._service = Service(self._writer, self._journal, self._vault, self._once, failed=self._fail)
        self._service.applied = self._applied
        self._logs = GatewayLog(
            paths.logs,
            self._journal,
            configuration,
            reopen=lambda: reopen_logs(paths.nginx / "nginx.pid"),
            pseudonym=self._vault.pseudonym,
        )
        self._stop = asyncio.Event()
        self._checkpointed = 0
        self._error: BaseException | None = None

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
            log.error("stopped acknowledging", error=str(error))
        self._stop.set()

    def _applied(self, digest: bytes) -> None:
        with contextlib.suppress(EnvironmentFault):
            configuration = effective.read(self._paths.effective)
            if configuration.digest() == digest:
                self._configuration = configuration
                self._logs.configure(configuration)

    def _say(self, event: str, detail: dict[str, object]) -> None:
        data = record.encode(record.System(time_us=now_us(), event=event, detail=detail))
        self._journal.add_outcome(data, None)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        recovered = self._writer.recovered
        self._service.policy(self._configuration.digest())
        detail = {"version": __version__, "clean": recovered.clean, "open": len(self._journal.open)}
        self._say("recorder.start", detail)
        self._service.commit()
        socket = self._paths.recorder_socket
        socket.unlink(missing_ok=True)  # the lock is ours, so whoever made it is gone
        old = os.umask(0o177)
        server = await loop.create_unix_server(lambda: Connection(self._service), str(socket), backlog=128)
        os.umask(old)
        log.info("ready", entries=self._writer.synced, clean=recovered.clean, open=len(self._journal.open))
        tasks = [
            loop.create_task(self._watch(period, work))
            for period, work in (
                (TICK_S, self._tick),
                (BURY_S, self._bury),
                (HEARTBEAT_S, self._heartbeat),
            )
        ]
        tasks.append(loop.create_task(self._checkpoints()))
        await self._stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        server.close()
        await self._drain()
        if self._error is not None:
            raise self._error

    async def _drain(self) -> None:
        """Guards end before we do; what they still send is taken until they have hung up."""
        deadline = time.monotonic() + DRAIN_S
        while self._error is None and self._service.connections and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for connection in list(self._service.connections):
            connection.close()
        if self._error is None:
            self._tick()
            self._bury()
            self._say("recorder.stop", {"open": len(self._journal.open)})
            self._service.commit()
        self._logs.close()
        self._vault.close()
        self._once.close()
        if self._error is None:
            self._writer.close()

    async def _watch(self, period: float, work: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(period)
            try:
                work()
            except (LedgerError, OSError) as error:
                self._fail(error)
                return

    def _tick(self) -> None:
        while self._logs.tick(time.time()):
            self._service.commit()
            if self._service.broken:
                return
            self._logs.sweep_if(self._journal.cursor_is_durable)

    def _bury(self) -> None:
        self._logs.turn(time.monotonic())
        if self._logs.bury(time.time()):
            self._service.commit()

    def _heartbeat(self) -> None:
        journal = self._journal
        entry = Heartbeat(
            t_us=now_us(),
            decisions=journal.decisions,
            outcomes=journal.outcomes,
            open=len(journal.open),
            requests=self._logs.requests,
            lost=self._logs.unreadable,
        )
        self._writer.append_entry(entry, journal.pending_cursor())
        journal.cursor_written()
        journal.decisions = journal.outcomes = self._logs.requests = self._logs.unreadable = 0
        self._service.commit()
        self._logs.sweep_if(journal.cursor_is_durable)

    async def _checkpoints(self) -> None:
        """Sign each second, or sooner when much has come; the writing happens beside the loop."""
        loop = asyncio.get_running_loop()
        while True:
            for _ in range(10):
                await asyncio.sleep(CHECKPOINT_S / 10)
                if self._writer.synced - self._checkpointed >= CHECKPOINT_ENTRIES:
                    break
            try:
                plan = self._writer.plan_checkpoint()
                if plan is not None:
                    await loop.run_in_executor(None, plan.write)
                    self._checkpointed = self._writer.synced
            except (LedgerError, OSError) as error:
                self._fail(error)
                return


def main(arguments: Sequence[str]) -> None:
    """`arguments`: the state folder. Reads the effective configuration from it."""
    ownlog.configure("recorder")
    paths = Paths(Path(arguments[0]))
    configuration = effective.read(paths.effective)
    make_private(paths.runtime)
    make_private(paths.logs)

    async def run() -> None:
        await Recorder(paths, configuration).run()

    try:
        uvloop.run(run())
    except GatebookError as error:
        log.error("stopped", error=str(error))
        raise SystemExit(error.exit_code) from error
