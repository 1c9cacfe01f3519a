"""The form of a signed token: compact JWS, three parts, one spelling; and its signature.

In: a token's bytes, hostile. Out: `Compact`, not yet verified, or `Unfit` with a reason of record.REASONS.
joserfc checks the signature, but alone it takes several spellings of one token (loose base64url), and
keys given twice; so nothing reaches it that has not been parsed, re-encoded and compared here. A key that
the header carries or points to (`jwk`, `jku`, `x5u`, `x5c`) is never used. RFC 7515, RFC 8725. Pure.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import Key as JoseKey
from joserfc.jws import JWSRegistry

from gatebook.identity.strict import decode_base64url, parse_object

MAX_TOKEN_BYTES = 8 << 10
MAX_KID_LENGTH = 512

_FORM = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class Unfit(Exception):
    """A token that opens nothing. `reason` is a key of record.REASONS."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Compact(NamedTuple):
    """A token in order as far as its form goes. Nothing in it is to be believed yet."""

    token: bytes
    header: dict[str, Any]
    alg: str
    kid: str | None
    payload: bytes


class _Registry(JWSRegistry):
    """joserfc's, for algorithms that were chosen here: with room for certificates, which are not used."""

    max_header_length = MAX_TOKEN_BYTES

    def get_alg(self, name: str) -> Any:
        # Not the library's own: that one warns of EdDSA at every token, for its name (RFC 9864), not its strength.
        if not self.allowed or name not in self.allowed:
            raise JoseError(f"{name} is not allowed")
        return self.algorithms[name]


def parse(token: bytes) -> Compact:
    """Raises Unfit."""
    if len(token) > MAX_TOKEN_BYTES or not _FORM.fullmatch(token):
        raise Unfit("token_malformed")
    try:
        head, body, signature = token.split(b".")
        header = parse_object(decode_base64url(head))
        payload = decode_base64url(body)
        decode_base64url(signature)
    except ValueError:
        raise Unfit("token_malformed") from None
    alg, kid = header.get("alg"), header.get("kid")
    if not isinstance(alg, str) or not (kid is None or isinstance(kid, str)) or ("kid" in header and kid is None):
        raise Unfit("token_malformed")
    # An extension that must be understood (RFC 7515, 4.1.11) is not; `b64` changes what is signed (RFC 7797).
    if "crit" in header or "b64" in header or "zip" in header or len(kid or "") > MAX_KID_LENGTH:
        raise Unfit("token_malformed")
    return Compact(token, header, alg, kid, payload)


def sign(header: dict[str, Any], payload: bytes, key: JoseKey) -> bytes:
    """A token of `header`, which names the algorithm, and `payload`: what `signed_by` says yes to."""
    alg: str = header["alg"]
    return jws.serialize_compact(header, payload, key, registry=_Registry(algorithms=[alg])).encode()


def signed_by(compact: Compact, key: JoseKey, alg: str) -> bool:
    """Whether the signature is of this key by this algorithm, which the caller chose and the header names."""
    if compact.alg != alg:
        return False
    try:
        jws.deserialize_compact(
            compact.token, key, registry=_Registry(algorithms=[alg], strict_check_header=False)
        )
    except (JoseError, ValueError):  # ValueError: what is no signature of this key's size at all
        return False
    return True
