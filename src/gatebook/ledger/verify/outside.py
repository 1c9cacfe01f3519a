"""Level 3: what others hold against a ledger, and what a result rests on with it.

In: checkpoints that somebody kept, read by `read_kept` before anything else is looked at; and, of the ledger,
the root over its first entries for any number of them. Out: findings, and the report's last words. What the
caller brings along and cannot be used is his to mend: EnvironmentFault, never a finding about the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature

from gatebook.errors import Damaged, EnvironmentFault
from gatebook.ledger.note import MAX_NOTE_BYTES, Checkpoint, Note, Verifier, parse_checkpoint, parse_note
from gatebook.ledger.verify.public import read_file
from gatebook.ledger.verify.report import Report, entries

LEVEL = 3
NOTHING = "nothing from outside was given: no policy of witnesses, no certificates of a time stamp authority, \
no checkpoint that was kept"

RootAt = Callable[[int], bytes | None]


class Kept(NamedTuple):
    """A checkpoint that was taken away; its signature is checked by `Kept.check`."""

    path: Path
    note: Note
    checkpoint: Checkpoint

    def check(self, verifiers: Sequence[Verifier]) -> None:
        """Raises EnvironmentFault unless one of these keys of the log's signed it."""
        known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
        signed = False
        for line in self.note.lines:
            verifier = known.get((line.name, line.key_id))
            if verifier is None:
                continue
            try:
                verifier.check(self.note.text, line.signature)
            except InvalidSignature:
                raise EnvironmentFault(
                    f"{self.path}: the signature is not for this text: it was changed since it was kept"
                ) from None
            signed = True
        if not signed:
            by = ", ".join(f"{line.name} (key {line.key_id.hex()})" for line in self.note.lines)
            raise EnvironmentFault(f"{self.path}: not signed by this log's key, but by {by}")


def read_kept(path: Path, origin: str) -> Kept:
    """Raises EnvironmentFault when it is no checkpoint of that log."""
    try:
        note = parse_note(read_file(path, MAX_NOTE_BYTES))
        checkpoint = parse_checkpoint(note.text)
    except Damaged as error:
        raise EnvironmentFault(f"{path}: not a checkpoint that was kept: {error}") from None
    if checkpoint.origin != origin:
        raise EnvironmentFault(f"{path}: a checkpoint of another log, {checkpoint.origin}; expected {origin}")
    return Kept(path, note, checkpoint)


@dataclass(frozen=True)
class Outside:
    """What the caller brings along."""

    kept: Sequence[Kept] = ()


NOTHING_OUTSIDE: Final = Outside()


class Level3:
    """Use once: `judge`, then `grounds`."""

    def __init__(self, outside: Outside, report: Report) -> None:
        self._outside = outside
        self._report = report
        self._vouched = 0  # for so many entries somebody besides the key's holder vouches
        self._newest_kept = 0
        self._said: list[str] = []

    def judge(self, checkpoint: Checkpoint, root_at: RootAt) -> None:
        """Everything that was brought along, against the ledger as far as it is signed for."""
        if not self._outside.kept:
            self._report.skip(LEVEL, NOTHING)
            return
        self._report.tried(LEVEL)
        for kept in self._outside.kept:
            self._hold(kept, checkpoint, root_at)

    def _hold(self, kept: Kept, checkpoint: Checkpoint, root_at: RootAt) -> None:
        size = kept.checkpoint.size
        if size > checkpoint.size:
            what = f"promises {size} entries, but this ledger is signed for {checkpoint.size}"
            meaning = "an older state was put back, or the end was cut off: what was promised is not here"
            self._report.found(LEVEL, "tampered", str(kept.path), what, meaning)
            return
        root = checkpoint.root if size == checkpoint.size else root_at(size)
        if root is None:
            what = f"the tiles that lead to the root of {size} entries are missing here, so it was not compared"
            self._report.found(LEVEL, "damaged", str(kept.path), what, "whether this is the same log is not known")
        elif root != kept.checkpoint.root:
            what = f"has another root for the first {size} entries than this ledger"
            meaning = "the log was written anew since: two histories have been signed"
            self._report.found(LEVEL, "tampered", str(kept.path), what, meaning)
        else:
            self._vouched = max(self._vouched, size)
            self._newest_kept = max(self._newest_kept, size)
            if size:
                self._said.append(f"{entries(0, size)} are those of {kept.path}, a checkpoint that was kept")

    def grounds(self, size: int, verifier: Verifier) -> list[str]:
        """What the result rests on; no local copy can prove more."""
        report = self._report
        key = f"{verifier.name} (key {verifier.key_id.hex()})"
        said = []
        if report.worst is None:
            said.append(f"verified up to size {size}")
        said += self._said
        if self._vouched < size:
            asked = "" if self._said else ": no witness and no time stamp was asked"
            said.append(
                f"{entries(self._vouched, size)} rest on the signature of {key} alone{asked}, "
                f"so the key's holder could have written another history"
            )
        if report.tail:
            said.append(
                f"of {entries(size, size + report.tail)} nothing is signed for yet: they were being written when "
                f"this was copied, or an older checkpoint was put here"
            )
        if self._newest_kept:
            said.append(
                f"an older copy of the whole ledger would pass too, if it holds {self._newest_kept} entries"
            )
        else:
            said.append(
                "an older copy of the whole ledger would pass too: compare with a checkpoint kept elsewhere"
            )
        return said
