"""What names a use: the same token however it comes, and never another one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.identity.once import FOR_GOOD_US, Use, key_of, of_token
from gatebook.identity.types import Identity, Refusal

NOW = 1_800_000_000.0
TOKEN = Identity(
    provider="staff",
    method="oidc",
    subject="alice",
    claims={"iss": "https://login.example", "exp": NOW + 300},
    token_id="t1",
    credential_sha256=bytes(32),
    expires_at=NOW + 330,
)
TEXT = st.text("ab\0", max_size=3)


def use(**changed: Any) -> Use:
    made = of_token(msgspec.structs.replace(TOKEN, **changed))
    assert isinstance(made, Use)
    return made


@given(st.tuples(TEXT, TEXT, TEXT), st.tuples(TEXT, TEXT, TEXT))
def test_no_two_uses_have_one_key(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (key_of(*one) == key_of(*other)) == (one == other)


def test_same_id_of_another_issuer_is_another_use() -> None:
    other = use(claims={"iss": "https://evil.example", "exp": NOW + 300})
    assert other.key != use().key


def test_one_issuer_under_two_names_is_one() -> None:
    assert use(provider="staff-again").key == use().key


def test_provider_that_names_no_issuer_cannot_pass_for_one() -> None:
    nameless = use(claims={"exp": NOW + 300})
    assert nameless.key == use(claims={"exp": NOW + 300, "iss": 7}).key
    assert nameless.key not in {use(claims={"iss": iss}).key for iss in ("staff", "provider:staff", "")}


def test_rest_of_the_token_makes_no_other_use() -> None:
    assert use(subject="bob", client="web", credential_sha256=bytes([1] * 32)).key == use().key


@pytest.mark.parametrize(
    ("exp", "until"),
    [(NOW + 300, NOW + 330), (NOW + 86400, NOW + 86400), (NOW - 10, NOW + 330)],
)
def test_use_is_remembered_as_long_as_the_token_says_however_it_is_capped(exp: float, until: float) -> None:
    assert use(claims={"exp": exp}).until_us == int(until * 1e6)


@pytest.mark.parametrize("claims", [{}, {"exp": "soon"}, {"exp": 9e18}, {"exp": 1e300}])
def test_token_without_an_end_is_remembered_for_good(claims: dict[str, Any]) -> None:
    assert use(claims=claims).until_us == FOR_GOOD_US


def test_token_without_an_id_is_refused() -> None:
    nameless = msgspec.structs.replace(TOKEN, token_id=None)
    assert of_token(nameless) == Refusal("token_id_missing", "staff")


def test_end_beyond_all_numbers_is_no_error_of_ours() -> None:
    for exp in (1e308, 1 << 62, 1e300):
        assert use(claims={"iss": "https://login.example", "exp": exp}).until_us == FOR_GOOD_US
