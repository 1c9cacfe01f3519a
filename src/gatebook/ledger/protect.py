"""A reader's private key under a passphrase: PKCS#8 as OpenSSL reads it, PBES2 with scrypt and AES-256-CBC.

    EncryptedPrivateKeyInfo (RFC 5958), scrypt parameters as RFC 7914 has them: N 2^14, r 8, p 5, salt 16

`cryptography` reads this form but writes only PBKDF2 with 2,048 rounds, which a stolen file does not withstand
long. Pure; salt and initialisation vector are the caller's, random and new for each file. Never accepts a short
passphrase.
"""

from __future__ import annotations

import base64
import textwrap
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gatebook.errors import UsageError

SALT_BYTES: Final = 16
MIN_PASSPHRASE_BYTES: Final = 12
_N, _R, _P = 1 << 14, 8, 5  # 16 MiB, which OpenSSL allows without being asked, and about a tenth of a second

_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")
_INTEGER, _OCTETS, _SEQUENCE = 0x02, 0x04, 0x30


def protect(key: X25519PrivateKey, passphrase: bytes, salt: bytes, iv: bytes) -> bytes:
    """PEM. Raises UsageError for a passphrase that is too short."""
    if len(passphrase) < MIN_PASSPHRASE_BYTES:
        raise UsageError(
            f"a passphrase of {len(passphrase)} bytes; at least {MIN_PASSPHRASE_BYTES}, better six words"
        )
    secret = Scrypt(salt=salt, length=32, n=_N, r=_R, p=_P).derive(passphrase)
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    padder = PKCS7(128).padder()
    padded = padder.update(plain) + padder.finalize()
    encryptor = Cipher(algorithms.AES256(secret), modes.CBC(iv)).encryptor()
    data = encryptor.update(padded) + encryptor.finalize()
    numbers = b"".join(_der(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1)) for number in (_N, _R, _P))
    derived = _der(_SEQUENCE, _SCRYPT + _der(_SEQUENCE, _der(_OCTETS, salt) + numbers))
    cipher = _der(_SEQUENCE, _AES_256_CBC + _der(_OCTETS, iv))
    algorithm = _der(_SEQUENCE, _PBES2 + _der(_SEQUENCE, derived + cipher))
    return _pem(_der(_SEQUENCE, algorithm + _der(_OCTETS, data)))


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    return bytes([tag, length] if length < 128 else [tag, 0x81, length]) + content


def _pem(data: bytes) -> bytes:
    lines = textwrap.wrap(base64.b64encode(data).decode(), 64)
    name = "ENCRYPTED PRIVATE KEY"
    return "\n".join([f"-----BEGIN {name}-----", *lines, f"-----END {name}-----", ""]).encode()
