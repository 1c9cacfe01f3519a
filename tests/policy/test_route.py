"""Routes: which one a request belongs to, and that no spelling of a path reaches a laxer one."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.policy.conftest import Configure, configuration_of

from gatebook.errors import ConfigError
from gatebook.policy import Match, Miss, Routes, problems, warnings


def routes(*given_routes: dict[str, Any] | str) -> Routes:
    return Routes(configuration_of(*given_routes))


def path_of(routes: Routes, uri: str, method: str = "GET") -> str | None:
    found = routes.match(method, uri)
    return found.route.path if isinstance(found, Match) else None


def missed(routes: Routes, uri: str, method: str = "GET") -> Miss:
    found = routes.match(method, uri)
    assert isinstance(found, Miss)
    return found


def test_unknown_path_is_a_miss() -> None:
    found = missed(routes("/orders"), "/order?x=1")
    assert (found.reason, found.path, found.query) == ("no_route", "/order", "x=1")


def test_hostile_path_is_never_looked_up() -> None:
    table = routes("/a/{rest...}")
    assert missed(table, "/a/..%2fadmin").reason == "path_not_canonical"
    assert missed(table, "").reason == "path_not_canonical"
    assert missed(table, "/a/b?x\ny").reason == "path_not_canonical"


def test_query_of_a_literal_path_is_checked_too() -> None:
    assert missed(routes("/healthz"), "/healthz?a#b").reason == "path_not_canonical"


def test_parameters_are_decoded_and_the_path_is_not() -> None:
    found = routes("/orders/{order_id}/lines/{line}").match("GET", "/orders/caf%C3%A9/lines/7?page=2")
    assert isinstance(found, Match)
    assert found.params == {"order_id": "café", "line": "7"}
    assert (found.path, found.query, found.index) == ("/orders/caf%C3%A9/lines/7", "page=2", 0)


def test_parameter_takes_one_segment_that_is_not_empty() -> None:
    table = routes("/orders/{order_id}")
    assert path_of(table, "/orders/") is None
    assert path_of(table, "/orders") is None
    assert path_of(table, "/orders/1/2") is None


def test_rest_takes_one_or_more_segments() -> None:
    table = routes("/files/{rest...}")
    found = table.match("GET", "/files/a%20b/c/")
    assert isinstance(found, Match)
    assert found.params == {"rest": "a b/c/"}
    assert path_of(table, "/files/") is None
    assert path_of(table, "/files") is None


def test_trailing_slash_is_another_path() -> None:
    table = routes("/orders")
    assert path_of(table, "/orders/") is None
    assert path_of(routes("/orders/"), "/orders/") == "/orders/"


def test_root_is_a_path_like_others() -> None:
    assert path_of(routes("/"), "/") == "/"
    assert path_of(routes("/{rest...}"), "/") is None


def test_literals_beat_parameters_beat_the_rest() -> None:
    table = routes("/a/{rest...}", "/a/{x}", "/a/b", "/a/{x}/c", "/{y}/b/c")
    assert path_of(table, "/a/b") == "/a/b"
    assert path_of(table, "/a/z") == "/a/{x}"
    assert path_of(table, "/a/b/c") == "/a/{x}/c"
    assert path_of(table, "/a/b/d") == "/a/{rest...}"
    assert path_of(table, "/z/b/c") == "/{y}/b/c"


def test_literal_that_leads_nowhere_does_not_hide_a_parameter() -> None:
    table = routes("/a/b/c", "/{x}/b/d", "/{x}/{rest...}")
    assert path_of(table, "/a/b/d") == "/{x}/b/d"
    assert path_of(table, "/a/b/e") == "/{x}/{rest...}"


def test_path_decides_before_the_method() -> None:
    """Or DELETE /users/me would be judged by the rules of /users/{id}."""
    table = routes("/users/me", {"path": "/users/{id}", "methods": ["GET", "DELETE"]})
    found = missed(table, "/users/me", "DELETE")
    assert (found.reason, found.allow) == ("method_not_allowed", ("GET", "HEAD"))


def test_routes_share_a_path_by_method_each_with_its_own_parameter_name() -> None:
    table = routes("/o/{a}", {"path": "/o/{b}", "methods": ["PUT", "PATCH"]})
    got, put = table.match("GET", "/o/1"), table.match("PUT", "/o/1")
    assert isinstance(got, Match)
    assert isinstance(put, Match)
    assert (got.params, put.params) == ({"a": "1"}, {"b": "1"})
    assert missed(table, "/o/1", "POST").allow == ("GET", "HEAD", "PATCH", "PUT")


def test_head_follows_get_unless_listed() -> None:
    table = routes("/a", {"path": "/b"}, {"path": "/b", "methods": ["HEAD"]}, {"path": "/c", "methods": ["POST"]})
    assert path_of(table, "/a", "HEAD") == "/a"
    own = table.match("HEAD", "/b")
    assert isinstance(own, Match)
    assert own.index == 2
    assert missed(table, "/c", "HEAD").reason == "method_not_allowed"


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "CONNECT", "get", "", "GET ", "G\x00T", "PROPFIND"])
def test_method_that_is_not_listed_is_refused(method: str) -> None:
    assert missed(routes("/a"), "/a", method).reason == "method_not_allowed"


GUARDED = ("/files/secret", "/files/{name}", "/static/{rest...}", "/static/private/{name}")


@pytest.mark.parametrize(
    "uri",
    [
        "/files/Secret",
        "/files/SECRET",
        "/files/secret/",
        "/files/%EF%BD%93ecret",
        "/files/secre%E2%80%8Dt",
        "/Files/x",
        "/static/Private/x",
        "/static/private/x/",
        "/static/PRIVATE/x/",
    ],
)
def test_lax_spelling_does_not_reach_the_laxer_route(uri: str) -> None:
    """Express and IIS ignore case, Express a trailing slash: there these paths are /files/secret and the like."""
    assert path_of(routes(*GUARDED), uri) is None


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/files/Secrets", "/files/{name}"),
        ("/files/REPORT.pdf", "/files/{name}"),
        ("/static/Private/x/y", "/static/{rest...}"),
        ("/static/css/", "/static/{rest...}"),
        ("/static/private/X", "/static/private/{name}"),
    ],
)
def test_capitals_and_slashes_that_confuse_nobody_pass(uri: str, path: str) -> None:
    assert path_of(routes(*GUARDED), uri) == path


def test_templates_with_capitals_or_slashes_are_guarded_as_well() -> None:
    table = routes("/a/Secret", "/a/{x}", "/b/secret/", "/b/{x}")
    assert path_of(table, "/a/Secret") == "/a/Secret"
    assert path_of(table, "/a/secret") is None
    assert path_of(table, "/b/secret/") == "/b/secret/"
    assert path_of(table, "/b/secret") is None
    assert path_of(table, "/b/other") == "/b/{x}"


def test_encoded_literal_is_the_literal() -> None:
    table = routes("/a@b/{x}", "/caf%C3%A9", "/thé")
    assert path_of(table, "/a%40b/1") == "/a@b/{x}"
    assert path_of(table, "/caf%c3%a9") == "/caf%C3%A9"
    assert path_of(table, "/th%C3%A9") == "/thé"


TEMPLATES = (
    "/",
    "/a",
    "/a/b",
    "/A/c/",
    "/a/{x}",
    "/a/{x}/c",
    "/{x}/b/c",
    "/{x}/{y}",
    "/b/{rest...}",
    "/b/A/{x}",
    "/{x}/c/{rest...}",
)
TABLE = routes(*TEMPLATES)
pieces = st.sampled_from(
    ["a", "b", "c", "A", "B", "%41", "%C3%A9", "x", "..", ".", "%2e%2e", "a;x", "", "%2F", "é"]
)
uris = st.lists(pieces, max_size=6).map(lambda segments: "/" + "/".join(segments))


@given(uris, st.sampled_from(["nginx", "tomcat", "express", "twice"]))
def test_no_upstream_reads_a_path_as_another_route(uri: str, upstream: str) -> None:
    found = TABLE.match("GET", uri)
    if not isinstance(found, Match):
        return
    again = TABLE.match("GET", respelt(found.path, upstream))
    if isinstance(again, Match):
        one, other = found.route.path, again.route.path
        assert one == other or one.lower().rstrip("/") == other.lower().rstrip("/")


def respelt(path: str, upstream: str) -> str:
    """What each kind of server makes of a path before it looks for a handler, spelt canonically again."""
    if upstream == "tomcat":
        path = "/".join(segment.partition(";")[0] for segment in path.split("/"))
    text = unquote(path)
    if upstream == "twice":
        text = unquote(text)
    kept: list[str] = []
    for segment in text.replace("\\", "/").split("/"):
        if segment == "..":
            kept = kept[:-1]
        elif segment not in ("", "."):
            kept.append(segment)
    slash = "/" if text.endswith("/") and kept and upstream != "express" else ""
    text = "/" + "/".join(kept) + slash
    if upstream == "express":
        text = text.lower()
    return "".join(
        letter if letter.isascii() else "".join(f"%{b:02X}" for b in letter.encode()) for letter in text
    )


@given(st.text(max_size=60), st.text(max_size=8))
def test_matching_never_raises(uri: str, method: str) -> None:
    for target in (uri, "/" + uri):
        assert isinstance(TABLE.match(method, target), (Match, Miss))


def simple(template: str, path: str) -> bool:
    """The same question asked of one template alone, without a trie."""
    parts, segments = template[1:].split("/"), path[1:].split("/")
    if parts[-1].endswith("...}"):
        if len(segments) < len(parts):
            return False
        segments = [*segments[: len(parts) - 1], "x" if segments[len(parts) - 1] else ""]
    return len(parts) == len(segments) and all(
        bool(text) if part.startswith("{") else part == text for part, text in zip(parts, segments, strict=True)
    )


PLAIN = tuple(template for template in TEMPLATES if template == template.lower())
PLAIN_TABLE = routes(*PLAIN)


@given(st.lists(st.sampled_from("abcx"), min_size=1, max_size=5).map(lambda names: "/" + "/".join(names)))
def test_trie_finds_what_a_plain_loop_finds(path: str) -> None:
    def rank(template: str) -> list[int]:
        return [2 if p.endswith("...}") else int(p.startswith("{")) for p in template[1:].split("/")]

    fitting = sorted((template for template in PLAIN if simple(template, path)), key=rank)
    assert path_of(PLAIN_TABLE, path) == (fitting[0] if fitting else None)


def test_ten_thousand_routes_are_told_apart() -> None:
    table = routes(*(f"/svc{n % 100}/res{n}/{{id}}" for n in range(10_000)))
    assert path_of(table, "/svc77/res9977/1") == "/svc77/res9977/{id}"
    assert path_of(table, "/svc78/res9977/1") is None


def test_deep_backtracking_ends() -> None:
    table = routes(
        *("/" + "/".join("a" if n >> bit & 1 else f"{{p{bit}}}" for bit in range(8)) for n in range(256))
    )
    assert path_of(table, "/" + "/".join("a" * 8)) == "/a/a/a/a/a/a/a/a"
    assert path_of(table, "/" + "/".join("a" * 900)) is None


BAD_TEMPLATES = {
    "orders": "does not begin with '/'",
    "/a//b": "empty segment",
    "/{rest...}/a": "not the last segment",
    "/{a}/{a}": "names a parameter twice",
    "/{A}": "lower-case name",
    "/{}": "lower-case name",
    "/x{a}": "takes a whole segment",
    "/{a}.json": "takes a whole segment",
    "/../a": "no canonical path",
    "/a;x": "no canonical path",
    "/%2e": "no canonical path",
    "/a b.": "no canonical path",
    "/a?x": "no canonical path",
}


@pytest.mark.parametrize(("path", "message"), BAD_TEMPLATES.items())
def test_template_that_nothing_could_match_is_a_problem(configure: Configure, path: str, message: str) -> None:
    found = problems(configure("/ok", path))
    assert len(found) == 1
    assert found[0][0] == ("routes", 1, "path")
    assert message in found[0][1]
    with pytest.raises(ConfigError, match=r"routes\[1\]\.path"):
        Routes(configure("/ok", path))


def test_two_routes_for_one_path_and_method_are_a_problem(configure: Configure) -> None:
    found = problems(configure("/o/{a}", {"path": "/o/{b}", "methods": ["PUT", "GET"]}))
    assert [(place, said) for place, said, _ in found] == [
        (("routes", 1, "methods", 1), "GET on these paths already belongs to route r0")
    ]


def test_two_routes_of_one_name_are_a_problem(configure: Configure) -> None:
    found = problems(configure({"path": "/a", "name": "x"}, {"path": "/b", "name": "x"}))
    assert [place for place, _, _ in found] == [("routes", 1, "name")]


def test_templates_that_differ_in_case_only_are_warned_of(configure: Configure) -> None:
    assert [place for place, _, _ in warnings(configure("/Orders/{a}", "/orders/{b}/"))] == [("routes", 1, "path")]
    assert warnings(configure("/orders/{a}", {"path": "/orders/{b}", "methods": ["PUT"]})) == []
