"""docs/format.md is enough to write a verifier from: this one was, and uses nothing of gatebook's.

Everything above `written` comes from the document alone: hashes, struct, primitives of cryptography, zstd.
Below it gatebook writes ledgers, as it does in operation, and they are verified, changed, and found out. The
table of entries is read from the document itself.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import zstandard
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gatebook.ledger import entry, erase, keys, logkeys, read, writer
from gatebook.ledger.deks import Deks
from gatebook.ledger.files import Files
from gatebook.ledger.note import Signer, sign_note

DOCUMENT = (Path(__file__).parents[2] / "docs" / "format.md").read_text("utf-8")
VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "ledger-v1.json").read_text())


class Refused(Exception):
    """The ledger is not what the document says."""


def need(holds: object, what: str) -> None:
    if not holds:
        raise Refused(what)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


# -- 2. The public tree ---------------------------------------------------------------------------------


def leaf(data: bytes) -> bytes:
    return sha256(b"\0" + data)


def root(hashes: list[bytes]) -> bytes:
    if len(hashes) < 2:
        return hashes[0] if hashes else sha256(b"")
    k = 1 << ((len(hashes) - 1).bit_length() - 1)
    return sha256(b"\1" + root(hashes[:k]) + root(hashes[k:]))


def tile_name(number: int, width: int) -> str:
    digits = f"{number:0{-(-len(str(number)) // 3) * 3}}"
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    return "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]]) + (f".p/{width}" if width < 256 else "")


class Checkpoint(NamedTuple):
    origin: str
    size: int
    root: bytes


def open_note(note: bytes, vkey: str) -> Checkpoint:
    """By the one key alone."""
    return open_signed(note, [vkey])[0]


def open_signed(note: bytes, vkeys: list[str]) -> tuple[Checkpoint, set[bytes]]:
    """The checkpoint, and the long ids of these keys that signed it: one at least, and none wrongly."""
    found = [signed for signed in (open_by(note, vkey) for vkey in vkeys) if signed is not None]
    need(found, "not signed by these keys")
    return found[0][0], {key_id for _, key_id in found}


def open_by(note: bytes, vkey: str) -> tuple[Checkpoint, bytes] | None:
    name, key_id, encoded = vkey.strip().split("+", 2)
    public = base64.b64decode(encoded)
    need(public[0] == 1 and sha256(name.encode() + b"\n" + public)[:4].hex() == key_id, "verification key")
    text, _, lines = note.rpartition(b"\n\n")
    text += b"\n"
    signed = False
    for line in lines.decode().removesuffix("\n").split("\n"):
        dash, by, signature = line.split(" ")
        data = base64.b64decode(signature, validate=True)
        need(dash == "\u2014", "signature line")
        if (by, data[:4].hex()) == (name, key_id):
            try:
                Ed25519PublicKey.from_public_bytes(public[1:]).verify(data[4:], text)
            except InvalidSignature:
                raise Refused("signature") from None
            signed = True
    if not signed:
        return None
    origin, size, encoded = text.decode().removesuffix("\n").split("\n")
    need(origin == name and str(int(size)) == size, "checkpoint")
    checkpoint = Checkpoint(origin, int(size), base64.b64decode(encoded, validate=True))
    return checkpoint, sha256(name.encode() + b"\n" + public)[:16]


def public_entries(log: Path, checkpoint: Checkpoint) -> list[bytes]:
    """All entries, after bundles, tiles and root were found to say the same."""
    entries: list[bytes] = []
    for number in range(-(-checkpoint.size // 256)):
        width = min(256, checkpoint.size - 256 * number)
        entries += unbundle((log / "tile/entries" / tile_name(number, width)).read_bytes(), width)
    hashes = [leaf(data) for data in entries]
    need(root(hashes) == checkpoint.root, "root")
    level = 0
    while hashes:
        for number in range(-(-len(hashes) // 256)):
            part = hashes[256 * number : 256 * (number + 1)]
            found = (log / f"tile/{level}" / tile_name(number, len(part))).read_bytes()
            need(found == b"".join(part), f"tile {level}/{number}")
        hashes = [root(hashes[at : at + 256]) for at in range(0, len(hashes) - 255, 256)]
        level += 1
    return entries


def unbundle(data: bytes, n: int) -> list[bytes]:
    found = []
    while data:
        end = 2 + int.from_bytes(data[:2])
        need(len(data) >= end, "bundle")
        found.append(data[2:end])
        data = data[end:]
    need(len(found) == n, "number of entries in a bundle")
    return found


# -- 3. Entries -----------------------------------------------------------------------------------------

FIELD = re.compile(r"(?P<name>.+) (?:u(?P<bits>8|16|32|64)|(?P<bytes>\d+))")


def table() -> dict[int, tuple[str, list[tuple[str, int, bool]]]]:
    """Type -> its name and fields (name, bytes, whether it is a number), as the document has them."""
    found = {}
    for code, name, body in re.findall(r"^\| ([0-9A-F]{2}) \| ([A-Z]+) \| (.+) \|$", DOCUMENT, re.M):
        fields = []
        for field in body.split(", "):
            parts = FIELD.fullmatch(field)
            assert parts is not None, field
            size = int(parts["bytes"] or int(parts["bits"]) // 8)
            fields.append((parts["name"], size, parts["bits"] is not None))
        found[int(code, 16)] = (name, fields)
    return found


TYPES = table()


def parse(data: bytes) -> tuple[str, dict[str, Any]]:
    need(data[:3] == b"GB\x01" and data[3] in TYPES, "type of entry")
    name, fields = TYPES[data[3]]
    need(len(data) == 4 + sum(size for _, size, _ in fields), f"length of {name}")
    values: dict[str, Any] = {}
    at = 4
    for field, size, is_number in fields:
        part = data[at : at + size]
        values[field] = int.from_bytes(part) if is_number else part
        at += size
    return name, values


# -- 4. Segments ----------------------------------------------------------------------------------------


class Frame(NamedTuple):
    magic: bytes
    number: int
    head: bytes  # up to t_max
    commitments: list[bytes]
    entries: list[bytes]
    body: bytes
    times: tuple[int, ...]


class Segment(NamedTuple):
    name: str
    header: bytes
    first: int
    frames: list[Frame]
    data: bytes  # as far as whole frames go

    @property
    def segment_id(self) -> bytes:
        return self.header[8:24]

    @property
    def dek_id(self) -> bytes:
        return self.header[24:40]

    @property
    def has_explicit_salts(self) -> bool:
        return self.header[59] == 1

    @property
    def entries(self) -> list[bytes]:
        return [data for frame in self.frames for data in frame.entries]


def segments(folder: Path, origin: str, size: int) -> list[Segment]:
    found: list[Segment] = []
    index = 0
    paths = sorted(folder.iterdir())
    for path in paths:
        data = path.read_bytes()
        header = data[:128]
        magic, segment_id, _, first, _, how, of, check = struct.unpack(">8s16s16sQQ8s32s32s", header)
        need(check == sha256(header[:96]) and magic == b"GBSEG\0\1\n", "header")
        need(how in (b"\1\1\1\0" + bytes(4), b"\1\1\1\1" + bytes(4)), "modes")
        need(path.name == f"{first:016x}-{segment_id.hex()[:8]}.gbseg", "name")
        need(of == sha256(origin.encode()) and first >= index, "place of a segment")
        index = first  # what lies between was erased: `check_statements` wants to know by which entries
        frames: list[Frame] = []
        end = 128
        try:
            for frame, behind in read_frames(data, index):
                frames.append(frame)
                index += len(frame.entries)
                end = behind
            need(frames and frames[-1].magic != b"GBFM", "a memo at the end")
        except Refused:
            # Torn by a crash: only at the log's end, beyond what is signed for.
            if path != paths[-1] or index < size:
                raise
        found.append(Segment(path.name, header, first, frames, data[:end]))
    return found


def read_frames(data: bytes, index: int) -> Iterator[tuple[Frame, int]]:
    at, number, after_memo = 128, 0, False
    while at < len(data):
        need(len(data) - at >= 24, "end of the file")
        magic, said, first, n, length = struct.unpack_from(">4sIQII", data, at)
        need(magic in (b"GBFR", b"GBFE", b"GBFM"), "kind of frame")
        middle = 16 + 32 * n if magic == b"GBFR" else 0
        end = at + 24 + middle + length + 32
        need(end <= len(data), "end of the file")
        need(sha256(data[at : end - 32]) == data[end - 32 : end], "hash of a frame")
        need((said, first) == (number, index), "number of a frame")
        body = data[at + 24 + middle : end - 32]
        commitments: list[bytes] = []
        times: tuple[int, ...] = ()
        if magic == b"GBFM":
            need(n <= number and not after_memo, "a memo")
            entries = []
        else:
            need(1 <= n <= 65536, "number of entries")
            if magic == b"GBFR":
                times = struct.unpack_from(">QQ", data, at + 24)
                commitments = [data[at + 40 + 32 * i : at + 72 + 32 * i] for i in range(n)]
                entries = [b"GB\x01\x01" + one for one in commitments]
            else:
                entries = unbundle(body, n)
                need(all(one[:4] != b"GB\x01\x01" for one in entries), "a record in the clear")
        yield Frame(magic, number, data[at : at + 40], commitments, entries, body, times), end
        index, number, at, after_memo = index + len(entries), number + 1, end, magic == b"GBFM"


def expand(key: bytes, info: bytes, length: int = 32) -> bytes:
    """HKDF-Expand for at most one block (RFC 5869)."""
    return hmac.digest(key, info + b"\1", "sha256")[:length]


class Removed(NamedTuple):
    """What stands in a removed record's place, and what named that one."""

    why: str
    commitment: bytes


def records(segment: Segment, dek: bytes) -> list[bytes | Removed]:
    """All of a segment's, each compared with its commitment."""
    aead = AESGCM(expand(dek, b"gatebook/seg/v1/enc"))
    salts = Cipher(algorithms.AES256(expand(dek, b"gatebook/seg/v1/salt")), modes.CTR(bytes(16))).encryptor()
    found: list[bytes | Removed] = []
    for frame in segment.frames:
        if frame.magic != b"GBFR":
            continue
        n = len(frame.commitments)
        aad = segment.header[:96] + frame.head + sha256(b"".join(frame.commitments))
        try:
            packed = aead.decrypt(frame.number.to_bytes(12), frame.body, aad)
        except InvalidTag:
            raise Refused("ciphertext") from None
        plain = zstandard.ZstdDecompressor().decompress(packed)
        at = (36 if segment.has_explicit_salts else 4) * n
        for i, said in enumerate(frame.commitments):
            (length,) = struct.unpack_from("<I", plain, 4 * i)
            salt = salts.update(bytes(32))
            if segment.has_explicit_salts:
                salt = plain[4 * n + 32 * i : 4 * n + 32 * i + 32]
                if length >> 31:
                    length -= 1 << 31
                    need(salt == bytes(32) and length <= 2048, "what a removed record has left")
                    found.append(Removed(plain[at : at + length].decode(), said))
                    at += length
                    continue
            record = plain[at : at + length]
            need(sha256(b"gatebook/record1" + salt + record) == said, "commitment")
            found.append(record)
            at += length
        need(at == len(plain), "lengths of records")
    return found


# -- 5. Keys --------------------------------------------------------------------------------------------


def unwrap(data: bytes, dek_id: bytes, private: X25519PrivateKey) -> bytes:
    body, n = data[:-32], int.from_bytes(data[24:28])
    need(sha256(body) == data[-32:] and body[:24] == b"GBDEK\0\1\n" + dek_id, "file of a DEK")
    need(1 <= n <= 64 and len(body) == 28 + 112 * n, "length of a DEK's file")
    public = private.public_key().public_bytes_raw()
    rows = {body[at : at + 32]: body[at + 32 : at + 112] for at in range(28, len(body), 112)}
    need(sha256(public) in rows, "not for this reader")
    return hpke_open(rows[sha256(public)], b"gatebook/dek/v1" + dek_id, private)


def hpke_open(wrapped: bytes, info: bytes, private: X25519PrivateKey) -> bytes:
    """RFC 9180, base mode, single-shot, X25519 + HKDF-SHA256 + AES-256-GCM."""

    def extract(suite: bytes, salt: bytes, label: bytes, key: bytes) -> bytes:
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + key, "sha256")

    def labeled(suite: bytes, key: bytes, label: bytes, context: bytes, length: int) -> bytes:
        return expand(key, length.to_bytes(2) + b"HPKE-v1" + suite + label + context, length)

    encapsulated = wrapped[:32]
    shared = private.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    kem, suite = b"KEM\0\x20", b"HPKE\0\x20\0\1\0\2"
    both = encapsulated + private.public_key().public_bytes_raw()
    secret = labeled(kem, extract(kem, b"", b"eae_prk", shared), b"shared_secret", both, 32)
    context = b"\0" + extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
    secret = extract(suite, secret, b"secret", b"")
    key, nonce = labeled(suite, secret, b"key", context, 32), labeled(suite, secret, b"base_nonce", context, 12)
    try:
        return AESGCM(key).decrypt(nonce, wrapped[32:], b"")
    except InvalidTag:
        raise Refused("wrapped DEK") from None


# -- 6. The lock, 8. a verifier -------------------------------------------------------------------------


def follow_keys(
    parsed: list[tuple[str, dict[str, Any]]], vkeys: list[str], given: bytes
) -> list[tuple[int, bytes]]:
    """The keys in force: (the size from which on, long id). `given` has to be one of them."""
    publics = {}
    for vkey in vkeys:
        name, _, encoded = vkey.split("+", 2)
        raw = base64.b64decode(encoded)
        publics[sha256(name.encode() + b"\n" + raw)[:16]] = raw[1:]
    force: list[tuple[int, bytes]] = []
    former: set[bytes] = set()
    for index, (name, said) in enumerate(parsed):
        if name != "KEY":
            continue
        old, new, public = said["old id"], said["new id"], said["SHA256(new public key)"]
        force = force or [(0, old)]
        need(said["kind"] == 1 and old == force[-1][1] and new not in former | {old}, "KEY out of its turn")
        need(old in publics and sha256(publics.get(new, b"")) == public, "public key of KEY")
        message = b"gatebook/log-key/v1\0\1" + old + new + public
        try:
            Ed25519PublicKey.from_public_bytes(publics[old]).verify(said["signature by the old key"], message)
        except InvalidSignature:
            raise Refused("signature of KEY") from None
        former.add(old)
        force.append((index + 1, new))
    need(not force or given in {one for _, one in force}, "a log of other keys")
    return force or [(0, given)]


def in_force(force: list[tuple[int, bytes]], size: int) -> bytes:
    return [key for begins, key in force if begins <= size][-1]


def open_lock(data: bytes, vkeys: list[str]) -> tuple[Checkpoint, set[bytes]]:
    head = re.match(rb"gatebook-lock 1\ntiles_durable (0|[1-9][0-9]*)\n", data)
    need(head is not None, "lock")
    assert head is not None
    checkpoint, by = open_signed(data[head.end() :], vkeys)
    need(int(head[1]) % 256 == 0 and int(head[1]) <= checkpoint.size, "watermark")
    return checkpoint, by


class Verified(NamedTuple):
    checkpoint: Checkpoint
    kinds: list[str]
    records: list[bytes]
    tail: int
    removed: list[Removed]


def verify(state: Path, *, with_key: bool = True, vkey: str = "") -> Verified:
    """All steps of section 8, with the key that is given. Raises Refused."""
    vkey = vkey or (state / "keys/log.pub").read_text().strip()
    ledger = state / "ledger"
    listed = (ledger / "log/keys").read_text().splitlines() if (ledger / "log/keys").exists() else []
    vkeys = list(dict.fromkeys([vkey, *listed]))
    checkpoint, by = open_signed((ledger / "log/checkpoint").read_bytes(), vkeys)
    promised, promised_by = open_lock((state / "lock").read_bytes(), vkeys)
    need(promised.size >= checkpoint.size, "lock is older")
    entries = public_entries(ledger / "log", checkpoint)
    held = segments(ledger / "segments", checkpoint.origin, checkpoint.size)
    inside = list(entries)
    for segment in held:
        need(segment.first <= len(inside), "entries that are nowhere")
        ours = inside[segment.first : segment.first + len(segment.entries)]
        need(segment.entries[: len(ours)] == ours, "segments and bundles differ")
        inside += segment.entries[len(ours) :]
    need(held and held[-1].first + len(held[-1].entries) >= checkpoint.size, "the log's end is missing")
    kinds = check_statements(inside, held, checkpoint)
    given = sha256(vkey.partition("+")[0].encode() + b"\n" + base64.b64decode(vkey.split("+", 2)[2]))[:16]
    force = follow_keys([parse(data) for data in inside[: promised.size]], vkeys, given)
    need(in_force(force, checkpoint.size) in by, "signed by a key that was not in force")
    need(in_force(force, promised.size) in promised_by, "lock signed by a key that was not in force")
    opened: list[bytes | Removed] = []
    if with_key:
        private = load_pem_private_key((state / "keys/reader.key").read_bytes(), None)
        assert isinstance(private, X25519PrivateKey)
        for segment in held:
            if segment.dek_id == bytes(16):
                need(all(frame.magic != b"GBFR" for frame in segment.frames), "records without a key")
                continue
            data = (state / "deks" / f"{segment.dek_id.hex()}.dek").read_bytes()
            opened += records(segment, unwrap(data, segment.dek_id, private))
    removed = [one for one in opened if isinstance(one, Removed)]
    there = [one for one in opened if not isinstance(one, Removed)]
    check_orders(inside, held, there, removed, complete=with_key)
    return Verified(checkpoint, kinds, there, len(inside) - checkpoint.size, removed)


def check_orders(
    inside: list[bytes], held: list[Segment], there: list[bytes], removed: list[Removed], *, complete: bool
) -> None:
    """What is removed is named by an ERASE entry, and each of these by an order right before it."""
    if not complete:
        return
    erasures = [(index, fields) for index, (name, fields) in enumerate(map(parse, inside)) if name == "ERASE"]
    named = {fields["object id"] for _, fields in erasures if fields["kind"] == 2}
    need(all(one.commitment[:16] in named for one in removed), "a record that was removed without a word")
    by_sha256 = {sha256(record): record for record in there}
    for index, fields in erasures:
        action = {1: b"erase.subject", 2: b"erase.record", 3: b"erase.segment"}[fields["kind"]]
        order = by_sha256.get(fields["SHA256(order)"])
        lost = not all(
            any(s.first <= at < s.first + len(s.entries) for s in held) for at in range(index - 64, index)
        )
        need(lost or (order is not None and b'"action":"%s"' % action in order), "an erasure that nobody ordered")


def check_statements(inside: list[bytes], held: list[Segment], checkpoint: Checkpoint) -> list[str]:
    parsed = [parse(data) for data in inside]
    erasures = [values for name, values in parsed if name == "ERASE"]
    by_first = {segment.first: segment for segment in held}
    firsts = {segment.first for segment in held if segment.first}
    previous, end = bytes(32), 0
    for index, (name, values) in enumerate(parsed):
        if name == "SEGMENT":
            need(values["first index"] == end and values["first index"] + values["entries"] == index, "no gap")
            need(values["previous"] == previous, "chain of SEGMENT entries")
            firsts.discard(index)
            check_statement(values, by_first.get(end), erasures)
            previous, end = leaf(inside[index]), index
        if name == "BOOT" and index < checkpoint.size:
            need(values["size"] <= index and values["clean"] < 2, "BOOT")
            need(values["root"] == root([leaf(data) for data in inside[: values["size"]]]), "root in BOOT")
    need(not firsts, "a segment that does not state the one before")
    return [name for name, _ in parsed]


def check_statement(said: dict[str, Any], segment: Segment | None, erasures: list[dict[str, Any]]) -> None:
    after = {one["SHA256(old file)"]: one["SHA256(new file)"] for one in erasures if one["kind"] == 2}
    files = [said["SHA256(file)"]]
    while files[-1] in after:
        files.append(after[files[-1]])
    if segment is None:
        need(
            any(
                one["kind"] == 3 and (one["object id"] == said["DEK id"] or one["SHA256(old file)"] in files)
                for one in erasures
            ),
            "a segment is missing",
        )
        return
    need(segment.has_explicit_salts == (len(files) > 1), "how salts are had")
    times = [time for frame in segment.frames for time in frame.times]
    created = int.from_bytes(segment.header[48:56])
    found = {
        "segment id": segment.segment_id,
        "first index": segment.first,
        "entries": len(segment.entries),
        "t_min": min(times, default=created),
        "t_max": max(times, default=created),
    }
    need({name: said[name] for name in found} == found, "SEGMENT")
    need(sha256(segment.data) == files[-1], "the file of a segment")
    if len(files) == 1:
        need((said["file length"], said["DEK id"]) == (len(segment.data), segment.dek_id), "SEGMENT")


# == what gatebook writes ===============================================================================

ORIGIN = "acme/node-1"
T0 = 1_700_000_000_000_000


def written(state: Path, *, count: int = 0) -> list[bytes]:
    """A ledger of three processes, the first of which was killed within a write; `count` more records."""
    (state / "keys").mkdir(parents=True)
    keys.create_keys(state / "keys", ORIGIN)
    made = [b'{"v":1,"kind":"system","time_us":%d,"event":"test"}' % n for n in range(300 + count)]
    first = start(state, T0)
    first.append(made[:2], b"memo")
    first.sync()
    first.append(made[2:290])
    first.append_entry(entry.Heartbeat(T0 + 7, 0, 0, 3, 0, 0))
    first.sync()
    publish(first)
    first.append([b'{"v":1,"kind":"torn"}'])
    lose(first)
    (path,) = (state / "ledger/segments").iterdir()
    path.write_bytes(path.read_bytes()[:-7])
    second = start(state, T0 + 1_000_000)
    second.append(made[290:299])
    second.close()
    third = start(state, T0 + 2_000_000)
    third.append_entry(entry.Policy(bytes(32), 1))
    for at in range(299, len(made), 60_000):
        third.append(made[at : at + 60_000])
    third.close()
    return made


def start(state: Path, now_us: int) -> writer.Writer:
    return writer.Writer.open(
        ledger=state / "ledger",
        lock=state / "lock",
        deks=state / "deks",
        signer=keys.load_signer(state / "keys"),
        recipients=lambda: keys.load_recipients(state / "keys"),
        boot_digest=b"b" * 32,
        restore=lambda _: None,
        snapshot=lambda: b"",
        now_us=lambda: now_us,
        reserve_bytes=0,
    )


def publish(one: writer.Writer) -> None:
    plan = one.plan_checkpoint()
    assert plan is not None
    plan.write()


def lose(one: writer.Writer) -> None:
    """As a process that is killed: its files stay as they are, its lock goes."""
    one._let_go()


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    state = tmp_path_factory.mktemp("format")
    return state, written(state)


def test_verifier_of_the_document_reads_all_that_was_written(once: tuple[Path, list[bytes]]) -> None:
    state, made = once
    found = verify(state)
    assert found.records == made
    assert found.tail == 0
    others = [kind for kind in found.kinds if kind != "RECORD"]
    assert others == [
        *("BOOT", "HEARTBEAT"),
        *("SEGMENT", "LOSS", "BOOT", "SEGMENT"),
        *("SEGMENT", "BOOT", "POLICY", "SEGMENT"),
    ]


def test_verifier_of_the_document_needs_no_key_for_all_but_the_content(once: tuple[Path, list[bytes]]) -> None:
    assert verify(once[0], with_key=False).kinds == verify(once[0]).kinds


def test_verifier_of_the_document_follows_tiles_above_the_first_level(tmp_path: Path) -> None:
    made = written(tmp_path, count=66_000)
    assert verify(tmp_path).records == made
    assert (tmp_path / "ledger/log/tile/1/000").stat().st_size == 256 * 32
    assert (tmp_path / "ledger/log/tile/2/000.p/1").stat().st_size == 32


def test_verifier_of_the_document_takes_the_tail_for_what_it_is(tmp_path: Path) -> None:
    written(tmp_path)
    running = start(tmp_path, T0 + 3_000_000)
    running.append([b'{"v":1}'])
    running.sync()
    path = max((tmp_path / "ledger/segments").iterdir())
    assert verify(tmp_path).tail == 1
    path.write_bytes(path.read_bytes()[:-1])
    assert verify(tmp_path).tail == 0
    lose(running)


def test_verifier_of_the_document_follows_the_keys_from_whichever_was_given(tmp_path: Path) -> None:
    written(tmp_path)
    given = [(tmp_path / "keys/log.pub").read_text().strip()]
    for _ in range(2):
        running = start(tmp_path, T0 + 3_000_000)
        logkeys.install(Files(), tmp_path / "keys", Signer.generate(ORIGIN, os.urandom(32)))
        running.hand_over(keys.load_signer(tmp_path / "keys"))
        running.retire([bytes.fromhex(vkey.split("+")[1]) for vkey in given])
        running.append([b'{"v":1}'])
        running.close()
        given.append((tmp_path / "keys/log.pub").read_text().strip())
    for vkey in given:
        assert verify(tmp_path, vkey=vkey).kinds.count("KEY") == 2
    other = Signer.generate(ORIGIN, bytes(32))
    with pytest.raises(Refused, match="other keys"):
        verify(tmp_path, vkey=other.vkey)
    log = tmp_path / "ledger/log"
    text = (log / "checkpoint").read_text().partition("\n\n")[0] + "\n"
    (log / "keys").write_text("".join(f"{vkey}\n" for vkey in [*given, other.vkey]))
    (log / "checkpoint").write_bytes(sign_note(text, other))
    with pytest.raises(Refused, match="not in force"):
        verify(tmp_path)


def ordered(running: writer.Writer, action: str) -> tuple[bytes, bytes]:
    """An order on record, and its hash."""
    order = b'{"v":1,"kind":"admin","time_us":%d,"action":"%s","actor":"os:0"}' % (running.size, action.encode())
    running.append([order])
    running.sync()
    return order, sha256(order)


def redacted(state: Path, *numbers: int) -> tuple[writer.Writer, list[bytes]]:
    """These records of the first segment removed, one after the other; all the records there are in the end."""
    made = written(state, count=600)
    running = start(state, T0 + 3_000_000)
    private = keys.load_reader(state / "keys")
    for number in numbers:
        order, order_sha256 = ordered(running, "erase.record")
        made.append(order)
        old = erase.Closed.read(erase.closed_segments(running)[0])
        opening = read.unwrap(Deks(state / "deks"), old.header.dek_id, private)
        anew = erase.without(running, old, opening, {sorted(old.contents(opening))[number]: "erased"})
        erase.redact(running, anew, entry.EraseReason.SECRET, order_sha256)
    return running, [record for at, record in enumerate(made) if at not in numbers]


def test_verifier_of_the_document_follows_redactions(tmp_path: Path) -> None:
    running, left = redacted(tmp_path, 4, 9)
    running.close()
    found = verify(tmp_path)
    assert found.records == left
    assert [one.why for one in found.removed] == ["erased", "erased"]
    assert found.kinds.count("ERASE") == 2
    verify(tmp_path, with_key=False)


def test_verifier_of_the_document_knows_segments_that_were_erased(tmp_path: Path) -> None:
    running, left = redacted(tmp_path, 4)
    running._publisher.settle()
    order, order_sha256 = ordered(running, "erase.segment")
    old = erase.examine(running, erase.closed_segments(running)[0], tmp_path / "ledger/log")
    assert old is not None
    erase.destroy(running, [old], entry.EraseReason.RETENTION, order_sha256)
    running.close()
    assert verify(tmp_path).records == [*left[289:], order]
    start(tmp_path, T0 + 4_000_000).close()
    assert verify(tmp_path).records == [*left[289:], order]


def test_verifier_of_the_document_finds_a_file_that_was_put_back(tmp_path: Path) -> None:
    made = tmp_path / "made"
    running, _ = redacted(made)
    path = erase.closed_segments(running)[0]
    data = path.read_bytes()
    running.close()
    again = tmp_path / "again"
    shutil.copytree(made, again)
    running = start(again, T0 + 4_000_000)
    _, order_sha256 = ordered(running, "erase.record")
    old = erase.Closed.read(erase.closed_segments(running)[0])
    opening = read.unwrap(Deks(again / "deks"), old.header.dek_id, keys.load_reader(again / "keys"))
    anew = erase.without(running, old, opening, {min(old.contents(opening)): "erased"})
    erase.redact(running, anew, entry.EraseReason.SECRET, order_sha256)
    running.close()
    verify(again)
    (again / "ledger/segments" / path.name).write_bytes(data)
    with pytest.raises(Refused, match="how salts are had"):
        verify(again, with_key=False)


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def seal_again(data: bytes, at: int, offset: int) -> bytes:
    """A byte of the frame at `at` changed, and the frame's own hash made to fit."""
    magic, _, _, n, length = struct.unpack_from(">4sIQII", data, at)
    end = at + 24 + (16 + 32 * n if magic == b"GBFR" else 0) + length
    changed = flip(data, at + offset)
    return changed[:end] + sha256(changed[at:end]) + data[end + 32 :]


ATTACKS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "signature": ("ledger/log/checkpoint", lambda d: d[:-20] + (b"A" if d[-20:-19] != b"A" else b"B") + d[-19:]),
    "root": ("ledger/log/checkpoint", lambda d: d.replace(b"\n", b"\n1", 1)),
    "bundle": ("ledger/log/tile/entries/000", lambda d: flip(d, 700)),
    "tile": ("ledger/log/tile/0/000", lambda d: flip(d, 700)),
    "upper tile": ("ledger/log/tile/1/000.p/1", lambda d: flip(d, 7)),
    "segment's header": ("ledger/segments/0", lambda d: flip(d, 50)),
    "frame": ("ledger/segments/0", lambda d: flip(d, 600)),
    "memo with its hash made anew": ("ledger/segments/0", lambda d: seal_again(d, d.index(b"memo") - 24, 24)),
    "commitment with its frame's hash": ("ledger/segments/0", lambda d: seal_again(d, d.index(b"GBFR"), 41)),
    "ciphertext with its frame's hash": (
        "ledger/segments/0",
        lambda d: seal_again(d, d.index(b"GBFR"), 24 + 16 + 64 + 3),
    ),
    "end of a closed segment": ("ledger/segments/0", lambda d: d[: d.rindex(b"GBFM")]),
    "wrapped DEK": ("deks/0", lambda d: (lambda b: b + sha256(b))(flip(d, 100)[:-32])),
    "watermark": ("lock", lambda d: d.replace(b"durable ", b"durable 9")),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_verifier_of_the_document_finds_what_was_changed(
    name: str, once: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    shutil.copytree(once[0], state)
    place, change = ATTACKS[name]
    path = state / place
    if path.name == "0":  # the first segment, or its DEK
        path = min((state / "ledger/segments").iterdir())
        if place.startswith("deks"):
            path = state / "deks" / f"{path.read_bytes()[24:40].hex()}.dek"
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert path.read_bytes() != before
    with pytest.raises(Refused):
        verify(state)


def test_table_of_entries_gives_the_bytes_of_each() -> None:
    h = [bytes([n]) * 32 for n in range(9)]
    i = [bytes([n]) * 16 for n in range(9)]
    samples: list[entry.Entry] = [
        entry.Record(h[1]),
        entry.Segment(i[1], 2, 3, 4, 5, 6, h[2], i[2], h[3]),
        entry.Boot(i[1], h[1], 2, h[2], True),
        entry.Heartbeat(1, 2, 3, 4, 5, 6),
        entry.Erase(3, i[1], h[1], h[2], 4, h[3]),
        entry.Key(1, i[1], i[2], h[1], h[2] + h[3]),
        entry.Loss(b"producer", 1, 2, 3),
        entry.Anchor(2, 3, h[1]),
        entry.Policy(h[1], 2),
        entry.Close(h[1]),
    ]
    assert sorted(TYPES) == list(range(1, 11))
    for sample in samples:
        name, values = parse(entry.encode(sample))
        assert name == type(sample).__name__.upper()
        assert tuple(values.values()) == astuple(sample)


def test_known_answers_hold_for_the_document() -> None:
    checkpoint = open_note(VECTORS["checkpoint"].encode(), VECTORS["log_vkey"])
    inside = [bytes.fromhex(one["entry"]) for one in VECTORS["records"]]
    assert unbundle(bytes.fromhex(VECTORS["bundle"]), 3) == inside
    assert checkpoint == Checkpoint(VECTORS["origin"], 3, root([leaf(data) for data in inside]))
    dek = bytes.fromhex(VECTORS["dek"])
    assert expand(dek, b"gatebook/seg/v1/enc").hex() == VECTORS["k_enc"]
    assert expand(dek, b"gatebook/seg/v1/salt").hex() == VECTORS["k_salt"]


@pytest.mark.parametrize(
    ("number", "width", "name"),
    [(0, 256, "000"), (5, 3, "005.p/3"), (1000, 256, "x001/000"), (1234067, 256, "x001/x234/067")],
)
def test_names_of_tiles_are_those_of_the_document(number: int, width: int, name: str) -> None:
    assert tile_name(number, width) == name
