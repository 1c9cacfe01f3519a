"""Which request targets are canonical, and that no decoder or normaliser reads the others as ours."""

from __future__ import annotations

import posixpath
import string
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.policy.path import MAX_PATH_BYTES, fold, query_is_clean, segments_of

HOSTILE = {
    "empty": "",
    "asterisk form": "*",
    "absolute form": "http://evil.example/admin",
    "authority form": "evil.example:443",
    "no leading slash": "admin",
    "leading double slash": "//evil.example/admin",
    "double slash": "/a//b",
    "double slash at the end": "/a//",
    "dot segment": "/a/./b",
    "dot-dot segment": "/a/../b",
    "dot-dot at the end": "/a/..",
    "dot at the end": "/a/.",
    "dot-dot first": "/../a",
    "three dots": "/a/.../b",
    "encoded dot-dot": "/a/%2e%2e/b",
    "half encoded dot-dot": "/a/.%2e/b",
    "encoded dot": "/a/%2E/b",
    "encoded slash": "/a%2fb",
    "encoded slash, capitals": "/a%2Fb",
    "encoded dot-dot-slash": "/a/..%2fb",
    "doubly encoded slash": "/a%252fb",
    "doubly encoded dots": "/%252e%252e/a",
    "trebly encoded slash": "/a%25252fb",
    "doubly encoded letter": "/%2561dmin",
    "doubly encoded IIS letter": "/%25u0061dmin",
    "encoded letter": "/%61dmin",
    "encoded digit": "/%31",
    "encoded tilde": "/%7eann",
    "backslash": "/a\\..\\b",
    "encoded backslash": "/a%5c..%5cb",
    "path parameter": "/admin;x",
    "path parameter on dot-dot": "/public/..;/admin",
    "encoded path parameter": "/admin%3bx",
    "encoded question mark": "/admin%3f.js",
    "encoded hash": "/admin%23.js",
    "hash": "/a#b",
    "question mark inside": "/a?b",
    "NUL": "/a\x00b",
    "encoded NUL": "/a%00.png",
    "newline": "/a\nb",
    "newline at the end": "/a\n",
    "encoded CRLF": "/a%0d%0aX-Evil:%20yes",
    "encoded DEL": "/a%7f",
    "tab": "/a\tb",
    "space": "/a b",
    "space at the end, encoded": "/admin%20",
    "space at the start, encoded": "/%20admin",
    "no-break space at the end": "/admin%c2%a0",
    "trailing dot": "/admin.",
    "trailing dot inside": "/admin./x",
    "trailing dots": "/admin...",
    "alternate data stream": "/admin::$DATA",
    "alternate index stream": "/admin:$I30:$INDEX_ALLOCATION",
    "alternate data stream, encoded": "/admin::%24DATA",
    "IIS escape": "/%u002e%u002e/a",
    "stray percent": "/100%",
    "short escape": "/a%2",
    "bad escape": "/a%zz",
    "overlong slash": "/a%c0%afb",
    "overlong dots": "/%c0%ae%c0%ae/a",
    "overlong slash of three": "/a%e0%80%afb",
    "lone continuation byte": "/a%80",
    "cut UTF-8": "/a%c3",
    "UTF-16 surrogate": "/a%ed%a0%80",
    "beyond Unicode": "/a%f5%80%80%80",
    "raw byte": "/a\xe9",
    "raw letter beyond ASCII": "/ä",
    "lone surrogate": "/a\udce9",
    "C1 control": "/a%c2%85b",
    "line separator": "/a%e2%80%a8b",
    "full-width solidus": "/a%ef%bc%8fb",
    "full-width full stops": "/%ef%bc%8e%ef%bc%8e",
    "account-of sign, which becomes a/c": "/a%e2%84%80b",
    "small reverse solidus": "/a%ef%b9%a8b",
    "quote": '/a"b',
    "angle bracket": "/<script>",
    "brace": "/{x}",
    "pipe": "/a|b",
    "caret": "/a^b",
    "backtick": "/a`b",
    "too long": "/" + "a" * MAX_PATH_BYTES,
}

CANONICAL = {
    "/": [""],
    "/a": ["a"],
    "/a/": ["a", ""],
    "/a.b/.well-known/x..y": ["a.b", ".well-known", "x..y"],
    "/v1/things:cancel": ["v1", "things:cancel"],
    "/~ann/@me/a+b,c=d!$&'()*": ["~ann", "@me", "a+b,c=d!$&'()*"],
    "/a%20b": ["a b"],
    "/100%25": ["100%"],
    "/caf%C3%A9": ["café"],
    "/%e4%bd%a0": ["你"],
    "/a%40b": ["a@b"],
    "/a%7Cb": ["a|b"],
}


@pytest.mark.parametrize("path", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_path_is_refused(path: str) -> None:
    assert segments_of(path) is None


@pytest.mark.parametrize(("path", "segments"), CANONICAL.items())
def test_honest_path_is_decoded(path: str, segments: list[str]) -> None:
    assert segments_of(path) == segments


def test_longest_path_passes_and_one_byte_more_does_not() -> None:
    assert segments_of("/" + "a" * (MAX_PATH_BYTES - 1)) is not None
    assert segments_of("/" + "a" * MAX_PATH_BYTES) is None


@pytest.mark.parametrize("query", ["a\nb", "a b", "a#b", "\x00", "a\x7f", "a" * 9000])
def test_query_that_could_split_a_line_is_refused(query: str) -> None:
    assert not query_is_clean(query)


@pytest.mark.parametrize("query", ["", "a=b&c", "a=%zz", "?=?/../;", "\xe9"])
def test_query_is_otherwise_nobodys_business(query: str) -> None:
    assert query_is_clean(query)


hostile_letters = st.sampled_from(
    [
        "/",
        ".",
        "%",
        "%2e",
        "%2F",
        "%5c",
        "%25",
        "%c0%af",
        ";",
        "\\",
        "a",
        "A",
        "é",
        "%C3%A9",
        "%20",
        "2",
        "f",
        "\x00",
    ]
)
paths = st.lists(hostile_letters, max_size=12).map(lambda letters: "/" + "".join(letters))


@given(paths | st.text(max_size=40).map(lambda text: "/" + text))
def test_no_normaliser_changes_what_was_decided_on(path: str) -> None:
    """As nginx (decode, merge slashes, resolve dots), Tomcat (cut ;x) and a double decoder would do it."""
    segments = segments_of(path)
    if segments is None:
        return
    decoded = "/" + "/".join(segments)
    assert unquote(path, errors="strict") == decoded
    assert unquote(decoded, errors="replace") == decoded or "%" in decoded
    assert not any(segment in (".", "..") for segment in segments)
    assert posixpath.normpath(decoded).rstrip("/") == decoded.rstrip("/")
    assert "\\" not in decoded
    assert ";" not in decoded
    assert all(letter >= " " for letter in decoded)


@given(paths)
def test_decoding_twice_is_decoding_once(path: str) -> None:
    segments = segments_of(path)
    if segments is not None:
        assert [unquote(segment, errors="replace") for segment in segments] == segments


@given(st.lists(st.text(string.ascii_letters + string.digits + "é你 @|", min_size=1), min_size=1, max_size=5))
def test_what_a_good_client_encodes_is_accepted(texts: list[str]) -> None:
    texts = [text.strip() or "x" for text in texts]
    path = "/" + "/".join(quote(text, safe="") for text in texts)
    if len(path) <= MAX_PATH_BYTES:
        assert segments_of(path) == texts


@pytest.mark.parametrize(
    ("one", "other"), [("Admin", "admin"), ("\uff4de", "ME"), ("admi\u017f", "admis"), ("ad\u200dmin", "ADMIN")]
)
def test_look_alikes_fold_together(one: str, other: str) -> None:
    assert fold(one) == fold(other)
