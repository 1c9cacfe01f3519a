"""Makes a bundle of evidence of a ledger: a range of its records, in one file that proves itself.

In: a reader of the ledger, its public files, a range, a filter. Out: a zip, in order: README.txt, the
configurations in force, log.pub, the checkpoint and what vouches for it, tiles, records.jsonl, report.html,
manifest.json. The same range and filter give the same bytes. Memory does not grow with the records' size. Never
discloses a record that was not asked for; what is left out is counted. Reads the ledger, never writes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, NamedTuple

import msgspec

from gatebook import __version__
from gatebook.access.filter import Filter
from gatebook.config import effective
from gatebook.errors import Damaged, LedgerError, UsageError
from gatebook.evidence import interval, manifest
from gatebook.evidence.archive import MAX_MEMBERS, Members, Writer
from gatebook.evidence.examine import RECORDS, Examined, encode_line, examine
from gatebook.evidence.interval import Interval, Selected
from gatebook.evidence.manifest import Manifest
from gatebook.evidence.pin import Pinned, pin
from gatebook.evidence.report import readme, render
from gatebook.evidence.tree import bundle_name, right_edge, tile_name, tiles_of
from gatebook.ledger.chain import KEYS_FILE, MAX_KEYS_BYTES, encode_keys, long_id, parse_keys
from gatebook.ledger.entry import Anchor, Erase, Key, Segment, parse
from gatebook.ledger.note import Verifier
from gatebook.ledger.read import Reader
from gatebook.ledger.tree import TILE_WIDTH
from gatebook.ledger.verify.public import Public, read_file
from gatebook.paths import Paths

MAX_RECEIPT_BYTES: Final = 64 << 10
# Anchor.kind -> endings of its files below log/anchors/; the last one is the receipt.
VOUCHING: Final = {1: ("checkpoint", "tsr"), 2: ("cosigned",)}

Progress = Callable[[str, int, int], None]


class Asked(NamedTuple):
    """`since_us` None: from the beginning. `filters` tells `wanted` in words: option -> what was asked for."""

    since_us: int | None
    until_us: int
    wanted: Filter | None
    filters: dict[str, str]


class Made(NamedTuple):
    """What became of it."""

    manifest: Manifest
    examined: Examined


def write(out: IO[bytes], reader: Reader, paths: Paths, verifier: Verifier, asked: Asked, tell: Progress) -> Made:
    """Into `out`, which can be read and sought in. Raises EnvironmentFault, UsageError or a LedgerError."""
    since_us = asked.since_us if asked.since_us is not None else interval.begun_us(reader, asked.until_us)
    found = interval.find(reader, since_us, asked.until_us)
    if asked.since_us is None:
        found = found._replace(first=0)
    pinned, selected = _chosen(reader, paths, verifier, found, asked, found.end, tell)
    erasures: list[int] = []
    if selected.unread:
        erasures = _erasures(reader, found, reader.size)
        reach = max([found.end, *(index + 1 for index in erasures)])
        if reach > pinned.checkpoint.size:  # it is from before the erasure, which has to be proven as well
            pinned, selected = _chosen(reader, paths, verifier, found, asked, reach, tell)
    size = pinned.checkpoint.size
    before, after = interval.heartbeats(reader, found, size)
    public = Public(paths.ledger / "log", pinned.checkpoint)
    anchors = _anchors(reader, paths.ledger / "log" / "anchors", found)
    edges = [index for index in (before, after) if index is not None]
    sizes = {int(name.partition(".")[0]) for name in anchors}
    handovers, keys = _keys(reader, paths.ledger / "log", verifier.name, size)
    tiles, bundles = _places(found, [*selected.indices, *edges, *erasures, *handovers], sizes, size)
    if len(tiles) + len(bundles) > MAX_MEMBERS - 1000:
        raise UsageError(f"{found.end - found.first} entries are too many for one bundle; export them in parts")
    claims = Manifest(
        origin=verifier.name,
        size=size,
        root=pinned.checkpoint.root.hex(),
        since=manifest.iso(since_us),
        until=manifest.iso(asked.until_us),
        since_us=since_us,
        until_us=asked.until_us,
        first=found.first,
        end=found.end,
        before=before,
        after=after,
        filters=dict(sorted(asked.filters.items())),
        disclosed=0,
        withheld=0,
        software=__version__,
        members={},
    )
    archive = Writer(out)
    archive.add("README.txt", readme(claims).encode())
    for digest in selected.configurations:
        data = effective.kept(paths.state, digest)
        if data is not None:
            archive.add(f"configurations/{digest}.json", data)
    archive.add("log.pub", verifier.vkey.encode() + b"\n")
    _add_public(archive, public, pinned, anchors, keys, tiles, bundles, tell)
    _add_records(archive, reader, selected, size, tell)
    examined = examine(archive, claims, pinned.checkpoint, lambda done, total: tell("checking", done, total))
    final = finish(archive, claims, examined)
    archive.close()
    return Made(final, examined)


def _chosen(
    reader: Reader, paths: Paths, verifier: Verifier, found: Interval, asked: Asked, reach: int, tell: Progress
) -> tuple[Pinned, Selected]:
    """A checkpoint over all entries below `reach`, and which records go with it."""
    pinned = pin(paths.checkpoints, paths.ledger / "log", verifier, reach)

    def progress(done: int, total: int) -> None:
        tell("choosing", done, total)

    return pinned, interval.select(reader, found, asked.wanted, pinned.checkpoint.size, progress)


def finish(archive: Writer, claims: Manifest, examined: Examined) -> Manifest:
    """The report, then the manifest."""
    archive.add("report.html", render(archive, claims, examined).encode())
    final = completed(archive, claims, examined)
    archive.add(manifest.NAME, manifest.encode(final))
    return final


def completed(members: Members, claims: Manifest, examined: Examined) -> Manifest:
    """The manifest that goes with what was found."""
    names = [name for name in members.names() if name != manifest.NAME]
    return msgspec.structs.replace(
        claims,
        disclosed=examined.disclosed,
        withheld=examined.withheld,
        members={name: members.sha256(name) for name in sorted(names)},
    )


def _anchors(reader: Reader, folder: Path, found: Interval) -> dict[str, bytes]:
    """What vouches for the log from outside, and entries of the range name: names below log/anchors/ -> bytes."""
    anchors: dict[str, bytes] = {}
    for _, entry in reader.others(found.first, found.end):
        named = _parsed(entry)
        if not (isinstance(named, Anchor) and named.size >= found.first and named.kind in VOUCHING):
            continue
        names = [f"{named.size}.{ending}" for ending in VOUCHING[named.kind]]
        try:
            held = {name: read_file(folder / name, MAX_RECEIPT_BYTES) for name in names}
        except LedgerError:
            continue  # `gatebook verify` says that it is missing
        if hashlib.sha256(held[names[-1]]).digest() == named.receipt_sha256:
            anchors |= held
    return anchors


def _erasures(reader: Reader, found: Interval, size: int) -> list[int]:
    """Entries that may say why records of the range cannot be read."""
    told = []
    for index, entry in reader.others(found.first, size):
        parsed = _parsed(entry)
        if isinstance(parsed, Erase) or (isinstance(parsed, Segment) and parsed.first_index < found.end):
            told.append(index)
    return told


def _keys(reader: Reader, log: Path, name: str, size: int) -> tuple[list[int], bytes]:
    """The KEY entries of the tree, and the public keys that they are about, as `log/keys` has them."""
    try:
        listed = parse_keys(read_file(log / KEYS_FILE, MAX_KEYS_BYTES), name)
    except LedgerError:
        return [], b""
    if len(listed) < 2:
        return [], b""
    entries = {index: _parsed(entry) for index, entry in reader.others(0, size) if entry[:4] == b"GB\x01\x06"}
    ids = {each for entry in entries.values() if isinstance(entry, Key) for each in (entry.old_id, entry.new_id)}
    return list(entries), encode_keys(key.vkey for key in listed if long_id(key) in ids)


def _parsed(entry: bytes) -> object:
    try:
        return parse(entry)
    except Damaged:
        return None


def _places(
    found: Interval, indices: Iterable[int], sizes: Iterable[int], size: int
) -> tuple[list[tuple[int, int]], list[int]]:
    """The tiles and the blocks of entries that are needed, in order."""
    blocks = (
        set(range(found.first // TILE_WIDTH, -(-found.end // TILE_WIDTH))) if found.end > found.first else set()
    )
    blocks |= {index // TILE_WIDTH for index in indices}
    tiles = set(right_edge(size))
    for number in blocks:
        tiles |= set(tiles_of(number * TILE_WIDTH, size))
    for anchored in sizes:
        tiles |= set(tiles_of(anchored, size))
    return sorted(tiles), sorted(blocks)


def _add_public(
    archive: Writer,
    public: Public,
    pinned: Pinned,
    anchors: dict[str, bytes],
    keys: bytes,
    tiles: list[tuple[int, int]],
    bundles: list[int],
    tell: Progress,
) -> None:
    size = pinned.checkpoint.size
    if pinned.stamped is not None:
        anchors = anchors | {f"{size}.checkpoint": pinned.stamped[0], f"{size}.tsr": pinned.stamped[1]}
    for name, data in sorted(anchors.items()):
        archive.add(f"log/anchors/{name}", data)
    archive.add("log/checkpoint", pinned.note)
    if keys:
        archive.add(f"log/{KEYS_FILE}", keys)
    total = len(tiles) + len(bundles)
    for done, (level, number) in enumerate(tiles):
        archive.add(tile_name(level, number, size), public.tile(level, number), packed=False)
        tell("collecting", done, total)
    for done, number in enumerate(bundles, len(tiles)):
        archive.add(bundle_name(number, size), public.bundle(number))
        tell("collecting", done, total)


def _add_records(archive: Writer, reader: Reader, selected: Selected, size: int, tell: Progress) -> None:
    chosen = iter(selected.indices)
    wanted = next(chosen, None)
    done, total = 0, len(selected.indices)
    with archive.adding(RECORDS) as stream:
        if wanted is None:
            return
        for index, salt, record in reader.disclosed(wanted, size):
            while wanted is not None and wanted < index:
                wanted = next(chosen, None)
            if wanted is None:
                return
            if wanted == index:
                # What is no line is a record that no gatebook wrote; it counts as one that is not disclosed.
                with suppress(ValueError):
                    stream.write(encode_line(index, salt, record))
                done += 1
                tell("disclosing", done, total)
