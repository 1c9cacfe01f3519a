"""What a start changes on disk before anything is appended, and what it says first.

Folders are made, the one cut that recovery found is made, and the first frame's entries are put together.
Never removes a byte that anybody was told of.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from gatebook.ledger.entry import PRODUCER, Boot, Entry, Loss, LossReason, encode
from gatebook.ledger.files import Files
from gatebook.ledger.recovery import Cut, Found
from gatebook.ledger.tree import EMPTY_ROOT


def make_folder(files: Files, folder: Path) -> None:
    if not folder.is_dir():
        with contextlib.suppress(FileExistsError):  # another process made it just now; the lock comes after
            files.make_folder(folder)
        files.sync_folder(folder.parent)
        # A crash before here: nothing is in it, and the next start makes it again.


def make_cut(files: Files, cut: Cut | None) -> None:
    """The one thing that recovery takes away: a torn end that nobody was told of."""
    if cut is None:
        return
    if not cut.torn.keep:
        files.remove(cut.path)
        files.sync_folder(cut.path.parent)
        # A crash before here: the next start finds the segment still unborn, or gone.
        return
    descriptor = files.reopen(cut.path)
    try:
        files.truncate(descriptor, cut.torn.keep)
        files.sync(descriptor)
    finally:
        files.close(descriptor)
    # A crash before here: the next start finds the same torn end, or none, and then says nothing of a loss:
    # none of it was acknowledged.


def first_entries(found: Found, boot_id: bytes, digest: bytes) -> list[bytes]:
    """What a process's first frame says: the segment before, what was cut, and that it began."""
    entries: list[Entry] = [found.last] if found.last else []
    cut = found.recovered.cut
    if cut is not None and cut.torn.lost is not None:
        entries.append(Loss(PRODUCER, *cut.torn.lost, LossReason.TORN))
    size, root = 0, EMPTY_ROOT
    if found.promise is not None:
        size, root = found.promise.checkpoint.size, found.promise.checkpoint.root
    entries.append(Boot(boot_id, digest, size, root, found.recovered.clean))
    return [encode(entry) for entry in entries]
