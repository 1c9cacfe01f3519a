"""Who gatebook is to a provider: secrets that need encoding, keys that do not fit, assertions used once."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey
from tests.identity.mint import NOW, ec_key, rsa_key

from gatebook.config.base import Secret
from gatebook.config.model import ProviderClient
from gatebook.errors import EnvironmentFault
from gatebook.identity.client_auth import ClientAuth

URL = "https://login.example/introspect"


def client(**settings: Any) -> ProviderClient:
    return ProviderClient(**{"id": "gateway", **settings})


def secret(folder: Path, content: str | bytes) -> Secret:
    path = folder / "secret"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Secret(file=path)


def pem(key: Any, encryption: serialization.KeySerializationEncryption | None = None) -> bytes:
    made: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        encryption or serialization.NoEncryption(),
    )
    return made


@pytest.mark.parametrize("content", ["s3cret", "a:b@c/d+e f%41&=?", "é".encode().hex(), "x" * 1000])
def test_secret_in_basic_is_form_encoded_first(tmp_path: Path, content: str) -> None:
    auth = ClientAuth(client(id="gate:way", secret=secret(tmp_path, content)), URL)
    form, headers = auth.prove(NOW)
    assert form == {}
    scheme, _, value = headers["Authorization"].partition(" ")
    name, _, told = base64.b64decode(value).decode().partition(":")
    assert (scheme, unquote_plus(name), unquote_plus(told)) == ("Basic", "gate:way", content)


def test_secret_in_the_form_and_nowhere_else(tmp_path: Path) -> None:
    auth = ClientAuth(client(method="post", secret=secret(tmp_path, "a b\r\n")), URL)
    assert auth.prove(NOW) == ({"client_id": "gateway", "client_secret": "a b"}, {})


KEYS: dict[str, tuple[Any, type[RSAKey] | type[ECKey] | type[OKPKey], str]] = {
    "rsa": (rsa_key("c1").private, RSAKey, "RS256"),
    "p256": (ec_key("c1").private, ECKey, "ES256"),
    "p384": (ec.generate_private_key(ec.SECP384R1()), ECKey, "ES384"),
    "p521": (ec.generate_private_key(ec.SECP521R1()), ECKey, "ES512"),
    "ed25519": (ed25519.Ed25519PrivateKey.generate(), OKPKey, "EdDSA"),
}


@pytest.mark.filterwarnings("ignore:EdDSA")
@pytest.mark.parametrize("name", KEYS)
def test_assertion_holds_by_the_key_and_says_what_rfc_7523_asks(tmp_path: Path, name: str) -> None:
    key, kind, alg = KEYS[name]
    said = client(method="private_key_jwt", key=secret(tmp_path, pem(key)), key_id="k1")
    form, headers = ClientAuth(said, "https://login.example").prove(NOW + 0.9)
    assert headers == {}
    assertion = form.pop("client_assertion")
    kind_of_assertion = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert form == {"client_id": "gateway", "client_assertion_type": kind_of_assertion}
    public = kind.import_key(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    token = jwt.decode(assertion, public, algorithms=[alg])
    assert token.header == {"alg": alg, "typ": "JWT", "kid": "k1"}
    jti = token.claims.pop("jti")
    assert len(jti) >= 22
    assert token.claims == {
        "iss": "gateway",
        "sub": "gateway",
        "aud": "https://login.example",
        "iat": int(NOW),
        "exp": int(NOW) + 60,
    }


def test_assertion_is_another_one_each_time_and_for_whom_is_configured(tmp_path: Path) -> None:
    key = secret(tmp_path, pem(ec_key("c1").private))
    auth = ClientAuth(client(method="private_key_jwt", key=key, audience="https://other.example"), URL)
    first, second = (auth.prove(NOW)[0]["client_assertion"] for _ in range(2))
    claims = [jwt.decode(each, ECKey.import_key(pem(ec_key("c1").private))).claims for each in (first, second)]
    assert claims[0]["jti"] != claims[1]["jti"]
    assert claims[0]["aud"] == "https://other.example"
    assert "kid" not in jwt.decode(first, ECKey.import_key(pem(ec_key("c1").private))).header


def test_algorithm_may_be_chosen_among_the_key_s(tmp_path: Path) -> None:
    key = secret(tmp_path, pem(rsa_key("c1").private))
    auth = ClientAuth(client(method="private_key_jwt", key=key, algorithm="PS256"), URL)
    found = jwt.decode(
        auth.prove(NOW)[0]["client_assertion"], RSAKey.import_key(rsa_key("c1").pem()), algorithms=["PS256"]
    )
    assert found.header["alg"] == "PS256"


@pytest.mark.parametrize(
    ("content", "settings"),
    [
        (b"no pem", {}),
        (rsa_key("c1").pem(), {}),  # the public half
        (pem(rsa.generate_private_key(65537, 1024)), {}),
        (pem(ec.generate_private_key(ec.SECP256K1())), {}),
        (pem(ec.generate_private_key(ec.SECP224R1())), {}),
        (pem(ec_key("c1").private, serialization.BestAvailableEncryption(b"x")), {}),
        (pem(ec_key("c1").private), {"algorithm": "RS256"}),
        (pem(ec_key("c1").private), {"algorithm": "ES384"}),
        (pem(rsa_key("c1").private), {"algorithm": "ES256"}),
        (b"\x00\xff", {}),
    ],
)
def test_key_that_cannot_sign_is_said_at_once(tmp_path: Path, content: bytes, settings: dict[str, Any]) -> None:
    with pytest.raises(EnvironmentFault, match="secret") as fault:
        ClientAuth(client(method="private_key_jwt", key=secret(tmp_path, content), **settings), URL)
    assert "PRIVATE KEY" not in str(fault.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"a\x00b", b"\xff", "geheimniß".encode(), b"a\tb", b"x" * 70_000])
def test_secret_that_is_none_is_said_at_once_and_not_shown(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(EnvironmentFault, match="it should hold a secret") as fault:
        ClientAuth(client(secret=secret(tmp_path, content)), URL)
    assert "geheim" not in str(fault.value)
