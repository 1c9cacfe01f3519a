"""`gatebook bundle`: a range of the log in one file that proves itself. On record first. No logic."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gatebook import record
from gatebook.cli.actor import whoever
from gatebook.cli.log import filter_of
from gatebook.cli.opened import ReaderKey, log_verifier, open_log, tell_gaps
from gatebook.cli.option import DEFAULT_CONFIG, LOOK, ConfigPath, Json
from gatebook.cli.report import harmless, note, say, say_json, warn
from gatebook.cli.revoke import deployment
from gatebook.config.model import Configuration
from gatebook.errors import EnvironmentFault
from gatebook.evidence import bundle as evidence
from gatebook.evidence.manifest import iso
from gatebook.ledger.prove import Tree
from gatebook.recorder.submit import submit

SIGNED_WITHIN_S = 10.0
POLL_S = 0.1
_PSEUDONYM = re.compile(r"[0-9a-f]{8,32}")


def bundle(
    out: Annotated[Path, typer.Option("--out", "-o", help="A new file, such as evidence.zip.")],
    since: Annotated[
        str | None, typer.Option(help="From then on: 7d, 2026-11-24. Default: the log's beginning.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Up to then, not included. Default: now.")] = None,
    identity: Annotated[
        str | None, typer.Option(help="A subject, client or provider; of a pseudonym 8 digits.")
    ] = None,
    route: Annotated[str | None, typer.Option(help="A route's name.")] = None,
    status: Annotated[str | None, typer.Option(help="What the client got: 403, 4xx, >=500, 400-404.")] = None,
    verdict: Annotated[str | None, typer.Option(help="allow or deny.")] = None,
    reason: Annotated[str | None, typer.Option(help="A reason, or a word of the error.")] = None,
    method: Annotated[str | None, typer.Option(help="An HTTP method.")] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    reader: ReaderKey = None,
    as_json: Json = False,
) -> None:
    """Export a range of the log as evidence: a zip of records, proofs, and a report for people.

    Whoever has it and the log's public key checks it with `gatebook verify evidence.zip --key log.pub`, offline.
    With a filter, only what matches is disclosed, and how much is not. The export is on record before it is
    made. The same range, given as times that are over, gives the same bytes each time.

    Example: `gatebook bundle --since 30d -o evidence.zip`
    """
    filters = {
        name: value
        for name, value in (
            ("identity", identity),
            ("route", route),
            ("status", status),
            ("verdict", verdict),
            ("reason", reason),
            ("method", method),
        )
        if value is not None
    }
    only = filter_of(since, until, identity, route, status, verdict, reason, method, False, False, False)
    now_us = time.time_ns() // 1000
    until_us = now_us if only.until_us is None else only.until_us
    if until_us > now_us:
        raise typer.BadParameter(
            "is still to come, and what is not over cannot be proven; leave --until out: then it is now",
            param_hint="--until",
        )
    if only.since_us is not None and only.since_us >= until_us:
        raise typer.BadParameter("is not before --until", param_hint="--since")
    wanted = only._replace(since_us=None, until_us=None) if filters else None
    asked = evidence.Asked(only.since_us, until_us, wanted, filters)
    configuration, _ = deployment(config)
    open_log(config, reader)  # what is missing is said before anything is put on record
    with _new(out) as stream:
        index = _announce(configuration, "evidence.export", asked)
        opened, paths = open_log(config, reader)
        verifier = log_verifier(paths)
        _until_signed(Tree(paths.ledger, verifier), index)
        with _progress(quiet=as_json) as tell:
            made = evidence.write(stream, opened, paths, verifier, asked, tell)
        digest = _sha256(stream)
        _announce(configuration, "evidence.exported", asked, sha256=digest, records=made.examined.disclosed)
    _tell(out, made, digest, as_json)
    if not made.manifest.disclosed:
        _tell_empty(made.manifest.withheld, route, [each.name for each in configuration.routes])
    tell_gaps(opened)


def _tell(out: Path, made: evidence.Made, digest: str, as_json: bool) -> None:
    claims, report = made.manifest, made.examined.report
    if as_json:
        say_json(
            {
                "file": str(out),
                "sha256": digest,
                "since": claims.since,
                "until": claims.until,
                "first": claims.first,
                "end": claims.end,
                "size": claims.size,
                "records": claims.disclosed,
                "withheld": claims.withheld,
                "findings": [finding._asdict() for finding in report.findings],
            }
        )
        return
    say(f"{out}: {claims.disclosed} records of {claims.since} to {claims.until}, proven by {claims.size} entries")
    if claims.withheld:
        say(f"not disclosed: {claims.withheld} records of that range")
    say(f"SHA-256: {digest}")
    for finding in report.findings[:10]:
        warn(f"{finding.place}: {finding.what}")
    note(f"check it anywhere: gatebook verify {out} --key log.pub")


def _tell_empty(withheld: int, route: str | None, routes: list[str]) -> None:
    if not withheld:
        warn("it proves nothing: the log has no record of that range; `gatebook log` shows what it has")
        return
    warn(f"it proves nothing: none of the range's {withheld} records is what was asked for")
    if route is not None and route not in routes:
        warn(harmless(f"no route {route!r} in the configuration; there is: {', '.join(routes)}"))


def _announce(configuration: Configuration, action: str, asked: evidence.Asked, **more: Any) -> int:
    filters = dict(asked.filters)
    name = filters.get("identity")
    # Somebody's name that no record holds must not get into the log by being looked for.
    known = name in configuration.identity or more.get("records")
    if name is not None and not known and _PSEUDONYM.fullmatch(name) is None:
        filters["identity"] = "(a name)"
    detail: dict[str, Any] = {"until": iso(asked.until_us), **filters, **more}
    if asked.since_us is not None:
        detail["since"] = iso(asked.since_us)
    now_us = time.time_ns() // 1000
    return submit(
        configuration, [record.Admin(time_us=now_us, action=action, actor=whoever().actor, detail=detail)]
    )


def _until_signed(tree: Tree, index: int) -> None:
    until = time.monotonic() + SIGNED_WITHIN_S
    while tree.checkpoint().size <= index:
        if time.monotonic() > until:
            raise EnvironmentFault(
                f"entry {index} was not signed for within {SIGNED_WITHIN_S:g} s; is the recorder hanging?"
            )
        time.sleep(POLL_S)


@contextmanager
def _new(path: Path) -> Iterator[IO[bytes]]:
    """A file that is there as a whole or not at all, for its owner alone. Never writes over one."""
    if path.exists():
        raise EnvironmentFault(f"{path}: is there already; name a new file")
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    except OSError as error:
        raise EnvironmentFault(f"{path}: {(error.strerror or str(error)).lower()}") from None
    try:
        with os.fdopen(descriptor, "w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        _put(Path(temporary), path)
    except FileExistsError:
        raise EnvironmentFault(f"{path}: is there already; name a new file") from None
    except OSError as error:
        raise EnvironmentFault(f"{path}: {(error.strerror or str(error)).lower()}") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


def _put(temporary: Path, path: Path) -> None:
    """Under its name, unless that is taken. Raises FileExistsError, or OSError."""
    try:
        path.hardlink_to(temporary)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        if path.exists():  # a file system without links, such as that of a memory stick
            raise FileExistsError(path) from None
        temporary.rename(path)


def _sha256(stream: IO[bytes]) -> str:
    hashed = hashlib.sha256()
    stream.flush()
    stream.seek(0)
    while data := stream.read(1 << 20):
        hashed.update(data)
    return hashed.hexdigest()


@contextmanager
def _progress(quiet: bool) -> Iterator[evidence.Progress]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            if done % 256 == 0 or done >= total:
                bar.update(tasks[what], completed=done, total=total)

        yield tell


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=LOOK)(bundle)
