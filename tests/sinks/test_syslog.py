"""Syslog: a real rsyslogd takes every message, over TLS too, and gets those again that it may have lost."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.access.ledger import ORIGIN, decision, outcome
from tests.pki import Authority
from tests.sinks.rsyslog import Rsyslog
from tests.sinks.test_delivery import ids, traffic
from tests.sinks.twin import Ledger, Sink

from gatebook import record
from gatebook.config.sinks import SyslogSink
from gatebook.sinks.destination import Delivered, Piece, Retry
from gatebook.sinks.stream import Place, Stream
from gatebook.sinks.syslog import SyslogDestination

OPEN: list[Any] = []


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def destination(address: str, **more: Any) -> SyslogDestination:
    settings = SyslogSink.model_validate({"type": "syslog", "address": address, "timeout": 3, **more})
    OPEN.append(made := SyslogDestination(settings))
    return made


def rsyslog(folder: Path, pair: tuple[Path, Path, Path] | None = None) -> Rsyslog:
    OPEN.append(made := Rsyslog(folder, pair))
    return made


def pieces(made: SyslogDestination, ledger: Ledger) -> list[Piece]:
    return [Piece(item, made.encode(item)) for item in Stream(ledger, Place()).read(1000)]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path, Path]:
    authority = Authority("root", tmp_path)
    issued = authority.issue("/CN=localhost", "subjectAltName = DNS:localhost, IP:127.0.0.1\n")
    ca = tmp_path / "authority.pem"
    ca.write_bytes(authority.pem)
    return ca, issued.certificate, issued.key


def test_rsyslog_reads_every_message_over_tls(tmp_path: Path, pair: tuple[Path, Path, Path]) -> None:
    server = rsyslog(tmp_path, pair)
    made = destination(f"tls://127.0.0.1:{server.port}", certificates=str(pair[0]))
    Sink(tmp_path, traffic(20), made).run()  # type: ignore[arg-type]
    found = server.messages(20)
    assert [body["id"] for _, body in found] == ids(*range(0, 40, 2))
    priority, stamp, host, kind, data = found[1][0]
    assert (priority, host, kind) == ("110", "node-1", "access")
    assert stamp.startswith("2023-11-14T22:13:21.000000")
    assert data == f'[gatebook@32473 id="{ORIGIN}/2" origin="{ORIGIN}" index="2"]'
    assert found[1][1]["ledger"][0]["index"] == 2


def test_server_of_an_unknown_authority_gets_nothing(tmp_path: Path, pair: tuple[Path, Path, Path]) -> None:
    server = rsyslog(tmp_path, pair)
    made = destination(f"tls://127.0.0.1:{server.port}")
    answer = made.send(pieces(made, traffic(1)))
    assert isinstance(answer, Retry)
    assert "certificate" in answer.why


def test_server_of_another_name_gets_nothing(tmp_path: Path) -> None:
    authority = Authority("root", tmp_path)
    issued = authority.issue("/CN=other", "subjectAltName = DNS:other.example\n")
    (tmp_path / "authority.pem").write_bytes(authority.pem)
    server = rsyslog(tmp_path, (tmp_path / "authority.pem", issued.certificate, issued.key))
    made = destination(f"tls://127.0.0.1:{server.port}", certificates=str(tmp_path / "authority.pem"))
    assert isinstance(made.send(pieces(made, traffic(1))), Retry)


def test_what_a_killed_server_may_have_lost_is_sent_again(tmp_path: Path) -> None:
    server = rsyslog(tmp_path)
    made = destination(f"tcp://127.0.0.1:{server.port}")
    batch = pieces(made, traffic(4))
    assert made.send(batch[:2]) == Delivered()
    server.messages(2)
    server.kill()
    server.out.unlink()  # as if it had not written them yet
    assert isinstance(made.send(batch[2:]), Retry)
    server.start()
    assert made.send(batch[2:]) == Delivered()
    assert [body["id"] for _, body in server.messages(4)] == ids(0, 2, 4, 6)


def test_server_that_takes_nothing_in_is_not_believed(tmp_path: Path) -> None:
    """Its connection is open, its buffers are full: what it has not confirmed is not delivered."""
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        made = destination(f"tcp://127.0.0.1:{silent.getsockname()[1]}", timeout=0.3)
        batch = pieces(made, traffic(400))
        answers = [made.send(batch) for _ in range(4)]
    assert isinstance(answers[-1], Retry)


def test_server_that_hangs_up_at_once_is_not_believed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            connection, _ = server.accept()
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        made = destination(f"tcp://127.0.0.1:{server.getsockname()[1]}")
        first = made.send(pieces(made, traffic(200)))
        thread.join()
    assert isinstance(first, Retry)


def test_message_that_is_too_long_goes_without_its_exact_records(tmp_path: Path) -> None:
    made = destination("tcp://127.0.0.1:1", max_message=1024)
    whole = decision(0)
    huge = decision(1, request=record.RequestPart(method="GET", path="/" + "x" * 4000))
    store = Sink(tmp_path, Ledger(whole, outcome(0, 0), huge, outcome(1, 2)), made)  # type: ignore[arg-type]
    assert store is not None
    (item,) = Stream(Ledger(whole, outcome(0, 0)), Place()).read(10)
    assert b'"ledger"' not in made.encode(item)
    (large,) = Stream(Ledger(huge, outcome(1, 0)), Place()).read(10)
    with pytest.raises(ValueError, match="max_message"):
        made.encode(large)


def test_structured_data_cannot_be_broken_out_of() -> None:
    from gatebook.sinks.syslog import _value

    assert _value('a"] \\ evil="1') == 'a\\"\\] \\\\ evil=\\"1'


@pytest.mark.parametrize("address", ["tcp://syslog:6514", "tls://syslog", "udp://127.0.0.1:514", "tls://u:p@h:1"])
def test_address_that_would_give_records_away_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="expected tls"):
        SyslogSink.model_validate({"type": "syslog", "address": address})
