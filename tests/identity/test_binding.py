"""A bound token opens nothing without what it is bound to, and no other token passes for a bound one."""

from __future__ import annotations

import hashlib

import pytest
from tests.identity.mint import b64

from gatebook.config.model import Binding
from gatebook.identity.binding import NONE, Terms, confirm
from gatebook.identity.types import Bound, Credential, Identity, Presented, Refusal

POLICIES: tuple[Binding, ...] = ("off", "allow", "require")
OWN, OTHER = b"own certificate", b"another certificate"
X5T = b64(hashlib.sha256(OWN).digest())


def identity(bound: Bound | None) -> Identity:
    return Identity(
        provider="staff", method="oidc", subject="a", bound=bound, credential_sha256=bytes(32), expires_at=0.0
    )


def answer(bound: Bound | None, shown: bytes, policy: Binding) -> str | None:
    presented = Presented([], "GET", "https://api.example/orders/7", shown)
    found = confirm(identity(bound), Credential("bearer", b"t", scheme="bearer"), presented, Terms(policy), 0.0)
    assert found is None or found == Refusal(found.reason, "staff")
    return None if found is None else found.reason


@pytest.mark.parametrize("policy", ["allow", "require"])
def test_stolen_bound_token_opens_nothing_by_another_certificate_or_none(policy: Binding) -> None:
    bound = Bound(x5t_s256=X5T)
    assert answer(bound, OWN, policy) is None
    assert answer(bound, OTHER, policy) == "certificate_mismatch"
    assert answer(bound, b"", policy) == "certificate_missing"


@pytest.mark.parametrize("other", ["A" * 43, X5T[:-1] + "A", X5T.lower(), X5T.upper()])
def test_thumbprint_that_only_resembles_the_certificates_is_another(other: str) -> None:
    assert answer(Bound(x5t_s256=other), OWN, "allow") == "certificate_mismatch"


def test_bound_token_is_refused_where_bindings_are_not_checked() -> None:
    for shown in (OWN, OTHER, b""):
        assert answer(Bound(x5t_s256=X5T), shown, "off") == "token_binding"
    assert Terms("off") == NONE


def test_unbound_token_is_refused_where_a_binding_is_required() -> None:
    for shown in (OWN, b""):
        assert answer(None, shown, "require") == "token_unbound"
        assert answer(None, shown, "allow") is None
        assert answer(None, shown, "off") is None


def test_token_bound_to_a_key_as_well_wants_both() -> None:
    assert answer(Bound(jkt="A" * 43, x5t_s256=X5T), OWN, "allow") == "token_binding"
    assert answer(Bound(jkt="A" * 43), OWN, "allow") == "token_binding"


@pytest.mark.parametrize("method", ["api_key", "session"])
def test_what_cannot_be_bound_and_says_it_is_is_refused(method: str) -> None:
    presented = Presented([], "GET", "https://api.example/orders/7", OWN)
    credential = Credential(method, b"x")
    for policy in POLICIES:
        held = identity(Bound(x5t_s256=X5T))
        assert confirm(held, credential, presented, Terms(policy), 0.0) == Refusal("token_binding", "staff")
        # A session is no token: what is required of those is not required of it.
        assert confirm(identity(None), credential, presented, Terms(policy, policy), 0.0) is None
