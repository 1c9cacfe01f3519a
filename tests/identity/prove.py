"""DPoP proofs as a client or an attacker would make them, by cryptography alone (tests.identity.mint)."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

from tests.identity.mint import ABSENT, NOW, Sign, assemble, b64, ec_key

from gatebook.identity.types import Presented

URL = "https://api.acme.example/orders/7"
TOKEN = b"eyJhbGciOiJFUzI1NiJ9.e30.c2ln"


def ath(token: bytes = TOKEN) -> str:
    return b64(hashlib.sha256(token).digest())


def jkt(key: Any) -> str:
    """RFC 7638, of an EC key."""
    members = {name: value for name, value in sorted(key.jwk().items()) if name in ("crv", "kty", "x", "y")}
    return b64(hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest())


def prove(
    said: dict[str, Any] | None = None,
    header: dict[str, Any] | None = None,
    key: Any = None,
    sign: Sign | None = None,
    token: bytes = TOKEN,
) -> bytes:
    """By default a good proof for GET of URL at NOW; ABSENT takes something away."""
    key = key or ec_key("holder")
    head = {"typ": "dpop+jwt", "alg": "ES256", "jwk": key.jwk(), **(header or {})}
    body = {"htm": "GET", "htu": URL, "iat": int(NOW), "jti": str(uuid.uuid4()), "ath": ath(token), **(said or {})}
    parts = [{name: value for name, value in part.items() if value is not ABSENT} for part in (head, body)]
    return assemble(json.dumps(parts[0]).encode(), json.dumps(parts[1]).encode(), sign or key.sign)


def shown(*proofs: bytes, method: str = "GET", url: str = URL, certificate: bytes = b"") -> Presented:
    return Presented([(b"dpop", proof) for proof in proofs], method, url, certificate)
