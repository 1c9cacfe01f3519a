"""Verifies a bundle that was handed over, offline: it needs the log's key and nothing else.

In: the file, the key. Out: findings, what they mean, what the result rests on. Believes nothing in the bundle but
what the signed root vouches for: claims of the manifest are recomputed, the report for people is written anew and
compared. Without a key the one in the bundle is used, and that is said. Never unpacks anything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from gatebook import __version__
from gatebook.errors import Damaged, LedgerError, Tampered
from gatebook.evidence import manifest
from gatebook.evidence.archive import Members, opened
from gatebook.evidence.bundle import completed
from gatebook.evidence.examine import Examined, Progress, examine
from gatebook.evidence.manifest import Manifest
from gatebook.evidence.outside import Noted, RootAt, Stamped, Trusted, Vouched, grounds, vouch
from gatebook.evidence.report import readme, render
from gatebook.evidence.signer import signer
from gatebook.evidence.tree import SignedTree
from gatebook.ledger.lock import open_signed
from gatebook.ledger.note import MAX_NOTE_BYTES, Checkpoint, SignatureLine, Verifier
from gatebook.ledger.verify.report import Kind, Report, entries

MAX_TEXT_BYTES = 8 << 20
MAX_STAMP_BYTES = 64 << 10
NOBODY: Final = Trusted()
_NAMES = re.compile(
    r"README\.txt|configurations/[0-9a-f]{64}\.json|log\.pub|log/checkpoint|log/keys|log/anchors/[0-9]{1,19}\.(checkpoint|cosigned|tsr)"
    r"|log/tile/([0-7]|entries)/(x[0-9]{3}/)*[0-9]{3}(\.p/[0-9]{1,3})?|records\.jsonl|report\.html|manifest\.json"
)


@dataclass
class Checked:
    """`own_key`: the bundle brought its key itself."""

    manifest: Manifest
    examined: Examined
    own_key: bool
    unknown: tuple[SignatureLine, ...]
    vouched: Vouched

    @property
    def report(self) -> Report:
        return self.examined.report


def check(path: Path, verifier: Verifier | None, progress: Progress, trusted: Trusted = NOBODY) -> Checked:
    """Raises EnvironmentFault when there is no file; a LedgerError when it is no bundle, or not of this log."""
    with opened(path) as members:
        strange = sorted(name for name in members.names() if _NAMES.fullmatch(name) is None)
        if strange:
            raise Damaged(f"{strange[0]!r}: no bundle of evidence has such a file in it")
        own_key = Verifier.from_vkey(_text(members, "log.pub"))
        key = verifier or own_key
        try:
            note = members.read("log/checkpoint", MAX_NOTE_BYTES)
            signed = signer(members, note, key)
        except LedgerError as error:
            said = str(error).removeprefix("log/checkpoint: ")
            raise type(error)(f"log/checkpoint: {said}; nothing in the bundle is proven") from None
        checkpoint, keys = signed.checkpoint, signed.keys
        claims = manifest.parse(members.read(manifest.NAME, manifest.MAX_BYTES))
        if (claims.origin, claims.size, claims.root) != (
            checkpoint.origin,
            checkpoint.size,
            checkpoint.root.hex(),
        ):
            raise Tampered(f"{manifest.NAME}: is of another tree than log/checkpoint")
        plain = msgspec.structs.replace(claims, disclosed=0, withheld=0, members={})
        examined = examine(members, plain, checkpoint, progress)
        _check_texts(members, plain, examined)
        _check_claims(members, claims, examined)
        if own_key not in keys:
            what = f"is {own_key.name} (key {own_key.key_id.hex()}), not the key that was given"
            examined.report.found(0, "tampered", "log.pub", what, "who goes by it checks another log")
        notes, stamps = _check_anchors(members, checkpoint, keys, examined.report)
        notes.insert(0, Noted("log/checkpoint", note))
        vouched = vouch(trusted, keys, notes, stamps, _roots(members, checkpoint), examined.report)
    checked = Checked(claims, examined, verifier is None, trusted.strangers(signed.unknown), vouched)
    examined.report.rests_on += [*signed.said, *_grounds(checked, keys[0])]
    return checked


def _text(members: Members, name: str) -> str:
    try:
        return members.read(name, MAX_TEXT_BYTES).decode("utf-8").strip()
    except UnicodeDecodeError:
        raise Damaged(f"{name}: is no text") from None


def _check_texts(members: Members, claims: Manifest, examined: Examined) -> None:
    """What people read has to say what was found. Called before anything else is added to the findings."""
    for name, text in (("README.txt", readme(claims)), ("report.html", render(members, claims, examined))):
        try:
            same = members.read(name, MAX_TEXT_BYTES) == text.encode()
        except LedgerError as error:
            said = str(error).removeprefix(f"{name}: ")
            examined.report.found(2, "damaged", name, said, "what is proven is not affected")
            continue
        if same:
            continue
        if claims.software == __version__:
            what = "is not what the records in this bundle give"
            examined.report.found(2, "tampered", name, what, "what it says is not evidence: read the records")
        else:
            # Whoever forges the report writes any version into the manifest, which nobody signed.
            what = (
                f"was made by another version of gatebook, or changed: {claims.software!r} is claimed, and this, "
                f"{__version__}, gives another text"
            )
            meaning = (
                "only the records are proven: what it says is not evidence; verify with the version that made it"
            )
            examined.report.found(2, "incomplete", name, what, meaning)


def _check_claims(members: Members, claims: Manifest, examined: Examined) -> None:
    try:
        right = completed(members, claims, examined)
    except LedgerError as error:
        name, _, said = str(error).partition(": ")
        examined.report.found(2, "damaged", name, said, "a file of the bundle cannot be read")
        return
    for name in sorted(right.members.keys() | claims.members.keys()):
        if right.members.get(name) != claims.members.get(name):
            what = f"says something else of {name} than is there"
            examined.report.found(2, "tampered", manifest.NAME, what, "the file was changed, added or removed")
    for word in ("disclosed", "withheld"):
        if getattr(claims, word) != getattr(right, word):
            what = f"claims {getattr(claims, word)} records {word}; there are {getattr(right, word)}"
            examined.report.found(2, "tampered", manifest.NAME, what, "the bundle was changed since it was made")


def _check_anchors(
    members: Members, checkpoint: Checkpoint, keys: Sequence[Verifier], report: Report
) -> tuple[list[Noted], list[Stamped]]:
    """Those checkpoints that are of this very log. Who vouches for them is not judged here."""
    tree = SignedTree(members, checkpoint)
    notes: list[Noted] = []
    stamps: list[Stamped] = []
    for name in [name for name in members.names() if name.startswith("log/anchors/")]:
        stem, _, ending = name.rpartition(".")
        try:
            if ending == "tsr":
                members.read(name, MAX_STAMP_BYTES)
                continue
            note = members.read(name, MAX_NOTE_BYTES)
            found = open_signed(note, *keys).checkpoint
            of_this = found.size == int(stem.rpartition("/")[2]) and found.size <= checkpoint.size
            if not of_this or tree.root_at(found.size) != found.root:
                raise Tampered("is of another tree than this log's")
            notes.append(Noted(name, note))
            if ending == "checkpoint":
                stamps.append(Stamped(name, found.size, note, members.read(f"{stem}.tsr", MAX_STAMP_BYTES)))
        except LedgerError as error:
            kind: Kind = "tampered" if isinstance(error, Tampered) else "damaged"
            said = str(error).removeprefix(f"{name}: ")
            report.found(0, kind, name, said, "who vouches for it says nothing of this log")
    return notes, stamps


def _roots(members: Members, checkpoint: Checkpoint) -> RootAt:
    tree = SignedTree(members, checkpoint)

    def root_at(size: int) -> bytes | None:
        try:
            return tree.root_at(size) if size <= checkpoint.size else None
        except LedgerError:
            return None

    return root_at


def _grounds(checked: Checked, key: Verifier) -> list[str]:
    claims, examined = checked.manifest, checked.examined
    said = []
    if checked.report.worst in (None, "incomplete"):
        said.append(f"{examined.disclosed} records are in the signed tree of {claims.size} entries, byte for byte")
    if claims.end > claims.first:
        where = entries(claims.first, claims.end)
        if examined.withheld and claims.filters:
            asked = ", ".join(f"{name} {value}" for name, value in claims.filters.items())
            said.append(
                f"of {where}, {examined.withheld} records are not disclosed: only {asked} was asked for, and that "
                f"nothing else matches is the word of whoever made this"
            )
        elif not examined.withheld and not (
            examined.report.counts["damaged"] or examined.report.counts["tampered"]
        ):
            said.append(f"complete: each record of {where} is here")
    said.append(_edges(claims, examined))
    if checked.own_key:
        said.append("log.pub came with the bundle: whoever made that made the key too; give the log's by --key")
    if checked.unknown:
        names = ", ".join(f"{line.name} (key {line.key_id.hex()})" for line in checked.unknown)
        said.append(f"signatures by keys that are not known here count for nothing: {names}")
    return said + grounds(checked.vouched, max(claims.end, 1), key)


def _edges(claims: Manifest, examined: Examined) -> str:
    """Whether the range is as long as it claims to be."""
    before, after = examined.before_us, examined.after_us
    begin = "it begins with the log's first entry" if claims.first == 0 else None
    if before is not None:
        begin = f"a heartbeat of the log says {manifest.iso(before)} before it"
    end = None if after is None else f"one says {manifest.iso(after)} behind it"
    if begin is not None and end is not None:
        return f"by the log's own clock the range is not shorter than it claims: {begin}, {end}"
    lacking = " and ".join(word for word, shown in (("beginning", begin), ("end", end)) if shown is None)
    return f"nothing in here shows that the range is not shorter than it claims at its {lacking}" + (
        f"; {begin}" if begin is not None else ""
    )
