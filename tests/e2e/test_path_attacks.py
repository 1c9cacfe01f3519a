"""Paths and headers by which policy and upstream could come to see different resources, through all of gatebook.

Anybody may read /public/{rest...} and /items/{id}, but not /items/secret; only an admin may reach /admin/{rest...}
or delete an item. An attack is refused, or the upstream gets byte for byte what was decided on, and no way to
read it is another route's.
"""

from __future__ import annotations

import re
import socket
from typing import NamedTuple

import pytest
from tests.e2e.deployment import Deployment, until
from tests.policy.conftest import configuration_of
from tests.policy.test_route import respelt

from gatebook.policy import Match, Routes

TABLE = Routes(configuration_of("/public/{rest...}", "/admin/{rest...}", "/items/{id}", "/items/secret"))
UPSTREAMS = ("nginx", "tomcat", "express", "twice")


class Said(NamedTuple):
    status: int
    request_id: str


def send(running: Deployment, target: str, *fields: str, method: str = "GET") -> Said:
    """One request, its bytes as they are."""
    lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", *fields, "", ""]
    with socket.create_connection(("127.0.0.1", running.plain_port), timeout=10) as raw:
        raw.sendall("\r\n".join(lines).encode("latin-1"))
        data = b"".join(iter(lambda: raw.recv(65536), b""))
    found = re.search(rb"X-Request-ID: ([0-9a-f]{32})", data)
    assert found is not None, data
    return Said(int(data.split(b" ", 2)[1]), found[1].decode())


def assert_refused(running: Deployment, target: str, *statuses: int) -> None:
    said = send(running, target)
    assert said.status in statuses, said
    assert said.request_id not in running.upstream.ids()


def assert_same_to_all(running: Deployment, target: str, *fields: str, method: str = "GET") -> None:
    """Let through; and the upstream has got just that, whichever kind of server it is."""
    said = send(running, target, *fields, method=method)
    assert said.status == 200
    (seen,) = [seen for seen in running.upstream.seen if seen.one("Gatebook-Request-Id") == said.request_id]
    assert seen.line == f"{method} {target} HTTP/1.1"
    path = target.partition("?")[0]
    own = TABLE.match(method, path)
    assert isinstance(own, Match)
    for kind in UPSTREAMS:
        other = TABLE.match(method, respelt(path, kind).replace(" ", "%20"))
        assert isinstance(other, Match)
        assert other.route.path == own.route.path


ATTACKS: dict[str, list[str]] = {
    "dot segments": [
        "/public/../admin/x",
        "/public/./../admin/x",
        "/public/a/../../admin/x",
        "/public/..",
        "/../admin/x",
    ],
    "encoded dot segments": [
        "/public/%2e%2e/admin/x",
        "/public/%2E%2E/admin/x",
        "/public/.%2e/admin/x",
        "/public/%2e./admin/x",
        "/public/%2e%2e%2fadmin/x",
    ],
    "encoded slashes": [
        "/public/..%2fadmin/x",
        "/public/..%2Fadmin/x",
        "/public%2f..%2fadmin/x",
        "/public/a%2f..%2f..%2fadmin",
    ],
    "backslashes": ["/public/..\\admin\\x", "/public/..%5cadmin/x", "/public\\..\\admin/x", "/public/%5c../admin"],
    "path parameters": [
        "/public/..;/admin/x",
        "/public/..;a=b/admin/x",
        "/public;/../admin/x",
        "/admin;x/y",
        "/;/admin/x",
        "/public/%3b/..;/admin",
    ],
    "empty segments": ["//admin/x", "/public//../admin/x", "/public//admin/x", "///admin/x", "/public/a//"],
    "double and mixed encodings": [
        "/public/%252e%252e/admin/x",
        "/public/..%252fadmin/x",
        "/public/%25252e%25252e/admin/x",
        "/public/%25%32%65%25%32%65/admin/x",
        "/public/%u002e%u002e/admin/x",
        "/public/%25u002e%25u002e/admin/x",
        "/public/.%252e/admin/x",
        "/%61dmin/x",
    ],
    "overlong UTF-8": [
        "/public/%c0%ae%c0%ae/admin/x",
        "/public/..%c0%afadmin/x",
        "/public/%e0%80%ae%e0%80%ae/admin/x",
        "/public/%f0%80%80%ae%f0%80%80%ae/admin/x",
        "/public/..%c1%9cadmin/x",
    ],
    "look-alikes of separators": [
        "/public/%ef%bc%8e%ef%bc%8e/admin/x",
        "/public/..%ef%bc%8fadmin/x",
        "/public/a%e2%84%80b",
        "/public/%e2%80%a5/admin/x",
        "/public/a%ef%b9%a8b",
        "/public/a%ef%bc%85%32%65",
    ],
    "control bytes": ["/public/a%00.html", "/public/a%0d%0aX: y", "/public/a%0aGET", "/public/a%7f"],
    "names that Windows takes for others": ["/public/admin.", "/public/admin%20", "/public/a::$DATA", "/admin./x"],
    "bytes beyond ASCII": ["/public/\xe9", "/public/\xc0\xae\xc0\xae/admin"],
}


@pytest.mark.parametrize("target", ATTACKS["dot segments"])
def test_dot_segments_climb_out_of_no_route(running: Deployment, target: str) -> None:
    assert_refused(running, target, 400)


@pytest.mark.parametrize("target", ATTACKS["encoded dot segments"])
def test_encoded_dot_segments_climb_out_of_no_route(running: Deployment, target: str) -> None:
    assert_refused(running, target, 400)


@pytest.mark.parametrize("target", ATTACKS["encoded slashes"])
def test_encoded_slash_divides_no_segment(running: Deployment, target: str) -> None:
    assert_refused(running, target, 400)


@pytest.mark.parametrize("target", ATTACKS["backslashes"])
def test_backslash_is_no_separator(running: Deployment, target: str) -> None:
    assert_refused(running, target, 400)


@pytest.mark.parametrize("target", ATTACKS["path parameters"])
def test_path_parameter_after_a_semicolon_hides_no_segment(running: Deployment, target: str) -> None:
    assert_refused(running, target, 400)


@pytest.mark.parametrize("target", ATTACKS["empty segments"])
def test_double_slash_is_not_merged_away(running: Deployment, target: str) -> None:
    assert_refused(running, target, 400)


@pytest.mark.parametrize("target", ATTACKS["double and mixed encodings"])
def test_double_and_mixed_encodings_are_not_decoded_twice(running: Deployment, target: str) -> None:
    assert_refused(running, target, 400)


@pytest.mark.parametrize("target", ATTACKS["overlong UTF-8"])
def test_overlong_utf_8_is_no_letter(running: Deployment, target: str) -> None:
    assert_refused(running, target, 400)


@pytest.mark.parametrize("target", ATTACKS["look-alikes of separators"])
def test_unicode_look_alike_is_no_separator(running: Deployment, target: str) -> None:
    assert_refused(running, target, 400)


@pytest.mark.parametrize("target", ATTACKS["control bytes"])
def test_control_byte_ends_no_path_and_starts_no_line(running: Deployment, target: str) -> None:
    assert_refused(running, target, 400)


@pytest.mark.parametrize("target", ATTACKS["names that Windows takes for others"])
def test_name_that_windows_takes_for_another_is_refused(running: Deployment, target: str) -> None:
    assert_refused(running, target, 400)


@pytest.mark.parametrize("target", ATTACKS["bytes beyond ASCII"])
def test_raw_byte_beyond_ascii_is_refused(running: Deployment, target: str) -> None:
    assert_refused(running, target, 400)


@pytest.mark.parametrize(
    "target", ["/ADMIN/x", "/Admin/x", "/%EF%BD%81dmin/x", "/adm%C4%B1n/x", "/admi%E2%80%8Dn/x"]
)
def test_letter_case_and_look_alike_letters_reach_no_laxer_route(running: Deployment, target: str) -> None:
    assert_refused(running, target, 404)


@pytest.mark.parametrize(
    "target", ["/items/secret", "/items/Secret", "/items/SECRET", "/items/%EF%BD%93ecret", "/items/%C5%BFecret"]
)
def test_letter_case_and_look_alike_letters_slip_past_no_deny(running: Deployment, target: str) -> None:
    assert_refused(running, target, 403)


def test_absolute_target_is_judged_by_its_path(running: Deployment) -> None:
    assert_refused(running, "http://public/admin/x", 400, 401)
    assert_refused(running, "http://x/admin/x?/public/", 400, 401)


def test_fragment_and_asterisk_are_no_paths(running: Deployment) -> None:
    for target in ("/public/a#/../admin", "*", "public/a"):
        assert_refused(running, target, 400)


@pytest.mark.parametrize(
    "target",
    [
        "/public/a",
        "/public/a?/../../admin/x",
        "/public/a?x=%2e%2e%2fadmin",
        "/public/..a/...b/c",
        "/public/admin/x",
        "/public/a%20b/%C3%A9",
        "/public/A/b/",
        "/items/secrets",
    ],
)
def test_what_is_let_through_is_one_resource_to_policy_and_upstream(running: Deployment, target: str) -> None:
    assert_same_to_all(running, target)


OVERRIDES = ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "x-http-METHOD-override"]


@pytest.mark.parametrize("name", OVERRIDES)
def test_method_override_header_changes_no_method(running: Deployment, name: str) -> None:
    """Rails, Spring, ASP.NET and others would delete the item, which only an admin may."""
    said = send(running, "/items/7", f"{name}: DELETE", f"{name}: PUT")
    assert said.status == 200
    (seen,) = [seen for seen in running.upstream.seen if seen.one("Gatebook-Request-Id") == said.request_id]
    assert seen.line == "GET /items/7 HTTP/1.1"
    assert name.lower() not in seen.names


@pytest.mark.parametrize(
    "name", ["X-Original-URL", "X-Rewrite-URL", "X-Original-URI", "X-Forwarded-Path", "X-Forwarded-Uri"]
)
def test_url_override_header_changes_no_path(running: Deployment, name: str) -> None:
    """IIS, Symfony and others would serve /admin/x."""
    said = send(running, "/public/a", f"{name}: /admin/x")
    assert said.status == 200
    (seen,) = [seen for seen in running.upstream.seen if seen.one("Gatebook-Request-Id") == said.request_id]
    assert seen.line == "GET /public/a HTTP/1.1"
    assert name.lower() not in seen.names


@pytest.mark.parametrize("method", ["get", "Get", "GET\x0b", "G\x00ET", "TRACE", "CONNECT", "PURGE", "DELETE"])
def test_method_spelt_otherwise_or_not_listed_is_refused(running: Deployment, method: str) -> None:
    said = send(running, "/public/a", method=method)
    assert said.status in (400, 405, 501)
    assert said.request_id not in running.upstream.ids()


def test_every_path_attack_is_on_record_with_its_reason(running: Deployment) -> None:
    """As a decision, or, where nginx would not even read it, as an outcome without one."""
    sent = {send(running, target).request_id: target for targets in ATTACKS.values() for target in targets}

    def recorded() -> dict[str, str]:
        found = {}
        for access in running.log("--since", "10m"):
            if access.get("id") in sent and "outcome_index" in access:
                found[access["id"]] = access.get("decision", {}).get("reason", "refused by the gateway")
        return found if len(found) == len(sent) else {}

    reasons = until(recorded, "all records")
    assert set(reasons.values()) == {"path_not_canonical", "refused by the gateway"}
    by_gateway = {sent[each] for each, reason in reasons.items() if reason == "refused by the gateway"}
    unread = {"/../admin/x", "/public/%u002e%u002e/admin/x", "/public/a%00.html", "/public/a%0d%0aX: y"}
    assert by_gateway <= unread
