"""A twin of the recorder, as far as the ledger sees it, and what must be true of a ledger after any stop.

Its records are `record 0`, `record 1`, … and its whole state is how many there are: the memo of a frame says
how many it adds, the snapshot how many there were. So after any crash the restored state, the records and
what was acknowledged can be compared with each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from tests.ledger.disk import Disk, Quick, Step

from gatebook.ledger import entry, keys, segment
from gatebook.ledger.deks import Deks
from gatebook.ledger.entry import Boot, Heartbeat, Loss, Record, Segment
from gatebook.ledger.explicit import Removed
from gatebook.ledger.files import Files
from gatebook.ledger.note import Checkpoint, Signer, Verifier, open_note, parse_checkpoint
from gatebook.ledger.tiles import Tiler
from gatebook.ledger.tree import Builder, leaf_hashes
from gatebook.ledger.writer import Writer

T0 = 1_700_000_000_000_000
MINUTE = 60_000_000
SIGNER = Signer.generate("acme/node-1", b"s" * 32)
VERIFIER = Verifier.from_vkey(SIGNER.vkey)
_PRIVATE = X25519PrivateKey.from_private_bytes(b"r" * 32)
READER = keys.Reader(keys.key_id(_PRIVATE.public_key()), _PRIVATE)
RECIPIENT = keys.Recipient(READER.id, _PRIVATE.public_key())


def record(number: int) -> bytes:
    return b"record %d" % number


class Caller:
    """Opens the ledger in `root` and appends to it. `now_us` is its clock."""

    def __init__(
        self, root: Path, files: Files | None = None, *, now_us: int = T0, reserve_bytes: int = 0
    ) -> None:
        self.root = root
        self.files = files or Quick()
        self.now_us = now_us
        self.count = 0
        self.restored: list[tuple[int, bytes]] = []
        self.writer = Writer.open(
            ledger=root / "ledger",
            lock=root / "lock",
            deks=root / "deks",
            signer=SIGNER,
            recipients=lambda: [RECIPIENT],
            boot_digest=b"b" * 32,
            restore=self._restore,
            snapshot=lambda: b"=%d" % self.count,
            now_us=lambda: self.now_us,
            reserve_bytes=reserve_bytes,
            files=self.files,
        )
        self._mark()

    def _restore(self, memos: Sequence[tuple[int, bytes]]) -> None:
        self.restored = list(memos)
        for _, memo in memos:
            number = int(memo[1:])
            self.count = number if memo[:1] == b"=" else self.count + number

    def append(self, n: int = 1) -> int:
        """`n` records in one frame, not yet durable."""
        first = self.writer.append([record(self.count + i) for i in range(n)], b"+%d" % n)
        self.count += n
        return first

    def heartbeat(self) -> int:
        return self.writer.append_entry(Heartbeat(self.now_us, self.count, 0, 0, 0, 0))

    def sync(self) -> None:
        self.writer.sync()
        self._mark()

    def _mark(self) -> None:
        if isinstance(self.files, Disk):
            self.files.mark("acked", self.count)

    def add(self, n: int = 1) -> None:
        """`n` records, acknowledged."""
        self.append(n)
        self.sync()

    def checkpoint(self) -> None:
        plan = self.writer.plan_checkpoint()
        if plan is not None:
            plan.write()

    def close(self) -> None:
        self.writer.close()


class Contents:
    """Everything in a ledger's folder, read with its keys and without its writer's code."""

    def __init__(self, root: Path) -> None:
        self.entries: list[bytes] = []
        self.records: dict[int, bytes] = {}
        self.removed: dict[int, str] = {}
        self.segments = sorted((root / "ledger" / "segments").iterdir())
        deks = Deks(root / "deks")
        for path in self.segments:
            data = path.read_bytes()
            header = segment.parse_header(data)
            assert header.first_index == len(self.entries), path
            for frame in segment.parse_frames(data, header.start):
                if isinstance(frame, segment.Sealed):
                    self._open(data[:128], header, frame, deks)
                self.entries += frame.entries
        self.parsed = [entry.parse(data) for data in self.entries]

    def _open(self, head: bytes, header: segment.Header, frame: segment.Sealed, deks: Deks) -> None:
        (wrapped,) = deks.get(header.dek_id) or []
        opened = segment.open_frame(head, segment.derive(keys.unwrap(wrapped, header.dek_id, READER)), frame)
        for index, one in enumerate(opened, frame.place.first_index):
            if isinstance(one, Removed):
                self.removed[index] = one.why
            else:
                self.records[index] = one

    @property
    def boots(self) -> list[Boot]:
        return [one for one in self.parsed if isinstance(one, Boot)]

    @property
    def losses(self) -> list[Loss]:
        return [one for one in self.parsed if isinstance(one, Loss)]

    @property
    def statements(self) -> list[Segment]:
        return [one for one in self.parsed if isinstance(one, Segment)]

    def root(self, size: int) -> bytes:
        builder = Builder()
        builder.extend(leaf_hashes(self.entries[:size]))
        return builder.root()


def published(root: Path) -> Checkpoint:
    data = (root / "ledger" / "log" / "checkpoint").read_bytes()
    return parse_checkpoint(open_note(data, [VERIFIER]).text)


def shown(steps: Sequence[Step]) -> list[Checkpoint]:
    """Every checkpoint that somebody may have seen, whether or not its name was durable."""
    found: list[Checkpoint] = []
    file, data = 0, b""
    for step in steps:
        if step.name == "create" and step.path.endswith("log/checkpoint.new"):
            file, data = step.file, b""
        elif step.name == "write" and step.file == file:
            data += step.data
        elif step.name == "rename" and step.to.endswith("log/checkpoint"):
            found.append(parse_checkpoint(open_note(data, [VERIFIER]).text))
    return found


def acked(steps: Sequence[Step]) -> int:
    return max((step.length for step in steps if step.name == "acked"), default=0)


def check(root: Path, *, at_least: int = 0, seen: Sequence[Checkpoint] = (), thorough: bool = True) -> Caller:
    """What must be true of the ledger in `root`, whatever happened to it, and once it is used again.

    `at_least` records were acknowledged; `seen` checkpoints were shown. Returns the caller, which is closed.
    """
    caller = Caller(root, now_us=T0 + MINUTE)
    restored = caller.count
    contents = Contents(root)
    numbers = list(contents.records.values())
    assert numbers == [record(number) for number in range(len(numbers))], "a record is missing, doubled or moved"
    assert len(numbers) >= at_least, "an acknowledged record is gone"
    assert restored == len(numbers), "the memos do not tell what the records do"
    assert [at for at, one in enumerate(contents.parsed) if isinstance(one, Record)] == sorted(contents.records)
    for checkpoint in seen:
        assert checkpoint.size <= len(contents.entries), "a published entry is gone"
        assert contents.root(checkpoint.size) == checkpoint.root, "a fork"
    assert contents.boots[-1].clean == caller.writer.recovered.clean
    check_tiles(root, contents)
    assert caller.append(1) == len(contents.entries)
    caller.sync()
    caller.close()
    if not thorough:
        return caller
    check_tiles(root, Contents(root))
    again = Caller(root, now_us=T0 + 2 * MINUTE)
    try:
        assert again.writer.recovered.clean
        assert again.count == restored + 1
    finally:
        again.close()
    return caller


def check_tiles(root: Path, contents: Contents) -> None:
    """The published checkpoint covers all, its files are there, and no file contradicts the tree."""
    checkpoint = published(root)
    assert checkpoint.size == len(contents.entries)
    assert checkpoint.root == contents.root(checkpoint.size)
    assert (root / "lock").read_bytes().endswith((root / "ledger" / "log" / "checkpoint").read_bytes())
    tiler = Tiler()
    tiler.extend(contents.entries)
    files = dict(tiler.files(0))
    log = root / "ledger" / "log"
    for name, data in files.items():
        assert (log / name).read_bytes() == data, name
    for path in (log / "tile").rglob("*"):
        name = str(path.relative_to(log))
        if path.is_file() and name not in files and not name.endswith(".new"):
            whole, _, width = name.partition(".p/")
            wider = [data for other, data in files.items() if other.partition(".p/")[0] == whole]
            assert wider, f"{name} is of no tile of this tree"
            assert wider[0].startswith(path.read_bytes()), f"{name} is of another tree"
            assert len(path.read_bytes()) == 32 * int(width) or "entries" in name, name
