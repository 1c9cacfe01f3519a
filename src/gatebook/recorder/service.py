"""The recorder's socket: messages in, one group commit a turn of the loop, replies out in order.

Everything that arrived in one turn becomes one sync; while it runs, the next group gathers in the sockets'
buffers. A sender that has left is passed over when its answer is due; it never holds up another's. After a
failed write or sync nothing is acknowledged any more: everybody gets Refused and the process ends.
Trust: the socket lies in a private folder; who can open it already is this user.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from gatebook import wire
from gatebook.errors import LedgerError
from gatebook.ledger.entry import Policy
from gatebook.ledger.writer import Writer
from gatebook.record import MAX_RECORD_BYTES
from gatebook.recorder.journal import Journal
from gatebook.recorder.once import Once
from gatebook.recorder.vault import Vault


class Service:
    def __init__(
        self,
        writer: Writer,
        journal: Journal,
        vault: Vault,
        once: Once,
        *,
        failed: Callable[[LedgerError], None],
    ) -> None:
        self._writer = writer
        self._journal = journal
        self._vault = vault
        self._once = once
        self._failed = failed
        self._asked: list[tuple[Connection, wire.Message]] = []
        self._scheduled = False
        self._policy_version = 0
        self.applied: Callable[[bytes], None] = lambda _: None
        self.broken: LedgerError | None = None
        self.connections: set[Connection] = set()

    def ask(self, connection: Connection, message: wire.Message) -> None:
        self._asked.append((connection, message))
        self.schedule()

    def schedule(self) -> None:
        """Commit at the end of this turn of the loop, once."""
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
                self._once.commit()
                self._journal.commit(self._writer)
            except LedgerError as error:
                self.broken = error
                replies = [None] * len(asked)
                self._failed(error)
        refused = wire.Refused(str(self.broken)) if self.broken else wire.Refused("not understood")
        for (connection, _), reply in zip(asked, replies, strict=True):
            connection.answer(reply or refused)
        for connection in {connection for connection, _ in asked}:
            connection.flush()

    def _take(self, message: wire.Message, replies: list[wire.Reply | None], at: int) -> wire.Reply | None:
        match message:
            case wire.Append(items):
                if not items or any(not 0 < len(item.record) <= MAX_RECORD_BYTES for item in items):
                    return wire.Refused(f"a record has between 1 and {MAX_RECORD_BYTES} bytes")

                def done(index: int) -> None:
                    replies[at] = wire.Appended(index)

                self._journal.add(items, done)
                return None
            case wire.Pseudonym(name):
                return wire.Pseudonymous(self._vault.pseudonym(name))
            case wire.Once(key, until_us):
                return wire.Used(self._once.take(key, until_us))
            case wire.Apply(digest, record):
                self.policy(digest)
                self.applied(digest)
                return self._take(wire.Append([wire.Item(record)]), replies, at)
            case wire.Status():
                return wire.Stands(self._writer.synced, len(self._journal.open), os.getpid())

    def policy(self, digest: bytes) -> None:
        """A POLICY entry: this configuration is in force from here on."""
        self._policy_version += 1
        self._writer.append_entry(Policy(digest, self._policy_version))


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
