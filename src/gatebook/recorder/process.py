"""The recorder's process: open the ledger, serve the socket, read the gateway's logs, sign each second.

Start order: lock and recover the ledger, restore open decisions and the cursor from its memos, say in the
ledger that it started and under which configuration, and only then listen. Any ledger error ends the
process with its exit code, after refusing everybody; the supervisor starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import structlog
import uvloop

from gatebook import __version__, ownlog, record
from gatebook.config import effective
from gatebook.config.model import Configuration
from gatebook.errors import EnvironmentFault, GatebookError
from gatebook.ledger.entry import Anchor
from gatebook.ledger.files import Files
from gatebook.ledger.lock import Promise
from gatebook.ledger.logkeys import load_log_keys, mend
from gatebook.ledger.writer import Writer
from gatebook.paths import Paths, check_private, make_private
from gatebook.recorder.clockwatch import ClockWatch, steady_s
from gatebook.recorder.forget import finish_all, go_on
from gatebook.recorder.gatewaylog import GatewayLog
from gatebook.recorder.journal import Journal, Told
from gatebook.recorder.keyring import Readers, end_overlap
from gatebook.recorder.once import Once
from gatebook.recorder.orders import Hands, obey
from gatebook.recorder.retention import Retention
from gatebook.recorder.service import Connection, Service
from gatebook.recorder.stamping import Office, Stamping
from gatebook.recorder.tail import discard
from gatebook.recorder.vault import Vault
from gatebook.recorder.witnesses import Tell, Witnesses
from gatebook.recorder.worker import Workers, machine

TICK_S = 0.1
CHECKPOINT_S = 1.0
CHECKPOINT_ENTRIES = 8192
HEARTBEAT_S = 60.0
DRAIN_S = 5.0

log = structlog.get_logger("recorder")


def now_us() -> int:
    return max(0, time.time_ns() // 1000)


def open_writer(
    configuration: Configuration,
    paths: Paths,
    journal: Journal,
    *,
    clock: Callable[[], int] = now_us,
    files: Files | None = None,
    readers: Readers | None = None,
) -> Writer:
    """The ledger, locked and recovered. Raises LedgerBusy when another process holds it."""
    check_private(paths.state)
    keys = load_log_keys(paths.keys)
    opened = Writer.open(
        ledger=paths.ledger,
        lock=paths.lock,
        deks=paths.deks,
        signer=keys.signer,
        also=keys.also,
        former=keys.former,
        recipients=readers or Readers(paths.keys, lambda _event, _detail: None),
        boot_digest=hashlib.sha256(__version__.encode() + configuration.digest()).digest(),
        restore=journal.restore,
        snapshot=journal.snapshot,
        now_us=clock,
        files=files,
    )
    mend(Files(), paths.keys, keys)
    return opened


def load_pseudonym_key(keys: Path) -> bytes:
    """Raises EnvironmentFault."""
    path = keys / "pseudonym.key"
    try:
        key = path.read_bytes()
    except OSError as error:
        raise EnvironmentFault(
            f"{path}: {(error.strerror or str(error)).lower()}; a backup may have it"
        ) from error
    if len(key) != 32:
        raise EnvironmentFault(f"{path}: {len(key)} bytes; expected 32: bring it back from a backup")
    return key


class Gateway:
    """The gateway's master process, as far as its pid file tells."""

    def __init__(self, pid_file: Path) -> None:
        self._pid_file = pid_file

    def pid(self) -> int | None:
        """None when it does not run. A pid file that was left behind may name anybody."""
        try:
            pid = int(self._pid_file.read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if words.startswith(b"nginx: master") else None

    def reopen(self) -> None:
        """Have it open its log files anew, if it runs."""
        pid = self.pid()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)


class Recorder:
    """`clock` tells the time in microseconds, `monotonic` in seconds from anywhere; the ledger lies on `files`."""

    def __init__(
        self,
        paths: Paths,
        configuration: Configuration,
        *,
        clock: Callable[[], int] = now_us,
        monotonic: Callable[[], float] = steady_s,
        files: Files | None = None,
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._paths = paths
        self._configuration = configuration
        key = load_pseudonym_key(paths.keys)
        workers = Workers(machine())
        self._vault = Vault(
            paths.vault,
            key,
            period_s=configuration.audit.pseudonym_period,
            now_s=lambda: clock() / 1e6,
        )
        self._once = Once(paths.once, clock, lambda: int(monotonic() * 1e6))
        self._journal = Journal(hmac.digest(key, b"gatebook request tags", "sha256"), workers.worker)
        self._readers = Readers(paths.keys, self._readers_changed)
        self._writer = open_writer(
            configuration, paths, self._journal, clock=clock, files=files, readers=self._readers
        )
        finish_all(self._writer, self._vault, paths.ledger / "segments")  # before anything else is written
        self._service = Service(
            self._writer,
            self._journal,
            self._vault,
            self._once,
            failed=self._fail,
            prepare=self._prepare,
            obey=lambda verb, parameters: obey(self._hands(), verb, parameters),
            outside=self._outside,
            skipped=ClockWatch(clock, monotonic).look,
        )
        office = Office(self._sign, self._anchor, lambda event, detail: self._say(event, **detail), clock)
        self._stamping = Stamping(paths.ledger / "log" / "anchors", office, files)
        self._stamping.configure(configuration.timestamps)
        self._gateway = Gateway(paths.nginx / "nginx.pid")
        if self._journal.cursor is None:
            discard(paths.logs)  # no gateway was ever started by this ledger: the recorder comes first
        self._logs = GatewayLog(
            paths.logs,
            self._journal,
            configuration,
            workers,
            reopen=self._gateway.reopen,
            pseudonym=self._vault.pseudonym,
            now_us=clock,
            monotonic=monotonic,
        )
        self._witnesses = Witnesses(
            paths,
            self._writer,
            Tell(self._tell_event, self._tell_alert, self._anchor),
            now_s=lambda: clock() / 1e6,
        )
        self._witnesses.configure(configuration.witnesses)
        self._retention = Retention(paths, self._writer, self._commit, now_us=clock)
        self._retention.configure(configuration.retention)
        self._stop = asyncio.Event()
        self._checkpointed = 0
        self._error: BaseException | None = None

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
            log.error("stopped acknowledging", error=str(error), exc_info=_unforeseen(error))
        self._stop.set()

    def _prepare(self, digest: bytes) -> Callable[[], None]:
        """What follows when that configuration is in force. Raises EnvironmentFault when it is another one."""
        configuration = effective.read(self._paths.effective)
        if configuration.digest() != digest:
            raise EnvironmentFault(f"{self._paths.effective}: not the configuration that is to be in force")

        def switch() -> None:
            self._configuration = configuration
            self._vault.period_s = configuration.audit.pseudonym_period
            self._logs.configure(configuration)
            self._stamping.configure(configuration.timestamps)
            self._witnesses.configure(configuration.witnesses)
            self._retention.configure(configuration.retention)

        return switch

    def _hands(self) -> Hands:
        return Hands(self._configuration, self._paths, self._writer, self._vault)

    def _readers_changed(self, event: str, detail: dict[str, Any]) -> None:
        """Told with what comes next: a segment is just being made."""
        self._say(event, **detail)
        if "why" in detail:
            log.error("readers are those of before: new segments are sealed for the last ones known", **detail)

    def _say(self, event: str, **detail: object) -> None:
        data = record.encode(record.System(time_us=self._clock(), event=event, detail=detail))
        self._journal.tell([Told(data)])

    def _tell_event(self, event: str, detail: dict[str, object]) -> None:
        self._say(event, **detail)
        self._commit()

    def _tell_alert(self, alert: str, detail: dict[str, object]) -> None:
        severity = record.ALERTS[alert].severity
        made = record.Alert(time_us=self._clock(), alert=alert, severity=severity, detail=detail)
        self._journal.tell([Told(record.encode(made))])
        self._commit()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._service.enter_policy(self._configuration.digest())
        clean, waiting = self._writer.recovered.clean, len(self._journal.open)
        vault = {"vault": "made anew"} if self._vault.made else {}
        readers = self._readers.named()
        self._say("recorder.start", version=__version__, clean=clean, open=waiting, readers=readers, **vault)
        self._service.commit()
        if self._error is not None:
            raise self._error
        server = await self._listen()
        log.info("ready", entries=self._writer.synced, clean=clean, open=waiting)
        vouching = (self._stamping.run, self._witnesses.run)
        own = (self._follow, self._each_second, self._heartbeats, self._checkpoints, self._retention.run)
        work = (*own, *vouching)
        tasks = [loop.create_task(self._watched(each)) for each in work]
        await self._stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        server.close()
        await self._end()
        if self._error is not None:
            raise self._error

    async def _listen(self) -> asyncio.AbstractServer:
        socket = self._paths.recorder_socket
        socket.unlink(missing_ok=True)  # the lock is ours, so whoever made it is gone
        old = os.umask(0o177)
        try:
            return await asyncio.get_running_loop().create_unix_server(
                lambda: Connection(self._service), str(socket), backlog=128
            )
        finally:
            os.umask(old)

    async def _end(self) -> None:
        """Guards end before we do; what they still send is taken until they have hung up."""
        deadline = self._monotonic() + DRAIN_S
        while self._error is None and self._service.connections and self._monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for connection in list(self._service.connections):
            connection.close()
        if self._error is None:
            self._last_words()
        if self._error is None:
            await self._watched(self._stamping.at_close)
            self._commit()
        if self._error is None:
            await self._watched(self._vouch_at_close)
        self._logs.close()
        self._vault.close()
        self._once.close()
        if self._error is None:
            self._writer.close()

    def _last_words(self) -> None:
        while self._logs.tick():
            self._commit()
        self._logs.bury()
        while self._logs.last_look():
            self._commit()
        if self._gateway.pid() is None:
            self._logs.put_away()
        self._say("recorder.stop", open=len(self._journal.open))
        self._journal.enter(self._logs.heartbeat)  # so that nothing stays uncounted
        self._commit()

    def _commit(self) -> None:
        """What has been told, with everything else that waits. Files that are sealed by it are deleted."""
        if self._journal.waiting:
            self._service.commit()
        if self._journal.cursor_is_durable:
            self._logs.sweep()

    # -- what goes on while it runs ---------------------------------------------------------------------
    async def _watched(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Whatever ends this work ends the process: without it the ledger would be incomplete, unnoticed."""
        try:
            await work()
        except Exception as error:
            self._fail(error)

    async def _follow(self) -> None:
        """Read the gateway's logs; a long way behind, others still get their turn."""
        while True:
            more = self._logs.tick()
            self._commit()
            await asyncio.sleep(0 if more else TICK_S)

    async def _each_second(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._logs.turn()
            self._logs.bury()
            self._logs.look_for_missing()
            self._logs.look_for_undecided()
            self._commit()
            self._go_on_erasing()

    def _go_on_erasing(self) -> None:
        """As an order: alone, and after all that came before it is durable."""
        if self._vault.unfinished():
            self._service.commit()
            if self._error is None:
                go_on(self._writer, self._vault, self._paths.ledger / "segments")

    async def _heartbeats(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            for key_id in end_overlap(self._paths.keys, self._writer.retire, before=time.time()):
                self._say("recorder.key_retired", key=key_id)
            self._journal.enter(self._logs.heartbeat)
            self._commit()

    async def _checkpoints(self) -> None:
        """Sign each second, or sooner when much has come; the writing happens beside the loop."""
        loop = asyncio.get_running_loop()
        while True:
            for _ in range(10):
                await asyncio.sleep(CHECKPOINT_S / 10)
                if self._writer.synced - self._checkpointed >= CHECKPOINT_ENTRIES:
                    break
            plan = self._writer.plan_checkpoint()
            if plan is not None:
                await loop.run_in_executor(None, plan.write)
                self._checkpointed = self._writer.synced

    # -- who outside vouches for it ---------------------------------------------------------------------
    async def _sign(self) -> Promise:
        """A checkpoint whose last entry but a few says what time it is."""
        self._journal.enter(self._logs.heartbeat)
        self._commit()
        plan = self._writer.plan_checkpoint()
        if plan is not None:
            await asyncio.get_running_loop().run_in_executor(None, plan.write)
        return self._writer.promise

    async def _vouch_at_close(self) -> None:
        """What was recorded since the last round is cosigned too, if it can be at once."""
        plan = self._writer.plan_checkpoint() if self._configuration.witnesses is not None else None
        if plan is not None:
            await asyncio.get_running_loop().run_in_executor(None, plan.write)
        await self._witnesses.at_close()

    def _anchor(self, entry: Anchor) -> None:
        self._journal.enter(lambda: entry)
        self._commit()

    def _outside(self) -> dict[str, Any]:
        stands = {
            "timestamps": self._stamping.status(),
            "witnesses": self._witnesses.status(),
            "retention": self._retention.status(),
        }
        return {kind: told for kind, told in stands.items() if told is not None}


def _unforeseen(error: BaseException) -> BaseException | None:
    """An error whose traceback somebody will need."""
    return None if isinstance(error, GatebookError | OSError) else error


def main(arguments: Sequence[str]) -> None:
    """`arguments`: the state folder. Reads the effective configuration from it."""
    ownlog.configure("recorder")
    paths = Paths(Path(arguments[0]))

    async def run() -> None:
        configuration = effective.read(paths.effective)
        make_private(paths.runtime)
        make_private(paths.logs)
        await Recorder(paths, configuration).run()

    try:
        uvloop.run(run())
    except (GatebookError, OSError) as error:
        log.error("stopped", error=str(error))
        raise SystemExit(getattr(error, "exit_code", 1)) from error
