"""`gatebook verify`: asks `ledger.verify` about a ledger, the deployment's or a copy, and tells. No logic."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gatebook.access.pairing import Pairing
from gatebook.access.totals import Totals
from gatebook.cli import completeness, outside
from gatebook.cli.erased import find_restored, say_verified, verify_receipt
from gatebook.cli.evidence import (
    bundle_summary,
    bundle_told,
    kind_of,
    say_covered,
    verify_bundle,
    verify_proof,
)
from gatebook.cli.exported import Exported, verify_exported
from gatebook.cli.option import DEFAULT_CONFIG, LOOK, ConfigPath, Json
from gatebook.cli.outside import Policy, SinceCheckpoint, TsaCertificates
from gatebook.cli.reader_key import default, load_reader
from gatebook.cli.report import harmless, paint, say, say_json
from gatebook.config.load import state_dir
from gatebook.errors import Damaged, EnvironmentFault
from gatebook.evidence.outside import Trusted
from gatebook.ledger import keys
from gatebook.ledger.note import Verifier
from gatebook.ledger.verify import Private, Report
from gatebook.ledger.verify import verify as verify_ledger
from gatebook.paths import Paths

LEVELS = {
    0: "signature, tiles, bundles, root",
    1: "segments, and what the log says of itself",
    2: "records, each against its commitment, and decisions with their outcomes",
    3: "what others hold against it: witnesses, time stamps, checkpoints that were kept",
}
_COLOURS = {"tampered": "31", "damaged": "31", "incomplete": "33"}


class _Place(NamedTuple):
    """Where the parts of what is verified lie; `lock`, `deks` and `vault` may not exist."""

    ledger: Path
    lock: Path
    deks: Path
    keys: Path
    vault: Path


def verify(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A proof, bundle or receipt; a copy of a state folder or ledger. Default: this deployment.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="The log's public key as you were given it: log.pub, or its text.", show_default=False),
    ] = None,
    reader: Annotated[
        Path | None, typer.Option(help="A reader's private key, to look at the records too.", show_default=False)
    ] = None,
    since_checkpoint: SinceCheckpoint = None,
    policy: Policy = None,
    tsa_certificates: TsaCertificates = None,
    exported: Exported = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Verify that the log is what was written: unchanged, in order, and whole.

    Needs no key but the log's public one; with a reader's key every record is checked as well. May be used
    beside a running gatebook. Exit codes: 0 verified, 11 damaged, 12 tampered, 13 incomplete.

    A proof or a bundle of evidence is checked by itself, offline: it needs the log's public key and no more.

    Example: `gatebook verify`, or `gatebook verify x.tlog-proof --key log.pub`
    """
    if path is not None and path.is_file():
        _verify_file(path, key, config, as_json, (since_checkpoint, policy, tsa_certificates))
        return
    if path is not None and not path.exists():
        raise EnvironmentFault(f"{path}: no such file")
    place = _place(path, config)
    verifier, own_word = _verifier(place, key, is_copy=path is not None)
    if exported is not None:
        raise typer.Exit(verify_exported(exported, place.ledger, verifier, as_json=as_json))
    private = _private(place, reader)
    held = outside.named(verifier.name, since_checkpoint, policy, tsa_certificates)
    if path is None and policy is None and tsa_certificates is None:
        held = outside.configured(Paths(place.lock.parent), held)
    if path is None:
        held = outside.disputed(Paths(place.lock.parent), held)
    with _progress(quiet=as_json) as progress:
        report = verify_ledger(
            place.ledger,
            verifier,
            lock=place.lock if place.lock.exists() else None,
            private=private,
            outside=held,
            progress=progress,
        )
    find_restored(report, place.vault)
    if own_word:
        report.rests_on.append(
            f"{place.keys / keys.LOG_PUB} came with the copy: whoever made that made the key too"
        )
    totals = _totals(private, report)
    if as_json:
        say_json({**_told(report), "completeness": completeness.told(report.account, totals)})
    else:
        _say(report, totals)
    raise typer.Exit(report.exit_code)


def _verify_file(
    path: Path,
    key: str | None,
    config: Path,
    as_json: bool,
    from_outside: tuple[list[Path] | None, Path | None, Path | None],
) -> None:
    kind = kind_of(path)
    if key is not None:
        verifier: Verifier | None = named_key(key)
    elif config.exists():
        verifier, _ = _verifier(_place(None, config), None, is_copy=False)
    elif kind != "bundle":
        raise EnvironmentFault(f"{path}: name the log's public key by --key, as you were given it")
    else:
        verifier = None
    if verifier is None and from_outside[0]:
        raise EnvironmentFault(
            "--since-checkpoint: name the log's public key by --key as well, as you were given it"
        )
    held = outside.named(verifier.name if verifier is not None else "", *from_outside)
    trusted = Trusted(held.policy, held.authorities, held.kept)
    if kind == "proof" and verifier is not None:
        raise typer.Exit(verify_proof(path, verifier, as_json=as_json, trusted=trusted))
    if kind == "receipt" and verifier is not None:
        (say_json if as_json else say_verified)(verify_receipt(path, verifier))
        return
    with _progress(quiet=as_json) as progress:
        checked = verify_bundle(path, verifier, progress, trusted)
    if as_json:
        say_json(bundle_told(checked))
    else:
        _say_findings(checked.report)
        say_covered(checked)
        _say_grounds(checked.report)
        _say_verdict(checked.report, bundle_summary(checked))
    raise typer.Exit(checked.report.exit_code)


def named_key(key: str) -> Verifier:
    """A verification key: a file's name, or the key itself. Raises EnvironmentFault."""
    path = Path(key)
    if "+" in key and not path.exists():
        try:
            return Verifier.from_vkey(key.strip())
        except Damaged as error:
            raise EnvironmentFault(f"--key: {error}") from None
    if not path.exists():
        raise EnvironmentFault(f"{path}: no such file; --key names a copy of log.pub")
    with _named_for(path, "log.pub"):
        return keys.load_verifier(path)


def _place(path: Path | None, config: Path) -> _Place:
    """Raises EnvironmentFault when there is no ledger."""
    if path is None:
        paths = Paths(state_dir(config))
        return _Place(paths.ledger, paths.lock, paths.deks, paths.keys, paths.vault)
    for state, ledger in ((path, path / "ledger"), (path.parent, path)):
        if (ledger / "log").is_dir():
            paths = Paths(state)
            return _Place(ledger, paths.lock, paths.deks, paths.keys, paths.vault)
    raise EnvironmentFault(
        f"{path}: no ledger in it; expected a state folder, or a folder with log/ and segments/"
    )


def _verifier(place: _Place, key: str | None, *, is_copy: bool) -> tuple[Verifier, bool]:
    """The log's key, and whether it is the copy's own word."""
    if key is not None:
        return named_key(key), False
    if not (place.keys / keys.LOG_PUB).exists():
        raise EnvironmentFault(
            f"{place.keys / keys.LOG_PUB}: no such key; name the log's public key by --key, as you were given it"
        )
    return keys.load_verifier(place.keys), is_copy


def _private(place: _Place, reader: Path | None) -> Private | None:
    if reader is None and default(place.keys) is None:
        return None
    with nullcontext() if reader is None else _named_for(reader, "reader.key"):
        return Private(place.deks, load_reader(reader, place.keys), Pairing())


@contextmanager
def _named_for(path: Path, expected: str) -> Iterator[None]:
    """A file that was named by mistake is no damage to the ledger, and must not end with that exit code."""
    try:
        yield
    except Damaged as error:
        raise EnvironmentFault(f"{error}; {path} should be a copy of {expected}") from None


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, if somebody may be looking."""
    console = Console(stderr=True)
    columns = (
        TextColumn("verifying"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("entries"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("")
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _told(report: Report) -> dict[str, Any]:
    checkpoint = report.checkpoint
    return {
        "verified": report.worst is None,
        "worst": report.worst,
        "origin": None if checkpoint is None else checkpoint.origin,
        "size": report.size,
        "root": None if checkpoint is None else checkpoint.root.hex(),
        "tail": report.tail,
        "segments": report.segments,
        "records": report.records,
        "levels": [
            {"level": level, "checks": checks, "result": report.levels.get(level, "not tried")}
            | ({"why": report.why_not[level]} if level in report.why_not else {})
            for level, checks in LEVELS.items()
        ],
        "counts": dict(report.counts),
        "findings": [finding._asdict() for finding in report.findings],
        "notes": report.notes,
        "rests_on": report.rests_on,
    }


def _totals(private: Private | None, report: Report) -> Totals | None:
    """None where no record was read."""
    if private is None or not isinstance(private.reading, Pairing) or report.levels.get(2) == "not tried":
        return None
    return private.reading.totals


def _say(report: Report, totals: Totals | None) -> None:
    _say_findings(report)
    for level, checks in LEVELS.items():
        result = report.levels.get(level, "not tried")
        colour = {"passed": "32", "failed": "31"}.get(result, "33")
        why = f": {report.why_not[level]}" if level in report.why_not else ""
        say(f"level {level}  {paint(f'{result:9}', colour, sys.stdout)}  {checks}{harmless(why)}")
    _say_grounds(report)
    completeness.say_completeness(report.account, totals)
    _say_verdict(report, f"{report.size} entries in {report.segments} segments, {report.records} records read")


def _say_findings(report: Report) -> None:
    for finding in report.findings:
        word = paint(finding.kind, _COLOURS[finding.kind], sys.stdout)
        say(f"{word}: {harmless(finding.place)}: {harmless(finding.what)}")
        say(f"  which means: {harmless(finding.consequence)}")
    hidden = sum(report.counts.values()) - len(report.findings)
    if hidden:
        say(f"and {hidden} more findings")


def _say_grounds(report: Report) -> None:
    for text in report.notes:
        say(f"note: {harmless(text)}")
    say("this rests on:")
    for text in report.rests_on:
        say(f"  - {harmless(text)}")


def _say_verdict(report: Report, what: str) -> None:
    if report.worst is None:
        say(f"{paint('verified', '32', sys.stdout)}: {what}")
        return
    counted = ", ".join(f"{count} {kind}" for kind, count in report.counts.items())
    say(f"{paint('not verified', '31', sys.stdout)}: {counted}; {what}")


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=LOOK)(verify)
