"""Why a request found no route: the right words, and none where there is nothing to say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.policy.conftest import configuration_of
from tests.policy.test_path import CANONICAL, HOSTILE, paths

from gatebook.policy import Match, Routes
from gatebook.policy.near import near, why_not_canonical

WORDS = {
    "double slash": "it has an empty segment (//)",
    "leading double slash": "it has an empty segment (//)",
    "dot-dot segment": "the segment '..' ends in a dot",
    "trailing dot": "the segment 'admin.' ends in a dot",
    "encoded dot-dot": "%2e is a needless escape of '.'",
    "encoded slash": "%2f is an escape of '/', which somebody would take for structure",
    "encoded NUL": r"%00 is an escape of '\x00', which somebody would take for structure",
    "encoded letter": "%61 is a needless escape of 'a'",
    "doubly encoded slash": "%252f is an escape of an escape",
    "doubly encoded IIS letter": "%25u0061 is an escape of an escape",
    "path parameter": "';' is never accepted",
    "backslash": r"'\\' is never accepted",
    "space": "' ' may only be sent percent-encoded",
    "raw letter beyond ASCII": "'ä' may only be sent percent-encoded",
    "bad escape": "'%zz' is no percent-escape",
    "stray percent": "'%' is no percent-escape",
    "IIS escape": "'%u0' is no percent-escape",
    "alternate data stream, encoded": "':$' names a file's other stream on Windows",
    "overlong slash": "the segment 'a%c0%afb' is no UTF-8",
    "space at the end, encoded": "the segment 'admin%20' begins or ends with a space",
    "no leading slash": "it does not begin with /",
    "too long": "it is longer than 2048 bytes",
}


@pytest.mark.parametrize("name", WORDS)
def test_hostile_path_is_told_in_words(name: str) -> None:
    assert why_not_canonical(HOSTILE[name]) == WORDS[name]


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "question mark inside"])
def test_every_hostile_path_has_a_reason_of_its_own(name: str) -> None:
    assert why_not_canonical(HOSTILE[name]) not in (None, "it could be read in more than one way")


@pytest.mark.parametrize("path", CANONICAL)
def test_canonical_path_has_none(path: str) -> None:
    assert why_not_canonical(path) is None


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("a b", "the query holds a space, a control byte or #"),
        ("a" * 9000, "the query is longer than 8192 bytes"),
        ("a=//../;", None),
    ],
)
def test_query_is_told_too(query: str, words: str | None) -> None:
    assert why_not_canonical("/a?" + query) == words


@given(paths | st.text(max_size=20))
def test_reason_is_given_exactly_where_the_matcher_refuses(uri: str) -> None:
    found = Routes(configuration_of("/{rest...}")).match("GET", uri)
    refused = not isinstance(found, Match) and found.reason == "path_not_canonical"
    assert (why_not_canonical(uri) is not None) is refused


ROUTES: list[dict[str, Any] | str] = [
    {"name": "order", "path": "/orders/{order_id}"},
    {"name": "new-order", "path": "/orders", "methods": ["POST"]},
    {"name": "secret", "path": "/files/secret"},
    {"name": "files", "path": "/files/{rest...}"},
    {"name": "deep", "path": "/a/b/c/d/{rest...}"},
]


@pytest.mark.parametrize(
    ("method", "path", "first"),
    [
        ("GET", "/order/7", ("order", "resembles it")),
        ("GET", "/orders/7/", ("order", "differs in letter case, width or a slash at the end")),
        ("GET", "/Orders/7", ("order", "differs in letter case, width or a slash at the end")),
        ("GET", "/files/Secret", ("secret", "differs in letter case, width or a slash at the end")),
        ("GET", "/orders", ("new-order", "has POST")),
        ("GET", "/a/b/c/d/", ("deep", "resembles it")),
    ],
)
def test_route_that_was_meant_comes_first(method: str, path: str, first: tuple[str, str]) -> None:
    route, difference = near(configuration_of(*ROUTES), method, path)[0]
    assert (route.name, difference) == first


@pytest.mark.parametrize("path", ["/zzz/qqq/www", "/orders/..", ""])
def test_nothing_is_near_what_is_nothing_like_it(path: str) -> None:
    assert near(configuration_of(*ROUTES), "GET", path) == []


def test_at_most_three_are_told() -> None:
    assert len(near(configuration_of(*[f"/orders{n}" for n in range(9)]), "GET", "/orders")) == 3
