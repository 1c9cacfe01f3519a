"""For the command line and the supervisor: records and orders for the ledger, whether the recorder runs or not.

While it runs, its socket takes them. When no recorder runs, the ledger is opened, written and closed here,
under the same lock; so an operator's act is on record before it has any effect, always. Never does anything
twice: once a message was sent, whatever goes wrong is an error, though it may be done.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from gatebook import record, wire
from gatebook.config.model import Configuration
from gatebook.errors import EnvironmentFault, LedgerBusy, RecorderUnavailable
from gatebook.ledger.writer import Writer
from gatebook.paths import Paths
from gatebook.recorder.forget import finish_all
from gatebook.recorder.journal import Journal
from gatebook.recorder.orders import Hands, Parameters, obey
from gatebook.recorder.process import load_pseudonym_key, open_writer
from gatebook.recorder.vault import Vault

TIMEOUT_S = 10.0
ORDER_TIMEOUT_S = 120.0  # an order may read and write a whole segment
RETRY_S = 0.05


def submit(configuration: Configuration, records: Sequence[record.Record], patience_s: float = TIMEOUT_S) -> int:
    """Append; returns the index of the first, durable. Raises RecorderUnavailable or a LedgerError."""
    items = [wire.Item(record.encode(entry)) for entry in records]
    paths = Paths(configuration.state_dir)
    reply = _deliver(
        paths, wire.Append(items), patience_s, lambda: wire.Appended(_append(configuration, paths, items))
    )
    if isinstance(reply, wire.Appended):
        return reply.first_index
    raise RecorderUnavailable(f"the recorder refused: {getattr(reply, 'why', reply)}")


def order(
    configuration: Configuration, verb: str, parameters: Parameters, patience_s: float = ORDER_TIMEOUT_S
) -> dict[str, Any]:
    """Have an order carried out (recorder.orders); what its handler answers, all of it durable.

    Raises EnvironmentFault when it is refused, nothing having been changed; RecorderUnavailable or a LedgerError.
    """
    paths = Paths(configuration.state_dir)
    data = msgspec.json.encode(parameters)
    reply = _deliver(
        paths, wire.Order(verb, data), patience_s, lambda: wire.Obeyed(_obey(configuration, paths, verb, data))
    )
    match reply:
        case wire.Obeyed(result):
            return msgspec.json.decode(result, type=dict[str, Any])
        case wire.Refused(why):
            raise EnvironmentFault(why)
    raise RecorderUnavailable(f"the recorder answered {reply}")


def _deliver(
    paths: Paths, message: wire.Message, patience_s: float, locally: Callable[[], wire.Reply]
) -> wire.Reply:
    """To the recorder; `locally`, under the ledger's lock, when none runs."""
    until = time.monotonic() + patience_s
    while True:
        try:
            return ask(paths, message, patience_s)
        except (FileNotFoundError, ConnectionRefusedError):
            pass
        try:
            return locally()
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
    done: list[int] = []
    with _opened(configuration, paths) as (journal, writer):
        if paths.vault.exists():  # one that is missing is for the recorder to make, which says so in the log
            with _finished(configuration, paths, writer):
                pass
        journal.add(items, done.append)
        journal.commit(writer)
    return done[0]


def _obey(configuration: Configuration, paths: Paths, verb: str, parameters: bytes) -> bytes:
    with _opened(configuration, paths) as (_, writer), _finished(configuration, paths, writer) as vault:
        return obey(Hands(configuration, paths, writer, vault), verb, parameters)


@contextlib.contextmanager
def _opened(configuration: Configuration, paths: Paths) -> Iterator[tuple[Journal, Writer]]:
    """The ledger, recovered."""
    journal = Journal()
    writer = open_writer(configuration, paths, journal)
    try:
        yield journal, writer
    finally:
        writer.close()


@contextlib.contextmanager
def _finished(configuration: Configuration, paths: Paths, writer: Writer) -> Iterator[Vault]:
    """The vault; an erasure that was begun is finished, before anything else is appended."""
    key = load_pseudonym_key(paths.keys)
    vault = Vault(paths.vault, key, period_s=configuration.audit.pseudonym_period)
    try:
        finish_all(writer, vault, paths.ledger / "segments")
        yield vault
    finally:
        vault.close()
