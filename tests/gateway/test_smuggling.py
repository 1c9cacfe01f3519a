"""Requests that two servers read differently: refused here, or forwarded as one meaning only."""

from __future__ import annotations

import json

import pytest
from tests.gateway.rig import Rig
from tests.gateway.test_cookies import LOGIN

END = b"\r\n\r\n"


def raw(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join(lines) + END + body


REFUSED = {
    "cl-te": raw(
        b"POST / HTTP/1.1", b"Host: x", b"Content-Length: 6", b"Transfer-Encoding: chunked", body=b"0\r\n\r\nG"
    ),
    "two-lengths": raw(b"POST / HTTP/1.1", b"Host: x", b"Content-Length: 1", b"Content-Length: 2", body=b"ab"),
    "same-length-twice": raw(
        b"POST / HTTP/1.1", b"Host: x", b"Content-Length: 1", b"Content-Length: 1", body=b"a"
    ),
    "length-list": raw(b"POST / HTTP/1.1", b"Host: x", b"Content-Length: 1, 1", body=b"a"),
    "length-plus": raw(b"POST / HTTP/1.1", b"Host: x", b"Content-Length: +1", body=b"a"),
    "length-negative": raw(b"POST / HTTP/1.1", b"Host: x", b"Content-Length: -1", body=b"a"),
    "length-huge": raw(b"POST / HTTP/1.1", b"Host: x", b"Content-Length: 99999999999999999999", body=b"a"),
    "te-unknown": raw(b"POST / HTTP/1.1", b"Host: x", b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "te-tab": raw(b"POST / HTTP/1.1", b"Host: x", b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
    "te-twice": raw(
        b"POST / HTTP/1.1", b"Host: x", b"Transfer-Encoding: chunked", b"Transfer-Encoding: x", body=b"0\r\n\r\n"
    ),
    "te-on-1.0": raw(b"POST / HTTP/1.0", b"Host: x", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "no-host": raw(b"GET / HTTP/1.1"),
    "two-hosts": raw(b"GET / HTTP/1.1", b"Host: a", b"Host: b"),
    "bad-host": raw(b"GET / HTTP/1.1", b"Host: a/b"),
    "space-in-target": raw(b"GET /a b HTTP/1.1", b"Host: x"),
    "control-in-target": raw(b"GET /a\x01b HTTP/1.1", b"Host: x"),
    "nul-in-target": raw(b"GET /a%00b HTTP/1.1", b"Host: x"),
    "climbs-out": raw(b"GET /../../x HTTP/1.1", b"Host: x"),
    "bad-escape": raw(b"GET /%zz HTTP/1.1", b"Host: x"),
    "nul-in-field": raw(b"GET / HTTP/1.1", b"Host: x", b"A: \x00"),
    "lower-method": raw(b"get / HTTP/1.1", b"Host: x"),
    "version-9": raw(b"GET / HTTP/9.1", b"Host: x"),
    "h2-preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "star": raw(b"GET * HTTP/1.1", b"Host: x"),
    "connect": raw(b"CONNECT x:443 HTTP/1.1", b"Host: x"),
    "trace": raw(b"TRACE / HTTP/1.1", b"Host: x"),
    "nonsense": raw(b"nonsense"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_ambiguous_request_is_refused_before_anybody_is_asked(rig: Rig, name: str) -> None:
    answer = rig.exchange(REFUSED[name])
    assert answer.status in (400, 405, 411, 501, 505)
    assert answer.problem()["request_id"] == answer.one("X-Request-ID")
    assert not rig.guarded
    assert not rig.forwarded
    line = rig.line()
    assert (line["d"], line["s"], line["a"]) == ("", str(answer.status), "127.0.0.1")
    assert line["i"] == answer.one("X-Request-ID")


@pytest.mark.parametrize(
    "field",
    [b"A: 1\r\n Gatebook-Subject: admin", b"A: 1\r\n\tGatebook-Subject: admin", b" Gatebook-Subject: admin"],
    ids=["folded", "folded-tab", "leading-space"],
)
def test_folded_field_is_never_forwarded_as_another(rig: Rig, field: bytes) -> None:
    rig.exchange(raw(b"GET / HTTP/1.1", b"Host: x", field, b"Connection: close"))
    for seen in rig.guarded + rig.forwarded:
        assert "gatebook-subject" not in {name.strip() for name in seen.names}
        assert not any("admin" in value for _, value in seen.headers)


def test_bare_line_feeds_are_forwarded_as_proper_ends(rig: Rig) -> None:
    answer = rig.exchange(b"GET /lf HTTP/1.1\nHost: x\nGatebook-Subject: admin\nA: 1\nConnection: close\n\n")
    assert answer.status in (200, 400)
    for seen in rig.forwarded:
        assert seen.line == "GET /lf HTTP/1.1"
        assert seen.one("A") == "1"
        assert "gatebook-subject" not in seen.names


def test_bare_carriage_return_in_a_field_hides_nothing(rig: Rig) -> None:
    rig.exchange(raw(b"GET / HTTP/1.1", b"Host: x", b"A: 1\rGatebook-Subject: admin", b"Connection: close"))
    for seen in rig.guarded + rig.forwarded:
        assert "\r" not in (seen.one("A") or "")


@pytest.mark.parametrize(
    "chunks",
    [b"5\r\nhello\r\n0\r\n\r\n", b"5;x=y\r\nhello\r\n0\r\nTrailer: x\r\n\r\n", b"005\r\nhello\r\n0\r\n\r\n"],
)
def test_chunks_are_made_anew(rig: Rig, chunks: bytes) -> None:
    answer = rig.exchange(
        raw(b"POST / HTTP/1.1", b"Host: x", b"Transfer-Encoding: chunked", b"Connection: close", body=chunks)
    )
    assert answer.status == 200
    (forwarded,) = rig.forwarded
    assert forwarded.body == b"hello"
    assert "trailer" not in forwarded.names


@pytest.mark.parametrize("chunks", [b"x\r\n", b"-1\r\n", b"5\r\nhellooo\r\n0\r\n\r\n", b"fffffffffffffffff\r\n"])
def test_broken_chunks_never_end_in_a_whole_request(rig: Rig, chunks: bytes) -> None:
    answer = rig.exchange(raw(b"POST / HTTP/1.1", b"Host: x", b"Transfer-Encoding: chunked", body=chunks))
    assert answer.problem()["status"] in (400, 413)
    assert all(seen.body == b"(cut)" for seen in rig.forwarded)


def test_second_request_on_a_connection_is_decided_on_by_itself(rig: Rig) -> None:
    """What stands after a body is a request of its own, with an id and a decision of its own."""
    first = raw(b"POST /first HTTP/1.1", b"Host: x", b"Content-Length: 5", body=b"hello")
    second = raw(b"GET /second HTTP/1.1", b"Host: x", b"Connection: close")
    with rig.connected() as connection:
        connection.sendall(first + second)
        data = b""
        while part := connection.recv(65536):
            data += part
    assert data.count(b"HTTP/1.1 200") == 2
    assert [seen.one("Gatebook-Uri") for seen in rig.guarded] == ["/first", "/second"]
    assert [seen.one("Gatebook-Connection-Request") for seen in rig.guarded] == ["1", "2"]
    assert len({seen.one("Gatebook-Request-Id") for seen in rig.guarded}) == 2


@pytest.mark.parametrize(
    "fields",
    [
        ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"],
        ["Connection: Upgrade", "Upgrade: h2c"],
        ["Connection: Upgrade", "Upgrade: websocket, h2c"],
        ["Connection: Upgrade", "Upgrade: h2c, websocket"],
        ["Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket"],
        ["Connection: Upgrade", "Upgrade: TLS/1.2"],
        ["Connection: close", "Upgrade: websocket"],
        ["Connection: notupgrade", "Upgrade: websocket"],
        ["Upgrade: websocket"],
    ],
)
def test_h2c_smuggling_finds_no_tunnel(rig: Rig, fields: list[str]) -> None:
    """An upgrade that passed would be a connection to the upstream that no guard sees into."""
    answer = rig.exchange("\r\n".join(["GET / HTTP/1.1", "Host: x", *fields, "", ""]).encode())
    assert answer.status in (200, 400)
    for seen in rig.forwarded:
        assert "upgrade" not in seen.names
        assert "connection" not in seen.names
        assert "h2c" not in json.dumps(seen.headers)


TARGETS = [
    "/a%2eb",
    "/a+b",
    "/%C3%A9",
    "/%c3%a9",
    "/a?",
    "/a?b=%26&c=+",
    "/a;b=c",
    "/a/../b",
    "/a%2f..%2fb",
    "//a//b",
    "/a/./b/",
    "/?",
    "/??",
    "/a%20b",
    "/~a!$&'()*,=:@",
    "/a\\b",
    "/\xe9",
    '/a"b',
]


@pytest.mark.parametrize("target", TARGETS)
def test_upstream_gets_byte_for_byte_what_was_decided_on(rig: Rig, target: str) -> None:
    assert rig.ask(target).status == 200
    assert rig.guarded[0].one("Gatebook-Uri") == target
    assert rig.forwarded[0].line == f"GET {target} HTTP/1.1"


def test_absolute_target_is_decided_on_and_forwarded_as_a_path(rig: Rig) -> None:
    answer = rig.ask("http://evil.example/a?b")
    assert answer.status in (200, 400)
    for asked, forwarded in zip(rig.guarded, rig.forwarded, strict=True):
        assert asked.one("Gatebook-Uri") == "/a?b"
        assert forwarded.line == "GET /a?b HTTP/1.1"
        assert forwarded.one("Host") == rig.upstream_host


def test_http_0_9_is_refused_and_recorded(rig: Rig) -> None:
    with rig.connected() as connection:
        connection.sendall(b"GET /old\r\n")
        said = b""
        while part := connection.recv(65536):
            said += part
    assert json.loads(said)["status"] == 505
    assert not rig.guarded
    assert rig.line()["q"] == "/old"


def test_http_0_9_does_not_get_to_the_portal_as_something_that_no_gateway_sends(fresh: Rig) -> None:
    fresh.start(**LOGIN)
    with fresh.connected() as connection:
        connection.sendall(b"GET /.gatebook/login\r\n")
        said = b""
        while part := connection.recv(65536):
            said += part
    assert json.loads(said)["status"] == 505
    assert fresh.line()["q"] == "/.gatebook/login"
