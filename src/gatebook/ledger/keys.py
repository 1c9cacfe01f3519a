"""A ledger's keys: the log's signing key, the readers' keys, and wrapping a segment's DEK for readers.

    log.key      signing key, C2SP skey         log.pub      vkey, for everybody
    reader.key   X25519, PKCS#8 PEM             reader.pub   PEM; `reader-<name>.pub` for further readers

Wrapping is HPKE (RFC 9180: X25519, HKDF-SHA256, AES-256-GCM) with the DEK's id as info, so the writer needs
no private key. Trust: whoever has log.key can sign another history, whoever has reader.key can read; both
are mode 0600, and looser modes are refused. Never writes over a key.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from gatebook.errors import Damaged, EnvironmentFault, Tampered
from gatebook.ledger.note import Signer, Verifier

LOG_KEY, LOG_PUB = "log.key", "log.pub"
READER = "reader"
READER_KEY, READER_PUB = "reader.key", "reader.pub"
MAX_READERS: Final = 64
WRAPPED_BYTES: Final = 32 + 32 + 16  # encapsulated key, DEK, tag
MAX_KEY_FILE_BYTES = 4096

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_INFO = b"gatebook/dek/v1"
_LOCKED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"


class Locked(EnvironmentFault):
    """A passphrase is needed, and nobody can be asked."""


class Recipient(NamedTuple):
    """Who can unwrap. `id`: SHA-256 of the raw public key."""

    id: bytes
    key: X25519PublicKey


class Reader(NamedTuple):
    """A recipient's private half. Secret."""

    id: bytes
    key: X25519PrivateKey


class Wrapped(NamedTuple):
    """A DEK, for one recipient."""

    recipient: bytes
    data: bytes


def create_keys(folder: Path, origin: str) -> None:
    """New keys for the ledger `origin`, each file synced (the folder is the caller's to sync).

    Raises FileExistsError rather than write over anything.
    """
    signer = Signer.generate(origin, os.urandom(32))
    reader = X25519PrivateKey.generate()
    private = reader.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = public_pem(reader.public_key())
    # A crash between these leaves some of the files, and nothing that was signed or sealed with them.
    _write(folder / LOG_KEY, signer.skey.encode() + b"\n", 0o600)
    _write(folder / LOG_PUB, signer.vkey.encode() + b"\n", 0o644)
    _write(folder / READER_KEY, private, 0o600)
    _write(folder / READER_PUB, public, 0o644)


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, mode)  # whatever the umask is
        stream.write(data)
        stream.flush()
        os.fsync(descriptor)


def read_key_file(path: Path, *, secret: bool) -> bytes:
    """Raises EnvironmentFault if it is missing, or secret and others can read it; Damaged if it is too long."""
    try:
        with path.open("rb") as stream:
            found = os.fstat(stream.fileno())
            if secret and (found.st_mode & 0o077 or found.st_uid != os.geteuid()):
                raise EnvironmentFault(
                    f"{path}: owned by uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}; a secret is "
                    f"for uid {os.geteuid()} alone: `chown` and `chmod 600` it, and ask who may have read it"
                )
            data = stream.read(MAX_KEY_FILE_BYTES + 1)
    except FileNotFoundError:
        raise EnvironmentFault(f"{path}: no such key; `gatebook init` makes one, a backup may have it") from None
    except OSError as error:
        raise EnvironmentFault(f"{path}: {(error.strerror or str(error)).lower()}") from error
    if len(data) > MAX_KEY_FILE_BYTES:
        raise Damaged(f"{path}: not a key, it has more than {MAX_KEY_FILE_BYTES} bytes")
    return data


def load_signer(folder: Path) -> Signer:
    """The log's signing key. Raises EnvironmentFault when it is missing or others can read it, or Damaged."""
    path = folder / LOG_KEY
    try:
        return Signer.from_skey(text_of(read_key_file(path, secret=True)))
    except Damaged as error:
        raise Damaged(f"{path}: {error}") from None


def load_verifier(path: Path) -> Verifier:
    """The log's public key, from its file or the folder that it is in."""
    path = path / LOG_PUB if path.is_dir() else path
    try:
        return Verifier.from_vkey(text_of(read_key_file(path, secret=False)))
    except Damaged as error:
        raise Damaged(f"{path}: {error}") from None


def text_of(data: bytes) -> str:
    """Raises Damaged."""
    try:
        return data.decode("ascii").strip()
    except UnicodeDecodeError:
        raise Damaged("not a key in text form") from None


def recipient_file(name: str) -> str:
    """Where a recipient's public key lies: `reader` is the first one's name."""
    return READER_PUB if name == READER else f"reader-{name}.pub"


def load_recipients(folder: Path) -> list[Recipient]:
    """Everybody whom DEKs are wrapped for. Raises as `named_recipients`."""
    return list(named_recipients(folder).values())


def named_recipients(folder: Path) -> dict[str, Recipient]:
    """Everybody whom DEKs are wrapped for, by name: reader.pub, and each reader-<name>.pub.

    A key under two names counts once. Raises EnvironmentFault when there is nobody, or too many; Damaged.
    """
    paths = [folder / READER_PUB] if (folder / READER_PUB).exists() else []
    paths += sorted(folder.glob("reader-*.pub"))
    if not paths:
        raise EnvironmentFault(
            f"{folder / READER_PUB}: no such key, and no other reader's: nobody could read the log"
        )
    found: dict[bytes, str] = {}
    recipients = {}
    for path in paths:
        one, name = load_recipient(path), path.name.removesuffix(".pub").removeprefix("reader-")
        if found.setdefault(one.id, name) == name:
            recipients[name] = one
    if len(recipients) > MAX_READERS:
        raise EnvironmentFault(
            f"{folder}: {len(recipients)} readers; at most {MAX_READERS} have a part of each key"
        )
    return recipients


def load_recipient(path: Path) -> Recipient:
    """A recipient's public key, from its file."""
    try:
        key = load_pem_public_key(read_key_file(path, secret=False))
    except ValueError:
        key = None
    if not isinstance(key, X25519PublicKey):
        raise Damaged(f"{path}: not an X25519 public key in PEM")
    return Recipient(key_id(key), key)


def load_reader(path: Path, passphrase: Callable[[Path], bytes] | None = None) -> Reader:
    """A reader's private key, from its file or the folder that it is in; `passphrase` is asked if it has one.

    Raises Locked when it has one and nobody can be asked, EnvironmentFault for a wrong one.
    """
    path = path / READER_KEY if path.is_dir() else path
    data = read_key_file(path, secret=False)
    if is_locked := _LOCKED in data:
        if passphrase is None:
            raise Locked(f"{path}: a passphrase protects it; nobody can be asked for it here")
    else:
        data = read_key_file(path, secret=True)
    try:
        key = load_pem_private_key(data, passphrase(path) if is_locked and passphrase else None)
    except (ValueError, TypeError):
        if is_locked:
            raise EnvironmentFault(
                f"{path}: does not open: the passphrase is another one, or the file is damaged"
            ) from None
        key = None
    if not isinstance(key, X25519PrivateKey):
        raise Damaged(f"{path}: not an X25519 private key in PEM")
    return reader_of(key)


def reader_of(key: X25519PrivateKey) -> Reader:
    return Reader(key_id(key.public_key()), key)


def public_pem(key: X25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def key_id(key: X25519PublicKey) -> bytes:
    return hashlib.sha256(key.public_bytes_raw()).digest()


def wrap(dek: bytes, dek_id: bytes, recipient: Recipient) -> Wrapped:
    """The DEK, for this recipient alone; it opens under this id only."""
    return Wrapped(recipient.id, _SUITE.encrypt(dek, recipient.key, info=_INFO + dek_id))


def unwrap(wrapped: Wrapped, dek_id: bytes, reader: Reader) -> bytes:
    """The DEK. Raises Tampered when it was not wrapped for this reader under this id."""
    try:
        return _SUITE.decrypt(wrapped.data, reader.key, info=_INFO + dek_id)
    except (InvalidTag, ValueError):
        raise Tampered(f"wrapped key {dek_id.hex()} does not open with reader {reader.id.hex()[:16]}") from None
