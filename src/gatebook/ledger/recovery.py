"""What a ledger's folder still says after any stop, read without a key and without changing a byte.

Lock and published checkpoint are checked first, then the segments: headers, contiguity, frame hashes, each
segment's hash as its successor states it or ERASE entries explain it, and at the signed sizes the root over all
entries. Those of segments that were erased come from the bundles. Anything that contradicts a signature is
Tampered, anything unreadable that was promised is Damaged; both refuse. Beyond the last sync a crash may have
torn frames: they are reported as a Cut, for the writer to make. Never guesses, and never believes a tile or a
bundle unless it leads to the signed root. Specified in docs/format.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

from gatebook.errors import Damaged, LedgerError, Tampered
from gatebook.ledger import tiles
from gatebook.ledger.chain import Chain, long_id
from gatebook.ledger.entry import SEGMENT_PREFIX, Erase, Erased, Key, Segment, encode, parse
from gatebook.ledger.lock import Promise, Signed, open_signed, parse_promise, read_small
from gatebook.ledger.note import Checkpoint, Verifier, parse_note
from gatebook.ledger.scan import Scanned, Torn, erasures, key_entries, scan
from gatebook.ledger.segment import NO_DEK
from gatebook.ledger.tree import TILE_WIDTH, Builder, leaf_hash, leaf_hashes, perfect_root

MAX_SEGMENT_BYTES: Final = 256 << 20
_NAME: Final = re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}\.gbseg")
_ADVICE = "bring the segment back from a copy"


class Cut(NamedTuple):
    """The last segment's end, which a crash tore: nobody was told that it was written."""

    path: Path
    torn: Torn


@dataclass(frozen=True)
class Recovered:
    """What the caller should know. `memos`: of the last segment, with the first index of the frame behind each."""

    memos: list[tuple[int, bytes]]
    clean: bool
    cut: Cut | None
    size: int


class Base(NamedTuple):
    """A tree size whose tiles lead to the signed root, and the unfinished tiles there, by level."""

    size: int
    levels: list[list[bytes]]


class Hole(NamedTuple):
    """Entries whose segments were erased: `end` is not included. The bundles have them."""

    first: int
    end: int


@dataclass(frozen=True)
class Found:
    """What the writer goes on from. `parts`: what holds the entries from `base` on, in order.

    `last`: what the next segment has to state about the last one; None when there is none. `in_force`: the key
    that the entries say signs next; None when they say nothing. `erased`: the ERASE entries among them, by index.
    """

    promise: Promise | None
    base: Base
    parts: list[Path | Hole]
    last: Segment | None
    recovered: Recovered
    in_force: Verifier | None
    erased: list[tuple[int, Erase]]


_WHOLE = Base(0, [[]])


def recover(ledger: Path, lock: Path, *verifiers: Verifier) -> Found:
    """Reads everything that is needed. `verifiers`: the log's keys, those of before too, the newest first.

    Raises Tampered or Damaged, saying where and what to do.
    """
    promise = _promised(lock, verifiers)
    published = _published(ledger / "log" / "checkpoint", verifiers, promise)
    signed = [Signed(promise.checkpoint, promise.by)] if promise else []
    signed += [published] if published else []
    paths = _paths(ledger / "segments")
    base = _base_on_tiles(ledger / "log", promise, published.checkpoint if published else None)
    if base is not None:
        try:
            return _Scan(ledger / "log", verifiers, promise, signed, base).run(paths)
        except LedgerError:
            pass  # the tiles may be what is wrong, and they are no evidence: the segments decide
    return _Scan(ledger / "log", verifiers, promise, signed, _WHOLE).run(paths)


def _promised(lock: Path, verifiers: Sequence[Verifier]) -> Promise | None:
    data = read_small(lock)
    if data is None:
        return None
    try:
        promise = parse_promise(data, *verifiers)
        for line in parse_note(promise.note).lines:
            if line.name == promise.checkpoint.origin and line.key_id not in {one.key_id for one in verifiers}:
                raise Tampered(
                    f"signed by key {line.key_id.hex()} too, which is not in keys/: "
                    f"an older copy of keys/ was put back; bring the newest one"
                )
    except LedgerError as error:
        raise type(error)(f"{lock}: {error}") from None
    return promise


def _published(path: Path, verifiers: Sequence[Verifier], promise: Promise | None) -> Signed | None:
    """The published checkpoint: never newer than the lock, never another one of the same size."""
    data = read_small(path)
    if data is None:
        return None
    try:
        signed = open_signed(data, *verifiers)
    except LedgerError as error:
        raise type(error)(f"{path}: {error}") from None
    found = signed.checkpoint
    if promise is None or found.size > promise.checkpoint.size:
        known = "is missing" if promise is None else f"knows only {promise.checkpoint.size}"
        raise Tampered(
            f"{path}: published for {found.size} entries, but the lock {known}: the lock was removed or put back "
            f"to an older state; bring back the newest one, since signing on would fork the log"
        )
    if found.size == promise.checkpoint.size and found != promise.checkpoint:
        raise Tampered(f"{path}: another root than the lock's for the same {found.size} entries: a fork")
    return signed


def _paths(folder: Path) -> list[Path]:
    """The segments in order. The names sort as their first indices do."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.name.endswith(".gbseg"))
    except FileNotFoundError:
        return []
    for path in paths:
        if not _NAME.fullmatch(path.name):
            raise Damaged(f"{path}: not a segment's name; move it away if it is not ours")
    return paths


def _base_on_tiles(log: Path, promise: Promise | None, published: Checkpoint | None) -> Base | None:
    """The tree at the watermark, from the full tiles at its right edge. To be proven by the signed root."""
    if promise is None or not promise.tiles_durable:
        return None
    size = promise.tiles_durable
    if published is None or published.size < size:
        return None
    levels: list[list[bytes]] = [[]]
    count = size // TILE_WIDTH
    try:
        while count:
            level = len(levels) - 1
            made = []
            for number in range(count - count % TILE_WIDTH, count):
                data = (log / tiles.tile_path(level, number)).read_bytes()
                made.append(perfect_root(tiles.parse_tile(data)))
            levels.append(made)
            count //= TILE_WIDTH
    except (OSError, Damaged):
        return None
    return Base(size, levels)


@dataclass
class _Gaps:
    """What is not as it was closed, and what of that the log explains."""

    holes: list[tuple[Hole, str]] = field(default_factory=list)  # with what is wrong if it was not erased
    changed: list[tuple[Path, bytes, bytes]] = field(
        default_factory=list
    )  # the SHA-256 that is stated; that it has
    stated: dict[int, Segment] = field(default_factory=dict)  # by first index
    erased: list[tuple[int, Erase]] = field(default_factory=list)

    def check(self) -> None:
        """Raises Damaged or Tampered for what no ERASE entry explains."""
        erased = [entry for _, entry in self.erased]
        for hole, wrong in self.holes:
            if not explained(hole.first, hole.end, self.stated, erased):
                raise Damaged(wrong)
        links = _links(erased)
        for path, stated_sha256, has in self.changed:
            if has not in chain(stated_sha256, links):
                raise Tampered(
                    f"{path}: is not the file that was closed, and no ERASE entry explains it; {_ADVICE}"
                )


def explained(first: int, end: int, stated: Mapping[int, Segment], erased: Sequence[Erase]) -> bool:
    """Whether ERASE entries name all segments that held the entries from `first` on, below `end`.

    `stated`: SEGMENT entries, by the first index of the segment that they are of.
    """
    destroyed = [entry for entry in erased if entry.kind == Erased.SEGMENT]
    keys, files = {e.object_id for e in destroyed}, {e.old_file_sha256 for e in destroyed}
    links = _links(erased)
    at = first
    while at < end:
        one = stated.get(at)
        # One that was written anew before has another key than the one that is stated.
        if one is None or not (one.dek_id in keys or files.intersection(chain(one.file_sha256, links))):
            return False
        at += one.entries
    return True


def _links(erased: Sequence[Erase]) -> dict[bytes, bytes]:
    return {e.old_file_sha256: e.new_file_sha256 for e in erased if e.kind == Erased.RECORD}


def chain(sha256: bytes, links: Mapping[bytes, bytes]) -> list[bytes]:
    """What the file of that hash became, one after the other, by the ERASE entries' hashes, old to new."""
    found = [sha256]
    while (following := links.get(found[-1])) is not None and following not in found:
        found.append(following)
    return found


class _Scan:
    """One reading of the segments, from the one that holds the entry at `base` on."""

    def __init__(
        self,
        log: Path,
        verifiers: Sequence[Verifier],
        promise: Promise | None,
        signed: list[Signed],
        base: Base,
    ) -> None:
        self._log = log
        self._origin = hashlib.sha256(verifiers[0].name.encode()).digest()
        self._verifiers = verifiers
        self._chain = Chain(verifiers)
        self._by = signed
        self._promise = promise
        self._promised = promise.checkpoint.size if promise else 0
        self._base = base
        self._builder = Builder.resumed(base.size, base.levels)
        self._signed = sorted((one.checkpoint for one in signed), key=lambda checkpoint: checkpoint.size)
        self._end = 0
        self._last: Scanned | None = None
        self._closing: Segment | None = None  # what the next segment has to state about the last
        self._gaps = _Gaps()

    def run(self, paths: list[Path]) -> Found:
        begin = 0
        while begin + 1 < len(paths) and _first(paths[begin + 1]) <= self._base.size:
            begin += 1
        paths = paths[begin:]
        self._end = min(self._base.size, _first(paths[0])) if paths else 0
        parts: list[Path | Hole] = []
        cut: Cut | None = None
        for path in paths:
            if _first(path) > self._end:
                parts.append(self._hole(path))
            torn = self._scan(path, is_last=path == paths[-1], is_first=_first(path) == 0)
            if torn is not None:
                cut = Cut(path, torn)
            parts.append(path)
        if cut is not None and not cut.torn.keep:
            parts.pop()
        size = self._last.end if self._last else 0
        if size < self._promised:
            raise Damaged(
                f"the segments end at entry {size}, but {self._promised} entries are signed for; "
                f"bring the missing segments back from a copy"
            )
        self._gaps.check()
        memos = self._last.memos if self._last else []
        recovered = Recovered(memos, cut is None and self._clean(size), cut, size)
        return Found(
            self._promise, self._base, parts, self._closing, recovered, self._in_force(size), self._gaps.erased
        )

    def _hole(self, path: Path) -> Hole:
        """What lies before this segment and in no other. Erased or lost: that is known at the end."""
        hole = Hole(self._end, _first(path))
        if self._end:
            wrong = f"begins with entry {hole.end}, but the segment before ends at {hole.first}"
        else:
            wrong = "is not the log's first segment, but there is none before it"
        wrong = f"{path}: {wrong}; {_ADVICE}"
        at = hole.first
        for entries in _bundled(self._log, hole, wrong):
            for data in entries:
                if data[:4] == SEGMENT_PREFIX:
                    self._state(parse(data))
            self._gaps.erased += erasures(entries, at)
            self._follow_keys(key_entries(entries, at))
            self._extend(entries, at)
            at += len(entries)
        self._gaps.holes.append((hole, wrong))
        self._end, self._last, self._closing = hole.end, None, None
        return hole

    def _state(self, entry: object) -> None:
        if isinstance(entry, Segment):
            self._gaps.stated[entry.first_index] = entry

    def _in_force(self, size: int) -> Verifier | None:
        """Whose turn it is to sign, having found that each checkpoint is signed by the key whose turn it was.

        Entries before `base` are not read: of those who signed the lock, the newest is who they made it.
        """
        by = self._promise.by if self._promise else ()
        said = next((long_id(known) for known in self._verifiers if known in by), None)
        for one in self._by:
            due = self._chain.at(one.checkpoint.size) or said
            if due not in [long_id(key) for key in one.by]:
                raise Tampered(
                    f"the checkpoint of {one.checkpoint.size} entries is signed by key {one.by[0].key_id.hex()}, "
                    f"but it was the turn of key {due[:4].hex() if due else '?'}"
                )
        key_id = self._chain.at(size) or said
        return self._chain.by_id(key_id) if key_id is not None else None

    def _clean(self, size: int) -> bool:
        """Closing leaves a segment behind that only states the one before, and signs for it."""
        if self._last is None:
            return True
        last = self._last
        alone = last.header.dek_id == NO_DEK and len(last.entries) == 1 and last.stated is not None
        return alone and size == self._promised

    def _scan(self, path: Path, *, is_last: bool, is_first: bool) -> Torn | None:
        """Reads one segment into the tree; what is torn off it, which may be all."""
        data = _read(path)
        try:
            scanned = scan(data, _first(path), self._promised if is_last else None)
        except Damaged as error:
            raise Damaged(f"{path}: {error}; {_ADVICE}") from None
        if isinstance(scanned, Torn):
            return scanned
        self._check_place(path, scanned)
        self._check_stated(path, scanned, is_first)
        self._state(scanned.stated)
        self._gaps.erased += scanned.erased
        if self._promise is None and scanned.records:
            raise Tampered(
                "there are records, but no lock: it was removed; bring it back, since signing on may fork the log"
            )
        self._follow_keys(scanned.keys)
        self._extend(scanned.entries, scanned.header.first_index)
        self._last, self._end = scanned, scanned.end
        self._closing = scanned.closing(leaf_hash(encode(scanned.stated)) if scanned.stated else bytes(32))
        return scanned.torn

    def _check_place(self, path: Path, scanned: Scanned) -> None:
        header = scanned.header
        if header.file_name != path.name:
            raise Damaged(f"{path}: is the segment {header.file_name}; give it its name back")
        if header.origin_sha256 != self._origin:
            raise Damaged(f"{path}: belongs to another log; move it away")
        if self._last is not None and header.first_index != self._last.end:
            raise Damaged(
                f"{path}: begins with entry {header.first_index}, but the segment before ends at "
                f"{self._last.end}; {_ADVICE}"
            )

    def _check_stated(self, path: Path, scanned: Scanned, is_first: bool) -> None:
        """Each segment states the one before: its length and its hash, so also what no frame hash protects."""
        if is_first:
            if scanned.header.first_index or scanned.stated:
                raise Damaged(f"{path}: is not the log's first segment, but there is none before it; {_ADVICE}")
        elif scanned.stated is None:
            raise Tampered(f"{path}: does not state the segment before it")
        elif self._closing is not None and scanned.stated != self._closing:
            before, stated = self._closing, scanned.stated
            last = self._last.header if self._last is not None else None
            if (
                last is None
                or not last.rewritten
                or stated
                != replace(
                    before, file_bytes=stated.file_bytes, file_sha256=stated.file_sha256, dek_id=stated.dek_id
                )
            ):
                raise Tampered(f"{path}: states another segment before it than is there; {_ADVICE}")
            self._gaps.changed.append((path.with_name(last.file_name), stated.file_sha256, before.file_sha256))

    def _extend(self, entries: list[bytes], first: int) -> None:
        """Into the tree, stopping at each size that was signed for."""
        hashes = leaf_hashes(entries[max(0, self._builder.size - first) :])
        while self._signed and self._signed[0].size <= self._builder.size + len(hashes):
            due = self._signed.pop(0)
            more = due.size - self._builder.size
            self._builder.extend(hashes[:more])
            hashes = hashes[more:]
            if self._builder.root() != due.root:
                raise Tampered(
                    f"the root over the first {due.size} entries is not the one that was signed: entries were "
                    f"changed since; nothing is signed on top of this, compare with a copy or a mirror"
                )
        self._builder.extend(hashes)

    def _follow_keys(self, found: list[tuple[int, Key]]) -> None:
        for index, entry in found:
            try:
                self._chain.take(index, entry)
            except LedgerError as error:
                raise type(error)(f"entry {index}: {error}; nothing is signed on top of this") from None


def entries_from(found: Found, log: Path) -> Iterator[list[bytes]]:
    """The entries from `found.base` on, a part at a time, read again: they need not all fit in memory."""
    at = found.base.size
    for part in found.parts:
        if isinstance(part, Hole):
            hole = part._replace(first=max(at, part.first))
            for entries in _bundled(log, hole, "entries of erased segments are not in the bundles any more"):
                yield entries
                at += len(entries)
            continue
        scanned = scan(_read(part), _first(part), found.recovered.size)
        if isinstance(scanned, Scanned):
            yield scanned.entries[at - scanned.header.first_index :]
            at = scanned.end


def _bundled(log: Path, hole: Hole, wrong: str) -> Iterator[list[bytes]]:
    """The hole's entries, out of full bundles: no segment is erased before those are durable. Raises Damaged."""
    for number in range(hole.first // TILE_WIDTH, -(-hole.end // TILE_WIDTH)):
        path = log / tiles.bundle_path(number)
        try:
            entries = tiles.parse_bundle(path.read_bytes(), TILE_WIDTH)
        except (OSError, Damaged) as error:
            said = error if isinstance(error, Damaged) else (error.strerror or str(error)).lower()
            raise Damaged(f"{wrong}; if it was erased on purpose, bring back {path}: {said}") from None
        start = number * TILE_WIDTH
        yield entries[max(0, hole.first - start) : hole.end - start]


def _first(path: Path) -> int:
    return int(path.name[:16], 16)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_SEGMENT_BYTES + 1)
    except OSError as error:
        raise Damaged(f"{path}: {(error.strerror or str(error)).lower()}; {_ADVICE}") from error
    if len(data) > MAX_SEGMENT_BYTES:
        raise Damaged(f"{path}: longer than any segment; {_ADVICE}")
    return data
