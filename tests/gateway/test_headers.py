"""What a client says of itself is not believed, and what is ours is not forged, in either direction."""

from __future__ import annotations

import pytest
from tests.gateway.message import allow, deny, responds
from tests.gateway.rig import Rig

from gatebook.gateway.headers import FORGEABLE
from gatebook.wire import FROM_GUARD, TO_GUARD

OURS = {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "api.example:8443"}


@pytest.mark.parametrize("name", [name for name in FORGEABLE if not name.endswith("*")])
def test_forgeable_field_reaches_nobody(rig: Rig, name: str) -> None:
    rig.ask("/", f"{name}: forged", f"{name.lower()}: forged", f"{name.upper()}: forged")
    for seen in (rig.guarded[0], rig.forwarded[0]):
        assert not seen.all(name)


@pytest.mark.parametrize("name", sorted({*TO_GUARD, *FROM_GUARD, "Gatebook-Request-Id", "Gatebook-Anything"}))
def test_forged_gatebook_field_reaches_nobody(rig: Rig, name: str) -> None:
    rig.ask("/", f"{name}: forged", "A: 1", f"{name.upper()}: forged", f"{name.lower()}: forged", "B: 2")
    for seen in (rig.guarded[0], rig.forwarded[0]):
        assert "forged" not in seen.all(name)
        assert seen.one("A") == "1"
        assert seen.one("B") == "2"


def test_many_forged_fields_in_a_row_are_all_cleared(rig: Rig) -> None:
    fields = [f"Gatebook-{number}: forged" for number in range(60)]
    fields += [f"X-Forwarded-{number}: forged" for number in range(60)]
    assert rig.ask("/", *fields).status == 200
    for seen in (rig.guarded[0], rig.forwarded[0]):
        assert "forged" not in [value for _, value in seen.headers]


@pytest.mark.parametrize(
    "name", ["Gatebook_Subject", "Gatebook-Subject ", "Gatebook-Subject\x0b", "Gatebook-Subj\xe9ct"]
)
def test_field_whose_name_is_invalid_is_dropped_or_refused(rig: Rig, name: str) -> None:
    answer = rig.ask("/", f"{name}: forged")
    assert answer.status in (200, 400)
    for seen in rig.guarded + rig.forwarded:
        assert "forged" not in [value for _, value in seen.headers]


def test_forwarding_fields_are_our_own_word(rig: Rig) -> None:
    forged = [f"{name}: forged" for name in (*OURS, "X-Forwarded-Port", "X-Forwarded-User", "X-Forwarded-Prefix")]
    rig.ask("/", *forged, "X-Forwarded-For: 10.1.2.3")
    for seen in (rig.guarded[0], rig.forwarded[0]):
        for name, value in OURS.items():
            assert seen.one(name) == value
        assert seen.one("X-Forwarded-Port") == str(rig.address()[1])
        assert not {"x-forwarded-user", "x-forwarded-prefix"} & seen.names
    assert rig.guarded[0].one("Gatebook-Address") == "127.0.0.1"


def test_trusted_proxy_names_the_client_and_ours_is_appended(fresh: Rig) -> None:
    fresh.start(gateway={"trusted_proxies": ["127.0.0.0/255.0.0.0", "2001:db8::/32"]})
    fresh.ask(
        "/",
        "X-Forwarded-For: 6.6.6.6, 203.0.113.9, 127.0.0.5",
        "X-Forwarded-Proto: http",
        "X-Forwarded-User: forged",
    )
    asked, forwarded = fresh.guarded[0], fresh.forwarded[0]
    assert asked.one("Gatebook-Address") == "203.0.113.9"
    assert forwarded.one("X-Forwarded-For") == "6.6.6.6, 203.0.113.9, 127.0.0.5, 127.0.0.1"
    assert forwarded.one("X-Forwarded-Proto") == "http"
    assert forwarded.one("X-Forwarded-Host") == "api.example:8443"
    assert not forwarded.all("X-Forwarded-User")
    fresh.reset()
    fresh.ask("/")
    assert fresh.forwarded[0].one("X-Forwarded-For") == "127.0.0.1"
    assert fresh.forwarded[0].one("X-Forwarded-Proto") == "https"


def test_proxy_that_is_not_trusted_is_a_client_like_any(fresh: Rig) -> None:
    fresh.start(gateway={"trusted_proxies": ["10.0.0.0/8"]})
    fresh.ask("/", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: http")
    assert fresh.guarded[0].one("Gatebook-Address") == "127.0.0.1"
    for name, value in OURS.items():
        assert fresh.forwarded[0].one(name) == value


def test_request_id_of_the_client_stays_its_claim(rig: Rig) -> None:
    answer = rig.ask("/", "X-Request-ID: mine", "traceparent: 00-aa-bb-01")
    assert rig.guarded[0].one("X-Request-ID") == "mine"
    assert rig.forwarded[0].one("X-Request-ID") == answer.one("X-Request-ID") != "mine"
    assert rig.forwarded[0].one("traceparent") == "00-aa-bb-01"


@pytest.mark.parametrize(
    ("strip", "passes", "proof"),
    [("", True, True), ("0", True, True), ("proof", True, False), ("1", False, False), ("yes", False, False)],
)
def test_credential_is_stripped_when_the_guard_says_so(rig: Rig, strip: str, passes: bool, proof: bool) -> None:
    rig.decide = lambda seen: allow(**({"Gatebook_Strip": strip} if strip else {}))
    rig.ask("/", "Authorization: Bearer a", "X-API-Key: b", "X-Machine-Key: c", "Cookie: d", "DPoP: e")
    asked, forwarded = rig.guarded[0], rig.forwarded[0]
    for name, value in {"Authorization": "Bearer a", "X-API-Key": "b", "X-Machine-Key": "c"}.items():
        assert asked.one(name) == value
        assert forwarded.all(name) == ([value] if passes else [])
    assert forwarded.one("Cookie") == "d"
    assert (asked.one("DPoP"), forwarded.one("DPoP")) == ("e", "e" if proof else None)


def test_nonce_of_the_guards_reaches_the_client_and_an_upstreams_own_does_too(rig: Rig) -> None:
    rig.decide = lambda seen: allow(Gatebook_Dpop_Nonce="ours")
    assert rig.ask("/").one("DPoP-Nonce") == "ours"
    rig.decide = lambda seen: deny(401, Gatebook_Dpop_Nonce="ours")
    assert rig.ask("/").one("DPoP-Nonce") == "ours"
    rig.decide = lambda seen: allow()
    rig.behave = responds(b"HTTP/1.1 401 X\r\nDPoP-Nonce: theirs\r\nContent-Length: 0\r\n\r\n")
    assert rig.ask("/").one("DPoP-Nonce") == "theirs"


def test_identity_fields_are_absent_when_the_guard_named_nobody(rig: Rig) -> None:
    rig.ask("/", "Gatebook-Subject: admin", "Gatebook-Roles: admin", "Gatebook-Provider: staff")
    assert not {"gatebook-subject", "gatebook-roles", "gatebook-provider"} & rig.forwarded[0].names


def test_upstream_is_called_by_its_own_name(rig: Rig) -> None:
    rig.ask("/")
    assert rig.forwarded[0].one("Host") == rig.upstream_host


def test_fields_between_neighbours_end_here(rig: Rig) -> None:
    rig.ask(
        "/",
        "TE: trailers",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Connection: X-Secret",
        "X-Secret: 1",
    )
    names = rig.forwarded[0].names
    assert not {"te", "keep-alive", "proxy-connection", "connection"} & names
    # A client cannot have a field dropped on the way by naming it in Connection: guard and upstream see the same.
    assert rig.guarded[0].one("X-Secret") == rig.forwarded[0].one("X-Secret") == "1"


def test_upstream_cannot_speak_for_gatebook(rig: Rig) -> None:
    forged = "".join(f"{name}: forged\r\n" for name in [*FROM_GUARD, "Gatebook-New", "X-Request-ID"])
    rig.behave = responds(f"HTTP/1.1 200 OK\r\n{forged}Content-Length: 0\r\nX-Own: 1\r\n\r\n".encode())
    answer = rig.ask("/")
    assert answer.one("Gatebook-Receipt") == "acme/node-1/41"
    assert answer.one("X-Request-ID") == rig.guarded[0].one("Gatebook-Request-Id")
    assert [name for name, _ in answer.headers if name.startswith("Gatebook-")] == ["Gatebook-Receipt"]
    assert answer.one("X-Own") == "1"


@pytest.mark.parametrize("to", ["/.gatebook/upstream/large", "/.gatebook/live", "/.gatebook/guard", "/etc/passwd"])
def test_upstream_cannot_send_the_request_elsewhere(rig: Rig, to: str) -> None:
    fields = f"X-Accel-Redirect: {to}\r\nX-Accel-Limit-Rate: 100\r\nX-Accel-Charset: utf-7"
    rig.behave = responds(f"HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: 2\r\n\r\nok".encode())
    answer = rig.ask("/")
    assert answer.body == b"ok"
    assert len(rig.forwarded) == len(rig.guarded) == 1
    assert not [name for name, _ in answer.headers if name.lower().startswith("x-accel")]


@pytest.mark.parametrize("status", [201, 301, 400, 401, 403, 404, 413, 418, 429, 500, 502, 503, 504])
def test_answer_of_the_upstream_passes_as_it_is(rig: Rig, status: int) -> None:
    fields = "Content-Type: text/x-own\r\nWWW-Authenticate: Own\r\nRetry-After: 99\r\nLocation: http://elsewhere/"
    rig.behave = responds(f"HTTP/1.1 {status} Own\r\n{fields}\r\nContent-Length: 3\r\n\r\nown".encode())
    answer = rig.ask("/x.html")
    assert (answer.status, answer.body) == (status, b"own")
    assert answer.one("Content-Type") == "text/x-own"
    assert answer.one("WWW-Authenticate") == "Own"
    assert answer.one("Retry-After") == "99"
    assert answer.one("Location") == "http://elsewhere/"
    assert answer.one("Gatebook-Receipt") == "acme/node-1/41"
    line = rig.line()
    assert (line["s"], line["us"], line["ua"]) == (str(status), str(status), rig.upstream_host)


def test_nothing_tells_nginx_version(rig: Rig) -> None:
    rig.decide = lambda seen: deny(403)
    answers = [rig.ask("/"), rig.ask("/.gatebook/x"), rig.exchange(b"nonsense\r\n\r\n")]
    assert {answer.one("Server") for answer in answers} == {"nginx"}
    assert not any(b"nginx" in answer.body for answer in answers)
