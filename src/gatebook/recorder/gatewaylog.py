"""Turns the gateway's two logs into outcomes for the journal, and decides which outcomes will never come.

The access log tells what came of a request, the error log in whose words it failed. A decision whose worker has
died with all its lines read gets an outcome that says `outcome_unknown`. A line that cannot be read or is missing
from its connection, and a request that was let through and whose decision does not come, is a LOSS. Nothing is
ever left out, and nothing guessed.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from gatebook import record, wire
from gatebook.config.model import Configuration
from gatebook.errors import LedgerError
from gatebook.ledger.entry import LINES, Heartbeat, LossReason
from gatebook.recorder import memo, outcome
from gatebook.recorder.journal import Journal, Told
from gatebook.recorder.numbering import PATIENCE_S, Missing, Numbering
from gatebook.recorder.tail import Log, epoch
from gatebook.recorder.words import Words
from gatebook.recorder.worker import Workers, uptime_ticks
from gatebook.redact import Redactor

MAX_OPEN = 200_000
MAX_BURIED = 4096  # at a time: one frame
MAX_MISSING = 256  # at a time
MAX_UNDECIDED = 10_000
UNDECIDED_S = 60.0  # longer than a guard waits for the recorder, and a recorder takes to start
MAX_COUNT = (1 << 32) - 1  # what a heartbeat can say
_LINE_BEGINS = b'{"i":"'

log = structlog.get_logger("recorder")


class GatewayLog:
    def __init__(
        self,
        folder: Path,
        journal: Journal,
        configuration: Configuration,
        workers: Workers,
        *,
        reopen: Callable[[], None],
        pseudonym: Callable[[str], bytes],
        now_us: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._workers = workers
        self._reopen = reopen
        self._pseudonym = pseudonym
        self._now_us = now_us
        self._monotonic = monotonic
        self._epoch = epoch(folder, f"{workers.boot} {uptime_ticks()}")
        cursor = journal.cursor
        told: list[Told] = []
        if cursor is None:
            cursor = memo.Cursor(self._epoch, {}, {})
        elif cursor.epoch != self._epoch:
            # Another folder: what had not been read of the other one nobody will ever read.
            if any(cursor.access.values()):
                boot = cursor.epoch.partition(" ")[2].partition(" ")[0]
                told = [self._log_gone("removed" if boot == workers.boot else "restart")]
            cursor = memo.Cursor(self._epoch, {}, {}, {}, cursor.gaps)
        self._access = Log(folder, "access", cursor.access)
        self._error = Log(folder, "error", cursor.error)
        self._words = Words(begun=self._error.begun)
        self._numbering = Numbering(dict(cursor.workers), self._is_ours_from_birth, cursor.gaps, self._monotonic())
        self._decoder = msgspec.json.Decoder(wire.LogLine)
        self._gone: set[int] = set()
        self._unreadable = 0
        self.requests = self.lost = 0  # since the last heartbeat
        self.configure(configuration)
        # So the first frame says that this folder's lines are ours.
        self._tell(told)

    def configure(self, configuration: Configuration) -> None:
        self._redactor = Redactor(configuration)

    def _is_ours_from_birth(self, worker: int) -> bool:
        """A worker that is younger than this folder has written all of its lines into it."""
        _, _, born = self._epoch.partition(" ")
        boot, _, ticks = born.partition(" ")
        since = self._workers.since(worker)
        if since is None or not ticks.isdigit():
            return False
        return boot != self._workers.boot or since > int(ticks)

    # -- reading ----------------------------------------------------------------------------------------
    def tick(self) -> bool:
        """Read some of what is new. True when there was something; the journal may then want a commit."""
        # The access lines first: the words of their errors are written before them.
        access = self._access.read()
        error = self._error.read()
        told = [each for data in error if (each := self._heeded(self._take_error, data)) is not None]
        told += [each for data in access if (each := self._heeded(self._take_access, data)) is not None]
        if access or error or told or self._access.gone:
            self._tell(told)
            return True
        return False

    def _tell(self, told: list[Told]) -> None:
        """With a record of what was lost since the last call, if anything was."""
        lines = self._unreadable + self._access.torn
        self.lost += lines
        owed = []
        if lines:
            owed = [memo.Owed(LINES, 1, lines, LossReason.UNREADABLE)]
            told = [*told, self._event("gateway.log_unreadable", lines=lines)]
        if self._access.gone:
            told = [*told, self._log_gone("removed")]
        self._unreadable = self._access.torn = self._access.gone = 0
        self._journal.tell(told, self._cursor(), owed)

    def _log_gone(self, why: Literal["removed", "restart"]) -> Told:
        """A log that was not read to its end: nobody knows how much of it, so no LOSS can say it."""
        return self._event("gateway.log_gone", why=why)

    def _heeded(self, take: Callable[[bytes], Told | None], data: bytes) -> Told | None:
        """A line that we fail on is lost; it would stop the next process as well, and then for good."""
        try:
            return take(data)
        except (LedgerError, OSError, MemoryError):
            raise  # the machine's doing, not the line's: the next process reads it again
        except Exception:
            log.exception("error in reading a line of the gateway's log; it counts as lost")
            self._unreadable += 1
            return None

    def _cursor(self) -> memo.Cursor:
        numbering = self._numbering
        offsets = dict(self._access.offsets), dict(self._error.offsets)
        return memo.Cursor(self._epoch, *offsets, dict(numbering.highest), numbering.gaps())

    def _event(self, event: str, **detail: object) -> Told:
        return Told(record.encode(record.System(time_us=self._now_us(), event=event, detail=detail)))

    def _take_access(self, data: bytes) -> Told | None:
        line = self._decode(data)
        if line is None:
            return None
        connection = outcome.number(line.c)
        self._number(line, connection)
        if not line.i:
            return None  # a load balancer's question, logged for its number alone
        self.requests += 1
        index = outcome.number(line.d)
        said = self._words.about(connection, lambda: self._request_of(line, index))
        made = outcome.from_line(line, said, None if line.d else self._asked)
        if index is None:
            index = self._journal.decision_of(line.i)
            if index is not None:
                made = msgspec.structs.replace(made, decision_index=index, request=None, client=None, tls=None)
        undecided = self._undecided(line, connection) if index is None and line.u else None
        return Told(record.encode(made), index, line.i, undecided)

    def _undecided(self, line: wire.LogLine, connection: int | None) -> tuple[memo.Owed, float]:
        """A guard has let it through: it named the upstream. With `after-response` its decision may not come."""
        request = outcome.number(line.n) or 0
        missing = Missing(outcome.number(line.p) or 0, connection or 0, request, request)
        owed = memo.Owed(missing.producer, request, request, LossReason.NO_DECISION)
        return owed, self._monotonic()

    def _decode(self, data: bytes) -> wire.LogLine | None:
        """None for what is no line. Behind a line that a killed worker has torn, the next one can be read."""
        try:
            return self._decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._unreadable += 1
        at = data.rfind(_LINE_BEGINS)  # a quotation mark within a value would be escaped
        try:
            return self._decoder.decode(data[at:]) if at > 0 else None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def _number(self, line: wire.LogLine, connection: int | None) -> None:
        pid, number = outcome.number(line.p), outcome.number(line.n)
        if line.pr == "HTTP/2.0" or pid is None or connection is None or not number:
            return
        self._numbering.saw(self._workers.worker(pid), connection, number, self._monotonic())

    def _request_of(self, line: wire.LogLine, decision: int | None) -> str | None:
        """Method and path, as the error log tells them."""
        if decision is not None:
            return self._journal.asked(decision)
        return f"{line.m} {line.q}" if line.q else None

    def _asked(self, line: wire.LogLine) -> record.Outcome:
        redact = self._redactor
        return record.Outcome(
            time_us=0,
            request=redact.request_part(
                method=line.m or "-", path=line.q or "-", host=line.h or None, protocol=line.pr or None
            ),
            client=self._client(line.a),
            tls=redact.tls_part(line.tv or None, line.tc or None, sni=line.tn or None),
        )

    def _client(self, address: str) -> record.ClientPart | None:
        named = bool(address) and self._redactor.pseudonymises_addresses
        name = self._redactor.names(None, address).address if named else None
        part = self._redactor.client_part(address, None, None if name is None else self._pseudonym(name).hex())
        return part if part is not None and part.address is not None else None

    def _take_error(self, data: bytes) -> Told | None:
        failed = self._words.hear(data)
        if failed is None:
            return None
        cause = record.ErrorPart(
            source="client",
            detail="tls_handshake_failed",
            message=record.cut(self._redactor.scrub(failed.words), 500),
        )
        client = self._client(failed.address or "")
        return Told(record.encode(record.Outcome(time_us=self._now_us(), client=client, error=cause)))

    # -- what will never come ---------------------------------------------------------------------------
    def bury(self) -> None:
        """Open decisions of workers that are gone: outcome unknown. Call each second."""
        self._workers.refresh()
        waiting = self._journal.open
        known = {opened.worker for opened in waiting.values()} | self._numbering.highest.keys()
        gone = {worker for worker in known if not self._workers.alive(worker)}
        # A worker writes its lines before it ends. So what had gone at the last look has all its lines read
        # once there is nothing that was not looked at.
        certain = gone & self._gone if not self._access.behind() else set()
        self._gone = gone
        for worker in certain:
            self._numbering.forget(worker)
        dead = (i for i, opened in waiting.items() if opened.worker in certain)
        # The gateway cannot have so many under way: their lines do not come, as on a full disk.
        excess = itertools.islice(waiting, max(0, len(waiting) - MAX_OPEN))
        chosen = dict.fromkeys(itertools.islice(itertools.chain(dead, excess), MAX_BURIED))
        self._journal.tell(self._unknown(index) for index in chosen)

    def _unknown(self, index: int) -> Told:
        error = record.ErrorPart(source="gateway", detail="outcome_unknown")
        return Told(
            record.encode(record.Outcome(time_us=self._now_us(), decision_index=index, error=error)), index
        )

    def look_for_missing(self, patience_s: float = PATIENCE_S) -> bool:
        """Requests without a line: a LOSS entry each, and a record that lists them. Call each second.

        True when there were some, and may be more.
        """
        if self._access.behind():
            return False
        missing = self._numbering.missing(self._monotonic(), MAX_MISSING, patience_s)
        if missing:
            shown = [[each.worker_pid, each.connection, each.first, each.last] for each in missing]
            owed = [memo.Owed(each.producer, each.first, each.last, LossReason.NO_LINE) for each in missing]
            self._journal.tell([self._event("gateway.log_incomplete", missing=shown)], self._cursor(), owed)
        return bool(missing)

    def look_for_undecided(self, patience_s: float = UNDECIDED_S) -> bool:
        """Requests that were let through without a decision, likewise."""
        waiting, now = self._journal.undecided, self._monotonic()
        late = [name for name, (_, since) in waiting.items() if now - since >= patience_s]
        late = [*waiting][: max(0, len(waiting) - MAX_UNDECIDED)] + late
        late = list(dict.fromkeys(late))[:MAX_MISSING]
        if late:
            owed = merged(waiting.pop(name)[0] for name in late)
            self._journal.tell([self._event("guard.decisions_lost", requests=late)], owed=owed)
        return bool(late)

    def last_look(self) -> bool:
        """At the end, with all read: what has not come by now does not come. True: commit, and look again.

        A later line of a connection is written after the earlier ones, so a look that found nothing has seen
        all that belongs before.
        """
        return self.look_for_missing(0.0) or self.look_for_undecided(0.0)

    def heartbeat(self) -> Heartbeat:
        """What there was since the last one. Call in the entry's place: `Journal.enter`."""
        journal = self._journal
        counts = (journal.decisions, journal.outcomes, len(journal.open), self.requests, self.lost)
        journal.decisions = journal.outcomes = self.requests = self.lost = 0
        return Heartbeat(self._now_us(), *(min(count, MAX_COUNT) for count in counts))

    # -- files ------------------------------------------------------------------------------------------
    def turn(self) -> None:
        """Rotate and retire files; call now and then."""
        changed = False
        for each in (self._access, self._error):
            each.rotate(self._monotonic(), self._reopen)
            changed |= each.retire(self._monotonic())
        if changed:
            self._tell([])

    def put_away(self) -> None:
        """At the end, when the gateway has ended before us: nothing stays behind in clear."""
        if not self._access.behind() and not self._error.behind():
            for each in (self._access, self._error):
                each.put_away()
            self._tell([])

    def sweep(self) -> None:
        """Delete what was retired. Call only when the cursor without those files is durable."""
        self._access.sweep()
        self._error.sweep()

    def close(self) -> None:
        self._access.close()
        self._error.close()


def merged(losses: Iterable[memo.Owed]) -> list[memo.Owed]:
    """Those that continue each other are one."""
    out: list[memo.Owed] = []
    for each in sorted(losses):
        last = out[-1] if out else None
        if last is not None and (last.producer, last.last + 1, last.reason) == (
            each.producer,
            each.first,
            each.reason,
        ):
            out[-1] = last._replace(last=each.last)
        else:
            out.append(each)
    return out
