"""What a client is told to bring, in which scheme, and what was at fault, with nothing about the policy."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.identity.mint import oidc

from gatebook.config.model import (
    ApiKeyProvider,
    Configuration,
    GatebookProvider,
    Listener,
    MTLSProvider,
    Provider,
    Route,
    Upstream,
)
from gatebook.guard.challenge import Challenges
from gatebook.identity.dpop import ALGORITHMS
from gatebook.identity.types import Credential
from gatebook.record import REASONS

PROVIDERS: dict[str, Provider] = {
    "plain": oidc(),
    "both": oidc(dpop="allow"),
    "strict": oidc(dpop="require"),
    "own": GatebookProvider(type="gatebook"),
    "keys": ApiKeyProvider(type="api_key"),
    "hosts": MTLSProvider(type="mtls", ca=Path("/ca.pem"), subject="common_name"),
}
BEARER, DPOP = 'Bearer realm="acme"', f'DPoP realm="acme", algs="{" ".join(ALGORITHMS)}"'
AS_BEARER, AS_DPOP = (Credential("bearer", b"x", scheme=scheme) for scheme in ("bearer", "dpop"))
KEY = Credential("api_key", b"x", "keys")


def said(accept: str, credential: Credential | None = None, reason: str = "credential_missing") -> str:
    route = Route(name="r", path="/r", methods=["GET"], upstream="orders", identity=accept.split())
    configuration = Configuration(
        version=1,
        name="acme",
        listen=[Listener(address="127.0.0.1:8080")],
        identity=PROVIDERS,
        upstreams={"orders": Upstream(url="http://127.0.0.1:9001")},
        routes=[route],
    )
    return Challenges(configuration).of(route, credential, reason)


@pytest.mark.parametrize(
    ("accept", "challenge"),
    [
        ("plain", BEARER),
        ("own", BEARER),
        ("strict", DPOP),
        ("both", f"{BEARER}, {DPOP}"),
        ("strict plain", f"{BEARER}, {DPOP}"),
        ("own strict", f"{BEARER}, {DPOP}"),
        ("keys", 'ApiKey realm="acme"'),
        ("hosts keys", 'ApiKey realm="acme"'),
        ("hosts", 'ClientCertificate realm="acme"'),
        ("hosts plain keys", BEARER),
    ],
)
def test_who_brings_nothing_is_told_what_to_bring(accept: str, challenge: str) -> None:
    assert said(accept) == challenge


def test_fault_is_named_in_the_scheme_that_was_spoken() -> None:
    assert said("both", AS_BEARER, "token_expired") == f'{BEARER}, error="invalid_token", {DPOP}'
    assert said("both", AS_DPOP, "token_expired") == f'{DPOP}, error="invalid_token", {BEARER}'
    assert said("both", AS_DPOP, "proof_replayed") == f'{DPOP}, error="invalid_dpop_proof", {BEARER}'
    assert said("strict", AS_DPOP, "proof_nonce") == f'{DPOP}, error="use_dpop_nonce"'
    assert said("strict", AS_BEARER, "token_unbound") == f'{DPOP}, error="invalid_token"'
    assert said("both", AS_BEARER, "proof_missing") == f'{BEARER}, error="invalid_token", {DPOP}'
    assert said("keys", KEY, "key_unknown") == 'ApiKey realm="acme"'


@pytest.mark.parametrize("reason", [name for name, told in REASONS.items() if told.status == 401])
def test_nobody_learns_more_than_three_words(reason: str) -> None:
    for credential in (AS_BEARER, AS_DPOP):
        error = said("both", credential, reason).partition('error="')[2].partition('"')[0]
        assert error in ("invalid_token", "invalid_dpop_proof", "use_dpop_nonce")
