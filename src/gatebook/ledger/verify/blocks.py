"""Blocks of 256 entries: segments, bundles and tiles have to say the same, and together give the signed root.

Each block has three witnesses: its entries in the segments, its entry bundle, its tile. When they agree the
block costs one hash for each leaf and one for each node. When they do not, the root that is expected tells
which are right, and each that is wrong is a finding. Never takes the majority's word where the root can be
asked.
"""

from __future__ import annotations

from typing import NamedTuple

from gatebook.errors import Damaged
from gatebook.ledger.tiles import bundle_path, encode_bundle, parse_bundle, tile_path
from gatebook.ledger.tree import EMPTY_ROOT, TILE_LEVELS, TILE_WIDTH, leaf_hashes, peaks, perfect_root
from gatebook.ledger.verify.public import Expected, Public, block_name, fold, peak_roots
from gatebook.ledger.verify.report import Kind, Report, entries

_RECORD_BYTES = 36
_RECORD_LENGTH = _RECORD_BYTES.to_bytes(2, "big")


class Witness(NamedTuple):
    """What one source says of a block; `trouble` when it says nothing."""

    place: str
    hashes: list[bytes] | None
    entries: list[bytes] | None
    trouble: Damaged | None = None


class Block(NamedTuple):
    """What is known to be true of a block. `entries` None: nobody has them any more."""

    number: int
    entries: list[bytes] | None
    hashes: list[bytes] | None


def bundle_of(inside: list[bytes]) -> bytes:
    """`encode_bundle`, faster for the usual block that holds nothing but records."""
    if set(map(len, inside)) == {_RECORD_BYTES}:
        return _RECORD_LENGTH + _RECORD_LENGTH.join(inside)
    return encode_bundle(inside)


class Blocks:
    """Checks block after block; `finish` compares with the signed root."""

    def __init__(self, public: Public, report: Report) -> None:
        self._public = public
        self._report = report
        self._size = public.size
        self._expected: Expected = public.expected()
        self._roots: list[bytes] = []  # of full blocks
        self._last: list[bytes] = []  # leaf hashes of the block that is not full
        self._doubtful = False  # a block for which nobody could be believed

    def check(self, number: int, inside: list[bytes] | None) -> Block:
        """`inside`: the block's entries as the segments have them, None when they have not all of them."""
        bundle, tile = self._bundle(number), self._tile(number)
        if inside is not None and isinstance(bundle, bytes) and isinstance(tile, bytes):
            hashes = leaf_hashes(inside)
            if b"".join(hashes) == tile and bundle_of(inside) == bundle and self._keep(number, hashes):
                return self._partial(Block(number, inside, hashes))
        return self._partial(self._sort_out(number, inside, bundle, tile))

    def _bundle(self, number: int) -> bytes | Damaged:
        try:
            return self._public.bundle(number)
        except Damaged as error:
            return error

    def _tile(self, number: int) -> bytes | Damaged:
        try:
            return self._public.tile(0, number)
        except Damaged as error:
            return error

    def _wanted(self, number: int, hashes: list[bytes]) -> bool:
        """Whether these leaves are what the signed root demands, as far as that is known."""
        if number < len(self._expected.blocks):
            root = self._expected.blocks[number]
            return root is None or perfect_root(hashes) == root
        return self._expected.last is None or hashes == self._expected.last

    def _keep(self, number: int, hashes: list[bytes]) -> bool:
        if number >= len(self._expected.blocks):
            if self._expected.last is not None and hashes != self._expected.last:
                return False
            self._last = hashes
            return True
        root, wanted = perfect_root(hashes), self._expected.blocks[number]
        if wanted is not None and root != wanted:
            return False
        self._roots.append(root)
        return True

    def _partial(self, block: Block) -> Block:
        if block.hashes is not None:
            self._public.check_partial_tiles(self._report, 0, block.number, block.hashes)
        if block.entries is not None:
            self._public.check_partial_bundles(self._report, block.number, block.entries)
        return block

    # -- when not all is well -----------------------------------------------------------------------------
    def _sort_out(
        self, number: int, inside: list[bytes] | None, bundle: bytes | Damaged, tile: bytes | Damaged
    ) -> Block:
        witnesses = self._witnesses(number, inside, bundle, tile)
        right = self._right(number, witnesses)
        if right is None:
            return self._lost(number, witnesses)
        for witness in witnesses:
            if witness.trouble is not None:
                self._missing(number, witness, right)
            elif witness.hashes != right.hashes:
                self._contradicts(number, witness, right)
        self._keep(number, right.hashes or [])
        known = next((w.entries for w in witnesses if w.entries is not None and w.hashes == right.hashes), None)
        return Block(number, known, right.hashes)

    def _witnesses(
        self, number: int, inside: list[bytes] | None, bundle: bytes | Damaged, tile: bytes | Damaged
    ) -> list[Witness]:
        width = min(TILE_WIDTH, self._size - number * TILE_WIDTH)
        found = []
        if inside is not None:
            found.append(Witness("segments", leaf_hashes(inside), inside))
        place = f"log/{bundle_path(number, width)}"
        if isinstance(bundle, bytes):
            try:
                parsed = parse_bundle(bundle, width)
                found.append(Witness(place, leaf_hashes(parsed), parsed))
            except Damaged as error:
                found.append(Witness(place, None, None, error))
        else:
            found.append(Witness(place, None, None, bundle))
        place = f"log/{tile_path(0, number, width)}"
        if isinstance(tile, bytes):
            found.append(Witness(place, [tile[at : at + 32] for at in range(0, len(tile), 32)], None))
        else:
            found.append(Witness(place, None, None, tile))
        return found

    def _right(self, number: int, witnesses: list[Witness]) -> Witness | None:
        """Who says what was signed. Where that is not known, whoever is not contradicted by two others."""
        speaking = [witness for witness in witnesses if witness.hashes is not None]
        if self._is_expected(number):
            return next((w for w in speaking if w.hashes is not None and self._wanted(number, w.hashes)), None)
        if len({tuple(witness.hashes or ()) for witness in speaking}) > 1:
            self._doubtful = True
        said = [witness.hashes for witness in speaking]
        return max(speaking, key=lambda witness: said.count(witness.hashes), default=None)

    def _is_expected(self, number: int) -> bool:
        if number < len(self._expected.blocks):
            return self._expected.blocks[number] is not None
        return self._expected.last is not None

    def _missing(self, number: int, witness: Witness, right: Witness) -> None:
        name = block_name(number, self._size)
        if right.entries is not None:
            meaning = f"{name} are intact elsewhere; who has only the public files cannot check them"
        else:
            meaning = f"what {name} say is not there any more"
        self._report.found(0, "damaged", witness.place, str(witness.trouble), meaning)

    def _contradicts(self, number: int, witness: Witness, right: Witness) -> None:
        first = number * TILE_WIDTH
        pairs = zip(witness.hashes or (), right.hashes or (), strict=False)
        wrong = [first + at for at, (said, true) in enumerate(pairs) if said != true]
        at_once = bool(wrong) and wrong[-1] - wrong[0] == len(wrong) - 1
        where = entries(wrong[0], wrong[-1 if at_once else 0] + 1) if wrong else block_name(number, self._size)
        more = "" if at_once or not wrong else f" and {len(wrong) - 1} more"
        verb = "is" if len(wrong) == 1 else "are"
        sure = f"{verb} not what was signed" if self._is_expected(number) else f"{verb} not what the others say"
        in_segments = witness.place == "segments"
        self._report.found(
            1 if in_segments else 0,
            "tampered",
            f"segments, {where}{more}" if in_segments else witness.place,
            sure if in_segments else f"{where}{more} {sure}",
            "the record there is not the one that was signed"
            if in_segments
            else "readers of this file are misled",
        )

    def _lost(self, number: int, witnesses: list[Witness]) -> Block:
        """Nobody says what was signed."""
        spoken = [witness for witness in witnesses if witness.hashes is not None]
        kind: Kind = "tampered" if spoken else "damaged"
        name = block_name(number, self._size)
        self._report.found(
            0,
            kind,
            name,
            "nothing here leads to the signed root"
            if spoken
            else "neither bundle nor tile nor segment is readable",
            f"what {name} were cannot be known from this copy",
        )
        self._doubtful = True
        wanted = self._expected.blocks[number] if number < len(self._expected.blocks) else None
        if wanted is not None:
            self._roots.append(wanted)  # so that what comes after it can still be checked
        elif number < len(self._expected.blocks):
            self._roots.append(bytes(32))
        elif self._expected.last is not None:
            self._last = self._expected.last
        return Block(number, None, None)

    # -- the whole ------------------------------------------------------------------------------------------
    def finish(self) -> Roots:
        """Compares with the signed root, and the tiles above the first level with what they have to be."""
        roots = Roots(self._roots, self._last)
        if roots.at(self._size) != self._public.checkpoint.root:
            self._report.found(
                0,
                "tampered" if not self._doubtful or self._report.counts["tampered"] else "damaged",
                "log/checkpoint",
                f"the entries here do not give the root that was signed for {self._size} of them",
                "this copy is not the log that was signed, or not all of it",
            )
            return roots
        for level in range(1, len(roots.levels)):
            for number in range(-(-len(roots.levels[level]) // TILE_WIDTH)):
                self._check_tile(
                    level, number, roots.levels[level][number * TILE_WIDTH : (number + 1) * TILE_WIDTH]
                )
        return roots

    def _check_tile(self, level: int, number: int, hashes: list[bytes]) -> None:
        place = f"log/{tile_path(level, number, len(hashes))}"
        harmless = "no entry is in doubt; who checks with this file cannot"
        try:
            if self._public.tile(level, number) != b"".join(hashes):
                self._report.found(0, "tampered", place, "is not what was signed", harmless)
        except Damaged as error:
            self._report.found(0, "damaged", place, str(error), harmless)
        self._public.check_partial_tiles(self._report, level, number, hashes)


class Roots:
    """The tree's hashes at every eighth level: `levels[1]` holds the full blocks' roots."""

    def __init__(self, blocks: list[bytes], last: list[bytes]) -> None:
        self.levels: list[list[bytes]] = [last, blocks]
        while len(self.levels[-1]) >= TILE_WIDTH:
            below = self.levels[-1]
            full = range(0, len(below) - TILE_WIDTH + 1, TILE_WIDTH)
            self.levels.append([perfect_root(below[at : at + TILE_WIDTH]) for at in full])

    def at(self, size: int) -> bytes | None:
        """The root over the first `size` entries; None when that needs leaves that are not kept."""
        if not size:
            return EMPTY_ROOT
        full, rest = divmod(size, TILE_WIDTH)
        if full > len(self.levels[1]) or (rest and (full < len(self.levels[1]) or rest > len(self.levels[0]))):
            return None
        return self.over(full, self.levels[0][:rest])

    def over(self, full: int, leaves: list[bytes]) -> bytes:
        """The root over so many full blocks and then these leaves."""
        above = [self._perfect(level, k) for level, k in peaks(full)]
        return fold(above + peak_roots(leaves))

    def _perfect(self, level: int, k: int) -> bytes:
        """Over 2^level blocks."""
        tile_level, inner = divmod(level, TILE_LEVELS)
        hashes = self.levels[tile_level + 1]
        return perfect_root(hashes[k << inner : (k + 1) << inner])
