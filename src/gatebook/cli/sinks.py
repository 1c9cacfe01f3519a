"""`gatebook sinks …`: how far each sink has come, one record on trial, a range once more. No logic.

What the loop is, and when its cursor moves, is sinks.delivery's. Sending again is on record before it begins.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gatebook import record
from gatebook.access.filter import parse_time
from gatebook.cli.actor import whoever
from gatebook.cli.opened import ReaderKey, log_verifier, open_log
from gatebook.cli.option import DEFAULT_CONFIG, RUN, ConfigPath, Json
from gatebook.cli.report import harmless, note, paint, say, say_json
from gatebook.cli.revoke import deployment
from gatebook.config.model import Configuration
from gatebook.errors import UsageError
from gatebook.ledger.prove import Tree
from gatebook.recorder.submit import submit
from gatebook.sinks import trial
from gatebook.sinks.cursor import Book
from gatebook.sinks.make import make

_COLUMNS = ("sink", "type", "state", "behind", "late", "sent", "refused", "why")
_COLOURS = {"sending": "32", "waiting": "33", "paused": "31", "stuck": "31"}

Name = Annotated[str, typer.Argument(metavar="NAME", help="The sink's name in the configuration.")]


def list_sinks(config: ConfigPath = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Show how far each sink has come: entries and seconds behind, what was refused for good, and why it waits.

    Example: `gatebook sinks list --json | jq '.sinks[] | select(.behind > 1000)'`
    """
    configuration, paths = deployment(config)
    # The signed size needs no reader's key: whoever has taken it away sees here what pauses.
    size = Tree(paths.ledger, log_verifier(paths)).checkpoint().size
    now_us = time.time_ns() // 1000
    told = []
    for name, settings in sorted(configuration.sinks.items()):
        book = Book(paths.sinks, name)
        cursor, state = book.cursor(configuration.origin), book.state()
        behind = size - (cursor.place.next if cursor is not None else 0)
        told.append(
            {
                "sink": name,
                "type": settings.type,
                "state": state.doing if state is not None else "not begun",
                "behind": max(0, behind),
                "late_s": max(0, (now_us - cursor.sent_us) // 1_000_000) if cursor and behind > 0 else 0,
                "waiting": len(cursor.place.open) if cursor is not None else 0,
                "sent": cursor.sent if cursor is not None else 0,
                "duplicates": cursor.duplicates if cursor is not None else 0,
                "elsewhere": cursor.elsewhere if cursor is not None else 0,
                "refused": cursor.refused if cursor is not None else 0,
                "attempts": state.attempts if state is not None else 0,
                "why": state.why if state is not None else "",
            }
        )
    if as_json:
        say_json({"origin": configuration.origin, "size": size, "sinks": told})
        return
    if not told:
        note("No sinks in this configuration.")
        return
    table = Table(*_COLUMNS, box=box.SIMPLE_HEAD)
    for each in told:
        row = {**each, "late": f"{each['late_s']} s"}
        table.add_row(*(Text(harmless(str(row[name])), overflow="fold") for name in _COLUMNS))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 1000, highlight=False).print(table)


def try_one(name: Name, config: ConfigPath = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Send one marked record, and show what the sink answers. Exit code 1 when it was not stored.

    Example: `gatebook sinks test splunk`
    """
    configuration, _ = deployment(config)
    destination = make(_settings(configuration, name))
    try:
        item = trial.marked(configuration.origin, time.time_ns() // 1000)
        stored, said = trial.send_one(destination, item)
    finally:
        destination.close()
    if as_json:
        say_json({"sink": name, "id": item.id, "stored": stored, "answer": said})
    else:
        word = paint("stored", "32", sys.stdout) if stored else paint("not stored", "31", sys.stdout)
        say(f"{name}: {word}: {harmless(said)}")
        say(f"it is marked: id {item.id}, event sink.test")
    raise typer.Exit(0 if stored else 1)


def replay(
    name: Name,
    since: Annotated[str, typer.Option("--from", help="From when on: 2h, 7d, 2026-11-24, or an entry's index.")],
    until: Annotated[
        str | None, typer.Option("--to", help="Up to when; default: now.", show_default=False)
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    reader_key: ReaderKey = None,
    as_json: Json = False,
) -> None:
    """Send a range of the log again. Ids stay the same, so a sink that can tell keeps one of each.

    Example: `gatebook sinks replay splunk --from 7d --to 2d`
    """
    configuration, _ = deployment(config)
    settings = _settings(configuration, name)
    reader, _ = open_log(config, reader_key)
    now_us = time.time_ns() // 1000
    chosen = trial.Range(*_bounds(since, until, now_us), reader.size)
    detail = {"sink": name, "from": since, "to": until or "now"}
    submit(
        configuration,
        [record.Admin(time_us=now_us, action="sink.replay", actor=whoever().actor, detail=detail)],
    )
    destination = make(settings)
    try:
        result = trial.resend(name, destination, settings, reader, chosen, threading.Event(), say_progress)
    finally:
        destination.close()
    if as_json:
        say_json({"sink": name, **result})
    else:
        said = ", ".join(f"{count} {word}" for word, count in result.items())
        say(f"{name}: {said}")
    raise typer.Exit(0 if not result["refused"] else 1)


def say_progress(sent: int, behind: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\rsent {sent}, {behind} entries to go   ")
        sys.stderr.flush()


def _bounds(since: str, until: str | None, now_us: int) -> tuple[int | None, int | None, int | None]:
    """(first index, since, until)."""
    try:
        first = int(since) if since.isdigit() else None
        since_us = None if first is not None else parse_time(since, now_us)
        return first, since_us, None if until is None else parse_time(until, now_us)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--from or --to") from None


def _settings(configuration: Configuration, name: str) -> Any:
    if name not in configuration.sinks:
        known = ", ".join(sorted(configuration.sinks)) or "none"
        raise UsageError(f"no sink {name!r} in the configuration; there is: {known}")
    return configuration.sinks[name]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Where records are sent besides the ledger.")
    group.command("list")(list_sinks)
    group.command("test")(try_one)
    group.command()(replay)
    app.add_typer(group, name="sinks", rich_help_panel=RUN)
