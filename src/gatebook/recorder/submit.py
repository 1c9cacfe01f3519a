"""For the command line and the supervisor: put records into the ledger, whether the recorder runs or not.

While it runs, its socket takes them. When no recorder runs, the ledger is opened, appended to and closed
here, under the same lock; so an operator's act is on record before it has any effect, always. Never appends
twice: once a message was sent, whatever goes wrong is an error, though the record may be there.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

from gatebook import record, wire
from gatebook.config.model import Configuration
from gatebook.errors import LedgerBusy, RecorderUnavailable
from gatebook.paths import Paths
from gatebook.recorder.journal import Journal
from gatebook.recorder.process import open_writer

TIMEOUT_S = 10.0
RETRY_S = 0.05


def submit(configuration: Configuration, records: Sequence[record.Record], patience_s: float = TIMEOUT_S) -> int:
    """Append; returns the index of the first, durable. Raises RecorderUnavailable or a LedgerError."""
    items = [wire.Item(record.encode(entry)) for entry in records]
    paths = Paths(configuration.state_dir)
    until = time.monotonic() + patience_s
    while True:
        try:
            reply = ask(paths, wire.Append(items), patience_s)
        except (FileNotFoundError, ConnectionRefusedError):
            pass
        else:
            if isinstance(reply, wire.Appended):
                return reply.first_index
            raise RecorderUnavailable(f"the recorder refused: {getattr(reply, 'why', reply)}")
        try:
            return _append(configuration, paths, items)
        except LedgerBusy as error:
            # A recorder that has just begun, or is ending: a moment later it listens, or has let go.
            if time.monotonic() >= until:
                raise RecorderUnavailable(f"{error}; it has not answered within {patience_s:g} s") from None
        time.sleep(RETRY_S)


def ask(paths: Paths, message: wire.Message, timeout_s: float = TIMEOUT_S) -> wire.Reply:
    """One message, one reply. Raises RecorderUnavailable.

    Raises FileNotFoundError or ConnectionRefusedError when no recorder listens: then nothing was sent.
    """
    framer = wire.Framer()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(paths.recorder_socket))
        except BlockingIOError:  # what a full queue is called here
            raise RecorderUnavailable("the recorder takes no connection; is it hanging?") from None
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
        except (OSError, ValueError) as error:
            raise RecorderUnavailable(f"no answer from the recorder: {error}") from None


def _append(configuration: Configuration, paths: Paths, items: list[wire.Item]) -> int:
    journal = Journal()
    writer = open_writer(configuration, paths, journal)
    done: list[int] = []
    try:
        journal.add(items, done.append)
        journal.commit(writer)
    finally:
        writer.close()
    return done[0]
