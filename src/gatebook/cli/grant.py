"""`gatebook grant …`: a role for a while, asked for by one OS user and approved by another. On record first.

What a grant is, and who may do what to it, is identity.grant's and identity.grant_file's.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gatebook import record
from gatebook.cli.actor import whoever
from gatebook.cli.key import moment
from gatebook.cli.option import DEFAULT_CONFIG, SET_UP, ConfigPath, Json
from gatebook.cli.report import harmless, note, say, say_json
from gatebook.cli.revoke import deployment, named
from gatebook.config.model import Configuration
from gatebook.config.value import parse_duration
from gatebook.identity import grant_file
from gatebook.identity.grant import Grant
from gatebook.identity.keyed import read_keys
from gatebook.recorder.submit import submit
from gatebook.scrub import Scrubber

_COLUMNS = ("id", "state", "role", "provider", "of", "seconds", "requested_by", "decided_by", "until", "reason")
_scrub = Scrubber().scrub

GrantId = Annotated[str, typer.Argument(metavar="ID", help="The grant's id, from the list.")]


def request(
    role: Annotated[str, typer.Option(help="The role; one of the configuration's `grants`.")],
    duration: Annotated[str, typer.Option("--for", help="For how long, from its approval on: 30m, 1h.")],
    reason: Annotated[str, typer.Option(help="Why: a line, for the log and for whoever approves.")],
    subject: Annotated[str, typer.Option(help="Who shall hold it: a caller's name, or a pseudonym from the log.")],
    identity: Annotated[
        str | None, typer.Option(help="The caller's provider. Needed where the configuration has several.")
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Ask for a role for a while. It takes effect once somebody else has approved it, within a day.

    Example: `gatebook grant request --role admin --for 1h --subject alice --reason "incident 4711"`
    """
    configuration, paths = deployment(config)
    now = time.time()
    try:
        seconds = parse_duration(duration)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None
    if identity is None:
        if len(configuration.identity) != 1:
            raise typer.BadParameter(
                f"one of {', '.join(sorted(configuration.identity))}", param_hint="--identity"
            )
        (identity,) = configuration.identity
    elif identity not in configuration.identity:
        raise typer.BadParameter(f"one of {', '.join(sorted(configuration.identity))}", param_hint="--identity")
    target = named(configuration, paths, read_keys(paths), "subject", subject, identity)
    made = grant_file.request(
        paths.grants,
        _terms(configuration)(role),
        role=role,
        provider=identity,
        key=target.key,
        shown=target.shown,
        seconds=seconds,
        reason=_scrub(reason),
        by=whoever(),
        now=now,
        random=secrets.token_bytes,
        announce=_announce(configuration, "grant.request"),
    )
    _tell(made, now, as_json, f"{made.id} is asked for; somebody else runs `gatebook grant approve {made.id}`")


def approve(grant_id: GrantId, config: ConfigPath = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Approve what somebody else has asked for. It is in force within a second, and ends by itself.

    Example: `gatebook grant approve k7m2qzyx`
    """
    made, now = _decide(grant_id, "approved", config)
    _tell(made, now, as_json, f"{made.id}: {made.shown} of {made.provider} holds {made.role} for {made.seconds} s")


def deny(grant_id: GrantId, config: ConfigPath = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Deny what was asked for; whoever asked may take it back so, too.

    Example: `gatebook grant deny k7m2qzyx`
    """
    made, now = _decide(grant_id, "denied", config)
    _tell(made, now, as_json, f"{made.id} is denied")


def revoke(grant_id: GrantId, config: ConfigPath = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """End a grant before its time. Every guard knows within a second.

    Example: `gatebook grant revoke k7m2qzyx`
    """
    configuration, paths = deployment(config)
    now = time.time()
    announce = _announce(configuration, "grant.revoke")
    made = grant_file.revoke(paths.grants, grant_id, by=whoever(), now=now, announce=announce)
    _tell(made, now, as_json, f"{made.id} is revoked: {made.shown} of {made.provider} has lost {made.role}")


def list_grants(config: ConfigPath = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """List what was asked for, what is in force, and what has ended, the latest last.

    Example: `gatebook grant list --json | jq '.grants[] | select(.state == "requested")'`
    """
    _, paths = deployment(config)
    now = time.time()
    told = [_told(entry, now) for entry in grant_file.read(paths.grants)]
    if as_json:
        say_json({"grants": told})
        return
    if not told:
        note("Nothing has been granted or asked for.")
        return
    table = Table(*_COLUMNS, box=box.SIMPLE_HEAD)
    for entry in told:
        table.add_row(*(Text(harmless(str(entry[name] or "-")), overflow="fold") for name in _COLUMNS))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 1000, highlight=False).print(table)


def _decide(grant_id: str, decision: Literal["approved", "denied"], config: Path) -> tuple[Grant, float]:
    configuration, paths = deployment(config)
    now = time.time()
    announce = _announce(configuration, "grant.approve" if decision == "approved" else "grant.deny")
    made = grant_file.decide(
        paths.grants,
        grant_id,
        decision,
        terms=_terms(configuration),
        by=whoever(),
        now=now,
        announce=announce,
    )
    return made, now


def _terms(configuration: Configuration) -> Callable[[str], Any]:
    return {each.role: each for each in configuration.grants}.get


def _announce(configuration: Configuration, action: str) -> Callable[[Grant], object]:
    def announce(entry: Grant) -> None:
        now_us = time.time_ns() // 1000
        admin = record.Admin(time_us=now_us, action=action, actor=whoever().actor, detail=entry.detail())
        submit(configuration, [admin])

    return announce


def _tell(made: Grant, now: float, as_json: bool, text: str) -> None:
    if as_json:
        say_json(_told(made, now))
    else:
        say(text)


def _told(entry: Grant, now: float) -> dict[str, Any]:
    """What may be shown: everything but the keyed hash."""
    return {
        "id": entry.id,
        "state": entry.state(now),
        "role": entry.role,
        "provider": entry.provider,
        "of": entry.shown,
        "seconds": entry.seconds,
        "requested": moment(entry.requested),
        "requested_by": entry.requested_by,
        "decided_by": entry.decided_by,
        "until": moment(entry.ends) if entry.decision == "approved" else None,
        "revoked_by": entry.revoked_by,
        "completed": entry.completed,
        "reason": entry.reason,
    }


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Roles for a while, which somebody else approves.")
    group.command()(request)
    group.command()(approve)
    group.command()(deny)
    group.command()(revoke)
    group.command("list")(list_grants)
    app.add_typer(group, name="grant", rich_help_panel=SET_UP)
