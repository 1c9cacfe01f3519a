"""Proofs of possession (DPoP, RFC 9449): that a request was made by whoever holds a token's key.

In: a request as it was shown, the token, what is asked of proofs, the time. Out: `Proof`, or `Unfit` with a reason
of record.REASONS. The order is the form, the key, the signature, and only then what the proof says that it is for.
Each request has its own; that none comes twice is for the caller to see to, by `Proof.once`. The key in a proof
says only who made the proof: never takes it for a token's, `jkt` is the caller's to compare. Pure.
"""

from __future__ import annotations

import functools
import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Collection
from typing import Any, Final, NamedTuple

from gatebook.identity import jws
from gatebook.identity.jwk import Key, parse_public
from gatebook.identity.jws import Compact, Unfit
from gatebook.identity.nonce import Nonces
from gatebook.identity.once import key_of
from gatebook.identity.strict import decode_base64url, parse_object
from gatebook.identity.types import Presented

HEADER: Final = b"dpop"
ALGORITHMS: Final = (
    "ES256",
    "ES384",
    "ES512",
    "Ed25519",
    "EdDSA",
    "PS256",
    "PS384",
    "PS512",
    "RS256",
    "RS384",
    "RS512",
)
MAX_PROOF_BYTES: Final = 4 << 10
MAX_JTI_LENGTH: Final = 256
MAX_AGE_S: Final = 60.0  # and as much more as clocks may differ

_TYPE: Final = "dpop+jwt"
_OTHER_NAMES: Final = {"Ed25519": "EdDSA"}  # RFC 9864
_URL = re.compile(r"(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?([/?#][!-~]*)?", re.IGNORECASE)
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PORTS = {"http": "80", "https": "443"}


class Asked(NamedTuple):
    """What is asked of proofs. `origins`: what clients reach us by, as `target` spells it."""

    origins: Collection[str]
    skew_s: float
    nonces: Nonces | None  # None: no nonce is asked for


class Proof(NamedTuple):
    """A proof that holds. `once`: the key of its one use, which is possible until then."""

    jkt: str  # its key's thumbprint (RFC 7638)
    once: bytes
    until_us: int
    nonce_age_s: float = 0.0  # where one was asked for


class Target(NamedTuple):
    origin: str
    path: str


def check(presented: Presented, token_sha256: bytes, asked: Asked, now: float) -> Proof:
    """Raises Unfit."""
    compact, claims, key = _read(_only(presented.headers))
    if not jws.signed_by(compact, key.public, compact.alg):
        raise Unfit("proof_signature")
    jti, issued_at = claims.get("jti"), _time(claims, "iat")
    if not isinstance(jti, str) or not 0 < len(jti) <= MAX_JTI_LENGTH or issued_at is None:
        raise Unfit("proof_malformed")
    said = target(claims["htu"]) if isinstance(claims.get("htu"), str) else None
    if claims.get("htm") != presented.method or said is None or said != target(presented.url):
        raise Unfit("proof_target")
    if said.origin not in asked.origins:
        # Of both of them a client says the host. What was made for somebody else's server must not open ours.
        raise Unfit("proof_target")
    ends = _check_times(claims, issued_at, asked.skew_s, now)
    ath = claims.get("ath")
    if not isinstance(ath, str) or not hmac.compare_digest(ath.encode(), _base64url(token_sha256)):
        raise Unfit("proof_token")
    age_s = _nonce_age(claims.get("nonce"), asked.nonces, now)
    return Proof(key.thumbprint, key_of("proof", key.thumbprint, jti), int(ends * 1e6) + 1, age_s)


def _only(headers: list[tuple[bytes, bytes]]) -> bytes:
    found = [value for name, value in headers if name == HEADER]
    if not found:
        raise Unfit("proof_missing")
    if len(found) > 1 or len(found[0]) > MAX_PROOF_BYTES:
        raise Unfit("proof_malformed")
    return found[0]


def _read(proof: bytes) -> tuple[Compact, dict[str, Any], Key]:
    """Form only; believe nothing of it."""
    try:
        compact = jws.parse(proof)
        claims = parse_object(compact.payload)
    except (Unfit, ValueError):
        raise Unfit("proof_malformed") from None
    if compact.header.get("typ") != _TYPE:
        raise Unfit("proof_malformed")
    if compact.alg not in ALGORITHMS:
        raise Unfit("proof_algorithm")
    try:
        key = _key(proof[: proof.index(b".")])
    except ValueError:
        raise Unfit("proof_malformed") from None
    if _OTHER_NAMES.get(compact.alg, compact.alg) not in key.algorithms:
        raise Unfit("proof_algorithm")
    return compact, claims, key


@functools.lru_cache(maxsize=2048)
def _key(head: bytes) -> Key:
    """The key in a header. All proofs of a client have the same one, so its key is not made each time anew."""
    return parse_public(parse_object(decode_base64url(head)).get("jwk"))


def _check_times(claims: dict[str, Any], issued_at: float, skew_s: float, now: float) -> float:
    """The moment from which on the proof is refused."""
    expires, begins = _time(claims, "exp"), _time(claims, "nbf")
    if max(issued_at, begins or 0) > now + skew_s:
        raise Unfit("proof_not_yet_valid")
    ends = min(issued_at + MAX_AGE_S, issued_at + MAX_AGE_S if expires is None else expires) + skew_s
    if now >= ends:
        raise Unfit("proof_expired")
    return ends


def _time(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Unfit("proof_malformed")
    return float(value)


def _nonce_age(nonce: object, nonces: Nonces | None, now: float) -> float:
    if nonces is None:
        return 0.0
    age_s = nonces.age(nonce, now) if isinstance(nonce, str) else None
    if age_s is None:
        raise Unfit("proof_nonce")
    return age_s


def target(url: str) -> Target | None:
    """The URL without query and fragment, in one spelling (RFC 3986, 6.2.2 and 6.2.3); None for what is none."""
    found = _URL.fullmatch(url)
    if found is None:
        return None
    scheme, host, port, rest = found[1].lower(), found[2].lower(), found[3], found[4] or "/"
    path = re.split(r"[?#]", rest, maxsplit=1)[0] or "/"
    origin = f"{scheme}://{host}" if port is None or port == _PORTS[scheme] else f"{scheme}://{host}:{port}"
    return Target(origin, _ESCAPE.sub(_spelt, path) if "%" in path else path)


def _spelt(escape: re.Match[str]) -> str:
    letter = chr(int(escape[1], 16))
    return letter if letter in _UNRESERVED else escape[0].upper()


def _base64url(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
