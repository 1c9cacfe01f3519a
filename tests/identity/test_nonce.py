"""Nonces: ours are known by any guard with the secret, nobody else's are, and none for long."""

from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.identity.nonce import LIFETIME_S, Nonces

SECRET = bytes(range(32))
NOW = 1_800_000_000.25


def test_nonce_is_known_by_every_guard_that_has_the_secret() -> None:
    nonce = Nonces(SECRET).make(NOW)
    assert Nonces(SECRET).age(nonce, NOW + 10) == pytest.approx(10.25)
    assert Nonces(bytes(32)).age(nonce, NOW) is None
    assert nonce.isascii()
    assert len(nonce) == 27


def test_nonce_is_old_at_the_edge() -> None:
    nonce = Nonces(SECRET).make(1000)
    assert Nonces(SECRET).age(nonce, 1000 + LIFETIME_S - 0.001) is not None
    assert Nonces(SECRET).age(nonce, 1000 + LIFETIME_S) is None


def test_nonce_of_another_day_has_another_key() -> None:
    """Midnight disturbs nobody, and what is moved to another day is forged."""
    nonces = Nonces(SECRET)
    late = nonces.make(86400 * 1000 - 1)
    assert nonces.age(late, 86400 * 1000 + 1) == 2
    data = base64.urlsafe_b64decode(late + "=")
    moved = struct.pack(">I", 86400 * 1000) + data[4:]
    assert nonces.age(base64.urlsafe_b64encode(moved).rstrip(b"=").decode(), 86400 * 1000 + 1) is None


@pytest.mark.parametrize("forged", ["", "x", "é", "A" * 27, "A" * 28, "====", "A" * 10_000, " " * 27])
def test_forged_nonce_is_none_of_ours(forged: str) -> None:
    assert Nonces(SECRET).age(forged, NOW) is None


@given(st.integers(0, 26), st.sampled_from("ABCxyz019-_"))
def test_nonce_with_a_changed_letter_is_none_of_ours(at: int, letter: str) -> None:
    nonce = Nonces(SECRET).make(NOW)
    changed = nonce[:at] + letter + nonce[at + 1 :]
    assert (Nonces(SECRET).age(changed, NOW) is not None) == (changed == nonce)
