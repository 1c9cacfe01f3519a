"""For the command line and the supervisor: put records into the ledger, whether the recorder runs or not.

While it runs, its socket takes them. When no recorder runs, the ledger is opened, appended to and closed
here, under the same lock; so an operator's act is on record before it has any effect, always.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from gatebook import record, wire
from gatebook.config.model import Configuration
from gatebook.errors import LedgerBusy, RecorderUnavailable
from gatebook.paths import Paths
from gatebook.recorder.journal import Journal
from gatebook.recorder.process import open_writer

TIMEOUT_S = 10.0


def submit(configuration: Configuration, records: Sequence[record.Record]) -> int:
    """Append; returns the index of the first, durable. Raises RecorderUnavailable or a LedgerError."""
    items = [wire.Item(record.encode(entry)) for entry in records]
    paths = Paths(configuration.state_dir)
    try:
        reply = ask(paths, wire.Append(items))
    except (FileNotFoundError, ConnectionRefusedError):
        return _append(configuration, paths, items)
    if isinstance(reply, wire.Appended):
        return reply.first_index
    raise RecorderUnavailable(f"the recorder refused: {reply}")


def ask(paths: Paths, message: wire.Message, timeout_s: float = TIMEOUT_S) -> wire.Reply:
    """One message, one reply. Raises FileNotFoundError or ConnectionRefusedError when no recorder listens."""
    framer = wire.Framer()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        connection.connect(str(paths.recorder_socket))
        try:
            connection.sendall(wire.pack(message))
            while True:
                data = connection.recv(65536)
                if not data:
                    raise RecorderUnavailable("the recorder hung up; see what `gatebook run` printed")
                for body in framer.feed(data):
                    return wire.unpack_reply(body)
        except TimeoutError:
            raise RecorderUnavailable(f"the recorder did not answer within {timeout_s:g} s") from None


def _append(configuration: Configuration, paths: Paths, items: list[wire.Item]) -> int:
    journal = Journal()
    try:
        writer = open_writer(configuration, paths, journal)
    except LedgerBusy:
        raise RecorderUnavailable(
            f"{paths.lock}: held by a process that answers no message; is another gatebook starting or stopping?"
        ) from None
    try:
        done: list[int] = []
        journal.add(items, done.append)
        journal.commit(writer)
    finally:
        writer.close()
    return done[0]
