"""The ledger's keys, and how a segment's key is wrapped for those who may read.

log.key      signs checkpoints: Ed25519, the text form of signed notes; mode 0600
log.pub      the same key's public half, for whoever verifies
reader.key   opens segments: X25519, PKCS #8 PEM; mode 0600. A host that only writes does without it
reader.pub   wraps segments' keys: what the recorder needs

Wrapping is HPKE (RFC 9180) base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, with
info = "gatebook/dek/v1" || dek id, so that no wrapped key can be passed off as another's. Never writes over
a key: a ledger cannot be continued or read without its own.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from gatebook.errors import Damaged, EnvironmentFault
from gatebook.ledger.note import Signer, Verifier

DEK_BYTES: Final = 32
_INFO: Final = b"gatebook/dek/v1"
_MAX_KEY_FILE_BYTES: Final = 64 << 10
_suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
_RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)


class Recipient:
    """Somebody who may read: `id` is 16 hex digits of the public key's SHA-256."""

    def __init__(self, public: X25519PublicKey) -> None:
        self.public = public
        self.id = hashlib.sha256(public.public_bytes(*_RAW)).hexdigest()[:16]


class Reader:
    """The private half of a Recipient."""

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private
        self.recipient = Recipient(private.public_key())

    def unwrap(self, wrapped: bytes, dek_id: bytes) -> bytes:
        """The segment's key. Raises Damaged when it was not wrapped for this reader under this id."""
        try:
            dek = _suite.decrypt(wrapped, self._private, info=_INFO + dek_id)
        except (InvalidTag, ValueError):
            raise Damaged(f"the key of {dek_id.hex()} cannot be unwrapped by reader {self.recipient.id}") from None
        if len(dek) != DEK_BYTES:
            raise Damaged(f"the key of {dek_id.hex()} has {len(dek)} bytes; expected {DEK_BYTES}")
        return dek


def wrap(dek: bytes, dek_id: bytes, recipient: Recipient) -> bytes:
    """For `Reader.unwrap` alone."""
    return _suite.encrypt(dek, recipient.public, info=_INFO + dek_id)


def create_keys(folder: Path, origin: str) -> None:
    """Make all four files in a folder that is there. Raises FileExistsError and writes nothing over."""
    signer = Signer.generate(origin, secrets.token_bytes(32))
    private = X25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _write(folder / "log.key", f"{signer.skey}\n".encode(), 0o600)
    _write(folder / "log.pub", f"{signer.vkey}\n".encode(), 0o644)
    _write(folder / "reader.key", pem, 0o600)
    _write(folder / "reader.pub", public, 0o644)


def load_signer(folder: Path) -> Signer:
    """Raises EnvironmentFault."""
    path = folder / "log.key"
    try:
        return Signer.from_skey(_read(path).decode("ascii").strip())
    except (ValueError, Damaged) as error:
        raise EnvironmentFault(f"{path}: not a signing key ({error}); restore it from a backup") from None


def load_verifier(path: Path) -> Verifier:
    """Of a file, or of the folder that holds log.pub. Raises EnvironmentFault."""
    path = path / "log.pub" if path.is_dir() else path
    try:
        return Verifier.from_vkey(_read(path).decode("ascii").strip())
    except (ValueError, Damaged) as error:
        raise EnvironmentFault(
            f"{path}: not a verification key ({error}); take the log.pub of this ledger"
        ) from None


def load_recipients(folder: Path) -> list[Recipient]:
    """Everybody for whom segments' keys are wrapped: reader.pub. Raises EnvironmentFault."""
    path = folder / "reader.pub"
    try:
        public = serialization.load_pem_public_key(_read(path))
    except ValueError:
        raise EnvironmentFault(f"{path}: not a public key in PEM; restore it from a backup") from None
    if not isinstance(public, X25519PublicKey):
        raise EnvironmentFault(f"{path}: not an X25519 key; restore it from a backup")
    return [Recipient(public)]


def load_reader(path: Path) -> Reader:
    """Of a file, or of the folder that holds reader.key. Raises EnvironmentFault."""
    path = path / "reader.key" if path.is_dir() else path
    try:
        private = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError):
        raise EnvironmentFault(f"{path}: not a private key in PEM; take the reader.key of this ledger") from None
    if not isinstance(private, X25519PrivateKey):
        raise EnvironmentFault(f"{path}: not an X25519 key; take the reader.key of this ledger")
    return Reader(private)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_KEY_FILE_BYTES)
    except OSError as error:
        raise EnvironmentFault(f"{path}: {(error.strerror or str(error)).lower()}") from None


def _write(path: Path, data: bytes, mode: int) -> None:
    """A new file, synced. A crash before the sync: no configuration names these keys yet."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, mode)
        stream.write(data)
        stream.flush()
        os.fsync(descriptor)
