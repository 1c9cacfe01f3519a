"""Nonces for DPoP proofs (RFC 9449, 8): made and recognised without remembering any.

In: a secret that the guards share, the time. Out: text, or how old the text is if it is one of ours. A nonce is
its time and a MAC of that; the MAC's key is derived from the secret, another one for each day. Proves that a proof
was made after the nonce was, never that it was not used before. Pure.

    base64url( u32_be seconds since 1970 || HMAC-SHA-256(key of the day, seconds)[:16] )
"""

from __future__ import annotations

import hmac
import struct
from base64 import urlsafe_b64encode

from gatebook.identity.strict import decode_base64url

LIFETIME_S = 300
_DAY_S = 86400
_time = struct.Struct(">I")


class Nonces:
    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def make(self, now: float) -> str:
        seconds = _time.pack(int(now))
        return urlsafe_b64encode(seconds + self._mac(seconds)).rstrip(b"=").decode()

    def age(self, nonce: str, now: float) -> float | None:
        """Seconds since it was made; None for what is no nonce of ours, or too old."""
        try:
            data = decode_base64url(nonce.encode("ascii"))
        except ValueError:
            return None
        seconds = data[: _time.size]
        if len(data) != _time.size + 16 or not hmac.compare_digest(data[_time.size :], self._mac(seconds)):
            return None
        age_s = now - _time.unpack(seconds)[0]
        return age_s if age_s < LIFETIME_S else None

    def _mac(self, seconds: bytes) -> bytes:
        day = _time.unpack(seconds)[0] // _DAY_S
        key = hmac.digest(self._secret, b"gatebook dpop nonce %d" % day, "sha256")
        return hmac.digest(key, seconds, "sha256")[:16]
