"""How a log's signing key hands over to the next one: KEY entries, and which key counts for which size.

    the old key signs: "gatebook/log-key/v1" 00 || kind 1 || old id 16 || new id 16 || SHA256(new public key) 32
    id = first 16 bytes of SHA256(name || 0A || 01 || public key); its first four are the id that notes name

The zero byte keeps it from ever being a note's text, which the same key signs too. Public keys come from
`log/keys`, one vkey a line, which is believed for nothing: an entry's ids and hash say which key is meant. Never
takes a KEY entry that the key in force has not signed. Pure. Specified in docs/format.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gatebook.errors import Damaged, Tampered
from gatebook.ledger.entry import Key
from gatebook.ledger.note import ED25519, Signer, Verifier

LOG_KEY: Final = 1  # Key.kind
KEYS_FILE: Final = "keys"  # below log/
MAX_KEYS: Final = 1000
MAX_KEYS_BYTES: Final = 1 << 18
_DOMAIN: Final = b"gatebook/log-key/v1\0"


def long_id(key: Verifier | Signer) -> bytes:
    """16 bytes; a note's key id is their beginning."""
    return hashlib.sha256(key.name.encode() + b"\n" + bytes([ED25519]) + key.public).digest()[:16]


def _message(entry: Key) -> bytes:
    return _DOMAIN + bytes([entry.kind]) + entry.old_id + entry.new_id + entry.public_sha256


def hand_over(old: Signer, new: Signer) -> Key:
    """The entry by which `old` makes `new` its successor."""
    if old.name != new.name or old.public == new.public:
        raise ValueError("a log's next key has the same name, and is another key")
    unsigned = Key(LOG_KEY, long_id(old), long_id(new), hashlib.sha256(new.public).digest(), bytes(64))
    return Key(*_fields(unsigned), signature=old.sign_bytes(_message(unsigned)))


def _fields(entry: Key) -> tuple[int, bytes, bytes, bytes]:
    return entry.kind, entry.old_id, entry.new_id, entry.public_sha256


def encode_keys(vkeys: Iterable[str]) -> bytes:
    """`log/keys`: the log's public keys, the first one first."""
    return "".join(f"{vkey}\n" for vkey in vkeys).encode()


def parse_keys(data: bytes, name: str) -> list[Verifier]:
    """The Ed25519 keys of the log `name`; whatever else there is, is passed over. Raises Damaged."""
    lines = data.decode("utf-8", "replace").splitlines()
    if len(data) > MAX_KEYS_BYTES or len(lines) > MAX_KEYS:
        raise Damaged(f"{KEYS_FILE}: more than any log has had")
    found = [Verifier.from_vkey(line) for line in lines]
    return [one for one in found if one.name == name and one.algorithm == ED25519]


class Handover(NamedTuple):
    at: int  # its entry's index
    old_id: bytes
    new_id: bytes


class Chain:
    """Feed it KEY entries in their order. `known`: public keys, of which none is trusted for being here."""

    def __init__(self, known: Iterable[Verifier]) -> None:
        self.handovers: list[Handover] = []
        self._known = {long_id(verifier): verifier for verifier in known}

    def take(self, index: int, entry: Key) -> None:
        """Raises Tampered when no key in force signed it: then it is not taken. Raises Damaged when the public key
        is missing that could tell: then it is, so that what follows is not blamed for it."""
        if entry.kind != LOG_KEY:
            raise Damaged(f"KEY of kind {entry.kind}, which this version does not know")
        self._check_place(entry)
        old, new = self._known.get(entry.old_id), self._known.get(entry.new_id)
        if old is None:
            self.handovers.append(Handover(index, entry.old_id, entry.new_id))
            raise Damaged(f"KEY by {_short(entry.old_id)}, whose public key is not in log/{KEYS_FILE}")
        try:
            Ed25519PublicKey.from_public_bytes(old.public).verify(entry.signature, _message(entry))
        except InvalidSignature:
            raise Tampered(f"KEY is not signed by {_short(entry.old_id)}, which it says hands over") from None
        if new is not None and hashlib.sha256(new.public).digest() != entry.public_sha256:
            raise Tampered(f"KEY names {_short(entry.new_id)}, but another public key than that one's")
        self.handovers.append(Handover(index, entry.old_id, entry.new_id))

    def _check_place(self, entry: Key) -> None:
        if not self.handovers:
            if entry.old_id == entry.new_id:
                raise Tampered("KEY hands over to the same key")
            return
        for before in self.handovers:
            if entry.old_id == before.old_id:
                raise Tampered(f"KEY by {_short(entry.old_id)}, which entry {before.at} had superseded")
            if entry.new_id == before.old_id:
                raise Tampered(f"KEY to {_short(entry.new_id)}, which entry {before.at} had superseded")
        if entry.old_id != self.handovers[-1].new_id:
            raise Tampered(f"KEY by {_short(entry.old_id)}, which no KEY entry introduced")
        if entry.new_id == entry.old_id:
            raise Tampered("KEY hands over to the same key")

    def holds(self, key_id: bytes) -> bool:
        """Whether that key is one of the log's. Without KEY entries nobody can say; then it may be."""
        return not self.handovers or any(key_id in (one.old_id, one.new_id) for one in self.handovers)

    def at(self, size: int) -> bytes | None:
        """The id of the key that signs for `size` entries; None when no KEY entry says anything."""
        for one in self.handovers:
            if one.at >= size:
                return one.old_id
        return self.handovers[-1].new_id if self.handovers else None

    def by_id(self, key_id: bytes) -> Verifier | None:
        return self._known.get(key_id)


def _short(key_id: bytes) -> str:
    return f"key {key_id[:4].hex()}"
