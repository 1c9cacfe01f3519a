"""Turns the gateway's two logs into outcomes for the journal, and decides which outcomes will never come.

The access log tells what came of a request, the error log in whose words it failed; both are joined by the
connection's number. A decision whose worker has died with all its lines read gets an outcome that says
`outcome_unknown`: it is never left out, and never guessed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gatebook import record, wire
from gatebook.config.model import Configuration
from gatebook.recorder import memo, outcome
from gatebook.recorder.journal import Journal
from gatebook.recorder.tail import Log, epoch
from gatebook.redact import Redactor

MAX_CONNECTIONS_WITH_WORDS = 20_000
MAX_WORDS = 8
MAX_PASSED = 3


def alive(pid: int) -> bool:
    """Whether this is a worker of nginx still, and not another process that got its number."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return words.startswith(b"nginx:")


@dataclass
class _Words:
    """What the error log said on a connection. `asked`: of which request, where it says so."""

    text: str
    asked: str | None
    passed: int = 0  # lines of other requests on this connection since


class GatewayLog:
    def __init__(
        self,
        folder: Path,
        journal: Journal,
        configuration: Configuration,
        reopen: Callable[[], None],
        pseudonym: Callable[[str], bytes],
        alive: Callable[[int], bool] = alive,
    ) -> None:
        self._journal = journal
        self._reopen = reopen
        self._pseudonym = pseudonym
        self._alive = alive
        self._epoch = epoch(folder)
        cursor = journal.cursor
        self._orphans: list[int] = []
        if cursor is None or cursor.epoch != self._epoch:
            # Another folder: the lines that would tell of the decisions left open are gone for good.
            self._orphans = list(journal.open)
            cursor = memo.Cursor(self._epoch, {}, {})
        self._access = Log(folder, "access", cursor.access)
        self._error = Log(folder, "error", cursor.error)
        self._decoder = msgspec.json.Decoder(wire.LogLine)
        self._words: OrderedDict[int, list[_Words]] = OrderedDict()
        self._dead: dict[int, bool] = {}
        self.requests = self.unreadable = 0
        self.configure(configuration)

    def configure(self, configuration: Configuration) -> None:
        self._redactor = Redactor(configuration)

    def tick(self, now: float) -> bool:
        """Read what is new. True when something was added to the journal that wants a commit."""
        # The access lines first: the words of their errors are written before them.
        access = self._access.read()
        error = self._error.read()
        for data in error:
            self._take_error(data, now)
        for data in access:
            self._take_access(data)
        moved = bool(access or error)
        if moved:
            self._journal.move_cursor(self._cursor())
        return self._journal.waiting

    def _cursor(self) -> memo.Cursor:
        return memo.Cursor(self._epoch, dict(self._access.offsets), dict(self._error.offsets))

    def _take_access(self, data: bytes) -> None:
        try:
            line = self._decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self.unreadable += 1
            return
        self.requests += 1
        connection = int(line.c) if line.c.isdigit() else -1
        words = self._words_for(connection, line) if connection in self._words else []
        made = outcome.from_line(line, words, None if line.d else self._asked)
        index = made.decision_index
        if index is None:
            index = self._journal.decision_of(line.i)
            if index is not None:
                made = msgspec.structs.replace(made, decision_index=index, request=None, client=None, tls=None)
        self._journal.add_outcome(record.encode(made), index)

    def _words_for(self, connection: int, line: wire.LogLine) -> list[str]:
        """The error log's words about this line's request; those of other requests on the connection stay.

        They may be read before the line that they belong to, and before the line of the request before that.
        """
        asked = self._journal.asked(int(line.d)) if line.d.isdigit() else f"{line.m} {line.q}" if line.q else None
        mine: list[str] = []
        others: list[_Words] = []
        for words in self._words.pop(connection):
            about = words.asked is None or asked is None or words.asked == asked
            if about:
                mine.append(words.text)
            # Of several that fit, one is this request's; on HTTP/2 the others are those of the same path.
            if (not about or len(mine) > 1) and words.passed < MAX_PASSED:
                words.passed += 1
                others.append(words)
        if others:
            self._words[connection] = others
        return mine

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
        name = self._redactor.names(None, address).address if address else None
        part = self._redactor.client_part(address, None, None if name is None else self._pseudonym(name).hex())
        return part if part is not None and part.address is not None else None

    def _take_error(self, data: bytes, now: float) -> None:
        line = outcome.parse_error_line(data.decode("utf-8", "replace"))
        if line is None or line.connection is None:
            return
        if outcome.handshake_failed(line):
            made = record.Outcome(
                time_us=int(now * 1e6),
                client=self._client(line.address or ""),
                error=record.ErrorPart(
                    source="client",
                    detail="tls_handshake_failed",
                    message=record.cut(self._redactor.scrub(line.words), 500),
                ),
            )
            self._journal.add_outcome(record.encode(made), None)
            return
        words = self._words.setdefault(line.connection, [])
        self._words.move_to_end(line.connection)
        if len(words) < MAX_WORDS:
            words.append(_Words(self._redactor.scrub(line.words), line.asked))
        while len(self._words) > MAX_CONNECTIONS_WITH_WORDS:
            self._words.popitem(last=False)

    def bury(self, now: float) -> bool:
        """Open decisions of workers that are gone: outcome unknown. True when any was added."""
        gone = {worker for worker in set(self._journal.open.values()) if not self._alive(worker)}
        # A worker writes its lines before it ends; they are read in the tick between the two looks.
        certain = {worker for worker in gone if worker in self._dead} if not self._access.behind() else set()
        self._dead = dict.fromkeys(gone, True)
        lost, self._orphans = [i for i in self._orphans if i in self._journal.open], []
        for index in lost + [i for i, worker in self._journal.open.items() if worker in certain]:
            made = record.Outcome(
                time_us=int(now * 1e6),
                decision_index=index,
                error=record.ErrorPart(source="gateway", detail="outcome_unknown"),
            )
            self._journal.add_outcome(record.encode(made), index)
        return bool(certain or lost)

    def turn(self, now: float) -> None:
        """Rotate and retire files; call now and then."""
        changed = False
        for log in (self._access, self._error):
            log.rotate(now, self._reopen)
            changed |= log.retire(now)
        if changed:
            self._journal.move_cursor(self._cursor())

    def sweep_if(self, durable: bool) -> None:
        """After a commit: retired files go when the cursor without them is durable."""
        if durable:
            self._access.sweep()
            self._error.sweep()

    def close(self) -> None:
        self._access.close()
        self._error.close()
