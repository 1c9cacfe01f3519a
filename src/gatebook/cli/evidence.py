"""What `gatebook verify` says of a file that was handed over: a proof of one record, or a bundle. No logic."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from gatebook import record
from gatebook.cli.line import moment
from gatebook.cli.report import harmless, paint, say, say_json
from gatebook.errors import Damaged, EnvironmentFault, LedgerError
from gatebook.evidence.check import NOBODY, Checked, check
from gatebook.evidence.examine import Progress
from gatebook.evidence.outside import Noted, Trusted, Vouched, grounds, vouch
from gatebook.ledger.note import Verifier
from gatebook.ledger.proof import MAX_PROOF_BYTES, Proven, check_proof, parse_proof
from gatebook.ledger.receipt import BEGINS
from gatebook.ledger.verify.report import Report, entries


def verify_proof(path: Path, verifier: Verifier, *, as_json: bool, trusted: Trusted = NOBODY) -> int:
    """The exit code. Raises LedgerError unless the file proves a record."""
    proven, note = _proven(path, verifier)
    report = Report(checkpoint=proven.checkpoint)
    signed = proven.checkpoint
    roots = {signed.size: signed.root}
    vouched = vouch(trusted, [verifier], [Noted(str(path), note)], [], roots.get, report)
    report.rests_on += grounds(vouched, proven.index + 1, verifier)
    if proven.unknown and trusted.policy is None:
        names = ", ".join(f"{line.name} (key {line.key_id.hex()})" for line in proven.unknown)
        report.rests_on.append(f"it is also signed by {names}: who trusts one of them gives a --policy")
    if as_json:
        say_json(_told(proven, report, vouched))
        return report.exit_code
    told = decoded(proven.record)
    if told is None:
        say(harmless(proven.record.decode("utf-8", "backslashreplace")))
    else:
        say_record(told)
    checkpoint = proven.checkpoint
    say(paint("ledger", "36", sys.stdout))
    _line("  origin", checkpoint.origin)
    _line("  entry", str(proven.index))
    _line("  tree", f"{checkpoint.size} entries, root {checkpoint.root.hex()}")
    for finding in report.findings:
        say(f"{finding.kind}: {harmless(finding.place)}: {harmless(finding.what)}")
        say(f"  which means: {harmless(finding.consequence)}")
    for text in report.notes:
        say(f"note: {harmless(text)}")
    say("this rests on:")
    for text in report.rests_on:
        say(f"  - {harmless(text)}")
    what = f"entry {proven.index} of {checkpoint.origin} is this record, byte for byte"
    verdict = paint("verified", "32", sys.stdout) if report.worst is None else f"{report.worst}, though"
    say(f"{verdict}: {what}")
    return report.exit_code


def verify_bundle(path: Path, verifier: Verifier | None, progress: Progress, trusted: Trusted = NOBODY) -> Checked:
    """Raises LedgerError when it is no bundle of this log at all; what else is wrong is in its report."""
    try:
        return check(path, verifier, progress, trusted)
    except LedgerError as error:
        raise type(error)(f"{path}: {error}") from None


def bundle_told(checked: Checked) -> dict[str, Any]:
    claims, examined, report = checked.manifest, checked.examined, checked.report
    return {
        "verified": report.worst is None,
        "worst": report.worst,
        "origin": claims.origin,
        "size": claims.size,
        "root": claims.root,
        "since": claims.since,
        "until": claims.until,
        "first": claims.first,
        "end": claims.end,
        "filters": claims.filters,
        "records": examined.disclosed,
        "withheld": examined.withheld,
        "erased": examined.erased,
        "requests": examined.tally.verdicts._asdict(),
        "outcome_unknown": examined.tally.unknown,
        "entries": dict(sorted(examined.kinds.items())),
        "vouched_size": checked.vouched.size,
        "counts": dict(report.counts),
        "findings": [finding._asdict() for finding in report.findings],
        "notes": report.notes,
        "rests_on": report.rests_on,
    }


def say_covered(checked: Checked) -> None:
    claims, examined = checked.manifest, checked.examined
    asked = "".join(f", {name} {value} alone" for name, value in claims.filters.items())
    say(harmless(f"log       {claims.origin}, {claims.size} entries, root {claims.root}"))
    say(harmless(f"range     {claims.since} to {claims.until}{asked}"))
    kinds = ", ".join(f"{count} {kind.upper()}" for kind, count in sorted(examined.kinds.items()))
    where = entries(claims.first, claims.end) if claims.end > claims.first else "no entry"
    say(f"covered   {where}{': ' if kinds else ''}{kinds}")
    counts = examined.tally.verdicts
    say(f"requests  {counts.allowed} allowed, {counts.denied} denied, {counts.refused} refused by the gateway")


def bundle_summary(checked: Checked) -> str:
    examined = checked.examined
    said = f"{examined.disclosed} records"
    if examined.withheld:
        said += f", {examined.withheld} of the range not disclosed"
    if examined.erased:
        said += f" ({examined.erased} of them erased on purpose)"
    return said


def _proven(path: Path, verifier: Verifier) -> tuple[Proven, bytes]:
    """And the note in it."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_PROOF_BYTES + 1)
        proof = parse_proof(data)
        return check_proof(proof, verifier), proof.checkpoint
    except OSError as error:
        raise EnvironmentFault(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except LedgerError as error:
        raise type(error)(f"{path}: {error}") from None


def _told(proven: Proven, report: Report, vouched: Vouched) -> dict[str, Any]:
    checkpoint = proven.checkpoint
    return {
        "verified": report.worst is None,
        "origin": checkpoint.origin,
        "index": proven.index,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "record": decoded(proven.record),
        "record_text": proven.record.decode("utf-8", "backslashreplace"),
        "vouched_size": vouched.size,
        "other_signatures": [f"{line.name} (key {line.key_id.hex()})" for line in proven.unknown],
        "findings": [finding._asdict() for finding in report.findings],
        "notes": report.notes,
        "rests_on": report.rests_on,
    }


def decoded(data: bytes) -> dict[str, Any] | None:
    """The record's fields; None when it is none that this version knows."""
    try:
        made = msgspec.to_builtins(record.decode(data))
    except (ValueError, RecursionError):
        return None
    assert isinstance(made, dict)  # noqa: S101 - a struct
    return made


def say_record(told: dict[str, Any]) -> None:
    """A line a field, a heading a group."""
    for name, value in told.items():
        if not isinstance(value, dict):
            _line(name, f"{moment(value)} UTC" if name == "time_us" else text_of(value))
    for name, value in told.items():
        if isinstance(value, dict):
            say(paint(harmless(name), "36", sys.stdout))
            for key, inner in value.items():
                _line(f"  {key}", text_of(inner))


def _line(name: str, value: str) -> None:
    say(f"{harmless(name):<15} {harmless(value)}")


def text_of(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {text_of(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(text_of, value))
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def kind_of(path: Path) -> str:
    """proof, bundle or receipt, by the file's first bytes. Raises EnvironmentFault, Damaged for anything else."""
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise EnvironmentFault(f"{path}: {(error.strerror or str(error)).lower()}") from None
    if head.startswith(b"c2sp.org/tlog-proof@"):
        return "proof"
    if head.startswith(b"PK\x03\x04"):
        return "bundle"
    if head.startswith(BEGINS):
        return "receipt"
    raise Damaged(
        f"{path}: neither a ledger's folder, nor a proof (.tlog-proof), nor a bundle of evidence (.zip), nor the "
        f"receipt of an erasure (.json)"
    )
