"""What looks like a credential is masked, and text stays what it was otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.redact import scrub
from gatebook.scrub import Scrubber, visible

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"
LEAKS = {
    "bearer": ("Authorization: Bearer s3cr3t-opaque", "s3cr3t"),
    "bearer in a path": ("/cb/Bearer%20s3cr3t-opaque", "s3cr3t"),
    "bearer, lower case": ("upstream got bearer s3cr3t-opaque", "s3cr3t"),
    "basic": ("Basic YW5uOnMzY3IzdA==", "YW5u"),
    "short basic": ("Basic YTpi", "YTpi"),
    "dpop": ("DPoP s3cr3t-opaque", "s3cr3t"),
    "jwt": (f"/x/{JWT}/y", "hbGci"),
    "jwt, encoded dots": ("/x/" + JWT.replace(".", "%2E"), "c2lnbmF0"),
    "jwe": ("eyJhbGciOiJkaXIifQ..aXY.Y2lwaGVy.dGFn", "Y2lwaGVy"),
    "half a jwt": ("eyJhbGciOiJSUzI1NiJ9", "hbGci"),
    "our key": ("key gbk_s3cr3ts3cr3t used", "s3cr3t"),
    "api key": ("x-api-key: s3cr3t", "s3cr3t"),
    "api key in a query": ("/a?api_key=s3cr3t&page=2", "s3cr3t"),
    "token, encoded": ("/a/token%3Ds3cr3t", "s3cr3t"),
    "json": ('{"password": "s3cr3t", "a": 1}', "s3cr3t"),
    "short password": ("pwd=abc", "abc"),
    "cookie": ("Cookie: s3cr3t", "s3cr3t"),
    "oauth code": ("/cb?code=s3cr3t", "s3cr3t"),
    "aws": ("AKIAIOSFODNN7EXAMPLE", "IOSFODNN7"),
    "github": ("ghp_" + "s3cr3t" * 6, "s3cr3t"),
    "long value": ("x=" + "0123456789abcdef" * 4, "89abcdef"),
    "long base64": ("blob:" + "QUJD" * 10 + "/w==", "QUJDQUJD"),
    "userinfo": ("https://ann:s3cr3t@host/path", "s3cr3t"),
    "token as userinfo": ("https://s3cr3t@host/path", "s3cr3t"),
    "private key": ("-----BEGIN EC PRIVATE KEY-----\ns3cr3t\n", "s3cr3t"),
    "private key in a path": ("/-----BEGIN%20PRIVATE%20KEY-----s3cr3t", "s3cr3t"),
    "hidden by a control byte": ("Bearer \x1bs3cr3t-opaque\x00", "\x1b"),
    "twice": ("token=s3cr3t token=s3cr3t", "s3cr3t"),
}


@pytest.mark.parametrize(("text", "secret"), LEAKS.values(), ids=LEAKS.keys())
def test_credential_is_masked(text: str, secret: str) -> None:
    assert secret not in scrub(text)


@pytest.mark.parametrize(
    "text",
    [
        "/orders/12345/lines/7",
        "/files/0123456789abcdef0123456789abcdef0123456789abcdef",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36",
        "upstream timed out (110: Connection timed out) while connecting to upstream",
        "connect() failed (111: Connection refused) while connecting to upstream, "
        'upstream: "http://127.0.0.1:9001/orders/4711/lines/and/a/long/path/behind"',
        "SSL_do_handshake() failed (SSL: error:0A000102:SSL routines::unsupported protocol)",
        "auth request unexpected status: 500",
        "/caf%C3%A9/你",
        "…[3001 bytes, sha256:" + "0123456789abcdef" * 4 + "]",
        "",
    ],
)
def test_honest_text_stays(text: str) -> None:
    assert scrub(text) == text


def test_what_surrounds_a_credential_stays() -> None:
    assert scrub(f"/a/{JWT}/b?page=2") == "/a/[masked]/b?page=2"
    assert scrub("Authorization: Bearer abcdef, x") == "Authorization: Bearer [masked], x"
    assert scrub("/a?api_key=abc&page=2") == "/a?api_key=[masked]&page=2"


@given(st.text(max_size=200))
def test_result_is_printable_and_final(text: str) -> None:
    once = scrub(text)
    assert once.isprintable()
    assert scrub(once) == once


@given(st.binary(max_size=100))
def test_nothing_is_dropped_to_make_text_visible(data: bytes) -> None:
    text = visible(data.decode("utf-8", "surrogateescape"))
    assert text.isprintable()
    assert len(text.encode()) >= len(data)


@pytest.mark.parametrize("letter", ["eyJ", "key=", "://", "bearer ", "-----BEGIN ", "a:", "gh", "basic  ", "="])
def test_repetition_is_scrubbed_without_harm(letter: str) -> None:
    """A pattern that backtracks would not come back from these within a test run."""
    assert scrub(letter * 20_000).isprintable()


def test_memory_of_texts_is_bounded() -> None:
    scrubber = Scrubber()
    for number in range(10_000):
        assert scrubber.scrub(f"/orders/{number}") == f"/orders/{number}"
    assert scrubber.scrub("x" * 5000) == "x" * 5000
    assert len(scrubber._memo) <= 4096
    assert max(map(len, scrubber._memo)) <= 300
