"""`gatebook subject …`: what is stored of a person, for that person; the receipt of their erasure. No logic."""

from __future__ import annotations

import datetime
import re
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gatebook import record
from gatebook.access import person_page
from gatebook.access.person import Collected, Person, collect
from gatebook.cli.actor import whoever
from gatebook.cli.erased import await_receipt, erasures, say_receipt
from gatebook.cli.opened import ReaderKey, log_verifier, open_log, tell_gaps
from gatebook.cli.option import DEFAULT_CONFIG, LOOK, ConfigPath, Json
from gatebook.cli.prove import write_new
from gatebook.cli.report import note, say_json, warn
from gatebook.cli.revoke import deployment, named
from gatebook.cli.unseal import erased_since, line_of, opened_values, permit
from gatebook.errors import EnvironmentFault, GatebookError
from gatebook.identity.keyed import Keys, read_keys
from gatebook.identity.stored import stored
from gatebook.ledger.read import Reader
from gatebook.paths import Paths
from gatebook.recorder import vault
from gatebook.recorder.submit import submit

_WRITERS = {
    ".json": person_page.to_json,
    ".html": person_page.to_html,
    ".md": person_page.to_markdown,
}
_PSEUDONYM = re.compile(r"[0-9a-f]{8,32}")
_STEP = 1000  # records between two moves of the bar


def report(
    subject: Annotated[str, typer.Argument(help="Whom: a caller's name, or a pseudonym from the log.")],
    reason: Annotated[str, typer.Option(help="Why: a line, for the log.")] = "subject access request",
    identity: Annotated[
        str | None, typer.Option(help="The caller's provider. Needed where the configuration has several.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A new file: .json, .html or .md. Default: stdout.", show_default=False),
    ] = None,
    unseal: Annotated[
        bool, typer.Option("--unseal", help="Open what is sealed, too: for those whom `audit.unseal` names.")
    ] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    reader: ReaderKey = None,
    as_json: Json = False,
) -> None:
    """Report all that is stored of a person: in the log, under each of their pseudonyms, and beside it.

    Meant for the person (GDPR, Art. 15), and to be looked at before `gatebook forget`. It is on record first.

    Example: `gatebook subject report alice -o report.html`
    """
    configuration, paths = deployment(config)
    reason = line_of(reason)
    if out is not None and out.suffix not in _WRITERS:
        raise typer.BadParameter("a name that ends in .json, .html or .md", param_hint="--out")
    if out is not None and out.exists():
        raise EnvironmentFault(f"{out}: is there already; name a new file")
    keys = read_keys(paths)
    target = named(configuration, paths, keys, "subject", subject, identity)
    rows = vault.rows_of(paths.vault, bytes.fromhex(target.key))
    known_by_pseudonym = bool(_PSEUDONYM.fullmatch(subject)) and any(
        row.pseudonym.hex().startswith(subject) for row in rows
    )
    person = Person(
        provider=target.provider,
        pseudonyms=frozenset(row.pseudonym.hex() for row in rows),
        name=None if known_by_pseudonym else subject,
    )
    opened, _ = open_log(config, reader)
    # Neither the name nor that several pseudonyms are one person is for the log to tell.
    detail = {
        "provider": target.provider,
        "pseudonym": rows[-1].pseudonym.hex() if rows else None,
        "reason": reason,
    }
    if unseal:
        permit(configuration, "person.unseal", detail | {"report": True})
    act = record.Admin(
        time_us=time.time_ns() // 1000, action="subject.report", actor=whoever().actor, detail=detail
    )
    submit(configuration, [act])
    opened.refresh()
    collected = _collect(opened, person, quiet=as_json)
    tell_gaps(opened)
    made = person_page.Report(
        origin=opened.origin,
        made=datetime.datetime.now(datetime.UTC),
        person=person,
        collected=collected,
        unsealed=_unsealed(paths, rows, keys, collected) if unseal else None,
        elsewhere=stored(paths, target.provider, person.name, target.key, time.time()),
    )
    if out is not None:
        write_new(out, _WRITERS[out.suffix](made).encode("utf-8", "backslashreplace"))
        counts = collected.counts()
        note(
            f"{out}: {counts['accesses']} accesses and {counts['other_records']} other records, "
            f"of {counts['records_looked_at']} records"
        )
    else:
        sys.stdout.write(person_page.to_json(made) if as_json else person_page.to_markdown(made))
    if opened.gaps:
        raise GatebookError("the report is not whole: a part of the log could not be read, see above")


def _collect(opened: Reader, person: Person, *, quiet: bool) -> Collected:
    columns = (
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, transient=True, disable=quiet or not sys.stderr.isatty()) as bar:
        task = bar.add_task("looking through the log", total=opened.size)

        def seen(index: int) -> None:
            if index % _STEP == 0:
                bar.update(task, completed=index)

        return collect(opened, person, seen)


def _unsealed(paths: Paths, rows: list[vault.Row], keys: Keys, collected: Collected) -> dict[str, dict[str, str]]:
    found = {}
    erased = erased_since(paths, min((each.index for each in collected.accesses), default=0))
    for each in collected.accesses:
        if each.sealed is not None and each.id is not None:
            try:
                found[each.id] = opened_values(rows, keys, each, erased)
            except GatebookError as error:
                warn(str(error))
    return found


def receipt(
    pseudonym: Annotated[str, typer.Argument(help="Of whom: a pseudonym, as `gatebook forget` has shown it.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A new file. Default: stdout.", show_default=False)
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Hand out the receipt of an erasure again, with proofs by the newest checkpoint. Needs no key but log.pub.

    Example: `gatebook subject receipt 9a4f0c1d2e3b4a5968778695a4b3c2d1 -o receipt.json`
    """
    _, paths = deployment(config)
    if _PSEUDONYM.fullmatch(pseudonym) is None:
        raise typer.BadParameter("8 to 32 hexadecimal digits of a pseudonym", param_hint="PSEUDONYM")
    found = _erased(paths, pseudonym)
    if not found:
        raise GatebookError(f"the log says of no {pseudonym} that it was erased")
    lines = await_receipt(paths, found)
    if as_json:
        say_json({"erased": found, "receipt": str(out) if out else None})
    say_receipt(log_verifier(paths).name, lines, found, out, quiet=as_json)


def _erased(paths: Paths, beginning: str) -> list[dict[str, Any]]:
    """The ERASE entries of the person with that pseudonym: all that one act has authorised."""
    entries = erasures(paths)
    acts = {entry.authorisation_sha256 for _, _, entry in entries if entry.object_id.hex().startswith(beginning)}
    return [
        {"index": index, "pseudonym": entry.object_id.hex(), "entry": data.hex()}
        for index, data, entry in entries
        if entry.authorisation_sha256 in acts
    ]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="What is stored of a person, and the receipt of an erasure.")
    group.command()(report)
    group.command()(receipt)
    app.add_typer(group, name="subject", rich_help_panel=LOOK)
