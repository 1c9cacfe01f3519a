"""The access log: one line a request, whole and parseable, whatever the client sent, kill -9 or not."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat

import msgspec
import pytest
from tests.gateway.message import allow, guard_says
from tests.gateway.rig import Rig

from gatebook.wire import LOG_OF_PROBE, LOG_WITH_DECISION, LOG_WITHOUT_DECISION, LogLine


def test_line_with_a_decision_names_neither_address_nor_path(rig: Rig) -> None:
    answer = rig.ask("/patients/7?name=x")
    line = rig.line()
    assert set(line) == set(LOG_WITH_DECISION)
    assert line["i"] == answer.one("X-Request-ID")
    assert (line["d"], line["r"], line["u"], line["s"], line["ok"]) == ("41", "rule", "orders", "200", "OK")
    assert line["n"] == rig.guarded[0].one("Gatebook-Connection-Request")
    assert line["c"] == rig.guarded[0].one("Gatebook-Connection")
    assert line["p"] == rig.guarded[0].one("Gatebook-Worker")
    assert (line["ua"], line["us"]) == (rig.upstream_host, "200")
    assert not any("patients" in value or "name=x" in value for value in line.values())


def test_line_without_a_decision_says_what_was_asked_but_not_the_query(rig: Rig) -> None:
    rig.decide = lambda seen: guard_says(500)
    rig.ask("/a%2eb?secret=1", "Authorization: secret", method="DELETE")
    line = rig.line()
    assert set(line) == set(LOG_WITHOUT_DECISION)
    assert (line["m"], line["q"], line["h"]) == ("DELETE", "/a%2eb", "api.example")
    assert (line["a"], line["pr"], line["tv"], line["tn"]) == ("127.0.0.1", "HTTP/1.1", "TLSv1.3", "localhost")
    assert (line["ua"], line["us"]) == ("", "")  # the guard is no upstream
    assert not any("secret" in value for value in line.values())


@pytest.mark.parametrize(
    "data",
    [
        b"GET /\xff\xfe/x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n",
        b'GET /"},{"d":"7" HTTP/1.1\r\nHost: x\r\n\r\n',
        b"GET /\\u0000\\ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
        b'GET / HTTP/1.1\r\nHost: x"y\r\n\r\n',
        b"\xff\xfe\x00\xff\r\n\r\n",
        b"G\xffT / HTTP/1.1\r\n\r\n",
        b"GET /\n\n",
        b"GET /a\rb HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%0a%0d{} HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_no_request_can_spoil_its_line(rig: Rig, data: bytes) -> None:
    """A line that cannot be parsed would be a request without a record."""
    rig.decide = lambda seen: guard_says(500)
    with rig.connected() as connection:
        connection.sendall(data)
        connection.recv(65536)
    (line,) = rig.settled(1)
    msgspec.json.decode(msgspec.json.encode(line), type=LogLine)
    assert line["d"] == ""


def test_line_is_utf_8_whatever_name_a_client_asks_for(rig: Rig) -> None:
    rig.decide = lambda seen: guard_says(500)
    rig.ask("/", "Host: \xff")
    rig.until(lambda: bool(rig.all_lines()))  # there is one to look at
    for line in rig.all_lines():
        msgspec.json.decode(line, type=LogLine)


def test_killed_worker_loses_no_line_that_was_answered(fresh: Rig) -> None:
    fresh.start()
    answered = {fresh.ask(f"/{number}").one("X-Request-ID") for number in range(20)}
    fresh.until(lambda: len(fresh.all_lines()) == 20)
    os.kill(fresh.worker(), signal.SIGKILL)
    fresh.until(lambda: fresh.ask("/after").status == 200)
    logged = {msgspec.json.decode(line, type=LogLine).i for line in fresh.all_lines()}
    assert answered <= logged


def test_files_are_for_their_owner_alone(rig: Rig) -> None:
    rig.ask("/")
    found = [path for folder in (rig.paths.logs, rig.paths.nginx) for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in found} >= {"access.log", "error.log", "nginx.conf", "nginx.pid"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o600}


def test_requests_on_one_connection_have_numbers_without_a_hole(rig: Rig) -> None:
    rig.decide = lambda seen: allow()
    with rig.connected() as connection:
        for number in range(5):
            connection.sendall(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
            data = b""
            while not data.endswith(b"ok"):
                data += connection.recv(65536)
    lines = rig.settled(5)
    assert [line["n"] for line in lines] == ["1", "2", "3", "4", "5"]
    assert len({line["c"] for line in lines}) == 1


def test_question_of_a_load_balancer_leaves_no_hole_among_the_numbers(rig: Rig) -> None:
    """Otherwise nobody could tell it from a line that is missing."""
    rig.decide = lambda seen: guard_says(200)
    with rig.connected(1) as connection:
        for target in ("live", "ready", "live?x=1"):
            connection.sendall(f"GET /.gatebook/{target} HTTP/1.1\r\nHost: x\r\nX-Secret: s\r\n\r\n".encode())
            connection.recv(65536)
    rig.until(lambda: len(rig.new_lines()) == 3)
    lines = [json.loads(line) for line in rig.new_lines()]
    assert [line["n"] for line in lines] == ["1", "2", "3"]
    assert {frozenset(line) for line in lines} == {frozenset(LOG_OF_PROBE)}
    assert {line["i"] for line in lines} == {""}
    assert all(msgspec.json.decode(line, type=LogLine).i == "" for line in rig.new_lines())


@pytest.mark.parametrize(
    "requests",
    [
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 5],
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\nBAD\x01 / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"],
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /part"],
        [b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"],
        [b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n"],
        [b"GET /.gatebook/upstream/orders HTTP/1.1\r\nHost: x\r\n\r\n" * 3],
        [b"POST /.gatebook/live HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" * 2],
        [b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
        [b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" * 2],
    ],
)
def test_no_client_can_make_a_hole_among_the_numbers(rig: Rig, requests: list[bytes]) -> None:
    """Or it could have the ledger say that lines were lost."""
    with rig.connected(1) as connection:
        connection.settimeout(0.3)
        for data in requests:
            with contextlib.suppress(OSError):
                connection.sendall(data)
                while connection.recv(65536):
                    pass
    rig.settled()
    lines = [json.loads(line) for line in rig.new_lines()]
    numbers = [int(line["n"]) for line in lines if line["c"] == lines[0]["c"]]
    assert numbers == list(range(1, len(numbers) + 1))
