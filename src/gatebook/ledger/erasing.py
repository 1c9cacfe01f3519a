"""What an erasure is about to do, durable before it begins, so that a stop within it can be finished or undone.

    gatebook-erasing 1
    size 4711                        its ERASE entries have this index, or a greater one
    authorisation <64 hex digits>    what they name
    anew <segment> <DEK id>          <segment>.new, whose key that is, takes <segment>'s place
    key <DEK id>                     goes
    segment <segment>                goes

`state/erasing` is there exactly while an erasure is under way. What decides is whether its ERASE entries are in
the log: then all of it is done, otherwise none. Keys go before what they open, never before what replaces it is
in place. Trust: whoever can write it can have keys destroyed, as whoever can write `lock` can fork the log.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from gatebook.errors import Damaged
from gatebook.ledger.deks import Deks
from gatebook.ledger.entry import Erase
from gatebook.ledger.files import Files

MAX_BYTES: Final = 64 << 10
_NAME = r"[0-9a-f]{16}-[0-9a-f]{8}\.gbseg"
_FORM: Final = re.compile(
    rf"gatebook-erasing 1\nsize (0|[1-9][0-9]{{0,18}})\nauthorisation ([0-9a-f]{{64}})\n"
    rf"((?:anew {_NAME} [0-9a-f]{{32}}\n)*)((?:key [0-9a-f]{{32}}\n)*)((?:segment {_NAME}\n)*)"
)


class Intent(NamedTuple):
    """`anew`: segment's file name and its new DEK's id."""

    size: int
    authorisation_sha256: bytes
    anew: tuple[tuple[str, bytes], ...] = ()
    keys: tuple[bytes, ...] = ()
    segments: tuple[str, ...] = ()


def encode(intent: Intent) -> bytes:
    """The file's bytes."""
    lines = ["gatebook-erasing 1", f"size {intent.size}", f"authorisation {intent.authorisation_sha256.hex()}"]
    lines += [f"anew {name} {dek_id.hex()}" for name, dek_id in intent.anew]
    lines += [f"key {dek_id.hex()}" for dek_id in intent.keys]
    lines += [f"segment {name}" for name in intent.segments]
    return "\n".join([*lines, ""]).encode("ascii")


def parse(data: bytes) -> Intent:
    """Raises Damaged on anything that `encode` does not give."""
    found = _FORM.fullmatch(data.decode("ascii", "replace"))
    if found is None:
        raise Damaged("not as gatebook writes it")
    anew = [line.split(" ")[1:] for line in found[3].splitlines()]
    return Intent(
        int(found[1]),
        bytes.fromhex(found[2]),
        tuple((name, bytes.fromhex(dek_id)) for name, dek_id in anew),
        tuple(bytes.fromhex(line.split(" ")[1]) for line in found[4].splitlines()),
        tuple(line.split(" ")[1] for line in found[5].splitlines()),
    )


class Erasing:
    """Carries intents out, or takes them back. `path`: where the intent lies, `folder`: where segments do."""

    def __init__(self, files: Files, path: Path, folder: Path, deks: Deks) -> None:
        self._files = files
        self._path = path
        self._folder = folder
        self._deks = deks

    def begin(self, intent: Intent) -> None:
        """Durable on return; from here on a start carries it out, or undoes it."""
        if self._path.exists():
            raise Damaged(f"{self._path}: another erasure is under way; start again, which ends it")
        self._files.store(self._path, encode(intent), durable=True)
        # A crash before here: nothing has been done. After: the next start undoes what will have been done.

    def finish(self, intent: Intent) -> None:
        """Do all of it, as often as it takes. Its ERASE entries are durable, and what replaces anything is."""
        for name, _ in intent.anew:
            with contextlib.suppress(FileNotFoundError):  # it is in place already
                self._files.rename(self._beside(name), self._folder / name)
        if intent.anew:
            self._files.sync_folder(self._folder)
        # A crash before here: the old file is there or the new one; each has its key. The next start finishes.
        for dek_id in intent.keys:
            self._deks.delete(dek_id)
            # A crash before here may bring the key back, but not the acknowledgement: the next start deletes it.
        for name in intent.segments:
            with contextlib.suppress(FileNotFoundError):
                self._files.remove(self._folder / name)
        if intent.segments:
            self._files.sync_folder(self._folder)
        self._end()

    def undo(self, intent: Intent) -> None:
        """Its ERASE entries are not in the log: nobody was told of it, and nothing has been touched."""
        for name, dek_id in intent.anew:
            with contextlib.suppress(FileNotFoundError):
                self._files.remove(self._beside(name))
                self._files.sync_folder(self._folder)
            self._deks.delete(dek_id)
        self._end()

    def _end(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.remove(self._path)
        # A crash before here: the next start finds nothing left to do, and takes the intent away.
        self._files.sync_folder(self._path.parent)

    def settle(self, known_from: int, erased: Iterable[tuple[int, Erase]]) -> None:
        """At a start: end what was under way. `erased`: the ERASE entries in the log from `known_from` on."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise Damaged(f"{self._path}: {(error.strerror or str(error)).lower()}") from error
        try:
            intent = parse(data)
        except Damaged as error:
            raise Damaged(f"{self._path}: {error}; find out who wrote it before it is moved away") from None
        if known_from > intent.size:
            raise Damaged(
                f"{self._path}: of an older state of the ledger; find out who put it back, then remove it"
            )
        wanted = intent.authorisation_sha256
        if any(index >= intent.size and each.authorisation_sha256 == wanted for index, each in erased):
            self.finish(intent)
        else:
            self.undo(intent)

    def _beside(self, name: str) -> Path:
        return self._folder / f"{name}.new"
