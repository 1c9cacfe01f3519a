"""Signed notes and checkpoints (C2SP signed-note, tlog-checkpoint, tlog-cosignature).

    acme/node-1                                     origin, which is also the key's name
    3                                               tree size
    Fhv5Y2xHMhk5vs9Vsm4cu6lJKHQ7mfO0QiMSmx3cMhg=    root

    — acme/node-1 VUYLmdxE0C…                       base64(key id 4 || signature)

Algorithms: 01 a log's Ed25519 over the text; 04 a witness's Ed25519 over time and text.
A known key whose signature fails rejects the whole note; an unknown key never counts. Pure.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gatebook.errors import Damaged, Tampered

ED25519 = 0x01
COSIGNATURE = 0x04

MAX_NOTE_BYTES = 64 << 10
MAX_SIGNATURES = 64
MAX_SIZE = (1 << 63) - 1
MAX_TIME_S = (1 << 63) - 1
_DASH = "\u2014 "


def _key_id(name: str, algorithm: int, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([algorithm]) + public).digest()[:4]


def _check_name(name: str) -> str:
    if not name or "+" in name or any(c.isspace() or not c.isprintable() for c in name):
        raise Damaged(f"a key's name is not empty and holds neither spaces nor '+': {name!r}")
    return name


def decode64(text: str) -> bytes:
    """Strict: the one spelling that encoding gives, or Damaged."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data or base64.b64encode(data).decode() != text:
        raise Damaged(f"not canonical base64: {text[:100]!r}")
    return data


def _parse_key(text: str, what: str) -> tuple[str, bytes, int, bytes]:
    """`name+hhhhhhhh+base64(algorithm || key)` -> (name, key id, algorithm, 32 bytes)."""
    parts = text.strip().split("+", 2)
    if len(parts) != 3 or len(text) > 1000:
        raise Damaged(f"not a {what}: expected name+id+base64")
    name, hexadecimal, encoded = parts
    data = decode64(encoded)
    if len(data) != 33:
        raise Damaged(f"{what} of {name!r}: {len(data)} bytes; expected 33")
    key_id = bytes.fromhex(hexadecimal) if len(hexadecimal) == 8 and hexadecimal.isalnum() else b""
    if key_id.hex() != hexadecimal:
        raise Damaged(f"{what} of {name!r}: its id is not 8 lower-case hexadecimal digits")
    return _check_name(name), key_id, data[0], data[1:]


class _Private:
    """A private Ed25519 key under a name, for one kind of signature. Never shows itself but through `skey`."""

    __slots__ = ("_private", "_seed", "key_id", "name")
    algorithm: ClassVar[int]

    def __init__(self, name: str, seed: bytes) -> None:
        """From 32 random bytes."""
        self.name = _check_name(name)
        self._seed = seed
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.key_id = _key_id(name, self.algorithm, self.public)

    @classmethod
    def from_skey(cls, text: str) -> Self:
        """Raises Damaged on anything that is not exactly a signing key of this kind."""
        prefix = "PRIVATE+KEY+"
        if not text.startswith(prefix):
            raise Damaged(f"not a signing key: does not begin with {prefix}")
        name, key_id, algorithm, seed = _parse_key(text.removeprefix(prefix), "signing key")
        signer = cls(name, seed)
        if algorithm != cls.algorithm or signer.key_id != key_id:
            raise Damaged(
                f"signing key of {name!r}: not of algorithm {cls.algorithm:02x}, or its id is not its own"
            )
        return signer

    @property
    def public(self) -> bytes:
        return self._private.public_key().public_bytes_raw()

    @property
    def skey(self) -> str:
        """Secret."""
        encoded = base64.b64encode(bytes([self.algorithm]) + self._seed).decode()
        return f"PRIVATE+KEY+{self.name}+{self.key_id.hex()}+{encoded}"

    @property
    def vkey(self) -> str:
        return self.verifier.vkey

    @property
    def verifier(self) -> Verifier:
        return Verifier(self.name, self.key_id, self.algorithm, self.public)


class Signer(_Private):
    """A log's key."""

    __slots__ = ()
    algorithm = ED25519

    @classmethod
    def generate(cls, name: str, seed: bytes) -> Signer:
        """From 32 random bytes."""
        return cls(name, seed)

    def sign(self, text: str) -> bytes:
        return self._private.sign(text.encode())

    def sign_bytes(self, data: bytes) -> bytes:
        """What is no note; `data` begins so that it can never be one (ledger/chain.py)."""
        return self._private.sign(data)


class Cosigner(_Private):
    """A witness's key."""

    __slots__ = ()
    algorithm = COSIGNATURE

    def cosign(self, text: str, time_s: int) -> SignatureLine:
        """That at `time_s`, since 1970 and never 0, this was the log's largest consistent tree."""
        if not 0 < time_s <= MAX_TIME_S:
            raise ValueError(f"a cosignature's time is not {time_s}")
        signature = self._private.sign(_cosigned(text, time_s))
        return SignatureLine(self.name, self.key_id, time_s.to_bytes(8, "big") + signature)


def _cosigned(text: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


@dataclass(frozen=True)
class Verifier:
    """A public key: a log's (`algorithm` 01) or a witness's (04)."""

    name: str
    key_id: bytes
    algorithm: int
    public: bytes

    @classmethod
    def from_vkey(cls, text: str) -> Verifier:
        """Raises Damaged on anything that is not exactly a verification key of a known algorithm."""
        verifier = cls(*_parse_key(text, "verification key"))
        if verifier.algorithm not in (ED25519, COSIGNATURE):
            raise Damaged(f"verification key of {verifier.name!r}: unknown algorithm {verifier.algorithm}")
        if _key_id(verifier.name, verifier.algorithm, verifier.public) != verifier.key_id:
            raise Damaged(f"verification key of {verifier.name!r}: its id is not its own")
        return verifier

    @property
    def vkey(self) -> str:
        return (
            f"{self.name}+{self.key_id.hex()}+{base64.b64encode(bytes([self.algorithm]) + self.public).decode()}"
        )

    def check(self, text: str, signature: bytes) -> int | None:
        """None, or a cosignature's time in seconds since 1970. Raises InvalidSignature."""
        time_s, message = None, text.encode()
        if self.algorithm == COSIGNATURE:
            if len(signature) != 72:
                raise InvalidSignature
            time_s = int.from_bytes(signature[:8], "big")
            if time_s > MAX_TIME_S:
                raise InvalidSignature
            message = _cosigned(text, time_s)
            signature = signature[8:]
        Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        return time_s


class SignatureLine(NamedTuple):
    """One line below a note's text; its signature not yet checked."""

    name: str
    key_id: bytes
    signature: bytes

    def __str__(self) -> str:
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.signature).decode()}\n"


class Note(NamedTuple):
    """A note's parts. Nothing of it is believed before `open_note` has checked it."""

    text: str
    lines: tuple[SignatureLine, ...]


class Checked(NamedTuple):
    """A note whose known keys all signed it. `signatures`: which, and when, for a cosignature; in their order."""

    text: str
    signatures: tuple[tuple[Verifier, int | None], ...]
    unknown: tuple[SignatureLine, ...]


class Opened(NamedTuple):
    """A checked note. `by`: name of each known key that signed -> the time of its cosignature, if it is one."""

    text: str
    by: Mapping[str, int | None]
    unknown: tuple[SignatureLine, ...]


def sign_note(text: str, *signers: Signer) -> bytes:
    """The note's bytes. `text` ends in a newline and is printable."""
    _check_text(text)
    lines = [SignatureLine(signer.name, signer.key_id, signer.sign(text)) for signer in signers]
    return encode_note(Note(text, tuple(lines)))


def encode_note(note: Note) -> bytes:
    return (note.text + "\n" + "".join(str(line) for line in note.lines)).encode()


def _check_text(text: str) -> None:
    if not text.endswith("\n") or any(c < " " and c != "\n" for c in text):
        raise Damaged("a note's text ends in a newline and holds no other control characters")


def parse_note(data: bytes) -> Note:
    """Splits a note; checks no signature. Raises Damaged on anything but exactly a signed note."""
    if len(data) > MAX_NOTE_BYTES:
        raise Damaged(f"note of {len(data)} bytes; at most {MAX_NOTE_BYTES} are read")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Damaged("a note is UTF-8") from error
    text, separator, signatures = whole.rpartition("\n\n")
    text += "\n"
    if not separator or not signatures.endswith("\n"):
        raise Damaged("a note is text, an empty line, and at least one whole signature line")
    _check_text(text)
    lines = tuple(_parse_line(line) for line in signatures[:-1].split("\n", MAX_SIGNATURES))
    note = Note(text, lines)
    if encode_note(note) != data:
        raise Damaged("a note is spelt in one way only")
    return note


def _parse_line(line: str) -> SignatureLine:
    dash, name, *rest = line.split(" ") if line.count(" ") == 2 else ("", "", "")
    if dash + " " != _DASH:
        raise Damaged(f"not a signature line: {line[:100]!r}")
    data = decode64(rest[0])
    if len(data) < 5:
        raise Damaged(f"signature of {name!r} is too short")
    return SignatureLine(_check_name(name), data[:4], data[4:])


def check_note(data: bytes, verifiers: Iterable[Verifier]) -> Checked:
    """Raises Damaged when it is no note, Tampered unless a known key signed it and no known key's failed."""
    note = parse_note(data)
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    signatures: list[tuple[Verifier, int | None]] = []
    unknown: list[SignatureLine] = []
    for line in note.lines:
        verifier = known.get((line.name, line.key_id))
        if verifier is None:
            unknown.append(line)
            continue
        try:
            signatures.append((verifier, verifier.check(note.text, line.signature)))
        except InvalidSignature:
            raise Tampered(
                f"the signature of {line.name} (key {line.key_id.hex()}) is not for this text"
            ) from None
    if not signatures:
        names = ", ".join(f"{line.name} (key {line.key_id.hex()})" for line in unknown)
        raise Tampered(f"not signed by any key that is known here, but by {names}")
    return Checked(note.text, tuple(signatures), tuple(unknown))


def open_note(data: bytes, verifiers: Iterable[Verifier]) -> Opened:
    """As `check_note`, for whoever asks by name alone."""
    checked = check_note(data, verifiers)
    return Opened(
        checked.text, {verifier.name: time_s for verifier, time_s in checked.signatures}, checked.unknown
    )


@dataclass(frozen=True)
class Checkpoint:
    """What a log promises: its size and the root over that many entries."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Raises Damaged on anything but exactly three lines: extension lines are not ours."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise Damaged("a checkpoint has three lines: origin, size, root")
    origin, size, root = lines[:3]
    if not (size.isascii() and size.isdigit() and len(size) <= 19 and int(size) <= MAX_SIZE):
        raise Damaged(f"a checkpoint's size is a number of at most {MAX_SIZE}: {size[:100]!r}")
    checkpoint = Checkpoint(_check_name(origin), int(size), decode64(root))
    if len(checkpoint.root) != 32 or checkpoint.text() != text:
        raise Damaged("a checkpoint is spelt in one way only, and its root has 32 bytes")
    return checkpoint
