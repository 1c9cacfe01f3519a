"""Revocations: what they refuse, what they leave alone, and what an attacker might change about a credential."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.identity.deployment import KEYS

from gatebook.identity.revocation import Revocation, Revoked
from gatebook.identity.types import Identity

NOW = 1_800_000_000.0
ALICE = Identity(
    provider="staff",
    method="oidc",
    subject="alice",
    client="web",
    claims={"sid": "s1"},
    token_id="t1",
    issued_at=NOW - 60,
    credential_sha256=bytes(32),
    expires_at=NOW + 240,
)


def other(**changed: Any) -> Identity:
    return msgspec.structs.replace(ALICE, **changed)


def revocation(kind: str, value: str = "", provider: str | None = "staff", **changed: Any) -> Revocation:
    key = KEYS.name(kind, provider or "", value) if value else ""
    known: dict[str, Any] = {
        "id": "abcdefgh",
        "what": kind,
        "provider": provider,
        "key": key,
        "before": None,
        "until": None,
        "shown": value or "everything",
        "reason": "stolen",
        "actor": "os:1000",
        "created": int(NOW),
    }
    return msgspec.convert({**known, **changed}, Revocation, strict=True)


def refuses(entry: Revocation, identity: Identity = ALICE, now: float = NOW) -> bool:
    return Revoked([entry], KEYS).find(identity, now) is entry


BY_NAME = [("token", "t1"), ("session", "s1"), ("subject", "alice"), ("client", "web")]


@pytest.mark.parametrize(("what", "value"), BY_NAME)
def test_what_is_named_is_refused_and_nothing_else(what: str, value: str) -> None:
    assert refuses(revocation(what, value))
    assert not refuses(revocation(what, value + "x"))
    for kind, _ in BY_NAME:
        assert refuses(revocation(kind, value)) == (kind == what)


@pytest.mark.parametrize(("what", "value"), BY_NAME)
def test_same_name_at_another_provider_is_left_alone(what: str, value: str) -> None:
    assert not refuses(revocation(what, value), other(provider="partners"))


def test_credential_is_refused_whoever_it_says_it_is_of() -> None:
    entry = revocation("credential", provider=None, key=KEYS.fingerprint(bytes(32)))
    assert refuses(entry)
    assert refuses(entry, other(provider="partners", subject="bob"))
    assert not refuses(entry, other(credential_sha256=bytes([1] * 32)))


@pytest.mark.parametrize("claims", [{}, {"sid": None}, {"sid": 1}, {"sid": ["s1"]}, {"sid": {"s1": 1}}])
def test_session_of_another_type_is_none(claims: dict[str, Any]) -> None:
    assert not refuses(revocation("session", "s1"), other(claims=claims))


def test_token_without_an_id_or_client_is_none_of_them() -> None:
    assert not refuses(revocation("token", "None"), other(token_id=None))
    assert not refuses(revocation("client", "None"), other(client=None))


# -- times ------------------------------------------------------------------------------------------------
def test_what_was_issued_before_is_refused() -> None:
    entry = revocation("all", before=int(NOW))
    assert refuses(entry, other(issued_at=NOW - 1))
    assert refuses(entry, other(issued_at=NOW - 0.5))
    assert not refuses(entry, other(issued_at=NOW))


def test_what_does_not_say_when_it_was_issued_was_issued_before() -> None:
    assert refuses(revocation("all", before=1), other(issued_at=None))
    assert refuses(revocation("subject", "alice", before=1), other(issued_at=None))


def test_issue_time_narrows_what_is_named() -> None:
    entry = revocation("subject", "alice", before=int(NOW))
    assert refuses(entry, other(issued_at=NOW - 1))
    assert not refuses(entry, other(issued_at=NOW))
    assert not refuses(entry, other(subject="bob", issued_at=NOW - 1))


def test_issue_time_is_of_one_provider_or_of_all() -> None:
    assert not refuses(revocation("all", provider="partners", before=int(NOW)))
    assert refuses(revocation("all", provider="staff", before=int(NOW)))
    assert refuses(revocation("all", provider=None, before=int(NOW)))


def test_revocation_ends_when_it_says_and_not_before() -> None:
    entry = revocation("subject", "alice", until=int(NOW))
    assert refuses(entry, now=NOW - 0.001)
    assert not refuses(entry, now=NOW)


def test_ended_revocation_does_not_hide_another() -> None:
    ended = revocation("subject", "alice", until=1)
    lasting = revocation("subject", "alice", id="hgfedcba")
    assert Revoked([ended, lasting], KEYS).find(ALICE, NOW) is lasting


# -- what an attacker changes -----------------------------------------------------------------------------
@given(st.text(max_size=8), st.text(max_size=8))
def test_no_other_spelling_of_a_name_is_taken_for_it(one: str, two: str) -> None:
    entry = revocation("subject", "x" + one)
    assert refuses(entry, other(subject="x" + two)) == (one == two)


def test_provider_s_name_cannot_run_over_into_the_subject() -> None:
    # A provider's name has no colon, whatever subjects have.
    with pytest.raises(msgspec.ValidationError):
        revocation("subject", "c", provider="a:b")
    assert not refuses(revocation("subject", "b:c", provider="a"), other(provider="b", subject="a:c"))


def test_many_revocations_are_not_gone_through_one_by_one() -> None:
    entries = [revocation("subject", f"someone-{number}") for number in range(2000)]

    class Counting(list[Any]):
        def __iter__(self) -> Any:
            pytest.fail("gone through")

    revoked = Revoked(entries, KEYS)
    revoked._by_key = {key: Counting(value) for key, value in revoked._by_key.items()}
    assert revoked.find(ALICE, NOW) is None


def test_other_identity_of_the_same_credential_is_asked_for_anew() -> None:
    """As after a change of the configuration, by which a token may be another caller's."""
    revoked = Revoked([revocation("subject", "alice")], KEYS)
    assert [revoked.find(ALICE, NOW) is not None for _ in range(2)] == [True, True]
    assert revoked.find(other(subject="bob"), NOW) is None
    assert revoked.find(other(), NOW) is not None


def test_flood_of_credentials_does_not_fill_the_memory() -> None:
    revoked = Revoked([revocation("subject", "alice")], KEYS)
    for number in range(10_000):
        assert revoked.find(other(subject="bob", credential_sha256=number.to_bytes(32)), NOW) is None
    assert len(revoked._known) <= 4096


# -- what no revocation may be ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"what": "all", "key": "", "before": None}, "everything for good"),
        ({"what": "all", "before": 1}, "does not fit"),
        ({"what": "credential"}, "does not fit"),
        ({"key": ""}, "does not fit"),
        ({"key": "0" * 32}, "does not fit"),
        ({"reason": "a\nb"}, "not printable"),
        ({"shown": "\u202ecila"}, "not printable"),
    ],
)
def test_revocation_that_says_two_things_is_none(changed: dict[str, Any], problem: str) -> None:
    found = revocation("subject", "alice", **changed).problem()
    assert found is not None
    assert problem in found


@pytest.mark.parametrize(
    "changed",
    [
        {"id": "ABC"},
        {"what": "roles"},
        {"provider": "No Name"},
        {"key": "x" * 64},
        {"key": "0" * 63},
        {"before": -1},
        {"until": 1.5},
        {"reason": ""},
        {"reason": "r" * 301},
    ],
)
def test_foreign_revocation_is_not_read(changed: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        revocation("subject", "alice", **changed)
