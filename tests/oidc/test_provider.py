"""What other tests take for granted of the provider: discovery, keys, tokens, and what it refuses."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.errors import BadSignatureError
from joserfc.jwk import KeySet
from tests.oidc.provider import Client, Provider, serve


def get(url: str) -> Any:
    answer = httpx2.get(url, trust_env=False)
    answer.raise_for_status()
    return answer.json()


def keys(provider: Provider) -> KeySet:
    """By way of discovery, as any client would find them."""
    return KeySet.import_key_set(get(get(f"{provider.issuer}/.well-known/openid-configuration")["jwks_uri"]))


def test_discovery_names_the_issuer_it_was_asked_at(provider: Provider) -> None:
    assert get(f"{provider.issuer}/.well-known/openid-configuration")["issuer"] == provider.issuer


def test_published_keys_are_public_and_named(provider: Provider) -> None:
    (key,) = get(f"{provider.issuer}/jwks")["keys"]
    assert (key["kty"], key["alg"], key["use"]) == ("RSA", "RS256", "sig")
    assert key["kid"]
    assert not {"d", "p", "q"} & key.keys()


def test_token_is_a_jwt_access_token_for_the_api(provider: Provider) -> None:
    token = jwt.decode(provider.get_token("reader"), keys(provider), algorithms=["RS256"])
    assert token.header["alg"] == "RS256"
    assert token.header["typ"] == "at+jwt"
    claims = token.claims
    assert (claims["iss"], claims["aud"], claims["sub"]) == (provider.issuer, "orders-api", "reader")
    assert (claims["client_id"], claims["scope"]) == ("reader", "orders:read")
    assert (claims["roles"], claims["tenant"]) == (["reader"], "acme")
    assert claims["exp"] - claims["iat"] == 300


def test_token_may_be_for_another_api(provider: Provider) -> None:
    token = jwt.decode(provider.get_token("reader", audience="billing-api"), keys(provider), algorithms=["RS256"])
    assert token.claims["aud"] == "billing-api"


def test_token_lives_as_long_as_its_client_says(provider: Provider) -> None:
    claims = jwt.decode(provider.get_token("brief"), keys(provider), algorithms=["RS256"]).claims
    assert claims["exp"] - claims["iat"] == 7
    assert "roles" not in claims


def test_another_providers_keys_do_not_verify_its_tokens(provider: Provider) -> None:
    with serve({"reader": Client()}) as other:
        assert other.issuer != provider.issuer
        (key,) = get(f"{other.issuer}/jwks")["keys"]
        (own,) = get(f"{provider.issuer}/jwks")["keys"]
        forged = KeySet.import_key_set({"keys": [key | {"kid": own["kid"]}]})
        with pytest.raises(BadSignatureError):
            jwt.decode(provider.get_token("reader"), forged, algorithms=["RS256"])


def test_wrong_secret_gets_no_token(provider: Provider) -> None:
    answer = httpx2.post(
        f"{provider.issuer}/token",
        auth=("reader", "guessed"),
        data={"grant_type": "client_credentials"},
        trust_env=False,
    )
    assert answer.status_code == 401
    assert "access_token" not in answer.json()


def test_provider_does_not_outlive_a_killed_test_run() -> None:
    text = (
        "import sys\nsys.path.insert(0, sys.argv[1])\n"
        "from tests.oidc.provider import serve, Client\n"
        "with serve({'a': Client()}) as p:\n"
        "    print(p.issuer, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", text, str(Path.cwd())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        issuer = run.stdout.readline().strip()
        assert get(f"{issuer}/jwks")["keys"]
        run.send_signal(signal.SIGKILL)
    with httpx2.Client(trust_env=False) as client:
        for _ in range(200):
            try:
                client.get(f"{issuer}/jwks")
            except httpx2.TransportError:
                return
            signal.sigtimedwait([], 0.05)
    pytest.fail("the provider is still there")
