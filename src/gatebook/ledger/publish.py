"""From a tree to a checkpoint that others see: tiles, then the lock, then `log/checkpoint`. In this order.

`Publisher.publish` may run in a thread beside the one that appends; it never signs a size below the last
one, nor another root for the same. Tiles are not synced one by one: now and then everything is, and the
watermark in the lock says up to where; recovery writes again what lies above it. After any error it signs
nothing more.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gatebook.errors import LedgerError, LedgerFull, Tampered
from gatebook.ledger.chain import KEYS_FILE, encode_keys
from gatebook.ledger.files import Files, full
from gatebook.ledger.lock import Held, Promise, encode_promise, read_small
from gatebook.ledger.note import Checkpoint, Signer, Verifier, sign_note
from gatebook.ledger.recovery import Base
from gatebook.ledger.tiles import Tiler, bundle_path, tile_path
from gatebook.ledger.tree import TILE_LEVELS, TILE_WIDTH

SETTLE_US: Final = 60 * 1_000_000  # between two syncs of all tiles

TileFiles = Sequence[tuple[str, bytes]]


class Publisher:
    """`written`: the tree size whose tiles are all written, though not all durable."""

    def __init__(
        self,
        files: Files,
        ledger: Path,
        lock: Path,
        signers: Sequence[Signer],
        former: Sequence[Verifier],
        held: Held,
        promise: Promise | None,
        now_us: Callable[[], int],
    ) -> None:
        self.promise = promise
        self.written = 0
        self.failure: LedgerError | None = None
        self._durable = promise.tiles_durable if promise else 0
        self._files = files
        self._log = ledger / "log"
        self._lock = lock
        self._signers = tuple(signers)  # the one in force first
        self._vkeys = [one.vkey for one in (*reversed(former), Verifier.from_vkey(signers[0].vkey))]
        self._listed = len(self._vkeys) == 1  # a log with one key needs no list of them
        self._held = held
        self._now_us = now_us
        self._settled_us = now_us()
        self._folders: set[Path] = set()
        self._mutex = threading.Lock()

    def publish(self, size: int, root: bytes, tiles: TileFiles) -> None:
        """Sign and show. `tiles`: all that filled up since `written`, and the partial ones at `size`.

        Raises LedgerFull when the disk took something not, Tampered or LedgerBusy when somebody else wrote.
        """
        with self._mutex, self._failing():
            self._publish(size, root, tiles)

    def hand_over(self, new: Signer, size: int, root: bytes, tiles: TileFiles) -> None:
        """From here on `new` signs too, and first: of all checkpoints this is the first to cover its KEY entry.

        No checkpoint of another size may come between: it would be signed by the wrong key. Raises as `publish`.
        """
        with self._mutex, self._failing():
            self._signers = (new, *self._signers)
            self._vkeys.append(new.vkey)
            self._listed = False
            self._publish(size, root, tiles)

    def retire(self, key_ids: Sequence[bytes]) -> None:
        """These former keys sign no more."""
        with self._mutex:
            self._signers = self._signers[:1] + tuple(
                one for one in self._signers[1:] if one.key_id not in key_ids
            )

    @property
    def signer(self) -> Signer:
        """The key in force."""
        return self._signers[0]

    def _publish(self, size: int, root: bytes, tiles: TileFiles) -> None:
        if self.promise is not None and size <= self.promise.checkpoint.size:
            if size == self.promise.checkpoint.size and root != self.promise.checkpoint.root:
                raise Tampered(f"another root over the same {size} entries: nothing more is signed")
            return  # planned before a later one was published
        self._check_alone()
        self.write_tiles(tiles)
        # A crash here: tiles that no checkpoint names; recovery removes the partial ones and writes the
        # others again, with the same bytes or, if the entries were torn off, with other ones.
        if not self._listed:
            self._files.store(self._log / KEYS_FILE, encode_keys(self._vkeys), durable=True)
            self._listed = True
        # A crash here: keys are listed of which no entry that is signed for speaks yet; nobody believes the list.
        checkpoint = Checkpoint(self.signer.name, size, root)
        note = sign_note(checkpoint.text(), *self._signers)
        self._promise(Promise(checkpoint, note, self._durable))
        # A crash here: the lock promises what nobody has seen yet; the next checkpoint extends it.
        self._show()
        # A crash here: published, and known to the lock.
        self.written = size
        if abs(self._now_us() - self._settled_us) >= SETTLE_US:
            self._settle()

    def show_cosigned(self, checkpoint: Checkpoint, note: bytes, *, newest: bool, receipt: bool) -> None:
        """Show a checkpoint that was published before with more signature lines; the caller has checked them.

        `newest`: the last of those that are cosigned well enough. `receipt`: an ANCHOR entry is to name it.
        """
        with self._mutex, self._failing():
            self._check_alone()
            if receipt:
                path = self._log / "anchors" / f"{checkpoint.size}.cosigned"
                self._make_folders(path.parent)
                self._files.store(path, note, durable=True)
                # A crash here: a receipt that no entry names yet; harmless.
            if newest:
                self._files.store(self._log / "cosigned", note, durable=True)
            # A crash here: the same text is published with fewer lines; the next one gets them again.
            if self.promise is not None and self.promise.checkpoint == checkpoint:
                self._files.store(self._log / "checkpoint", note, durable=True)

    def settle(self) -> None:
        """Make all tiles durable and say so in the lock, so that the next start need not write them again."""
        with self._mutex, self._failing():
            self._settle()
            if self.promise is not None and self.promise.tiles_durable != self._durable:
                self._check_alone()
                self._promise(self.promise._replace(tiles_durable=self._durable))

    def stop(self) -> None:
        """Wait for what is being published in another thread; publish nothing more."""
        with self._mutex:
            self.failure = self.failure or LedgerFull("this ledger is closed")

    def write_tiles(self, tiles: Iterable[tuple[str, bytes]]) -> None:
        """Not durable before the next settling; but for whoever looks, whole or not there."""
        for name, data in tiles:
            path = self._log / name
            self._make_folders(path.parent)
            self._files.store(path, data, durable=False)

    def rebuild(self, base: Base, size: int, batches: Iterable[list[bytes]]) -> Tiler:
        """The tree over all `size` entries, `batches` being those from `base` on, and their tiles written again.

        Call before anything is published. Whoever holds the last checkpoint finds its partial tiles again.
        """
        with self._failing():
            self._durable = base.size
            promised = self.promise.checkpoint.size if self.promise else 0
            tiler = Tiler.resumed(base.size, base.levels)
            # Partial tiles above the watermark may be torn, also those of a checkpoint that was never signed.
            self._remove_partial(base.size, size, unfinished=True)
            # A crash from here on: some tiles above the watermark are missing, and are written again.
            for entries in batches:
                upto = max(0, promised - tiler.size)
                for part in (entries[:upto], entries[upto:]):
                    before = tiler.size
                    tiler.extend(part)
                    last = tiler.size == promised
                    due = (file for file in tiler.files(before) if last or ".p/" not in file[0])
                    # Those that are right stay: writing one again could lose it in a crash, and where a segment
                    # was erased there is nothing but its bundles.
                    self.write_tiles(file for file in due if not self._holds(*file))
                    tiler.forget(tiler.size)
            self.written = tiler.size
            return tiler

    def _holds(self, name: str, data: bytes) -> bool:
        try:
            return (self._log / name).read_bytes() == data
        except OSError:
            return False

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        if self.failure is not None:
            raise type(self.failure)(str(self.failure))
        try:
            yield
        except OSError as error:
            self.failure = full(error)
            raise self.failure from error
        except LedgerError as error:
            self.failure = error
            raise

    def _check_alone(self) -> None:
        """Nobody else took the lock or changed what it says since we did."""
        self._held.check()
        expected = encode_promise(self.promise) if self.promise else None
        if read_small(self._lock) != expected:
            raise Tampered(f"{self._lock}: changed by somebody else; compare it with log/checkpoint and a copy")

    def _promise(self, promise: Promise) -> None:
        self._files.store(self._lock, encode_promise(promise), durable=True)
        # A crash within `store`: the old lock or the new one is there, and nothing newer was shown to anybody.
        self.promise = promise

    def _show(self) -> None:
        assert self.promise is not None  # noqa: S101 - `_promise` comes before
        self._files.store(self._log / "checkpoint", self.promise.note, durable=True)

    def _settle(self) -> None:
        self._files.sync_all(self._log)
        self._settled_us = self._now_us()
        settled = self.written - self.written % TILE_WIDTH
        # A crash here: the lock still has the old watermark, so tiles above it are written once more.
        self._remove_partial(self._durable, settled, unfinished=False)
        self._durable = settled

    def _remove_partial(self, start: int, end: int, *, unfinished: bool) -> None:
        """The partial versions of the tiles over the entries from `start` to `end`.

        Without `unfinished` of those alone that are full at tree size `end`, so that nobody needs them.
        """
        level = 0
        while level == 0 or end >> TILE_LEVELS * level:
            width = TILE_LEVELS * (level + 1)
            for number in range(start >> width, (end >> width) + unfinished):
                self._remove_folder(self._log / (tile_path(level, number) + ".p"))
                if level == 0:
                    self._remove_folder(self._log / (bundle_path(number) + ".p"))
            level += 1

    def _remove_folder(self, folder: Path) -> None:
        try:
            paths = list(folder.iterdir())
        except FileNotFoundError:
            return
        for path in paths:
            self._files.remove(path)
        self._files.remove_folder(folder)
        self._folders.discard(folder)

    def _make_folders(self, folder: Path) -> None:
        if folder in self._folders:
            return
        if not folder.is_dir():
            self._make_folders(folder.parent)
            self._files.make_folder(folder)
        self._folders.add(folder)


@dataclass(frozen=True)
class Plan:
    """A checkpoint that can be published, with its tiles; all of its entries are durable."""

    publisher: Publisher
    size: int
    root: bytes
    tiles: TileFiles

    def write(self) -> None:
        """May run in any thread; does nothing when a later plan was written already."""
        self.publisher.publish(self.size, self.root, self.tiles)
