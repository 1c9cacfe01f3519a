"""What policy keeps of a person, sealed under their key: destroying the key makes it unreadable for everyone.

    box   salt 16 || commitment 32 || AES-256-GCM(K, nonce = 12 zero bytes, plaintext, aad = all before it)
    K || commitment = HKDF-Expand-SHA256(row's key, "gatebook/sealed/v1" || row 16 || request id || salt, 64)
    plaintext       a JSON object of texts, filled up with spaces to a multiple of 64 bytes

AES-GCM alone opens one ciphertext under two keys, if somebody wants it to; so the key is committed to, and the
commitment is compared before anything is decrypted. Never uses a K twice: the salt is random. Pure, but for that.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from gatebook.errors import Damaged, Tampered
from gatebook.record import SealedPart

_DOMAIN: Final = b"gatebook/sealed/v1"
_NONCE: Final = bytes(12)
_SALT_BYTES: Final = 16
_HEAD_BYTES: Final = _SALT_BYTES + 32
_PAD_BYTES: Final = 64  # so that a name's length says little of it once it is erased


def seal(
    values: Mapping[str, str],
    pseudonym: str,
    key: bytes,
    request_id: str,
    random: Callable[[int], bytes] = os.urandom,
) -> SealedPart:
    """`pseudonym` (hex) names the vault's row, `key` is that row's."""
    salt = random(_SALT_BYTES)
    secret, commitment = _derive(key, pseudonym, request_id, salt)
    plain = msgspec.json.encode(values)
    plain = plain.ljust(-(-len(plain) // _PAD_BYTES) * _PAD_BYTES)
    head = salt + commitment
    box = head + AESGCM(secret).encrypt(_NONCE, plain, head)
    return SealedPart(under=pseudonym, box=base64.b64encode(box).decode())


def unseal(part: SealedPart, key: bytes, request_id: str) -> dict[str, str]:
    """Raises Tampered unless exactly this key sealed it, for this request; Damaged for what is no box."""
    try:
        box = base64.b64decode(part.box, validate=True)
    except binascii.Error:
        box = b""
    if len(box) < _HEAD_BYTES + 16 or len(part.under) != 32:
        raise Damaged(f"what is sealed in request {request_id} is no sealed value")
    head, ciphertext = box[:_HEAD_BYTES], box[_HEAD_BYTES:]
    secret, commitment = _derive(key, part.under, request_id, head[:_SALT_BYTES])
    if not hmac.compare_digest(commitment, head[_SALT_BYTES:]):
        raise Tampered(f"what is sealed in request {request_id} is not sealed under the key of {part.under}")
    try:
        plain = AESGCM(secret).decrypt(_NONCE, ciphertext, head)
        return msgspec.json.decode(plain, type=dict[str, str])
    except (InvalidTag, ValueError):
        raise Tampered(f"what is sealed in request {request_id} was changed") from None


def _derive(key: bytes, pseudonym: str, request_id: str, salt: bytes) -> tuple[bytes, bytes]:
    """The record's own key, and the commitment to it: two halves of one output."""
    try:
        row = bytes.fromhex(pseudonym)
    except ValueError:
        raise Damaged(f"{pseudonym!r} is no pseudonym") from None
    info = _DOMAIN + row + request_id.encode() + salt
    both = HKDFExpand(SHA256(), 64, info).derive(key)
    return both[:32], both[32:]
