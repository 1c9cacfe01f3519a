"""API keys: their form, and what one that was presented gets to hear."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.identity.api_key import LENGTH, ApiKey, KeyRing, is_well_formed, make_id, make_text
from gatebook.identity.types import Identity, Refusal
from gatebook.scrub import Scrubber

NOW = 1_800_000_000.0
TEXT = make_text("abcdefgh", secrets.token_bytes)


def kept(text: str = TEXT, **changed: Any) -> ApiKey:
    fields = {
        "id": text[4:12],
        "provider": "partners",
        "subject": "acme",
        "roles": ["reader"],
        "created": 1,
        "expires": int(NOW) + 60,
        "revoked": None,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    return msgspec.convert({**fields, **changed}, ApiKey)


def test_form_is_what_secret_scanners_are_told() -> None:
    assert re.fullmatch(r"gbk_[a-z2-7]{8}_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}", TEXT)
    assert len(TEXT) == LENGTH
    assert is_well_formed(TEXT.encode())


def test_known_key_has_a_known_spelling() -> None:
    """Whoever changes this breaks every scanner's checksum."""
    text = make_text("aaaaaaaa", lambda n: bytes(range(n)))
    assert text == "gbk_aaaaaaaa_003aUlTJC7tjlCTQj2uNU3MFagCXG9LRKRcwGkBIDlf_3Wx5Yb"


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=5, max_size=5))
def test_any_randomness_makes_a_key_in_form(secret: bytes, name: bytes) -> None:
    text = make_text(make_id(lambda _: name), lambda _: secret)
    assert is_well_formed(text.encode())
    assert text not in Scrubber().scrub(f"GET /?k={text} HTTP/1.1")


@given(st.integers(0, LENGTH - 1), st.sampled_from("abcxyz0123456789ABCXYZ_-"))
def test_slip_of_one_letter_is_found_by_the_checksum(at: int, letter: str) -> None:
    changed = TEXT[:at] + letter + TEXT[at + 1 :]
    assert is_well_formed(changed.encode()) is (changed == TEXT)


@pytest.mark.parametrize(
    "text",
    [b"", b"gbk_", TEXT.encode() + b"\n", TEXT.upper().encode(), b" " + TEXT.encode(), b"\xff" * 63],
    ids=["nothing", "beginning", "line break", "capitals", "space", "bytes"],
)
def test_noise_is_no_key(text: bytes) -> None:
    assert not is_well_formed(text)
    assert KeyRing([kept()]).find(text, NOW) == Refusal("key_malformed")


def test_good_key_is_whose_it_is() -> None:
    found = KeyRing([kept()]).find(TEXT.encode(), NOW)
    assert isinstance(found, Identity)
    assert (found.provider, found.method, found.subject, found.client) == (
        "partners",
        "api_key",
        "acme",
        "abcdefgh",
    )
    assert (found.roles, found.expires_at) == (("reader",), NOW + 60)
    assert found.credential_sha256 == hashlib.sha256(TEXT.encode()).digest()


def test_every_key_of_many_is_found() -> None:
    texts = [make_text(make_id(secrets.token_bytes), secrets.token_bytes) for _ in range(50)]
    ring = KeyRing([kept(text, subject=f"s{n}") for n, text in enumerate(texts)])
    for number, text in enumerate(texts):
        found = ring.find(text.encode(), NOW)
        assert isinstance(found, Identity)
        assert found.subject == f"s{number}"


def test_right_id_with_another_secret_is_unknown() -> None:
    other = make_text("abcdefgh", secrets.token_bytes)
    for key in (kept(), kept(revoked=5), kept(expires=5)):
        assert KeyRing([key]).find(other.encode(), NOW) == Refusal("key_unknown")


def test_hash_itself_is_no_key() -> None:
    assert KeyRing([kept()]).find(kept().sha256[:LENGTH].encode(), NOW) == Refusal("key_malformed")


def test_unknown_key_is_not_matched_by_the_hash_of_nobody() -> None:
    assert KeyRing([]).find(TEXT.encode(), NOW) == Refusal("key_unknown")


def test_expired_and_revoked_are_told_apart() -> None:
    assert KeyRing([kept(expires=int(NOW))]).find(TEXT.encode(), NOW) == Refusal("key_expired", "partners")
    assert isinstance(KeyRing([kept(expires=int(NOW))]).find(TEXT.encode(), NOW - 0.001), Identity)
    both = kept(expires=5, revoked=4)
    assert KeyRing([both]).find(TEXT.encode(), NOW) == Refusal("key_revoked", "partners")
    assert [kept().state(NOW), kept(expires=5).state(NOW), both.state(NOW)] == ["active", "expired", "revoked"]


def test_key_revoked_in_the_future_is_revoked_now() -> None:
    """A clock that was wrong when somebody revoked must not open anything."""
    assert KeyRing([kept(revoked=int(NOW) + 999)]).find(TEXT.encode(), NOW) == Refusal("key_revoked", "partners")


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def spy(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    ring = KeyRing([kept()])
    for text in (TEXT, make_text("abcdefgh", secrets.token_bytes), make_text("zzzzzzzz", secrets.token_bytes)):
        ring.find(text.encode(), NOW)
    assert [len(a) for a, _ in compared] == [32, 32, 32]  # once each, known id or not
    assert compared[0][0] == compared[0][1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "ABCDEFGH"),
        ("id", "abcdefg"),
        ("id", "abcdefgh\n"),
        ("provider", "Partners"),
        ("provider", "a\n"),
        ("subject", ""),
        ("subject", " a"),
        ("subject", "a\r\nb"),
        ("subject", "a" * 256),
        ("roles", ["a,b"]),
        ("roles", ["a b"]),
        ("roles", [""]),
        ("roles", ["a\n"]),
        ("roles", "reader"),
        ("roles", ["r"] * 65),
        ("expires", -1),
        ("expires", 1.5),
        ("expires", "5"),
        ("expires", True),
        ("revoked", False),
        ("sha256", "A" * 64),
        ("sha256", "a" * 63),
        ("sha256", "a" * 64 + "\n"),
        ("more", 1),
    ],
)
def test_field_that_we_would_not_write_is_refused(field: str, value: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        kept(**{field: value})
