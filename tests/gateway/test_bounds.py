"""Too large, too long, too many, too slow: refused with a clear status, a problem body, and a line."""

from __future__ import annotations

import asyncio

import pytest
from tests.gateway.message import Behaviour, Seen, allow, read_answer
from tests.gateway.rig import Rig

MEBI = 1 << 20


def test_body_over_every_limit_is_413_before_the_guard_is_asked(rig: Rig) -> None:
    answer = rig.exchange(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2097153\r\n\r\n")
    assert answer.problem() == {
        "type": "about:blank",
        "title": "Request body too large",
        "status": 413,
        "request_id": answer.one("X-Request-ID"),
    }
    assert not rig.guarded
    line = rig.line()
    assert (line["s"], line["d"], line["m"], line["q"]) == ("413", "", "POST", "/")


@pytest.mark.parametrize(
    ("upstream", "size", "status"),
    [
        ("orders", MEBI, 200),
        ("orders", MEBI + 1, 413),
        ("small", 10, 200),
        ("small", 11, 413),
        ("large", 2 * MEBI, 200),
    ],
)
def test_body_limit_is_the_upstreams_own(rig: Rig, upstream: str, size: int, status: int) -> None:
    rig.decide = lambda seen: allow(upstream)
    # The head alone: a refusal must not wait for the body.
    head = f"PUT /f HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n".encode()
    answer = rig.exchange(head + (b"x" * size if status == 200 else b""))
    assert answer.status == status
    assert [len(seen.body) for seen in rig.forwarded] == ([size] if status == 200 else [])
    assert answer.one("Gatebook-Receipt") == "acme/node-1/41"
    assert rig.line()["d"] == "41"


def test_chunks_over_the_limit_are_413_and_the_upstream_gets_no_whole_body(rig: Rig) -> None:
    rig.decide = lambda seen: allow("small")
    head = b"PUT /f HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = rig.exchange(head + b"8\r\nabcdefgh\r\n8\r\nabcdefgh\r\n0\r\n\r\n")
    assert answer.problem()["status"] == 413
    assert all(seen.body == b"(cut)" for seen in rig.forwarded)


def test_limit_of_nothing_is_not_no_limit(fresh: Rig) -> None:
    fresh.start(gateway={"max_body": 0}, upstreams={"large": {"max_body": 0}})
    head = b"PUT /f HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 11\r\n\r\n"
    assert fresh.exchange(head + b"x" * 11).status == 413


@pytest.mark.parametrize("size", [17 << 10, 100_000])
def test_long_field_is_431(rig: Rig, size: int) -> None:
    answer = rig.exchange(b"GET /h HTTP/1.1\r\nHost: x\r\nA: " + b"a" * size + b"\r\n\r\n")
    assert answer.problem()["status"] == 431
    assert not rig.guarded
    line = rig.line()
    assert (line["s"], line["m"], line["q"]) == ("431", "GET", "/h")


def test_many_fields_beyond_the_limit_are_431(rig: Rig) -> None:
    fields = b"".join(b"A%d: %s\r\n" % (number, b"a" * 1000) for number in range(40))
    answer = rig.exchange(b"GET / HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n")
    assert answer.problem()["status"] == 431
    assert not rig.guarded


def test_field_below_the_limit_reaches_guard_and_upstream(rig: Rig) -> None:
    token = "t" * (15 << 10)
    assert rig.ask("/", f"Authorization: Bearer {token}").status == 200
    assert rig.guarded[0].one("Authorization") == rig.forwarded[0].one("Authorization") == f"Bearer {token}"


def test_long_target_is_414(rig: Rig) -> None:
    answer = rig.exchange(b"GET /" + b"a" * 17000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.problem()["status"] == 414
    assert not rig.guarded
    assert rig.line()["s"] == "414"


def test_client_that_trickles_its_head_is_cut_off_and_recorded(rig: Rig) -> None:
    with rig.connected(1) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHos")
        with pytest.raises(ConnectionResetError):  # nothing of it lingers in the kernel
            connection.recv(1000)
    assert not rig.guarded
    assert rig.line()["s"] == "408"


def test_client_that_trickles_its_body_is_cut_off_and_recorded(rig: Rig) -> None:
    with rig.connected(1) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        with pytest.raises(ConnectionResetError):
            connection.recv(1000)
    line = rig.line()
    assert (line["s"], line["d"]) == ("408", "41")
    assert all(seen.body == b"(cut)" for seen in rig.forwarded)


def test_flood_of_requests_is_429_before_the_guard_is_asked(fresh: Rig) -> None:
    fresh.start(gateway={"flood": {"requests_per_second": 1, "burst": 3, "connections": 100}})
    answers = [fresh.ask("/") for _ in range(12)]
    refused = [answer for answer in answers if answer.status != 200]
    assert len(refused) >= 5
    for answer in refused:
        assert answer.problem()["status"] == 429
        assert answer.one("Retry-After") == "1"
    assert len(fresh.guarded) == 12 - len(refused)
    lines = [line for line in fresh.all_lines() if b'"s":"429"' in line]
    assert len(lines) == len(refused)


def test_flood_of_connections_is_429_before_the_guard_is_asked(fresh: Rig) -> None:
    fresh.start(gateway={"flood": {"connections": 1}}, guard={"acknowledgement_timeout": "20s"})
    fresh.hold()
    with fresh.connected() as first:
        first.sendall(b"GET /first HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        fresh.until(lambda: len(fresh.guarded) == 1)
        answer = fresh.ask("/second")
        assert answer.problem()["status"] == 429
        fresh.go_on()
        assert read_answer(first).status == 200
    assert len(fresh.guarded) == 1


@pytest.mark.parametrize(
    ("upstream", "status"), [("gone", 502), ("slow", 504), ("impostor", 502), ("secure", 200)]
)
def test_upstream_that_fails_has_a_status_that_says_how(rig: Rig, upstream: str, status: int) -> None:
    async def silent(*_: object) -> None:
        return

    rig.decide = lambda seen: allow(upstream)
    if upstream == "slow":
        rig.behave = silent
    answer = rig.ask("/")
    assert answer.status == status
    if status != 200:
        assert answer.problem()["status"] == status
    assert answer.one("Gatebook-Receipt") == "acme/node-1/41"
    line = rig.line()
    assert (line["d"], line["s"], line["u"]) == ("41", str(status), upstream)
    assert len(rig.forwarded) == (1 if upstream in ("slow", "secure") else 0)


@pytest.mark.parametrize("data", [b"HTTP/1.1 2", b"", b"HTTP/1.1 200 OK\r\nA: " + b"a" * 20000 + b"\r\n\r\n"])
def test_upstream_that_breaks_off_or_overflows_its_head_is_502(rig: Rig, data: bytes) -> None:
    rig.behave = _says_and_closes(data)
    assert rig.ask("/", method="POST", body=b"x").problem()["status"] == 502


def test_upstream_that_speaks_no_http_is_not_mistaken_for_a_success(rig: Rig) -> None:
    """nginx hands such bytes on as HTTP/0.9 and cannot be told not to; the line and the words tell."""
    rig.behave = _says_and_closes(b"nonsense\r\n\r\n")
    with rig.connected() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        while connection.recv(65536):
            pass
    line = rig.line()
    assert (line["d"], line["s"]) == ("41", "009")
    assert "upstream sent no valid HTTP/1.0 header" in rig.error_log


def _says_and_closes(data: bytes) -> Behaviour:
    async def behave(seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.close()

    return behave


def test_post_that_was_sent_is_never_sent_twice(rig: Rig) -> None:
    assert rig.ask("/").status == 200  # leaves a kept connection to the upstream
    rig.behave = _says_and_closes(b"")
    rig.forwarded.clear()
    for body in (b"", b"x"):
        assert rig.ask("/", method="POST", body=body).status == 502
    assert len(rig.forwarded) == 2
