"""A provider's keys, and tokens as it or an attacker would make them. Made with cryptography alone, so that
what is not to be had from a JOSE library (broken forms, mixed-up keys) can be made too."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from gatebook.config.model import OIDCProvider
from gatebook.identity.jwk import Keys, parse_jwks

NOW = 1_800_000_000.0
ISSUER = "https://login.example"
AUDIENCE = "orders-api"

Sign = Callable[[bytes], bytes]
_CURVES: dict[str, tuple[ec.EllipticCurve, hashes.HashAlgorithm, int]] = {
    "P-256": (ec.SECP256R1(), hashes.SHA256(), 32),
    "P-384": (ec.SECP384R1(), hashes.SHA384(), 48),
    "P-521": (ec.SECP521R1(), hashes.SHA512(), 66),
}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def integer(number: int, size: int | None = None) -> str:
    return b64(number.to_bytes(size or (number.bit_length() + 7) // 8))


class RSA:
    def __init__(self, bits: int = 2048) -> None:
        self.private = rsa.generate_private_key(65537, bits)

    def jwk(self, **more: Any) -> dict[str, Any]:
        numbers = self.private.public_key().public_numbers()
        return {"kty": "RSA", "n": integer(numbers.n), "e": integer(numbers.e), **more}

    def pem(self) -> bytes:
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def pkcs1(self, data: bytes) -> bytes:
        return self.private.sign(data, padding.PKCS1v15(), hashes.SHA256())

    def pss(self, data: bytes, salt: int = 32) -> bytes:
        return self.private.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), salt), hashes.SHA256())


class EC:
    def __init__(self, curve: str = "P-256") -> None:
        self.crv = curve
        self.curve, self.hash, self.size = _CURVES[curve]
        self.private = ec.generate_private_key(self.curve)

    def jwk(self, **more: Any) -> dict[str, Any]:
        numbers = self.private.public_key().public_numbers()
        x, y = integer(numbers.x, self.size), integer(numbers.y, self.size)
        return {"kty": "EC", "crv": self.crv, "x": x, "y": y, **more}

    def der(self, data: bytes) -> bytes:
        return self.private.sign(data, ec.ECDSA(self.hash))

    def sign(self, data: bytes) -> bytes:
        r, s = decode_dss_signature(self.der(data))
        return r.to_bytes(self.size) + s.to_bytes(self.size)


class Ed:
    def __init__(self) -> None:
        self.private = ed25519.Ed25519PrivateKey.generate()

    def jwk(self, **more: Any) -> dict[str, Any]:
        raw = self.private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(raw), **more}

    def sign(self, data: bytes) -> bytes:
        return self.private.sign(data)


@cache
def rsa_key(name: str) -> RSA:
    """The same key for the same name: making one takes a tenth of a second."""
    return RSA()


@cache
def ec_key(name: str, curve: str = "P-256") -> EC:
    return EC(curve)


@cache
def ed_key(name: str) -> Ed:
    return Ed()


def hs256(secret: bytes) -> Sign:
    return lambda data: hmac.digest(secret, data, hashlib.sha256)


def published() -> list[dict[str, Any]]:
    """The provider's JWKS, as the tests of tokens use it."""
    return [
        rsa_key("r1").jwk(kid="r1", use="sig", alg="RS256"),
        rsa_key("any").jwk(kid="any"),
        ec_key("e1").jwk(kid="e1", use="sig"),
        ed_key("o1").jwk(kid="o1", alg="EdDSA"),
    ]


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


@cache
def provider_keys() -> Keys:
    return parse_jwks(jwks(*published()))


def oidc(**settings: Any) -> OIDCProvider:
    return OIDCProvider(**{"type": "oidc", "issuer": ISSUER, "audience": [AUDIENCE], **settings})


ABSENT: Any = object()


def claims(**changed: Any) -> dict[str, Any]:
    """Of a good token at NOW; ABSENT takes a claim away."""
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "client_id": "web",
        "iat": NOW - 10,
        "exp": NOW + 300,
        "roles": ["reader"],
    }
    return {name: value for name, value in {**good, **changed}.items() if value is not ABSENT}


def assemble(header: bytes, payload: bytes, sign: Sign) -> bytes:
    """The parts as they are given, whatever they are."""
    signed = f"{b64(header)}.{b64(payload)}"
    return f"{signed}.{b64(sign(signed.encode()))}".encode()


def mint(
    said: dict[str, Any] | None = None, header: dict[str, Any] | None = None, sign: Sign | None = None
) -> bytes:
    """By default a good token of key r1. `header` is added to; ABSENT takes a parameter away."""
    merged = {"alg": "RS256", "kid": "r1", "typ": "at+jwt", **(header or {})}
    head = {name: value for name, value in merged.items() if value is not ABSENT}
    body = claims() if said is None else said
    return assemble(json.dumps(head).encode(), json.dumps(body).encode(), sign or rsa_key("r1").pkcs1)


P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def other_signature(token: bytes) -> bytes:
    """The second signature that holds for an ES256 token (r and n - s), which anybody can make of the first."""
    signed, _, signature = token.rpartition(b".")
    raw = base64.urlsafe_b64decode(signature + b"==")
    return signed + b"." + b64(raw[:32] + (P256_ORDER - int.from_bytes(raw[32:])).to_bytes(32)).encode()
