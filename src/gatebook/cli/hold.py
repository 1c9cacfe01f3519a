"""`gatebook hold …`: what may not be erased, on record before it takes effect.

What a hold is, and what it forbids, is holds'. Neither the record nor the output ever holds a person's name.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gatebook import holds, record
from gatebook.access.filter import parse_time
from gatebook.cli.actor import whoever
from gatebook.cli.key import moment
from gatebook.cli.option import DEFAULT_CONFIG, SET_UP, ConfigPath, Json
from gatebook.cli.report import harmless, note, say, say_json
from gatebook.cli.revoke import deployment, named
from gatebook.config.model import Configuration
from gatebook.holds import Hold, Person
from gatebook.identity.keyed import read_keys
from gatebook.paths import Paths
from gatebook.recorder import vault
from gatebook.recorder.submit import submit
from gatebook.scrub import Scrubber

_COLUMNS = ("id", "holds", "provider", "since", "until", "created", "actor", "reason")
_scrub = Scrubber().scrub


def add(
    reason: Annotated[str, typer.Option(help="Why: a line, for the log and for whoever wants to erase.")],
    everything: Annotated[bool, typer.Option("--everything", help="Nothing at all may be erased.")] = False,
    subject: Annotated[
        str | None, typer.Option(help="What this caller did: a name, or a pseudonym from the log.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="What was done from then on: 30d (ago), 2026-11-24, 2026-11-24T17:20:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="What was done before then.")] = None,
    identity: Annotated[
        str | None, typer.Option(help="The caller's provider. Needed where the configuration has several.")
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Hold records: `forget`, `redact` and `retention` erase nothing of what is held, and say so.

    Example: `gatebook hold add --since 2026-03-01 --until 2026-06-01 --reason "case 24-117"`
    """
    if everything == (subject is not None or since is not None or until is not None):
        raise typer.BadParameter("either --everything, or at least one of --subject, --since, --until")
    configuration, paths = deployment(config)
    now = time.time()
    made = holds.add(
        paths.holds,
        person=_person(configuration, paths, subject, identity) if subject is not None else None,
        since_us=_moment(since, now, "--since"),
        until_us=_moment(until, now, "--until"),
        reason=_scrub(reason),
        by=whoever().actor,
        now=now,
        random=secrets.token_bytes,
        announce=_announce(configuration, "hold.add"),
    )
    _tell(made, as_json, f"{made.id} is in force; `gatebook hold release {made.id} --reason …` ends it")


def release(
    hold_id: Annotated[str, typer.Argument(metavar="ID", help="The hold's id, from the list.")],
    reason: Annotated[str, typer.Option(help="Why: a line, for the log.")],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """End a hold. That it was in force, and who ended it, stays on record.

    Example: `gatebook hold release k7m2qzyx --reason "case 24-117 is closed"`
    """
    configuration, paths = deployment(config)
    announce = _announce(configuration, "hold.release", released=_scrub(reason)[:300])
    made = holds.release(paths.holds, hold_id, announce=announce)
    _tell(made, as_json, f"{made.id} is released")


def list_holds(config: ConfigPath = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """List the holds that are in force, the latest last.

    Example: `gatebook hold list --json | jq '.holds | length'`
    """
    _, paths = deployment(config)
    told = [_told(entry) for entry in holds.read(paths.holds)]
    if as_json:
        say_json({"holds": told})
        return
    if not told:
        note("Nothing is held.")
        return
    table = Table(*_COLUMNS, box=box.SIMPLE_HEAD)
    for entry in told:
        table.add_row(*(Text(harmless(str(entry[name] or "-")), overflow="fold") for name in _COLUMNS))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 1000, highlight=False).print(table)


def _person(configuration: Configuration, paths: Paths, subject: str, identity: str | None) -> Person:
    target = named(configuration, paths, read_keys(paths), "subject", subject, identity)
    rows = vault.rows_of(paths.vault, bytes.fromhex(target.key))
    pseudonym = rows[-1].pseudonym.hex() if rows else None
    return Person(provider=target.provider, key=target.key, pseudonym=pseudonym)


def _moment(text: str | None, now: float, option: str) -> int | None:
    if text is None:
        return None
    try:
        return max(0, parse_time(text, int(now * 1e6)))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _announce(configuration: Configuration, action: str, **more: str) -> Callable[[Hold], object]:
    def announce(entry: Hold) -> None:
        now_us = time.time_ns() // 1000
        detail = {**entry.detail(), **more}
        submit(configuration, [record.Admin(time_us=now_us, action=action, actor=whoever().actor, detail=detail)])

    return announce


def _tell(made: Hold, as_json: bool, text: str) -> None:
    if as_json:
        say_json(_told(made))
    else:
        say(text)


def _told(entry: Hold) -> dict[str, Any]:
    """What may be shown: everything but the keyed hash."""
    detail = entry.detail()
    bounded = entry.since_us is not None or entry.until_us is not None
    return {
        "id": entry.id,
        "holds": detail.get("subject") or ("a time" if bounded else "everything"),
        "provider": detail.get("provider"),
        "since": moment(entry.since_us // 1_000_000) if entry.since_us is not None else None,
        "until": moment(entry.until_us // 1_000_000) if entry.until_us is not None else None,
        "created": moment(entry.created),
        "actor": entry.created_by,
        "reason": entry.reason,
    }


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="What may not be erased.")
    group.command()(add)
    group.command()(release)
    group.command("list")(list_holds)
    app.add_typer(group, name="hold", rich_help_panel=SET_UP)
