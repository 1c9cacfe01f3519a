"""The demo's OpenID provider: its tokens are right, the expired ones too, and guessing gets none."""

from __future__ import annotations

import time
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from gatebook.demo.provider import AUDIENCE, CLIENTS, LIFETIME_S

Client = httpx2.Client
ALICE = ("alice", CLIENTS["alice"].secret)


def ask(client: Client, issuer: str, auth: tuple[str, str] = ALICE, /, **form: str) -> httpx2.Response:
    return client.post(f"{issuer}/token", auth=auth, data={"grant_type": "client_credentials"} | form)


def claims(client: Client, issuer: str, **form: str) -> dict[str, Any]:
    """Verified with the key that discovery leads to."""
    found = client.get(f"{issuer}/.well-known/openid-configuration").json()
    keys = KeySet.import_key_set(client.get(found["jwks_uri"]).json())
    token = jwt.decode(ask(client, issuer, **form).json()["access_token"], keys, algorithms=["RS256"])
    assert token.header["typ"] == "at+jwt"
    return token.claims


def test_discovery_names_the_issuer_it_was_asked_at(issuer: str, client: Client) -> None:
    assert client.get(f"{issuer}/.well-known/openid-configuration").json()["issuer"] == issuer


def test_private_key_is_not_published(issuer: str, client: Client) -> None:
    (key,) = client.get(f"{issuer}/jwks").json()["keys"]
    assert key.keys() == {"kty", "n", "e", "use", "alg", "kid"}


@pytest.mark.parametrize("name", CLIENTS)
def test_token_says_who_its_client_is(issuer: str, client: Client, name: str) -> None:
    wanted = CLIENTS[name]
    answer = ask(client, issuer, (name, wanted.secret))
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["token_type"] == "Bearer"
    keys = KeySet.import_key_set(client.get(f"{issuer}/jwks").json())
    said = jwt.decode(answer.json()["access_token"], keys, algorithms=["RS256"]).claims
    assert (said["iss"], said["aud"], said["sub"], said["client_id"]) == (issuer, AUDIENCE, name, name)
    assert (said["roles"], said["tenant"]) == (list(wanted.roles), wanted.tenant)
    assert said["exp"] - said["iat"] == LIFETIME_S


def test_secret_may_stand_in_the_form(issuer: str, client: Client) -> None:
    form = {"grant_type": "client_credentials", "client_id": "bob", "client_secret": CLIENTS["bob"].secret}
    answer = client.post(f"{issuer}/token", data=form)
    assert answer.status_code == 200


def test_plain_token_is_the_token_alone(issuer: str, client: Client) -> None:
    answer = ask(client, issuer, plain="yes")
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text.count(".") == 2
    assert answer.text == answer.text.strip()


def test_expired_token_is_over_and_otherwise_in_order(issuer: str, client: Client) -> None:
    said = claims(client, issuer, lifetime="-60")
    assert said["exp"] <= time.time() - 60
    assert said["exp"] - said["iat"] == LIFETIME_S


def test_lifetime_is_bounded(issuer: str, client: Client) -> None:
    said = claims(client, issuer, lifetime="99999")
    assert said["exp"] - said["iat"] == 3600


@pytest.mark.parametrize(
    "auth", [("alice", ""), ("alice", "guessed"), ("", ""), ("mallory", ALICE[1]), ("alice", "ü")]
)
def test_wrong_secret_gets_no_token(issuer: str, client: Client, auth: tuple[str, str]) -> None:
    answer = ask(client, issuer, auth)
    assert answer.status_code == 401
    assert answer.json() == {"error": "invalid_client"}
    assert answer.headers["www-authenticate"].startswith("Basic")


@pytest.mark.parametrize("header", ["", "Basic", "Basic %%%", "Basic /w==", "Bearer x"])
def test_garbled_authentication_gets_no_token(issuer: str, client: Client, header: str) -> None:
    data = {"grant_type": "client_credentials"}
    answer = client.post(f"{issuer}/token", data=data, headers={"Authorization": header})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "invalid_request"),
        (b"grant_type=client_credentials&lifetime=soon", "invalid_request"),
        (b"grant_type=client_credentials&lifetime=\xd9\xa1", "invalid_request"),
        (b"grant_type=client_credentials&lifetime=%D9%A1", "invalid_request"),
        (b"grant_type=client_credentials&lifetime=" + b"9" * 5000, "invalid_request"),
        (b"grant_type=client_credentials&grant_type=password", "invalid_request"),
        (b"grant_type=password", "unsupported_grant_type"),
        (b"x=" + b"y" * 9000, "invalid_request"),
        (b"&".join(b"a%d=1" % n for n in range(100)), "invalid_request"),
    ],
)
def test_garbled_request_gets_no_token(issuer: str, client: Client, body: bytes, error: str) -> None:
    answer = client.post(f"{issuer}/token", content=body, auth=ALICE)
    assert answer.status_code == 400
    assert answer.json() == {"error": error}
