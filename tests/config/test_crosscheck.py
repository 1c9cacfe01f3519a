"""What an issuer's address may look like: keys fetched from the wrong place are anybody's keys."""

from __future__ import annotations

import pytest

from gatebook.config.crosscheck import is_safe_url


@pytest.mark.parametrize(
    "url",
    [
        "https://login.acme.example",
        "https://login.acme.example:8443/realms/staff",
        "http://127.0.0.1:9000",
        "http://127.8.8.8",
        "http://[::1]:9000/x",
        "http://localhost:9000",
        "HTTPS://login.acme.example",
    ],
)
def test_safe(url: str) -> None:
    assert is_safe_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "login.acme.example",
        "//login.acme.example",
        "http://login.acme.example",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://127.0.0.1@evil.example",
        "http://2130706433",
        "http://0x7f000001",
        "http://0.0.0.0:9000",
        "https://",
        "https:///path",
        "https://user@login.acme.example",
        "https://login.acme.example?x=1",
        "https://login.acme.example?",
        "https://login.acme.example#",
        "https://login.acme.example:0",
        "https://login.acme.example:99999",
        "https://login.acme.example:port",
        "https://[::1",
        "https://login.acme.example/\n",
        "https://login.acme.example /",
        " https://login.acme.example",
        "https://lógin.acme.example",
        "ftp://login.acme.example",
        "javascript://login.acme.example",
        "file:///etc/passwd",
    ],
)
def test_not_safe(url: str) -> None:
    assert not is_safe_url(url)
