"""`reader.kms`: a reader's private key as a KMS's ciphertext, in JSON, and which key of which mount opens it.

    {"gatebook": "reader/1", "kms": "transit", "mount": "transit", "key": "gatebook",
     "reader": "<SHA-256 of the public key>", "ciphertext": "vault:v1:…"}

The reader's id is authenticated along, so one key's ciphertext cannot pass for another's. Trust: whoever reads the
file learns nothing, and who writes it can at most keep a reader from reading: it says neither where the KMS is nor
who asks it. Never believes what is opened before its public key gives the id.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from gatebook.errors import Damaged, EnvironmentFault
from gatebook.kms.kms import Kms
from gatebook.ledger.keys import MAX_KEY_FILE_BYTES, Reader, reader_of

FILE: Final = "reader.kms"
MARK: Final = b'{"gatebook":"reader/1"'
_ABOUT: Final = b"gatebook/reader/1\0"


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    gatebook: Literal["reader/1"]
    kms: Literal["transit"]
    mount: str
    key: str
    reader: str
    ciphertext: str


def parse(data: bytes, place: str) -> Sealed:
    """Raises Damaged."""
    try:
        if len(data) > MAX_KEY_FILE_BYTES:
            raise Damaged(f"more than {MAX_KEY_FILE_BYTES} bytes")
        sealed = msgspec.json.decode(data, type=Sealed)
        if len(sealed.reader) != 64 or bytes.fromhex(sealed.reader).hex() != sealed.reader:
            raise Damaged("the reader's id is not 64 hexadecimal digits")
    except (msgspec.MsgspecError, ValueError, Damaged) as error:
        raise Damaged(f"{place}: not a reader's key in a KMS: {error}") from None
    return sealed


def seal(reader: Reader, kms: Kms, mount: str, key: str) -> bytes:
    """The file's bytes. Raises EnvironmentFault."""
    ciphertext = kms.encrypt(reader.key.private_bytes_raw(), _ABOUT + reader.id)
    return msgspec.json.encode(Sealed("reader/1", "transit", mount, key, reader.id.hex(), ciphertext)) + b"\n"


def unseal(sealed: Sealed, kms: Kms) -> Reader:
    """Raises EnvironmentFault."""
    plain = kms.decrypt(sealed.ciphertext, _ABOUT + bytes.fromhex(sealed.reader))
    if len(plain) == 32:
        reader = reader_of(X25519PrivateKey.from_private_bytes(plain))
        if reader.id.hex() == sealed.reader:
            return reader
    raise EnvironmentFault(f"the KMS gave another key than that of reader {sealed.reader[:16]}")
