"""Who may speak, and in which tongue: TLS versions, ciphers, sessions, HTTP/2, and what is no TLS at all."""

from __future__ import annotations

import contextlib
import socket
import ssl
import warnings

import h2.config
import h2.connection
import h2.events
import pytest
from tests.gateway.message import deny, read_answer
from tests.gateway.rig import Rig

from gatebook.gateway.render import CIPHERS

MODERN = 2  # listener that wants TLS 1.3


def _client(rig: Rig, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = rig.client_tls()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TLS 1.0 and 1.1, which is the point
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


@pytest.mark.parametrize(
    ("version", "listener", "accepted"),
    [
        (ssl.TLSVersion.TLSv1, 0, False),
        (ssl.TLSVersion.TLSv1_1, 0, False),
        (ssl.TLSVersion.TLSv1_2, 0, True),
        (ssl.TLSVersion.TLSv1_3, 0, True),
        (ssl.TLSVersion.TLSv1_1, MODERN, False),
        (ssl.TLSVersion.TLSv1_2, MODERN, False),
        (ssl.TLSVersion.TLSv1_3, MODERN, True),
    ],
)
def test_old_tls_is_refused_and_the_reason_stands_in_the_error_log(
    rig: Rig, version: ssl.TLSVersion, listener: int, accepted: bool
) -> None:
    if accepted:
        with rig.connected(listener, _client(rig, version)) as connection:
            assert isinstance(connection, ssl.SSLSocket)
            assert connection.version() == version.name.replace("_", ".")
        return
    with pytest.raises((ssl.SSLError, ConnectionError)), rig.connected(listener, _client(rig, version)):
        pass
    rig.until(lambda: "SSL_do_handshake() failed" in rig.error_log)
    assert "unsupported protocol" in rig.error_log
    assert "[info]" in rig.error_log


@pytest.mark.parametrize(
    "sni",
    [
        "evil\r\nX-Tenant: acme",
        "evil\r\nGatebook-Host: internal",
        "evil\n\nGET /decide HTTP/1.1",
        "evil\r\nContent-Length: 5",
        "evil\x01",
        "evil\x7f",
    ],
)
def test_server_name_smuggles_no_line_into_the_head_that_the_guard_reads(rig: Rig, sni: str) -> None:
    tls = rig.client_tls()
    tls.check_hostname = False
    with (
        socket.create_connection(rig.address(0), timeout=10) as plain,
        # Bytes, for a name in a text is checked by Python itself.
        tls.wrap_socket(plain, server_hostname=sni.encode()) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n\r\n")
        assert read_answer(connection, "GET").status == 200
    (asked,) = rig.guarded
    names = [name.lower() for name, _ in asked.headers]
    assert (asked.one("Gatebook-Sni"), asked.one("Gatebook-Host")) == ("evil", "api.example")
    assert not {"x-tenant", "content-length"} & set(names)


@pytest.mark.parametrize(
    "cipher", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES128-SHA", "NULL"]
)
def test_cipher_without_forward_secrecy_or_authentication_is_refused(rig: Rig, cipher: str) -> None:
    context = _client(rig, ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(f"{cipher}:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)), rig.connected(0, context):
        pass


@pytest.mark.parametrize("cipher", [name for name in CIPHERS.split(":") if "ECDSA" in name])
def test_cipher_of_the_list_is_accepted(rig: Rig, cipher: str) -> None:
    context = _client(rig, ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(cipher)
    with rig.connected(0, context) as connection:
        assert isinstance(connection, ssl.SSLSocket)
        assert (connection.cipher() or ("",))[0] == cipher


def test_session_is_resumed_without_a_ticket(rig: Rig) -> None:
    context = _client(rig, ssl.TLSVersion.TLSv1_2)
    with rig.connected(0, context) as connection:
        assert isinstance(connection, ssl.SSLSocket)
        session = connection.session
        assert session is not None
        assert not session.has_ticket


def test_plain_http_to_a_tls_port_is_a_problem_with_a_line(rig: Rig) -> None:
    with socket.create_connection(rig.address(), timeout=20) as plain:
        plain.sendall(b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = read_answer(plain)
    assert answer.problem()["status"] == 400
    assert not rig.guarded
    line = rig.line()
    assert (line["s"], line["q"], line["tv"]) == ("400", "/plain", "")


def test_garbage_instead_of_a_handshake_disturbs_nobody(rig: Rig) -> None:
    with socket.create_connection(rig.address()) as plain, contextlib.suppress(ConnectionResetError):
        plain.sendall(b"\x16\x03\x01\x02\x00" + b"\xff" * 600)
        while plain.recv(1000):
            pass
    assert rig.ask("/").status == 200


def test_name_of_another_is_recorded_as_it_was_asked_for(rig: Rig) -> None:
    context = rig.client_tls()
    context.check_hostname = False
    with (
        socket.create_connection(rig.address()) as plain,
        context.wrap_socket(plain, server_hostname="other.example") as connection,
    ):
        connection.sendall(b"GET /.gatebook/x HTTP/1.1\r\nHost: y\r\nConnection: close\r\n\r\n")
        while connection.recv(1000):
            pass
    line = rig.line()
    assert (line["tn"], line["h"], line["tv"]) == ("other.example", "y", "TLSv1.3")


class Two:
    """A client that speaks HTTP/2 and can be told to be rude."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.context = rig.client_tls()
        self.context.set_alpn_protocols(["h2"])

    def ask(self, *fields: tuple[str, str], body: bytes = b"") -> tuple[dict[str, str], bytes]:
        """Answer's headers and body; no headers when the stream was reset."""
        rules = h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        client = h2.connection.H2Connection(rules)
        with self.rig.connected(0, self.context) as connection:
            assert isinstance(connection, ssl.SSLSocket)
            assert connection.selected_alpn_protocol() == "h2"
            client.initiate_connection()
            client.send_headers(1, list(fields), end_stream=not body)
            if body:
                client.send_data(1, body, end_stream=True)
            connection.sendall(client.data_to_send())
            return self._receive(client, connection)

    def _receive(
        self, client: h2.connection.H2Connection, connection: ssl.SSLSocket
    ) -> tuple[dict[str, str], bytes]:
        headers: dict[str, str] = {}
        data = b""
        while part := connection.recv(65536):
            for event in client.receive_data(part):
                if isinstance(event, h2.events.ResponseReceived):
                    headers = {_text(name): _text(value) for name, value in event.headers or []}
                elif isinstance(event, h2.events.DataReceived):
                    data += event.data or b""
                elif isinstance(
                    event, h2.events.StreamEnded | h2.events.StreamReset | h2.events.ConnectionTerminated
                ):
                    return headers, data
            connection.sendall(client.data_to_send())
        return headers, data


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


PLAIN = ((":method", "GET"), (":scheme", "https"), (":authority", "api.example"), (":path", "/two?x=1"))


def test_http_2_is_decided_on_and_forwarded(rig: Rig) -> None:
    headers, body = Two(rig).ask(*PLAIN, ("gatebook-subject", "admin"), ("x-forwarded-user", "admin"))
    assert (headers[":status"], body) == ("200", b"ok")
    (asked,), (forwarded,) = rig.guarded, rig.forwarded
    assert asked.one("Gatebook-Uri") == "/two?x=1"
    assert asked.one("Gatebook-Protocol") == "HTTP/2.0"
    assert asked.one("Gatebook-Host") == forwarded.one("X-Forwarded-Host") == "api.example"
    assert forwarded.line == "GET /two?x=1 HTTP/1.1"
    assert "admin" not in [value for seen in (asked, forwarded) for _, value in seen.headers]


def test_http_2_is_denied_and_recorded(rig: Rig) -> None:
    rig.decide = lambda seen: deny(429, Gatebook_Retry_After="3")
    headers, _ = Two(rig).ask(*PLAIN)
    assert (headers[":status"], headers["retry-after"]) == ("429", "3")
    assert headers["content-type"] == "application/problem+json"
    assert rig.line()["d"] == "42"


def test_http_2_body_is_streamed_and_bounded(rig: Rig) -> None:
    post = ((":method", "POST"), *PLAIN[1:])
    headers, _ = Two(rig).ask(*post, body=b"hello")
    assert headers[":status"] == "200"
    assert rig.forwarded[0].body == b"hello"
    headers, body = Two(rig).ask(*post, ("content-length", "99999999"))
    assert headers[":status"] in ("413", "400")
    assert b"request_id" in body


@pytest.mark.parametrize(
    "fields",
    [
        (*PLAIN, ("connection", "upgrade"), ("upgrade", "websocket")),
        (*PLAIN, ("connection", "upgrade"), ("upgrade", "h2c"), ("http2-settings", "AAAA")),
        (*PLAIN, ("transfer-encoding", "chunked")),
        (*PLAIN, ("host", "evil.example")),
        (*PLAIN, ("x", "a\r\ngatebook-subject: admin")),
        (*PLAIN, ("x: a\r\ngatebook-subject", "admin")),
        (*PLAIN[:3], (":path", "/a HTTP/1.1\r\nGatebook-Subject: admin\r\nX: y")),
        (*PLAIN[:3], (":path", "/a b")),
        (*PLAIN[:3], (":path", "*")),
        (*PLAIN[:3], (":path", "")),
        ((":method", "GET / HTTP/1.1\r\nGatebook-Subject: admin\r\nX: y"), *PLAIN[1:]),
        ((":method", "CONNECT"), *PLAIN[1:]),
        (*PLAIN, ("Gatebook-Subject", "admin")),
        (*PLAIN, (":path", "/second")),
    ],
    ids=str,
)
def test_http_2_cannot_smuggle_into_http_1(rig: Rig, fields: tuple[tuple[str, str], ...]) -> None:
    headers, _ = Two(rig).ask(*fields)
    assert headers.get(":status") in (None, "200", "400", "405")
    assert len(rig.forwarded) == len(rig.guarded) <= 1
    for asked, forwarded in zip(rig.guarded, rig.forwarded, strict=True):
        assert forwarded.line == f"GET {asked.one('Gatebook-Uri')} HTTP/1.1"
        assert not {"gatebook-subject", "upgrade", "http2-settings", "transfer-encoding"} & forwarded.names
        assert asked.one("Gatebook-Host") == forwarded.one("X-Forwarded-Host")
    assert len(rig.settled()) == 1


def test_http_2_client_that_resets_during_the_decision_leaves_a_line_after_it(rig: Rig) -> None:
    """nginx then knows no answer of the guard's, so the line names no index: the request's id joins it.

    It can, for the line is written after the guard has answered, when the decision is durable.
    """
    rig.hold()
    client = h2.connection.H2Connection()
    two = Two(rig)
    with rig.connected(0, two.context) as connection:
        client.initiate_connection()
        client.send_headers(1, list(PLAIN), end_stream=True)
        connection.sendall(client.data_to_send())
        rig.until(lambda: bool(rig.guarded))
        client.reset_stream(1)
        client.ping(b"received")
        connection.sendall(client.data_to_send())
        answered = False
        while not answered:
            events = client.receive_data(connection.recv(65536))
            answered = any(isinstance(event, h2.events.PingAckReceived) for event in events)
        assert not rig.new_lines()
        rig.go_on()
        line = rig.line()
    assert line["i"] == rig.guarded[0].one("Gatebook-Request-Id")
    assert (line["d"], line["q"]) == ("", "/two")
    assert not rig.forwarded
