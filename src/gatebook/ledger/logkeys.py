"""The log's signing keys as files: the one in force, those before it, and putting a new one in force.

    log.key, log.pub                 in force (keys.py)
    log-<id>.pub                     a former one, kept for good: without it nobody can follow the KEY entries
    log-<id>.key                     its private half, as long as it signs beside the new one: OVERLAP_S

A new key is in force once `log.key` is replaced; that the log says so too, by a KEY entry, is the writer's to
catch up on (writer.py). Trust: as log.key; the thief of a former one deceives whoever knows no newer key.
Never removes or replaces a private key whose successor is not durable.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from gatebook.errors import Damaged
from gatebook.ledger.files import Files
from gatebook.ledger.keys import LOG_KEY, LOG_PUB, load_signer, load_verifier, read_key_file, text_of
from gatebook.ledger.note import Signer, Verifier

OVERLAP_S: Final = 30 * 24 * 3600
_FORMER: Final = re.compile(r"log-[0-9a-f]{8}\.(pub|key)")


class LogKeys(NamedTuple):
    """`signer` is in force; `also` sign beside it; `former`: everything before it that is known. Newest first."""

    signer: Signer
    also: tuple[Signer, ...]
    former: tuple[Verifier, ...]


def load_log_keys(folder: Path) -> LogKeys:
    """Raises EnvironmentFault, or Damaged for a file that is no key of this log."""
    signer = load_signer(folder)
    former = tuple(one for one in map(load_verifier, _newest(folder, "pub")) if one.public != signer.public)
    also = tuple(one for one in map(_private, _newest(folder, "key")) if one.public != signer.public)
    known: tuple[Verifier | Signer, ...] = (*former, *also)
    for one in known:
        if one.name != signer.name:
            raise Damaged(f"{folder}: log-{one.key_id.hex()} is of another log, {one.name}; move it away")
    return LogKeys(signer, also, former)


def _newest(folder: Path, ending: str) -> list[Path]:
    paths = [path for path in folder.glob(f"log-*.{ending}") if _FORMER.fullmatch(path.name)]
    return sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)


def _private(path: Path) -> Signer:
    try:
        return Signer.from_skey(text_of(read_key_file(path, secret=True)))
    except Damaged as error:
        raise Damaged(f"{path}: {error}") from None


def install(files: Files, folder: Path, new: Signer) -> None:
    """Put `new` in force. Durable on return; after a crash either key is, and the old one is not lost."""
    old = load_signer(folder)
    if old.name != new.name:
        raise ValueError("a log's next key has the same name")
    stem = f"log-{old.key_id.hex()}"
    files.store(folder / f"{stem}.pub", old.vkey.encode() + b"\n", durable=True)
    files.store(folder / f"{stem}.key", old.skey.encode() + b"\n", durable=True)
    # A crash before here: the old key is in force, and there are copies of it that are passed over.
    files.store(folder / LOG_KEY, new.skey.encode() + b"\n", durable=True)
    # A crash from here on: the new one is; the next start appends the KEY entry, by the old one's copy.
    files.store(folder / LOG_PUB, new.vkey.encode() + b"\n", durable=True)


def mend(files: Files, folder: Path, keys: LogKeys) -> None:
    """After a crash between the two halves: `log.pub` becomes what belongs to `log.key`."""
    if keys.former and load_verifier(folder) in keys.former:
        files.store(folder / LOG_PUB, keys.signer.vkey.encode() + b"\n", durable=True)


def private_halves(folder: Path) -> list[Path]:
    """Of former keys; the newest first."""
    return _newest(folder, "key")


def over(folder: Path, now: float) -> list[Path]:
    """Those whose overlap has ended."""
    return [path for path in private_halves(folder) if now - path.stat().st_mtime >= OVERLAP_S]


def remove(files: Files, folder: Path, paths: Sequence[Path]) -> None:
    """Private halves that sign no more."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            files.remove(path)
    if paths:
        files.sync_folder(folder)
        # A crash before here may bring one back: it signs on until it is removed again.
