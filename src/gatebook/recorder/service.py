"""The recorder's socket: messages in, one group commit a turn of the loop, replies out in order.

Everything that arrived in one turn becomes one sync; while it runs, the next group gathers in the sockets'
buffers. A sender that has left is passed over when its answer is due; it never holds up another's. After any
error in a commit nothing is acknowledged any more: everybody gets Refused and the process ends.
Trust: the socket lies in a private folder; who can open it already is this user.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from gatebook import wire
from gatebook.errors import EnvironmentFault, UsageError
from gatebook.ledger.entry import Entry, Loss, Policy
from gatebook.ledger.writer import Writer
from gatebook.record import MAX_RECORD_BYTES
from gatebook.recorder.journal import MAX_FRAME_RECORDS, Journal
from gatebook.recorder.once import Once
from gatebook.recorder.vault import Vault
from gatebook.recorder.worker import MAX_PID


class Service:
    """`failed` hears of the error that ended it. `prepare` makes ready what an Apply asks for, raising
    EnvironmentFault where that cannot be; what it returns is called once the change is on record. `obey` carries
    out an order (orders.obey). `outside` tells who vouches for the ledger, `skipped` what the clock has
    left out since it was last asked."""

    def __init__(
        self,
        writer: Writer,
        journal: Journal,
        vault: Vault,
        once: Once,
        *,
        failed: Callable[[BaseException], None],
        prepare: Callable[[bytes], Callable[[], None]],
        obey: Callable[[str, bytes], bytes],
        outside: Callable[[], dict[str, Any]] = dict,
        skipped: Callable[[], Loss | None] = lambda: None,
    ) -> None:
        self._writer = writer
        self._journal = journal
        self._vault = vault
        self._once = once
        self._failed = failed
        self._prepare = prepare
        self._obey = obey
        self._outside = outside
        self._skipped = skipped
        self._asked: list[tuple[Connection, wire.Message]] = []
        self._scheduled = False
        self._policy_version = 0
        self.broken: BaseException | None = None
        self.connections: set[Connection] = set()

    def ask(self, connection: Connection, message: wire.Message) -> None:
        """It is answered at the end of this turn of the loop, with all others that have come."""
        self._asked.append((connection, message))
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self.commit)

    def commit(self) -> None:
        """One group: append, sync, answer."""
        self._scheduled = False
        asked, self._asked = self._asked, []
        replies: list[wire.Reply | None] = [None] * len(asked)
        if self.broken is None:
            try:
                for at, (_, message) in enumerate(asked):
                    replies[at] = self._take(message, replies, at)
                self._commit_waiting()
            except Exception as error:
                # Whatever it was: nobody knows what of this group is durable, so nobody is told that it is.
                self.broken = error
                replies = [None] * len(asked)
                self._failed(error)
        for (connection, _), reply in zip(asked, replies, strict=True):
            connection.answer(reply or wire.Refused(f"the recorder has stopped: {self.broken}"))
        for connection in dict.fromkeys(connection for connection, _ in asked):
            connection.flush()

    def _commit_waiting(self) -> None:
        self._once.commit()
        self._vault.sync()
        skipped = self._skipped()
        if skipped is not None:
            self._writer.append_entry(skipped)
        self._journal.commit(self._writer)

    def _take(self, message: wire.Message, replies: list[wire.Reply | None], at: int) -> wire.Reply | None:
        """The reply; None when `replies[at]` is set once the group is durable."""
        match message:
            case wire.Append(items):
                return self._append(items, lambda index: _put(replies, at, index))
            case wire.Pseudonym(name, sealing):
                known = self._vault.known(name)
                key = known.key if sealing else b""
                return wire.Pseudonymous(known.pseudonym, key, known.until, self._vault.erasures)
            case wire.Once(key, until_us):
                return wire.Used(self._once.take(key, until_us))
            case wire.Apply(digest, record):
                try:
                    switch = self._prepare(digest)
                except EnvironmentFault as error:
                    return wire.Refused(str(error))

                def applied(index: int) -> None:
                    switch()
                    _put(replies, at, index)

                refused = self._append([wire.Item(record)], applied)
                if refused is None:
                    self.enter_policy(digest)
                return refused
            case wire.Order(verb, parameters):
                self._commit_waiting()
                try:
                    return wire.Obeyed(self._obey(verb, parameters))
                except (EnvironmentFault, UsageError) as error:
                    return wire.Refused(str(error))
            case wire.Status():
                return wire.Stands(
                    self._writer.synced,
                    len(self._journal.open),
                    os.getpid(),
                    self._vault.erasures,
                    self._outside(),
                )

    def _append(self, items: list[wire.Item], done: Callable[[int], None]) -> wire.Refused | None:
        if not 1 <= len(items) <= MAX_FRAME_RECORDS:
            return wire.Refused(f"a message has between 1 and {MAX_FRAME_RECORDS} records")
        for item in items:
            if not 1 <= len(item.record) <= MAX_RECORD_BYTES:
                return wire.Refused(f"a record has between 1 and {MAX_RECORD_BYTES} bytes")
            if not 0 <= item.worker <= MAX_PID:
                return wire.Refused("a worker is a process id, or 0")
        self._journal.add(items, done)
        return None

    def enter_policy(self, digest: bytes) -> None:
        """A POLICY entry with the next commit: this configuration is in force from here on."""

        def make() -> Entry:
            self._policy_version += 1
            return Policy(digest, self._policy_version)

        self._journal.enter(make)


def _put(replies: list[wire.Reply | None], at: int, index: int) -> None:
    replies[at] = wire.Appended(index)


class Connection(asyncio.Protocol):
    """One guard, command or supervisor."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._framer = wire.Framer()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's class is not asyncio's
        self._service.connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        self._service.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._framer.feed(data):
                self._service.ask(self, wire.unpack_message(body))
        except ValueError:
            # Not our protocol: nothing more from this sender can be understood.
            if self._transport is not None:
                self._transport.close()

    def answer(self, reply: wire.Reply) -> None:
        self._out.append(wire.pack(reply))

    def flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
