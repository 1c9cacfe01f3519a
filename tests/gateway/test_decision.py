"""The guard decides, and only the guard: what it is asked, what its answers do, what its silence does."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.gateway.message import allow, deny, guard_says
from tests.gateway.rig import Rig

from gatebook.wire import DENIAL_STATUSES, FROM_GUARD, LogLine


def test_allowed_request_reaches_the_upstream_that_the_guard_named(rig: Rig) -> None:
    answer = rig.ask("/orders/7?page=2")
    assert (answer.status, answer.body) == (200, b"ok")
    assert answer.one("Gatebook-Receipt") == "acme/node-1/41"
    (asked,), (forwarded,) = rig.guarded, rig.forwarded
    assert forwarded.line == "GET /orders/7?page=2 HTTP/1.1"
    assert asked.one("Gatebook-Request-Id") == answer.one("X-Request-ID") == forwarded.one("X-Request-ID")


def test_guard_learns_what_was_asked(rig: Rig) -> None:
    rig.ask("/a?b=c", "Authorization: Bearer x", "X-Request-ID: mine", method="PATCH", body=b"12345")
    (asked,) = rig.guarded
    told = {name.lower(): value for name, value in asked.headers}
    assert told["gatebook-method"] == "PATCH"
    assert told["gatebook-uri"] == "/a?b=c"
    assert told["gatebook-host"] == "api.example:8443"
    assert told["gatebook-protocol"] == "HTTP/1.1"
    assert told["gatebook-address"] == "127.0.0.1"
    assert told["gatebook-tls"] == "TLSv1.3"
    assert told["gatebook-cipher"].startswith("TLS_")
    assert told["gatebook-sni"] == "localhost"
    assert told["gatebook-connection-request"] == "1"
    assert told["authorization"] == "Bearer x"
    assert told["x-request-id"] == "mine"
    assert int(told["gatebook-worker"]) > 0
    assert "content-length" not in told
    assert "transfer-encoding" not in told
    assert rig.forwarded[0].body == b"12345"


@pytest.mark.parametrize("status", [status for status in DENIAL_STATUSES if status != 303])
def test_denial_never_reaches_an_upstream_and_says_what_the_guard_said(rig: Rig, status: int) -> None:
    rig.decide = lambda seen: deny(status)
    answer = rig.ask("/index.html", method="POST", body=b"x")
    assert answer.status == status
    assert answer.problem()["title"] == "No"
    assert answer.one("Gatebook-Receipt") == "acme/node-1/42"
    assert not rig.forwarded
    line = rig.line()
    assert (line["s"], line["d"], line["r"]) == (str(status), "42", "no_rule")


def test_person_is_sent_to_the_page_that_the_guard_names(rig: Rig) -> None:
    page = "https://api.acme.example/.gatebook/login?provider=staff&return_to=%2F"
    rig.decide = lambda seen: deny(303, Gatebook_Location=page)
    answer = rig.ask("/index.html")
    assert (answer.status, answer.one("Location")) == (303, page)
    assert answer.one("Gatebook-Receipt") == "acme/node-1/42"
    assert not rig.forwarded
    assert rig.line()["s"] == "303"


def test_person_is_told_of_a_denial_by_a_page(rig: Rig) -> None:
    rig.decide = lambda seen: deny(403, Gatebook_Problem="<h1>No</h1>", Gatebook_Type="text/html")
    answer = rig.ask("/index.html")
    assert (answer.status, answer.one("Content-Type"), answer.body) == (403, "text/html", b"<h1>No</h1>")


def test_denial_bears_the_headers_that_its_status_wants(rig: Rig) -> None:
    rig.decide = lambda seen: deny(
        429, Gatebook_Retry_After="7", Gatebook_Ratelimit='"a";r=0;t=7', Gatebook_Ratelimit_Policy='"a";q=9;w=60'
    )
    answer = rig.ask()
    assert answer.one("Retry-After") == "7"
    assert answer.one("RateLimit") == '"a";r=0;t=7'
    assert answer.one("RateLimit-Policy") == '"a";q=9;w=60'
    rig.decide = lambda seen: deny(405, Gatebook_Allow="GET, PUT")
    assert rig.ask().one("Allow") == "GET, PUT"
    rig.decide = lambda seen: deny(401, Gatebook_Authenticate='Bearer realm="acme", error="invalid_token"')
    assert rig.ask().one("WWW-Authenticate") == 'Bearer realm="acme", error="invalid_token"'


def test_cache_poisoning_by_a_denial_fails_since_no_cache_keeps_it(rig: Rig) -> None:
    for status in (401, 403, 404, 405):
        rig.decide = lambda seen, status=status: deny(status)  # type: ignore[misc]
        assert rig.ask("/index.html").one("Cache-Control") == "no-store"
    assert rig.ask("/.gatebook/guard").one("Cache-Control") == "no-store"


def test_head_is_denied_without_a_body(rig: Rig) -> None:
    rig.decide = lambda seen: deny(404)
    answer = rig.ask(method="HEAD")
    assert (answer.status, answer.body) == (404, b"")


@pytest.mark.parametrize("said", ["200", "302", "418", "451", "500", "4010", "", "x"])
def test_denial_with_a_status_that_guards_never_say_is_503(rig: Rig, said: str) -> None:
    rig.decide = lambda seen: guard_says(403, Gatebook_Status=said, Gatebook_Problem="{}")
    answer = rig.ask()
    assert answer.problem()["status"] == 503
    assert answer.one("Retry-After") == "1"
    assert not rig.forwarded


@pytest.mark.parametrize(
    "said",
    [
        guard_says(403),
        guard_says(401),
        guard_says(500),
        guard_says(302, Location="/elsewhere"),
        guard_says(404, Gatebook_Upstream="orders"),
        guard_says(100),
        guard_says(204),
        b"HTTP/1.1 204 X\r\nGatebook-Upstream: orders\r\nX: " + b"x" * 20000 + b"\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"",
        None,
    ],
    ids=["403", "401", "500", "302", "404", "100", "no-upstream", "too-long", "nonsense", "silence", "closes"],
)
def test_answer_that_no_guard_should_give_is_503(rig: Rig, said: bytes | None) -> None:
    rig.decide = lambda seen: said
    answer = rig.ask()
    assert answer.status == 503
    assert answer.problem()["request_id"] == answer.one("X-Request-ID")
    assert answer.one("Retry-After") == "1"
    assert not rig.forwarded
    assert rig.line()["s"] == "503"


@pytest.mark.parametrize(
    "name",
    [
        "nobody",
        "../live",
        "orders/../../live",
        "orders?x",
        "orders%2f",
        "../guard",
        "../problem",
        "@denied",
        "/etc",
    ],
)
def test_upstream_that_is_not_there_is_503_and_never_another_location(rig: Rig, name: str) -> None:
    rig.decide = lambda seen: allow(name)
    answer = rig.ask()
    if name == "orders?x":  # the name ends at the '?', as in every URI
        assert answer.status == 200
        return
    assert answer.status == 503
    assert answer.problem()["title"] == "Service unavailable"
    assert not rig.forwarded
    assert len(rig.guarded) == 1
    assert rig.line()["d"] == "41"


@pytest.mark.parametrize(
    "path",
    [
        "/.gatebook/upstream/orders",
        "/.gatebook/guard",
        "/.gatebook/problem",
        "/.gatebook/",
        "/.gatebook/x",
        "/x/../.gatebook/upstream/orders",
        "/%2egatebook/upstream/orders",
        "/.gatebook/upstream/orders?x=1",
        "/.gatebook%2fupstream/orders",
        "/.gatebook/./upstream/orders",
    ],
)
def test_client_that_asks_for_an_internal_location_gets_404(rig: Rig, path: str) -> None:
    answer = rig.ask(path)
    assert answer.status == 404
    answer.problem()
    assert not rig.forwarded
    assert not rig.guarded
    line = rig.line()
    assert (line["d"], line["s"], line["m"], line["q"]) == ("", "404", "GET", path.partition("?")[0])


def test_guard_that_dies_over_a_request_is_not_asked_about_it_again(rig: Rig) -> None:
    """It may have decided and recorded: a second decision would be a second record of one request."""
    rig.ask()  # leaves a connection open, on which nginx would try again
    rig.reset()
    rig.decide = lambda seen: None
    assert rig.ask().status == 503
    assert len(rig.guarded) == 1


def test_credential_stays_with_one_guard_and_callers_spread_over_all(fresh: Rig) -> None:
    """Or a caller would have each limit as often as there are guards."""
    fresh.start(guard={"processes": 3})
    fields = ["Authorization: Bearer {}", "X-API-Key: {}", "x-machine-key: {}"]
    chosen: set[int] = set()
    for field in fields:
        for caller in range(10):
            fresh.asked.clear()
            for _ in range(3):
                fresh.ask("/", field.format(caller))
            assert len(set(fresh.asked)) == 1
            chosen.update(fresh.asked)
    assert chosen == {0, 1, 2}


def test_path_that_only_resembles_ours_is_the_guards_to_judge(rig: Rig) -> None:
    for path in (
        "//.gatebook/upstream/orders",
        "/x/.gatebook/live",
        "/.gatebookx",
        "/.gatebook",
        "/.GATEBOOK/live",
    ):
        rig.ask(path)
        assert rig.guarded[-1].one("Gatebook-Uri") == path


def test_dead_guard_is_503_at_once_and_its_successor_is_asked_at_once(rig: Rig) -> None:
    rig.ask()  # leaves a connection open
    rig.reset()
    rig.stop_guard()
    try:
        for _ in range(3):
            assert rig.ask().problem()["status"] == 503
        assert rig.ask("/.gatebook/ready").status == 503
        assert rig.ask("/.gatebook/live").status == 200
    finally:
        rig.start_guard()
    assert rig.ask().status == 200
    assert "upstream timed out" not in rig.error_log
    assert [line["s"] for line in rig.settled(4)] == ["503", "503", "503", "200"]


def test_hanging_guard_is_503_after_the_timeout(rig: Rig) -> None:
    rig.hold()
    answer = rig.ask()
    answer.problem()
    assert answer.status == 503
    assert not rig.forwarded
    line = rig.line()
    assert (line["s"], line["d"]) == ("503", "")
    assert float(line["dt"]) >= 0.6  # acknowledgement_timeout and the half second


def test_client_that_leaves_during_the_decision_leaves_a_line_with_its_index(rig: Rig) -> None:
    rig.hold()
    with rig.connected() as connection:
        connection.sendall(b"GET /left HTTP/1.1\r\nHost: x\r\n\r\n")
        rig.until(lambda: bool(rig.guarded))
    rig.until(lambda: _closed_by_client(rig))
    rig.go_on()
    line = rig.line()
    assert line["d"] == "41"


def _closed_by_client(rig: Rig) -> bool:
    """The server's half has seen the client's end: no connection is established any more."""
    port = rig.address()[1]
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return not any(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def test_each_field_of_the_guards_answer_is_picked_up(rig: Rig) -> None:
    told = {name.replace("-", "_"): f"v-{number}" for number, name in enumerate(FROM_GUARD)}
    rig.decide = lambda seen: guard_says(204, **{**told, "Gatebook_Upstream": "orders", "Gatebook_Strip": "1"})
    answer = rig.ask("/", "Authorization: Bearer secret", "X-API-Key: secret", "x-machine-key: secret")
    (forwarded,) = rig.forwarded
    for name in ("Gatebook-Subject", "Gatebook-Roles", "Gatebook-Provider", "Gatebook-Receipt"):
        assert forwarded.one(name) == told[name.replace("-", "_")]
    assert forwarded.one("Gatebook-Request-Id") == answer.one("X-Request-ID")
    assert not {"authorization", "x-api-key", "x-machine-key"} & forwarded.names
    assert answer.one("RateLimit") == told["Gatebook_Ratelimit"]
    assert answer.one("RateLimit-Policy") == told["Gatebook_Ratelimit_Policy"]
    line = rig.line()
    assert (line["d"], line["r"], line["u"]) == (told["Gatebook_Decision"], told["Gatebook_Reason"], "orders")
    assert set(line) <= set(LogLine.__struct_fields__)


def test_decision_with_index_zero_is_a_decision(rig: Rig) -> None:
    rig.decide = lambda seen: allow(Gatebook_Decision="0")
    rig.ask()
    assert "a" not in rig.line()


def test_ready_asks_the_guard_and_leaves_nothing_but_its_number(rig: Rig) -> None:
    rig.decide = lambda seen: guard_says(200)
    assert rig.ask("/.gatebook/ready", "Authorization: secret").status == 200
    assert rig.guarded[0].line == "GET /ready HTTP/1.1"
    assert "authorization" not in rig.guarded[0].names
    rig.decide = lambda seen: guard_says(503)
    assert rig.ask("/.gatebook/ready").status == 503
    assert rig.ask("/.gatebook/live").body == b"live\n"
    assert rig.settled(0) == []
