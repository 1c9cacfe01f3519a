"""Clients that sign (private_key_jwt): used once, for us alone, by their own key; attacks by their names."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives import serialization
from tests.identity.mint import ABSENT, EC, RSA, Sign, ec_key, ed_key, hs256, mint, rsa_key
from tests.portal.place import URL, House
from tests.portal.service import TOKEN, Asking, error, make_client, reason

from gatebook import wire
from gatebook.config.base import Secret
from gatebook.config.model import ProviderClient
from gatebook.errors import GatebookError
from gatebook.identity import client_file
from gatebook.identity.client_auth import ClientAuth
from gatebook.identity.client_file import Made, public_key
from gatebook.portal.assertion import TYPE

ISSUER = f"{URL}/.gatebook"


def pem(key: Any) -> bytes:
    data: bytes = key.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return data


class Signing:
    """A client with a key, at an address of its own."""

    def __init__(self, house: House, number: int, key: Any = None) -> None:
        self.house = house
        self.key = key or ec_key("client")
        self.made: Made = make_client(house, key=public_key(pem(self.key)))
        self.address = f"203.0.113.{number}"
        self._number = 0

    def assertion(self, *, sign: Sign | None = None, header: dict[str, Any] | None = None, **changed: Any) -> str:
        now = int(time.time())
        self._number += 1
        client_id = self.made.client.id
        known = {"iss": client_id, "sub": client_id, "aud": ISSUER, "iat": now, "exp": now + 60}
        known["jti"] = f"{client_id}-{self._number}"
        said = {name: value for name, value in {**known, **changed}.items() if value is not ABSENT}
        head = {"alg": "ES256", "typ": "JWT", "kid": ABSENT, **(header or {})}
        return mint(said, head, sign or self.key.sign).decode()

    def ask(self, assertion: str, **fields: str) -> httpx2.Response:
        form = {"grant_type": "client_credentials", "client_assertion_type": TYPE, "client_assertion": assertion}
        form |= fields
        form = {name: value for name, value in form.items() if value}
        return self.house.ask(TOKEN, data=form, gateway={"Gatebook-Address": self.address})


_numbers = iter(range(1, 255))


@pytest.fixture
def signing(shared: House) -> Signing:
    return Signing(shared, next(_numbers))


def test_assertion_gets_a_token_and_has_no_secret_to_lose(shared: House, signing: Signing) -> None:
    assert signing.made.secret == ""
    answer = signing.ask(signing.assertion())
    assert answer.status_code == 200, answer.text
    found = shared.decisions[-1].identity
    assert found is not None
    assert found.method == "private_key_jwt"
    assert found.client == signing.made.client.id


@pytest.mark.parametrize("audience", [ISSUER, f"{ISSUER}/token", [ISSUER]])
@pytest.mark.parametrize("kid", [ABSENT, "whatever the client calls it"])
def test_issuer_or_endpoint_is_the_audience(signing: Signing, audience: Any, kid: Any) -> None:
    assert signing.ask(signing.assertion(aud=audience, header={"kid": kid})).status_code == 200


@pytest.mark.parametrize("kind", ["rsa", "ed25519", "p384"])
def test_other_kinds_of_key(shared: House, kind: str) -> None:
    key, alg, sign = {
        "rsa": (rsa_key("c"), "PS256", rsa_key("c").pss),
        "ed25519": (ed_key("c"), "EdDSA", ed_key("c").sign),
        "p384": (ec_key("c", "P-384"), "ES384", ec_key("c", "P-384").sign),
    }[kind]
    made = Signing(shared, next(_numbers), key)
    assert made.ask(made.assertion(header={"alg": alg}, sign=sign)).status_code == 200


def test_replayed_assertion_is_refused(shared: House, signing: Signing) -> None:
    assertion = signing.assertion()
    assert signing.ask(assertion).status_code == 200
    answer = signing.ask(assertion)
    assert error(answer, 401) == "invalid_client"
    assert reason(shared, answer) == "client_refused"


def test_replayed_id_in_a_new_assertion_is_refused(signing: Signing) -> None:
    assert signing.ask(signing.assertion(jti="same")).status_code == 200
    assert signing.ask(signing.assertion(jti="same")).status_code == 401


def test_same_id_of_another_client_is_no_replay(shared: House, signing: Signing) -> None:
    other = Signing(shared, next(_numbers), ec_key("other"))
    assert signing.ask(signing.assertion(jti="1")).status_code == 200
    assert other.ask(other.assertion(jti="1")).status_code == 200


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": URL},
        {"aud": "https://other.example/token"},
        {"aud": [ISSUER, "https://other.example"]},
        {"aud": []},
        {"aud": ABSENT},
        {"aud": f"{ISSUER}/"},
        {"iss": "https://login.example"},
        {"iss": ABSENT},
        {"exp": ABSENT},
        {"exp": 1},
        {"exp": time.time() + 1e6, "iat": ABSENT},
        {"iat": time.time() - 400},
        {"iat": time.time() + 86400},
        {"nbf": time.time() + 86400},
        {"jti": ABSENT},
        {"jti": ""},
        {"jti": 7},
    ],
)
def test_assertion_that_is_not_for_us_here_and_now_and_once(signing: Signing, changed: dict[str, Any]) -> None:
    assert error(signing.ask(signing.assertion(**changed)), 401) == "invalid_client"


@pytest.mark.parametrize(
    "attack", ["other key", "none", "HS256 with the public key", "embedded key", "access token"]
)
def test_forged_assertion(shared: House, signing: Signing, attack: str) -> None:
    attacker: EC = ec_key("attacker")
    match attack:
        case "other key":
            forged = signing.assertion(sign=attacker.sign)
        case "none":
            forged = signing.assertion(header={"alg": "none"}, sign=lambda data: b"x")
        case "HS256 with the public key":
            jwk = json.dumps(signing.made.client.key).encode()
            forged = signing.assertion(header={"alg": "HS256"}, sign=hs256(jwk))
        case "embedded key":
            forged = signing.assertion(header={"jwk": attacker.jwk()}, sign=attacker.sign)
        case _:
            forged = signing.ask(signing.assertion()).json()["access_token"]
    assert error(signing.ask(forged), 401) == "invalid_client"


def test_assertion_of_one_client_in_the_name_of_another(shared: House, signing: Signing) -> None:
    other = Signing(shared, next(_numbers), ec_key("other"))
    assert error(signing.ask(signing.assertion(sub=other.made.client.id)), 401) == "invalid_client"
    name = other.made.client.id
    assert error(signing.ask(signing.assertion(sub=name, iss=name)), 401) == "invalid_client"
    assert error(signing.ask(signing.assertion(), client_id=other.made.client.id)) == "invalid_request"


def test_two_ways_at_once_or_half_of_one_are_refused(shared: House, signing: Signing) -> None:
    assert error(signing.ask(signing.assertion(), client_secret="x")) == "invalid_request"
    assert error(signing.ask(signing.assertion(), client_assertion_type="")) == "invalid_request"
    assert error(signing.ask(""), 401) == "invalid_client"
    assert error(signing.ask("x.y.z"), 401) == "invalid_client"
    with_secret = Asking(shared, make_client(shared), "203.0.113.250")
    answer = with_secret.credentials(client_assertion=signing.assertion(), client_assertion_type=TYPE)
    assert error(answer) == "invalid_request"


def test_client_with_a_secret_cannot_sign_and_one_with_a_key_has_no_secret(
    shared: House, signing: Signing
) -> None:
    plain = make_client(shared)
    forged = signing.assertion(iss=plain.client.id, sub=plain.client.id)
    assert error(signing.ask(forged), 401) == "invalid_client"
    both = client_file.Made(plain.secret, signing.made.client)
    assert error(Asking(shared, both, "203.0.113.251").credentials(), 401) == "invalid_client"


def test_revoked_client_signs_in_vain(shared: House, signing: Signing) -> None:
    client_file.revoke(shared.paths.clients, signing.made.client.id, now=1, announce=lambda client: None)
    assert error(signing.ask(signing.assertion()), 401) == "invalid_client"


def test_use_that_is_not_durable_does_not_count(own: House) -> None:
    signing = Signing(own, 1)
    twin = own.recorder.twin

    def refuse(message: wire.Message) -> wire.Reply | None:
        return wire.Refused("full") if isinstance(message, wire.Once) else twin.honestly(message)

    own.recorder.do(lambda: setattr(twin, "judge", refuse))
    assert signing.ask(signing.assertion()).status_code == 503


def test_our_own_way_of_proving_is_taken(shared: House, tmp_path: Path) -> None:
    """What introspection sends to a provider, sent to ourselves."""
    key = ec_key("client")
    path = tmp_path / "client.pem"
    path.write_bytes(
        key.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    path.chmod(0o600)
    made = make_client(shared, key=public_key(pem(key)))
    settings = ProviderClient(id=made.client.id, method="private_key_jwt", key=Secret(file=path))
    fields, headers = ClientAuth(settings, ISSUER).prove(time.time())
    answer = shared.ask(
        TOKEN,
        data={"grant_type": "client_credentials", **fields},
        headers=headers,
        gateway={"Gatebook-Address": "203.0.113.252"},
    )
    assert answer.status_code == 200


# -- keys that clients give ---------------------------------------------------------------------------------
def test_key_as_jwk_is_the_key_as_pem() -> None:
    key = ec_key("client")
    assert public_key(json.dumps(key.jwk(kid="mine", use="sig")).encode()) == public_key(pem(key))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no public key"),
        (b"{", "no public key"),
        (b"{}", "cannot be used"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key"),
        (json.dumps(ec_key("c").jwk(d="x")).encode(), "private key"),
        (b"-----BEGIN PRIVATE KEY-----", "private key"),
        (json.dumps({"kty": "oct", "k": "c2VjcmV0"}).encode(), "private key"),
        (pem(RSA(1024)), "cannot"),
    ],
)
def test_what_is_no_public_key_that_may_verify_is_said(data: bytes, said: str) -> None:
    with pytest.raises(GatebookError, match=said):
        public_key(data)
