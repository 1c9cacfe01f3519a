"""A login under way: nobody else can read it, change it, make one, or use it after its time."""

from __future__ import annotations

import base64
import hashlib

from hypothesis import given
from hypothesis import strategies as st

from gatebook.portal.transaction import LIFETIME_S, begin, key_of, seal, unseal

NOW = 1_800_000_000.0
KEY = key_of(bytes(32))
BEGAN = begin("staff", "/orders/7?page=2", NOW)
SEALED = seal(BEGAN, KEY)


def test_it_comes_back_as_it_was_until_its_time_is_over() -> None:
    assert unseal(SEALED.encode(), KEY, NOW) == BEGAN
    assert unseal(SEALED.encode(), KEY, NOW + LIFETIME_S - 1) == BEGAN
    assert unseal(SEALED.encode(), KEY, NOW + LIFETIME_S) is None


def test_another_deployment_s_key_does_not_open_it() -> None:
    assert unseal(SEALED.encode(), key_of(bytes(31) + b"\1"), NOW) is None


@given(st.integers(0, len(SEALED) - 1), st.sampled_from("AZaz09-_=. "))
def test_with_any_letter_changed_it_is_nothing(at: int, letter: str) -> None:
    changed = SEALED[:at] + letter + SEALED[at + 1 :]
    assert changed == SEALED or unseal(changed.encode(), KEY, NOW) is None


@given(st.binary(max_size=200))
def test_what_nobody_sealed_is_nothing(data: bytes) -> None:
    assert unseal(data, KEY, NOW) is None
    assert unseal(base64.urlsafe_b64encode(data).rstrip(b"="), KEY, NOW) is None


def test_nothing_in_it_can_be_read_and_no_two_are_alike() -> None:
    other = begin("staff", "/orders/7?page=2", NOW)
    assert not {BEGAN.state, BEGAN.nonce, BEGAN.verifier} & {other.state, other.nonce, other.verifier}
    assert seal(BEGAN, KEY) != SEALED
    plain = base64.urlsafe_b64decode(SEALED + "=" * (-len(SEALED) % 4))
    assert BEGAN.state.encode() not in plain
    assert b"staff" not in plain


def test_challenge_is_the_verifier_s_hash() -> None:
    digest = hashlib.sha256(BEGAN.verifier.encode()).digest()
    assert base64.urlsafe_b64decode(BEGAN.challenge + "=") == digest
    assert 43 <= len(BEGAN.verifier) <= 128  # RFC 7636, 4.1


def test_longest_path_to_return_to_still_fits_into_a_cookie() -> None:
    assert len(seal(begin("x" * 64, "/" + "x" * 1023, NOW), KEY)) < 3800
