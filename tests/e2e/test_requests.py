"""Requests of every kind, through the real nginx, guard and recorder: what the client gets, what is on record."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import time
from typing import Any

import httpx2
import pytest
import websockets.sync.client
from tests.e2e.deployment import Deployment, until

ALLOWED = "/orders/7/ok"


def receipt(answer: httpx2.Response) -> int:
    """The index of the decision's entry."""
    origin, _, index = answer.headers["Gatebook-Receipt"].rpartition("/")
    assert origin == "acme/node-1"
    return int(index)


def problem(answer: httpx2.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    assert found["request_id"] == answer.headers["X-Request-ID"]
    return found


def test_allowed_request_reaches_the_upstream_and_both_halves_are_on_record(running: Deployment) -> None:
    token = running.reader("alice")
    answer = running.ask(
        "/orders/7?page=2&secret=no", token, headers={"User-Agent": "audit/1", "X-Request-ID": "mine"}
    )
    assert answer.status_code == 200
    found = running.access(answer.headers["X-Request-ID"])
    assert found["decision_index"] == receipt(answer)
    assert found["outcome_index"] > found["decision_index"]
    assert found["origin"] == "acme/node-1"
    assert found["decision"]["verdict"] == "allow"
    assert found["decision"]["rule"] == "readers"
    assert found["decision"]["durability"] == "before-access"
    assert found["decision"]["configuration"] == running.status()["configuration"]
    assert found["identity"]["provider"] == "staff"
    assert found["identity"]["method"] == "oidc"
    assert found["identity"]["client"] == "web"
    assert found["identity"]["roles"] == ["reader"]
    assert re.fullmatch(r"[0-9a-f]{32}", found["identity"]["subject"])
    assert re.fullmatch(r"[0-9a-f]{32}", found["identity"]["credential"])
    assert found["request"]["method"] == "GET"
    assert found["request"]["path"] == "/orders/7"
    assert found["request"]["route"] == "read-order"
    assert found["request"]["headers"] == {"user-agent": "audit/1"}
    assert found["request"]["claimed_id"] == "mine"
    assert "query" not in found["request"]
    assert found["client"]["address"] == "127.0.0.0/24"
    assert found["tls"]["version"] == "1.3"
    assert found["tls"]["sni"] == "localhost"
    assert found["response"]["status"] == 200
    assert found["response"]["complete"] is True
    assert found["response"]["duration_us"] >= 0
    assert found["upstream"]["status"] == 200
    assert found["upstream"]["name"] == "orders"
    assert "error" not in found
    (seen,) = [s for s in running.upstream.seen if s.one("Gatebook-Request-Id") == found["id"]]
    assert seen.one("Gatebook-Subject") == "alice"
    assert seen.one("Gatebook-Roles") == "reader"
    assert seen.one("Gatebook-Receipt") == answer.headers["Gatebook-Receipt"]


def refusal(running: Deployment, answer: httpx2.Response, status: int, reason: str, source: str) -> dict[str, Any]:
    """The denial as the client and as the record tell it."""
    problem(answer, status)
    found = running.access(answer.headers["X-Request-ID"])
    assert found["decision"]["verdict"] == "deny"
    assert found["decision"]["status"] == status
    assert found["decision"]["reason"] == reason
    assert found["response"]["status"] == status
    assert found["error"]["source"] == source
    assert found["id"] not in running.upstream.ids()
    return found


def test_status_says_how_it_stands_to_people_and_to_scripts(running: Deployment) -> None:
    told = json.loads(running.cli("status", "--json", "-c", str(running.config)).stdout)
    assert told["ready"] is True
    assert told["configuration"] == running.status()["configuration"]
    said = running.cli("status", "-c", str(running.config)).stdout
    assert said.startswith("ready: https://127.0.0.1:")
    assert [line.split()[0] for line in said.splitlines()[-3:]] == ["recorder", "guard", "gateway"]


def test_no_token_is_401(running: Deployment) -> None:
    answer = running.ask("/orders/1")
    refusal(running, answer, 401, "credential_missing", "client")
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="acme"'


def test_expired_token_is_401_and_tells_whose_it_was(running: Deployment) -> None:
    now = int(time.time())
    answer = running.ask("/orders/1", running.reader(iat=now - 600, exp=now - 300))
    found = refusal(running, answer, 401, "token_expired", "client")
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert "subject" not in found.get("identity", {})


def test_token_of_another_key_is_401(running: Deployment) -> None:
    from joserfc.jwk import RSAKey

    forged = running.reader(key=RSAKey.generate_key(2048))
    refusal(running, running.ask("/orders/1", forged), 401, "token_signature", "client")


def test_wrong_role_is_403(running: Deployment) -> None:
    token = running.issuer.token("bob", roles=["visitor"])
    found = refusal(running, running.ask("/orders/1", token), 403, "no_rule", "policy")
    assert found["identity"]["roles"] == ["visitor"]


def test_condition_over_claims_and_headers(running: Deployment) -> None:
    token = running.issuer.token(tenant="blue")
    assert running.ask("/tenants/1", token, headers={"X-Tenant": "blue"}).status_code == 200
    refused = running.ask("/tenants/1", token, headers={"X-Tenant": "red"})
    refusal(running, refused, 403, "no_rule", "policy")


def test_unknown_path_is_404_even_with_a_token(running: Deployment) -> None:
    refusal(running, running.ask("/nowhere", running.reader()), 404, "no_route", "policy")


def test_unknown_method_is_405(running: Deployment) -> None:
    answer = running.ask("/orders/1", running.reader(), "DELETE")
    refusal(running, answer, 405, "method_not_allowed", "policy")
    assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("path", "by"),
    [
        ("/orders/../admin", "guard"),
        ("//orders/1", "guard"),
        ("/orders/%2e%2e/x", "guard"),
        ("/orders/a%2Fb", "guard"),
        ("/orders/%00", "gateway"),  # nginx will not even read it
    ],
)
def test_path_that_is_not_canonical_is_400(running: Deployment, path: str, by: str) -> None:
    with socket.create_connection(("127.0.0.1", running.plain_port), timeout=10) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        said = b"".join(iter(lambda: raw.recv(65536), b""))
    assert said.startswith(b"HTTP/1.1 400 ")
    found = re.search(rb"X-Request-ID: ([0-9a-f]{32})", said)
    assert found is not None
    record = running.access(found[1].decode())
    assert record["response"]["status"] == 400
    assert record["error"]["source"] == "client"
    assert ("decision" in record) == (by == "guard")
    if by == "guard":
        assert record["decision"]["reason"] == "path_not_canonical"


def test_control_byte_in_a_header_field_is_400_and_the_clients_doing(running: Deployment) -> None:
    """nginx passes it on; nobody shall make the guard look broken by it."""
    with socket.create_connection(("127.0.0.1", running.plain_port), timeout=10) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Name: a\x01b\r\nConnection: close\r\n\r\n")
        said = b"".join(iter(lambda: raw.recv(65536), b""))
    assert said.startswith(b"HTTP/1.1 400 ")
    found = re.search(rb"X-Request-ID: ([0-9a-f]{32})", said)
    assert found is not None
    record = running.access(found[1].decode())
    assert (record["error"]["source"], record["error"]["detail"]) == ("client", "request_malformed")
    assert "decision" not in record


def test_throttled_is_429_and_says_until_when(running: Deployment) -> None:
    token = running.reader("carol")
    assert [running.ask("/scarce", token).status_code for _ in range(2)] == [200, 200]
    answer = running.ask("/scarce", token)
    found = refusal(running, answer, 429, "limit_exceeded", "limit")
    assert 0 < int(answer.headers["Retry-After"]) <= 1800
    assert answer.headers["RateLimit-Policy"] == '"few";q=2;w=3600'
    assert found["limit"] == {
        "name": "few",
        "limit": 2,
        "remaining": 0,
        "reset_s": found["limit"]["reset_s"],
        "retry_after_s": int(answer.headers["Retry-After"]),
    }
    assert running.ask("/scarce", running.reader("dave")).status_code == 200


def test_upstream_that_is_down_is_502_and_named_as_the_cause(running: Deployment) -> None:
    answer = running.ask("/down", running.reader())
    problem(answer, 502)
    found = running.access(answer.headers["X-Request-ID"])
    assert found["decision"]["verdict"] == "allow"
    assert found["error"]["source"] == "upstream"
    assert found["error"]["detail"] == "connect_refused"


@pytest.mark.parametrize(
    ("behaviour", "status", "source"),
    [
        ("hang", 504, "upstream"),
        ("reset", 502, "upstream"),
        ("500", 500, "upstream"),
    ],
)
def test_bad_upstreams(running: Deployment, behaviour: str, status: int, source: str) -> None:
    answer = running.ask(f"/orders/{behaviour}", running.reader())
    assert answer.status_code == status
    found = running.access(answer.headers["X-Request-ID"])
    assert found["error"]["source"] == source
    assert found["response"]["status"] == status


def test_upstream_that_speaks_no_http_is_named_as_the_cause(running: Deployment) -> None:
    """nginx takes such an answer for HTTP/0.9 and passes it on, in plain HTTP/1.1: no client takes it for one."""
    token = running.reader("garbage-reader")
    head = f"GET /orders/garbage HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    said = raw(running, head.encode())
    assert not said.startswith(b"HTTP/")  # read to its end: a client that leaves would be the cause itself
    found = until(
        lambda: [r for r in running.log() if r["request"]["path"] == "/orders/garbage" and not r.get("open")]
    )
    assert found[-1]["error"]["source"] == "upstream"
    assert found[-1]["error"]["detail"] == "invalid_response"


def test_upstream_that_trickles_is_waited_for(running: Deployment) -> None:
    answer = running.ask("/orders/trickle", running.reader())
    assert answer.content == b"." * 20
    assert running.access(answer.headers["X-Request-ID"])["response"]["complete"] is True


def test_upstream_that_stops_halfway_is_on_record_as_incomplete(running: Deployment) -> None:
    with pytest.raises(httpx2.RemoteProtocolError):
        running.ask("/orders/torn", running.reader("torn-reader"))
    found = until(lambda: [r for r in running.log() if r["request"]["path"] == "/orders/torn" and "response" in r])
    assert found[-1]["error"]["source"] in ("upstream", "network")


def test_public_route_needs_nobody(running: Deployment) -> None:
    answer = running.ask("/healthz")
    assert answer.status_code == 200
    found = running.access(answer.headers["X-Request-ID"])
    assert found["decision"]["reason"] == "public"
    assert "identity" not in found


def test_api_key_from_the_command_line_opens_and_its_revocation_closes(running: Deployment) -> None:
    made = running.cli(
        *("key", "create", "--identity", "partners", "--roles", "reader", "--ttl", "1h", "--json"),
        *("-c", str(running.config)),
    )
    key = json.loads(made.stdout)
    secret = next(value for value in key.values() if isinstance(value, str) and value.startswith("gbk_"))
    headers = {"X-API-Key": secret}
    until(lambda: running.ask("/orders/1", headers=headers).status_code == 200, "the key to work")
    running.cli("key", "revoke", key["id"], "-c", str(running.config))
    until(lambda: running.ask("/orders/1", headers=headers).status_code == 401, "the key to be refused", 5)
    acts = [r["action"] for r in running.log("--all") if r.get("kind") == "admin"]
    assert {"key.create", "key.revoke"} <= set(acts)


# -- what nginx refuses before the guard --------------------------------------------------------------------
def raw(running: Deployment, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", running.plain_port), timeout=10) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_header_of_100_kilobytes_is_refused_and_recorded(running: Deployment) -> None:
    count = len(running.log())
    said = raw(running, b"GET /orders/1 HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n")
    assert said.split(b" ", 2)[1] in (b"400", b"431")
    (found,) = until(lambda: running.log()[count:])
    assert found["error"] == {**found["error"], "source": "client", "detail": "header_too_large"}
    assert "decision" not in found


def test_malformed_request_is_recorded(running: Deployment) -> None:
    count = len(running.log())
    assert raw(running, b"GET /\x01 HTTP/9.9\r\n\r\n").split(b" ", 2)[1] in (b"400", b"505")
    (found,) = until(lambda: running.log()[count:])
    assert found["error"]["source"] == "client"


def test_body_over_the_limit_is_413(running: Deployment) -> None:
    token = running.issuer.token(roles=["admin"])
    answer = running.ask("/orders", token, "POST", content=bytes((10 << 20) + 1))
    problem(answer, 413)
    found = running.access(answer.headers["X-Request-ID"])
    assert found["error"]["detail"] == "body_too_large"


def test_tls_1_1_is_refused_and_recorded(running: Deployment) -> None:
    count = len(running.log())
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain)
    (found,) = until(lambda: running.log()[count:])
    assert found["error"]["detail"] == "tls_handshake_failed"
    assert found["error"]["source"] == "client"


# -- protocols ----------------------------------------------------------------------------------------------
def test_http_2_passes(running: Deployment) -> None:
    with running.client(http2=True, http1=False) as client:
        token = running.reader()
        answers = [client.get(f"/orders/{n}", headers={"Authorization": f"Bearer {token}"}) for n in range(5)]
    assert {(a.http_version, a.status_code) for a in answers} == {("HTTP/2", 200)}
    assert running.access(answers[-1].headers["X-Request-ID"])["request"]["protocol"] == "2"


def test_websocket_passes_and_its_end_is_its_outcome(running: Deployment) -> None:
    token = running.reader("socket")
    with websockets.sync.client.connect(
        f"wss://localhost:{running.port}/orders/socket",
        ssl=running.tls,
        additional_headers={"Authorization": f"Bearer {token}"},
        compression=None,
        proxy=None,
    ) as connection:
        connection.send("hello")
        assert connection.recv() == "hello"
        assert connection.response is not None
        request_id = connection.response.headers["X-Request-ID"]
    assert running.access(request_id)["response"]["status"] == 101


def test_websocket_without_a_token_is_refused(running: Deployment) -> None:
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        websockets.sync.client.connect(
            f"wss://localhost:{running.port}/orders/socket", ssl=running.tls, proxy=None
        )
    assert refused.value.response.status_code == 401


def test_events_arrive_as_they_are_sent(running: Deployment) -> None:
    with (
        running.client() as client,
        client.stream("GET", "/orders/events", headers={"Authorization": f"Bearer {running.reader()}"}) as answer,
    ):
        parts = [part for part in answer.iter_raw() if part]
    assert len(parts) == 3


def test_upload_is_streamed_and_counted(running: Deployment) -> None:
    token = running.issuer.token(roles=["admin"])
    answer = running.ask("/orders", token, "POST", content=bytes(3 << 20))
    assert answer.text == f"{3 << 20} bytes"
    assert running.access(answer.headers["X-Request-ID"])["response"]["bytes_in"] > 3 << 20


def test_large_download_passes(running: Deployment) -> None:
    answer = running.ask("/orders/huge", running.reader())
    assert len(answer.content) == 8 << 20


def test_client_that_leaves_disturbs_nobody(running: Deployment) -> None:
    token = running.reader()
    request = f"GET /orders/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", running.plain_port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(request)
    assert running.ask("/orders/1", token).status_code == 200
    until(lambda: running.status()["open_decisions"] == 0, "every decision to have its outcome")


# -- privacy ------------------------------------------------------------------------------------------------
def test_nothing_of_a_person_or_credential_lies_about_in_clear(running: Deployment) -> None:
    """A token, its subject, the client's own header and query: in no file of ours, nor in what was logged."""
    token = running.reader("zachariah.personal@example.com")
    answer = running.ask("/orders/9?card=4111111111111111", token, headers={"X-Ssn": "078-05-1120"})
    running.access(answer.headers["X-Request-ID"])
    signature = token.rpartition(".")[2]
    needles = [b"zachariah", signature.encode(), b"4111111111111111", b"078-05-1120"]
    for folder in (running.paths.state, running.paths.runtime):
        for path in folder.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                assert not [needle for needle in needles if needle in data], path
    said = running.said().encode()
    assert not [needle for needle in needles if needle in said]


def test_files_are_ours_alone(running: Deployment) -> None:
    for folder in (running.paths.state, running.paths.runtime):
        assert folder.stat().st_mode & 0o777 == 0o700
        for path in folder.rglob("*"):
            if path.suffix != ".pub":  # for everybody, where the folders let them
                assert os.lstat(path).st_mode & 0o007 == 0, path


def test_spoofed_fields_reach_neither_guard_nor_upstream(running: Deployment) -> None:
    answer = running.ask(
        "/orders/1",
        running.reader(),
        headers={"Gatebook-Subject": "root", "Gatebook-Roles": "admin", "X-Forwarded-For": "8.8.8.8"},
    )
    (seen,) = [s for s in running.upstream.seen if s.one("Gatebook-Request-Id") == answer.headers["X-Request-ID"]]
    assert seen.one("Gatebook-Subject") == "alice"
    assert seen.one("Gatebook-Roles") == "reader"
    assert seen.one("X-Forwarded-For") == "127.0.0.1"
