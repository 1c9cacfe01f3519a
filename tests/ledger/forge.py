"""Makes ledgers byte by byte, without the writer: whatever an attacker with the right keys could make.

The same calls give the same bytes. Times are the caller's. Nothing is synced: these ledgers live for a test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import zstandard
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from gatebook.ledger import deks, keys, segment
from gatebook.ledger.entry import Boot, Entry, Heartbeat, Segment, encode
from gatebook.ledger.lock import Promise, encode_promise
from gatebook.ledger.note import Checkpoint, Signer, Verifier, sign_note
from gatebook.ledger.segment import NO_DEK, Header, Place
from gatebook.ledger.tiles import Tiler
from gatebook.ledger.tree import leaf_hash

ORIGIN = "acme/node-1"
T0 = 1_700_000_000_000_000
MINUTE = 60_000_000


class Forge:
    """A ledger in `folder`: `ledger/`, `deks/`, `lock`. Call `boot` first and `publish` at last."""

    def __init__(self, folder: Path, seed: int = 1) -> None:
        self.ledger, self.deks, self.lock = folder / "ledger", folder / "deks", folder / "lock"
        for made in (self.ledger / "segments", self.ledger / "log", self.deks):
            made.mkdir(parents=True)
        self.signer = Signer.generate(ORIGIN, bytes([seed]) * 32)
        self.verifier = Verifier.from_vkey(self.signer.vkey)
        private = X25519PrivateKey.from_private_bytes(bytes([seed + 100]) * 32)
        self.reader = keys.Reader(keys.key_id(private.public_key()), private)
        self.now_us = T0
        self.tiler = Tiler()
        self.entries: list[bytes] = []
        self.written = 0
        self.promised: Checkpoint | None = None
        self.path = Path()
        self.segments: list[Path] = []
        self._times: tuple[int, int] | None = None
        self._stated: bytes = bytes(32)

    # -- segments ---------------------------------------------------------------------------------------
    def begin(self, entries: Sequence[Entry] = (), *, keyed: bool = True) -> None:
        """A new segment, which states the one before it and then holds `entries`."""
        first: list[Entry] = [self.closing()] if self.segments else []
        number = len(self.segments) + 1
        dek_id = number.to_bytes(16, "big") if keyed else NO_DEK
        self.header = Header(
            hashlib.sha256(b"segment %d" % number).digest()[:16],
            dek_id,
            len(self.entries),
            self.now_us,
            hashlib.sha256(ORIGIN.encode()).digest(),
        )
        self._head = segment.encode_header(self.header)
        dek = hashlib.sha256(b"dek %d" % number).digest()
        self.keys = segment.derive(dek)
        if keyed:
            recipient = keys.Recipient(self.reader.id, self.reader.key.public_key())
            deks.Deks(self.deks).put(dek_id, [keys.wrap(dek, dek_id, recipient)])
        self.path = self.ledger / "segments" / self.header.file_name
        self.segments.append(self.path)
        self.path.write_bytes(self._head)
        self.place = self.header.start
        self._times = None
        if first:
            self._stated = leaf_hash(encode(first[0]))
        self.memo(b"snapshot")
        if first or entries:
            self.clear([*first, *entries])

    def closing(self) -> Segment:
        data = self.path.read_bytes()
        low, high = self._times or (self.header.created_us, self.header.created_us)
        return Segment(
            segment_id=self.header.segment_id,
            first_index=self.header.first_index,
            entries=len(self.entries) - self.header.first_index,
            t_min_us=low,
            t_max_us=high,
            file_bytes=len(data),
            file_sha256=hashlib.sha256(data).digest(),
            dek_id=self.header.dek_id,
            previous=self._stated,
        )

    def _put(self, frame: bytes, entries: list[bytes], records: int) -> None:
        with self.path.open("ab") as stream:
            stream.write(frame)
        at = self.place
        self.place = Place(
            at.offset + len(frame), at.number + 1, at.first_index + len(entries), at.first_record + records
        )
        self.entries += entries
        self.tiler.extend(entries)

    def memo(self, body: bytes) -> None:
        self._put(segment.memo_frame(self.place, self.place.number, body), [], 0)

    def clear(self, entries: Sequence[Entry]) -> None:
        made = [encode(entry) for entry in entries]
        self._put(segment.clear_frame(self.place, made), made, 0)

    def records(self, *records: bytes) -> int:
        """One sealed frame; the index of its first record."""
        first = len(self.entries)
        compress = zstandard.ZstdCompressor(level=1).compress
        times = (self.now_us, self.now_us)
        frame, made = segment.seal_frame(self._head, self.keys, self.place, records, times, compress)
        low, high = self._times or times
        self._times = min(low, times[0]), max(high, times[1])
        self._put(frame, [b"GB\x01\x01" + commitment for commitment in made], len(records))
        return first

    # -- entries ----------------------------------------------------------------------------------------
    def boot(self, clean: bool = True) -> None:
        """A process starts: a new segment with BOOT, naming the last checkpoint."""
        size, root = (self.promised.size, self.promised.root) if self.promised else (0, hashlib.sha256().digest())
        boot_id = hashlib.sha256(b"boot %d" % len(self.entries)).digest()[:16]
        self.begin([Boot(boot_id, bytes(32), size, root, clean)])

    def heartbeat(
        self, open_: int = 0, lost: int = 0, *, decisions: int = 0, outcomes: int = 0, requests: int = 0
    ) -> None:
        self.clear([Heartbeat(self.now_us, decisions, outcomes, open_, requests, lost)])

    def stop(self) -> None:
        """A clean end: a last segment that only states the one before."""
        self.begin(keyed=False)
        self.publish()

    # -- the public side --------------------------------------------------------------------------------
    def publish(self, *, lock: bool = True, published: bool = True) -> Checkpoint:
        """Tiles, the lock and the checkpoint of the present size."""
        for name, data in self.tiler.files(self.written):
            path = self.ledger / "log" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self.written = self.tiler.size
        self.promised = Checkpoint(ORIGIN, self.tiler.size, self.tiler.root())
        note = sign_note(self.promised.text(), self.signer)
        if lock:
            self.lock.write_bytes(encode_promise(Promise(self.promised, note, 0)))
        if published:
            (self.ledger / "log" / "checkpoint").write_bytes(note)
        return self.promised
