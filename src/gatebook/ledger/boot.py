"""What a start changes on disk before anything is appended, and what it says first.

Folders are made, the one cut that recovery found is made, and the first frame's entries are put together; a key
that was put in force without the log's knowing gets its KEY entry.
Never removes a byte that anybody was told of.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from gatebook.errors import Damaged, EnvironmentFault
from gatebook.ledger.chain import KEYS_FILE, MAX_KEYS_BYTES, hand_over, parse_keys
from gatebook.ledger.entry import PRODUCER, Boot, Entry, Key, Loss, LossReason, encode
from gatebook.ledger.files import Files
from gatebook.ledger.lock import read_small
from gatebook.ledger.note import Signer, Verifier
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


def known_keys(log: Path, signer: Signer, former: Sequence[Verifier]) -> list[Verifier]:
    """All keys that this log may have been signed by, the newest first, without doubles.

    Raises EnvironmentFault when `log/keys` has a newer one than `signer`: then an older key was put back.
    """
    own = Verifier.from_vkey(signer.vkey)
    listed: list[Verifier] = []
    data = read_small(log / KEYS_FILE, MAX_KEYS_BYTES)
    with contextlib.suppress(Damaged):  # it is only a list, and is written again with the next key
        listed = parse_keys(data, signer.name) if data else []
    if own in listed[:-1]:
        raise EnvironmentFault(
            f"keys/log.key is key {own.key_id.hex()}, which key {listed[-1].key_id.hex()} has superseded "
            f"({log / KEYS_FILE}): an older copy of keys/ was put back; bring the newest one"
        )
    return list(dict.fromkeys([own, *reversed(listed), *former]))


def missing_handover(in_force: Verifier | None, signer: Signer, also: Sequence[Signer]) -> Key | None:
    """The KEY entry that a crash kept out of the log: `signer` was put in force, and the log does not know it.

    Raises EnvironmentFault when the key in force is not here, so that nobody can say it.
    """
    if in_force is None or in_force.public == signer.public:
        return None
    for old in also:
        if old.public == in_force.public:
            return hand_over(old, signer)
    raise EnvironmentFault(
        f"keys/log.key is key {signer.key_id.hex()}, but this log is signed by key {in_force.key_id.hex()}, and "
        f"nothing here made that one its successor: bring the newest keys/ back from a copy"
    )


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
