"""Who outside vouches for a bundle or a proof: witnesses of a policy, time stamp authorities, kept checkpoints.

In: notes of this very log, whose signature by its key has been checked; stamps; whom the caller trusts. Out: how
many of the log's entries somebody outside vouches for, and who, in words; findings where what was demanded is not
there. Never counts a word of anybody whom the caller did not name. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cryptography import x509

from gatebook.errors import Damaged, EnvironmentFault, Tampered
from gatebook.evidence.manifest import iso
from gatebook.ledger import timestamp
from gatebook.ledger.note import SignatureLine, Verifier
from gatebook.ledger.quorum import Log, Quorum, Trust
from gatebook.ledger.verify.outside import Kept
from gatebook.ledger.verify.report import Kind, Report, entries

RootAt = Callable[[int], bytes | None]  # None: it cannot be told

LEVEL = 3
_NOBODY = "nobody that you named vouches for this: its key's holder could have written another history"
_KINDS: dict[str, Kind] = {"unreadable": "damaged", "wrong": "tampered"}


class Trusted(NamedTuple):
    """Whom the caller trusts. None: nobody was named, and nobody is asked for."""

    policy: Trust | None = None
    authorities: Sequence[x509.Certificate] | None = None
    kept: Sequence[Kept] = ()

    def strangers(self, lines: Sequence[SignatureLine]) -> tuple[SignatureLine, ...]:
        """Those of the lines that are of no witness of the policy."""
        witnesses = self.policy.witnesses if self.policy is not None else ()
        known = {(each.verifier.name, each.verifier.key_id) for each in witnesses}
        return tuple(line for line in lines if (line.name, line.key_id) not in known)


class Noted(NamedTuple):
    """A checkpoint of this log, as it was signed."""

    place: str
    note: bytes


class Stamped(NamedTuple):
    """A time stamp of a checkpoint of this log: of exactly these bytes."""

    place: str
    size: int
    note: bytes
    receipt: bytes


class Vouched(NamedTuple):
    """The first `size` entries are vouched for. `said`: by whom. `lacking`: who was asked and did not vouch."""

    size: int
    said: list[str]
    lacking: str = ""


def vouch(
    trusted: Trusted,
    keys: Sequence[Verifier],
    notes: Sequence[Noted],
    stamps: Sequence[Stamped],
    root_at: RootAt,
    report: Report,
) -> Vouched:
    """`keys`: the log's. Raises EnvironmentFault for a policy or a kept checkpoint that is of other logs."""
    found = [_witnesses(trusted.policy, keys, notes, report), _authorities(trusted.authorities, stamps, report)]
    found += [_kept(each, keys, root_at, report) for each in trusted.kept]
    said = [text for each in found for text in each.said]
    return Vouched(
        max(each.size for each in found), said, "; ".join(each.lacking for each in found if each.lacking)
    )


def _witnesses(policy: Trust | None, keys: Sequence[Verifier], notes: Sequence[Noted], report: Report) -> Vouched:
    if policy is None:
        return Vouched(0, [])
    report.tried(LEVEL)
    if policy.logs and all(log.verifier not in keys for log in policy.logs):
        raise EnvironmentFault(f"the policy does not list this log's key {keys[0].name} ({keys[0].key_id.hex()})")
    policy = dataclasses.replace(policy, logs=tuple(Log(key, None) for key in keys))
    quorums: list[Quorum] = []
    for place, note in notes:
        try:
            quorums.append(policy.judge(note))
        except (Damaged, Tampered) as error:
            kind: Kind = "tampered" if isinstance(error, Tampered) else "damaged"
            report.found(LEVEL, kind, place, str(error), "who cosigned it cannot be told")
    best = max((each for each in quorums if each.met), key=lambda each: each.checkpoint.size, default=None)
    if best is None:
        newest = max(quorums, key=lambda each: each.checkpoint.size, default=None)
        missing = ", ".join(newest.missing) if newest is not None else "all of them"
        what = f"is not cosigned as the policy demands; missing: {missing}"
        report.found(LEVEL, "incomplete", "log/checkpoint", what, _NOBODY)
        return Vouched(0, [], f"witnesses were asked, missing: {missing}")
    size = best.checkpoint.size
    by = ", ".join(f"{name} at {iso(time_s * 1_000_000)}" for name, time_s in best.signed.items())
    said = f"{entries(0, size)} were cosigned by {by or 'nobody'}: as many as the policy asks for"
    return Vouched(size if best.signed else 0, [said])


def _authorities(trusted: Sequence[x509.Certificate] | None, stamps: Sequence[Stamped], report: Report) -> Vouched:
    if trusted is None:
        if stamps:
            report.note(
                f"{len(stamps)} time stamps are here, but no certificates of their authority were given, so they "
                f"were not checked"
            )
        return Vouched(0, [])
    report.tried(LEVEL)
    good: list[tuple[int, timestamp.Stamp]] = []
    for place, size, note, receipt in stamps:
        try:
            good.append((size, timestamp.check(receipt, note, trusted)))
        except timestamp.Unusable as error:
            if error.kind == "untrusted":
                report.note(f"{place}: {error}; it does not count")
            else:
                report.found(LEVEL, _KINDS[error.kind], place, str(error), "that it was there then is not proven")
    if not good:
        what = "no time stamp here is by an authority of the certificates that were given"
        report.found(LEVEL, "incomplete", "log/anchors", what, _NOBODY)
        return Vouched(0, [], "time stamps were asked, and none counts")
    said = [
        f"{entries(0, size)} were there at {iso(stamp.time_us)}: time-stamped by {stamp.authority}"
        for size, stamp in sorted(good)[:1] + sorted(good)[1:][-1:]
    ]
    return Vouched(max(size for size, _ in good), said)


def _kept(kept: Kept, keys: Sequence[Verifier], root_at: RootAt, report: Report) -> Vouched:
    kept.check(keys)
    report.tried(LEVEL)
    size = kept.checkpoint.size
    root = root_at(size)
    if root is None:
        report.note(
            f"{kept.path}: was not compared: the root of its {size} entries cannot be told from what is here, but "
            f"from a whole copy of the log's public files"
        )
        return Vouched(0, [])
    if root != kept.checkpoint.root:
        what = f"has another root for the first {size} entries than this"
        meaning = "the log was written anew since: two histories have been signed"
        report.found(LEVEL, "tampered", str(kept.path), what, meaning)
        return Vouched(0, [])
    return Vouched(
        size, [f"{entries(0, size)} are those of {kept.path}, a checkpoint that was kept"] if size else []
    )


def grounds(vouched: Vouched, size: int, key: Verifier) -> list[str]:
    """What it rests on. `size`: entries below this one are asked about."""
    said = list(vouched.said)
    if vouched.size < size or not vouched.said:
        which = f"for {entries(vouched.size, size)} " if vouched.said else ""
        asked = vouched.lacking or ("" if vouched.said else "no witness and no time stamp was asked")
        asked += ", so " if asked else ""
        said.append(
            f"{which}the signature of {key.name} (key {key.key_id.hex()}) alone: {asked}the key's holder could "
            f"have written another history; compare the root with a checkpoint kept elsewhere"
        )
    return said
