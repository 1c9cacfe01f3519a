"""Sessions, as far as no key is needed: which cookie is ours, which requests are another site's, who navigates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.config.model import SESSION_COOKIE
from gatebook.config.value import is_local_path
from gatebook.identity.session import MAX_BYTES, find, is_cross_site, is_navigation, origin_of
from gatebook.identity.types import Presented, Refusal

NAME = SESSION_COOKIE.encode()
OTHER_PAIRS = st.lists(
    st.sampled_from([b"a=1", b"b=", b"=c", b"d", b"x" + NAME + b"=1", NAME.lower() + b"=1", b""])
)


def cookies(*fields: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"accept", b"*/*"), *((b"cookie", field) for field in fields), (b"x-cookie", NAME + b"=header")]


@given(OTHER_PAIRS, OTHER_PAIRS, st.sampled_from([b";", b"; ", b" ;\t"]))
def test_one_cookie_is_found_wherever_it_stands(before: list[bytes], after: list[bytes], between: bytes) -> None:
    assert find(cookies(between.join([*before, NAME + b"=value", *after]))) == b"value"
    assert find(cookies(*before, NAME + b"=value", *after)) == b"value"
    assert find(cookies(between.join([*before, *after]))) is None


@given(OTHER_PAIRS, st.booleans())
def test_two_are_ambiguous_in_one_field_or_two(among: list[bytes], apart: bool) -> None:
    ours = NAME + b"=value"
    fields = [ours, *among, ours] if apart else [b";".join([ours, *among, ours])]
    assert find(cookies(*fields)) == Refusal("credential_ambiguous")


@given(st.binary(max_size=80))
def test_whatever_is_sent_never_raises_and_never_yields_what_was_not_there(text: bytes) -> None:
    found = find(cookies(text))
    assert not isinstance(found, bytes) or NAME + b"=" + found in text


def test_empty_value_is_a_cookie_and_a_huge_one_is_none() -> None:
    assert find(cookies(NAME + b"=")) == b""
    assert find(cookies(NAME)) is None
    assert find(cookies(NAME + b"=" + b"x" * MAX_BYTES)) == b"x" * MAX_BYTES
    assert find(cookies(NAME + b"=" + b"x" * (MAX_BYTES + 1))) == Refusal("token_malformed")


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        ("GET", {}, False),
        ("HEAD", {"sec-fetch-site": "cross-site"}, False),
        ("OPTIONS", {"sec-fetch-site": "cross-site"}, False),
        ("POST", {"sec-fetch-site": "same-origin"}, False),
        ("POST", {"sec-fetch-site": "none"}, False),
        ("POST", {"sec-fetch-site": "same-site", "origin": "https://api.example"}, True),
        ("POST", {"sec-fetch-site": "cross-site"}, True),
        ("POST", {"sec-fetch-site": ""}, True),
        ("DELETE", {"origin": "https://api.example"}, False),
        ("DELETE", {"origin": "https://api.example:443"}, True),
        ("DELETE", {"origin": "null"}, True),
        ("DELETE", {}, True),
        ("PROPFIND", {}, True),
        ("get", {}, True),
        ("GET", {"sec-websocket-key": "x", "origin": "https://evil.example"}, True),
        ("GET", {"sec-websocket-key": "x", "sec-fetch-site": "same-site"}, True),
        ("GET", {"sec-websocket-key": "x", "origin": "https://api.example"}, False),
    ],
)
def test_what_may_change_something_has_to_come_from_our_own_pages(
    method: str, headers: dict[str, str], expected: bool
) -> None:
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    shown = Presented(sent, method, "https://api.example/orders")
    assert is_cross_site(shown, "https://api.example") is expected


def test_field_that_is_sent_twice_says_nothing() -> None:
    twice = [(b"sec-fetch-site", b"same-origin"), (b"sec-fetch-site", b"same-origin")]
    assert is_cross_site(Presented(twice, "POST", ""), "https://api.example")
    twice = [(b"origin", b"https://api.example"), (b"origin", b"https://evil.example")]
    assert is_cross_site(Presented(twice, "POST", ""), "https://api.example")


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://API.example", "https://api.example"),
        ("https://api.example:443", "https://api.example"),
        ("https://api.example:8443/", "https://api.example:8443"),
        ("http://localhost:80", "http://localhost"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_origin_is_spelt_as_browsers_spell_it(url: str, origin: str) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"sec-fetch-mode": "navigate"}, True),
        ({"sec-fetch-mode": "cors", "accept": "text/html"}, False),
        ({"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}, True),
        ({"accept": "TEXT/HTML; charset=utf-8"}, True),
        ({"accept": "application/json, text/html"}, False),
        ({"accept": "*/*"}, False),
        ({"accept": "text/htmlx"}, False),
        ({}, False),
    ],
)
def test_only_who_waits_for_a_page_navigates(headers: dict[str, str], expected: bool) -> None:
    assert is_navigation([(name.encode(), value.encode()) for name, value in headers.items()]) is expected


@given(st.text())
def test_local_path_never_leads_to_another_origin(text: str) -> None:
    if is_local_path(text):
        assert text.startswith("/")
        assert not text.startswith(("//", "/\\"))
        assert text.isascii()
        assert text.isprintable()


@pytest.mark.parametrize(
    "text", ["/", "/orders/7?page=2&sort=%2Fname", "/a/b/", "/~x/(1)", "/x?u=https://a.example//b"]
)
def test_path_as_browsers_send_it_is_local(text: str) -> None:
    assert is_local_path(text)
