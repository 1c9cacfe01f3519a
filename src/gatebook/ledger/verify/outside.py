"""Level 3: what others hold against a ledger, and what a result rests on with it.

In: checkpoints that somebody kept, a policy of witnesses, certificates of time stamp authorities, all brought
along by the caller; and of the ledger what the other levels have read. Out: findings, and the report's last words.
What the caller brings along and cannot be used is his to mend: EnvironmentFault, never a finding about the ledger.
Never counts a word of a witness or an authority that the caller did not name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from gatebook.errors import Damaged, EnvironmentFault, Tampered
from gatebook.ledger.entry import Anchor
from gatebook.ledger.note import (
    MAX_NOTE_BYTES,
    Checkpoint,
    Note,
    SignatureLine,
    Verifier,
    parse_checkpoint,
    parse_note,
)
from gatebook.ledger.quorum import Log, Quorum, Trust
from gatebook.ledger.verify.anchors import FOLDER, LEVEL, Against, Anchors, moment
from gatebook.ledger.verify.public import Missing, read_file
from gatebook.ledger.verify.report import Kind, Report, entries

NOTHING = "nothing from outside was given: no policy of witnesses, no certificates of a time stamp authority, \
no checkpoint that was kept"
COSIGNED: Final = "cosigned"  # the last checkpoint that enough witnesses cosigned


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
            raise EnvironmentFault(
                f"{self.path}: not signed by this log's key, but by {by}; if that came before, copy log/keys too"
            )


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
    """What the caller brings along. `demanded`: it is a finding when nobody of policy or certificates vouches.

    `disputes`: witnesses that disagree with this log, and what each of them holds against it.
    """

    kept: Sequence[Kept] = ()
    policy: Trust | None = None
    authorities: Sequence[x509.Certificate] | None = None
    demanded: bool = True
    disputes: Sequence[tuple[str, str]] = ()


NOTHING_OUTSIDE: Final = Outside()


class Level3:
    """Make it before the checkpoint is read; then `judge`, then `grounds`."""

    def __init__(self, outside: Outside, log: Path, report: Report) -> None:
        self.anchors = Anchors(log, report)
        self._outside = outside
        self._log = log
        self._report = report
        self._vouched = 0  # for so many entries somebody besides the key's holder vouches
        self._newest_kept = 0
        self._said: list[str] = []
        self._why_not: list[str] = []
        self._cosigned: list[tuple[str, bytes]] = []
        if outside.policy is not None:
            self._cosigned += chain(*map(self._read_cosigned, ("checkpoint", COSIGNED)))

    def strangers(self, lines: Sequence[SignatureLine]) -> list[SignatureLine]:
        """Those of the lines that are of no witness of the policy."""
        policy = self._outside.policy
        witnesses = policy.witnesses if policy is not None else ()
        known = {(each.verifier.name, each.verifier.key_id) for each in witnesses}
        return [line for line in lines if (line.name, line.key_id) not in known]

    def judge(self, checkpoint: Checkpoint, against: Against, named: Sequence[tuple[int, Anchor]]) -> None:
        """Everything that was brought along, against the ledger; `named`: its ANCHOR entries."""
        self.anchors.check_receipts(named)
        for name, why in self._outside.disputes:
            meaning = "an older state was put back, or the log was written anew: it is not what was shown before"
            self._report.found(LEVEL, "tampered", f"witness {name}", why, meaning)
        for kept in self._outside.kept:
            self._hold(kept, checkpoint, against)
        self._witnesses(against)
        self._time_stamps(against)
        if self._said or LEVEL in self._report.levels:
            self._report.tried(LEVEL)
        else:
            self._report.skip(LEVEL, "; ".join(self._why_not) or NOTHING)

    # -- checkpoints that were kept ---------------------------------------------------------------------------
    def _hold(self, kept: Kept, checkpoint: Checkpoint, against: Against) -> None:
        size = kept.checkpoint.size
        if size > checkpoint.size:
            what = f"promises {size} entries, but this ledger is signed for {checkpoint.size}"
            meaning = "an older state was put back, or the end was cut off: what was promised is not here"
            self._report.found(LEVEL, "tampered", str(kept.path), what, meaning)
        elif self._is_this_log(str(kept.path), kept.checkpoint, against):
            self._vouched = max(self._vouched, size)
            self._newest_kept = max(self._newest_kept, size)
            held = f"{entries(0, size)} are those" if size else "no entry is that"
            self._said.append(f"{held} of {kept.path}, a checkpoint that was kept")

    def _is_this_log(self, place: str, found: Checkpoint, against: Against) -> bool:
        root = against.root_at(found.size)
        if root is None:
            what = (
                f"the tiles that lead to the root of {found.size} entries are missing here, so it was not compared"
            )
            self._report.found(LEVEL, "damaged", place, what, "whether this is the same log is not known")
        elif root != found.root:
            what = f"has another root for the first {found.size} entries than this ledger"
            meaning = "the log was written anew since: two histories have been signed"
            self._report.found(LEVEL, "tampered", place, what, meaning)
        return root == found.root

    # -- witnesses --------------------------------------------------------------------------------------------
    def _witnesses(self, against: Against) -> None:
        policy = self._outside.policy
        if policy is None:
            return
        origin = against.known[0].name
        if policy.logs and all(log.verifier.name != origin for log in policy.logs):
            raise EnvironmentFault(f"the policy lists no log {origin}, but others: it says nothing of this one")
        if not policy.logs:
            policy = dataclasses.replace(policy, logs=tuple(Log(key, None) for key in against.known))
        receipts = [f"{FOLDER}/{size}.cosigned" for size in self.anchors.cosigned]
        notes = chain(self._cosigned, *map(self._read_cosigned, receipts))
        judged = [self._quorum(place, note, policy, against) for place, note in notes]
        by_size = sorted(filter(None, judged), key=lambda each: (each.checkpoint.size, len(each.signed)))
        best = next((each for each in reversed(by_size) if each.met), None)
        if best is None:
            missing = ", ".join(by_size[-1].missing) if by_size else "all of them"
            self._nobody(f"no checkpoint here is cosigned as the policy demands; missing at the newest: {missing}")
            return
        size = best.checkpoint.size
        by = ", ".join(f"{name} at {moment(time_s * 1_000_000)}" for name, time_s in best.signed.items())
        if best.signed:
            self._vouched = max(self._vouched, size)
        self._said.append(f"{entries(0, size)} were cosigned by {by or 'nobody'}: as many as the policy asks for")

    def _read_cosigned(self, name: str) -> Iterator[tuple[str, bytes]]:
        try:
            yield f"log/{name}", read_file(self._log / name, MAX_NOTE_BYTES)
        except Missing:
            return
        except Damaged as error:
            self._report.found(LEVEL, "damaged", f"log/{name}", str(error), "who cosigned it cannot be told")

    def _quorum(self, place: str, note: bytes, policy: Trust, against: Against) -> Quorum | None:
        try:
            signed = {(line.name, line.key_id) for line in parse_note(note).lines}
            if signed.isdisjoint((log.verifier.name, log.verifier.key_id) for log in policy.logs):
                self._report.note(
                    f"{place} is not signed by a key of this log that counts here, and does not count"
                )
                return None
            quorum = policy.judge(note)
        except (Damaged, Tampered) as error:
            kind: Kind = "tampered" if isinstance(error, Tampered) else "damaged"
            self._report.found(LEVEL, kind, place, str(error), "who cosigned it cannot be told")
            return None
        if quorum.checkpoint.origin != against.known[0].name:
            what = f"is a checkpoint of another log, {quorum.checkpoint.origin}"
            self._report.found(LEVEL, "tampered", place, what, "who cosigned this one cannot be told")
            return None
        if quorum.checkpoint.size > against.size:
            self._report.note(
                f"{place} is newer than the checkpoint that is here: copied later, or an older one was put back"
            )
            return None
        return quorum if self._is_this_log(place, quorum.checkpoint, against) else None

    # -- time stamps ------------------------------------------------------------------------------------------
    def _time_stamps(self, against: Against) -> None:
        stamps, authorities = self.anchors.stamps, self._outside.authorities
        if authorities is None:
            if stamps:
                self._why_not.append(
                    f"{len(stamps)} time stamps are here, up to size {stamps[-1]}, but no certificates of their "
                    f"authority were given, so they were not checked"
                )
            return
        newest = self.anchors.check_stamps(authorities, against)
        if newest is None:
            self._nobody("no time stamp here is by an authority of the certificates that were given")
            return
        self._vouched = max(self._vouched, newest.size)
        self._said.append(
            f"{entries(0, newest.size)} were there at {moment(newest.stamp.time_us)}: time-stamped by "
            f"{newest.stamp.authority}, the last of {newest.counted}; each of them was stamped within "
            f"{-(-newest.waited_us // 60_000_000)} min of when it says it was written"
        )

    def _nobody(self, what: str) -> None:
        if self._outside.demanded:
            meaning = "nobody that you named vouches for this ledger: it may be an older one, or another history"
            self._report.found(LEVEL, "incomplete", "log", what, meaning)
        else:
            self._why_not.append(what)

    # -- last words -------------------------------------------------------------------------------------------
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
        elif self._said:
            said.append(
                "an older copy of the whole ledger would pass too, with older times than these: compare with a "
                "checkpoint kept elsewhere"
            )
        else:
            said.append(
                "an older copy of the whole ledger would pass too: compare with a checkpoint kept elsewhere"
            )
        return said
