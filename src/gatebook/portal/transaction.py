"""A login under way, kept by the browser: sealed in a cookie, so that only who began it can end it.

In: what the portal has to know again at the callback. Out: a cookie's value that nobody else can read, change or
make, good for LIFETIME_S. AES-256-GCM with a key derived from one of the deployment's. Never kept on the server:
whoever begins a thousand logins costs it nothing. Randomness is drawn here; otherwise pure.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gatebook.identity.strict import decode_base64url

LIFETIME_S: Final = 600
_LABEL: Final = b"gatebook: a login under way, 1"
_NONCE_BYTES: Final = 12


class Transaction(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`state` comes back through the browser, `nonce` in the ID token; `verifier` (PKCE) goes with the code."""

    provider: str
    state: str
    nonce: str
    verifier: str
    return_to: str
    expires: int

    @property
    def challenge(self) -> str:
        """RFC 7636, 4.2: S256."""
        return base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()


def begin(provider: str, return_to: str, now: float) -> Transaction:
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    return Transaction(
        provider=provider,
        state=state,
        nonce=nonce,
        verifier=verifier,
        return_to=return_to,
        expires=int(now) + LIFETIME_S,
    )


def key_of(secret: bytes) -> bytes:
    """32 bytes for `seal` and `unseal` alone."""
    return hmac.digest(secret, _LABEL, "sha256")


def seal(transaction: Transaction, key: bytes) -> str:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = AESGCM(key).encrypt(nonce, msgspec.json.encode(transaction), _LABEL)
    return base64.urlsafe_b64encode(nonce + sealed).rstrip(b"=").decode()


def unseal(value: bytes, key: bytes, now: float) -> Transaction | None:
    """None for what was not sealed here, or is over."""
    try:
        data = decode_base64url(value)
        plain = AESGCM(key).decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _LABEL)
        found = msgspec.json.decode(plain, type=Transaction, strict=True)
    except (ValueError, InvalidTag):
        return None
    return found if now < found.expires else None
