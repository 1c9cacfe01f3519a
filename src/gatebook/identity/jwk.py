"""A provider's published keys (JWKS, RFC 7517) -> those that may verify a token, and by which algorithms.

In: the document's bytes, trusted as far as TLS goes, but not to be well made. Out: `Keys`. A key serves only
the algorithms of its type and, where it names one, only that. What is unknown, too small, meant for
encryption, secret or broken is passed over and counted; a private key that was published is never used,
for anybody may sign with it. A document that is no JWKS at all is a ValueError. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from gatebook.identity.jws import MAX_KID_LENGTH
from gatebook.identity.strict import decode_base64url, parse_object

MAX_KEYS = 256
MAX_CANDIDATES = 4  # tried for one token; so that nobody buys much work with one request
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final = {
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


Mark = tuple[str | None, str, str]


class Key(NamedTuple):
    """A public key that may verify. `thumbprint` is RFC 7638's."""

    kid: str | None
    algorithms: frozenset[str]
    thumbprint: str
    public: RSAKey | ECKey | OKPKey

    def mark(self, alg: str) -> Mark:
        """What stands for "this key, under this name, by this algorithm"."""
        return self.kid, self.thumbprint, alg


class Keys:
    """The usable keys of one document. `marks`: of every key and algorithm in it."""

    def __init__(self, keys: list[Key], ignored: dict[str, int]) -> None:
        self.ignored = ignored  # why -> how many
        self.marks = frozenset(key.mark(alg) for key in keys for alg in key.algorithms)
        self._by_kid: dict[str | None, list[Key]] = {}
        for key in keys:
            self._by_kid.setdefault(key.kid, []).append(key)
        self._all = keys

    def __len__(self) -> int:
        return len(self._all)

    def named(self, kid: str | None) -> list[Key]:
        """The keys of this name; for a token that names none, all of them."""
        return self._all if kid is None else self._by_kid.get(kid, [])


NONE: Final = Keys([], {})


def parse_jwks(data: bytes) -> Keys:
    """Raises ValueError when it is no JWKS, or has more than MAX_KEYS."""
    listed = parse_object(data).get("keys")
    if not isinstance(listed, list):
        raise ValueError("no list of `keys`")
    if len(listed) > MAX_KEYS:
        raise ValueError(f"{len(listed)} keys; at most {MAX_KEYS} are read")
    keys: list[Key] = []
    ignored: dict[str, int] = {}
    for jwk in listed:
        try:
            key = _key(jwk)
        except (ValueError, JoseError, TypeError) as error:
            why = str(error) if isinstance(error, _Passed) else "broken"
            ignored[why] = ignored.get(why, 0) + 1
            continue
        if not any(key[:3] == other[:3] for other in keys):
            keys.append(key)
    return Keys(keys, ignored)


def parse_public(jwk: object) -> Key:
    """One public key. Raises ValueError for whatever `parse_jwks` passes over."""
    try:
        return _key(jwk)
    except (JoseError, TypeError):
        raise ValueError("broken") from None


def algorithms_of(jwk: Mapping[str, Any]) -> frozenset[str]:
    """By which this public key may sign, whatever it says itself; none if it is no key that `parse_jwks` takes."""
    plain = {name: jwk[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in jwk}
    try:
        return _key(plain).algorithms
    except (ValueError, JoseError, TypeError):
        return frozenset()


class _Passed(ValueError):
    """Why a key is passed over, in our own words."""


def _key(jwk: Any) -> Key:
    if not isinstance(jwk, dict):
        raise _Passed("no object")
    kid, kty, crv = jwk.get("kid"), jwk.get("kty"), jwk.get("crv")
    if not (kid is None or (isinstance(kid, str) and len(kid) <= MAX_KID_LENGTH)):
        raise _Passed("kid is no text")
    if not isinstance(kty, str) or not (crv is None or isinstance(crv, str)):
        raise _Passed("broken")
    algorithms = _RSA if kty == "RSA" else _CURVES.get((kty, crv or ""))
    if algorithms is None:
        raise _Passed("unknown type")
    if _PRIVATE & jwk.keys():
        raise _Passed("private key published")
    if jwk.get("use", "sig") != "sig" or not _may_verify(jwk.get("key_ops", ["verify"])):
        raise _Passed("not for signatures")
    if "alg" in jwk:
        algorithms = algorithms & {jwk["alg"]}
        if not algorithms:
            raise _Passed("unknown algorithm")
    public = _public(jwk, kty)
    return Key(kid, algorithms, public.thumbprint(), public)


def _may_verify(operations: object) -> bool:
    return isinstance(operations, list) and "verify" in operations


def _public(jwk: dict[str, Any], kty: str) -> RSAKey | ECKey | OKPKey:
    """The key's numbers alone: what else the provider says of it (certificates, urls) is of no use here."""
    members = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}[kty]
    plain: dict[str, str | list[str]] = {"kty": kty}
    for name in members:
        value = jwk.get(name)
        if not isinstance(value, str):
            raise _Passed("broken")
        plain[name] = value
    if kty == "RSA":
        _check_rsa(jwk["n"], jwk["e"])
        return RSAKey.import_key(plain)
    key = ECKey.import_key(plain) if kty == "EC" else OKPKey.import_key(plain)
    _ = key.public_key  # a point that is not on the curve shows here, not at the first token
    return key


def _check_rsa(n: str, e: str) -> None:
    modulus, exponent = (int.from_bytes(decode_base64url(text.encode("ascii"))) for text in (n, e))
    if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS:
        raise _Passed("RSA key too small" if modulus.bit_length() < MIN_RSA_BITS else "RSA key too large")
    if not 3 <= exponent < 1 << 33 or exponent % 2 == 0:
        raise _Passed("broken")
