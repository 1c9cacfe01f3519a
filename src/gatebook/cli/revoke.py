"""`gatebook revoke …`: refuse what a provider would still vouch for; on record before it takes effect.

What can be revoked, and how it is named, is identity.revoking's; here a change becomes an `admin` record. Neither
the record nor the output ever holds a credential, nor a name where the configuration keeps pseudonyms.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gatebook import record
from gatebook.access.filter import parse_time
from gatebook.cli.key import moment
from gatebook.cli.option import DEFAULT_CONFIG, SET_UP, ConfigPath, Json
from gatebook.cli.report import harmless, note, say, say_json, warn
from gatebook.config.load import load
from gatebook.config.model import Configuration
from gatebook.config.value import parse_duration
from gatebook.errors import ConfigError, GatebookError, Problem
from gatebook.identity import revocation_file, revoking
from gatebook.identity.keyed import Keys, read_keys
from gatebook.identity.revocation import Revocation, What
from gatebook.paths import Paths, check_private
from gatebook.recorder import vault
from gatebook.recorder.submit import submit
from gatebook.scrub import Scrubber

_COLUMNS = ("id", "what", "provider", "of", "before", "until", "created", "actor", "reason", "state")
_PSEUDONYM = re.compile(r"[0-9a-f]{8,32}")
_MAX_STDIN_BYTES = 64 << 10
_scrub = Scrubber().scrub


def revoke(
    context: typer.Context,
    reason: Annotated[
        str | None, typer.Option(help="Why: a line, for the log. Required.", show_default=False)
    ] = None,
    token_id: Annotated[str | None, typer.Option(help="The token with this id (its `jti`).")] = None,
    session: Annotated[str | None, typer.Option(help="All tokens of this session (their `sid`).")] = None,
    subject: Annotated[
        str | None, typer.Option(help="All credentials of this caller: a name, or a pseudonym from the log.")
    ] = None,
    client: Annotated[str | None, typer.Option(help="All credentials of this client application.")] = None,
    credential: Annotated[
        str | None,
        typer.Option(
            help="This credential: its fingerprint from the log, or the credential itself; - reads standard input."
        ),
    ] = None,
    issued_before: Annotated[
        str | None,
        typer.Option(help="Only what was issued before then: now, 10m (ago), 2026-11-24T17:20:00Z."),
    ] = None,
    identity: Annotated[
        str | None, typer.Option(help="The provider. Needed where the configuration has several.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="For how long: 2h, 2026-11-24. Default: for good, or until it expires.")
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Refuse a token, a session, a caller, a client, a credential, or all that was issued before a moment.

    Every guard refuses it within a second, whether it knows the credential already or not, and after a restart.

    Example: `gatebook revoke --subject alice --issued-before now --reason "laptop stolen"`
    """
    if context.invoked_subcommand is not None:
        if any(value is not None for name, value in context.params.items() if name not in ("config", "as_json")):
            raise typer.BadParameter(f"these options do not go with `{context.invoked_subcommand}`")
        return
    if reason is None:
        raise typer.BadParameter("missing: it is what the log will say", param_hint="--reason")
    names: dict[What, str | None] = {"token": token_id, "session": session, "subject": subject, "client": client}
    given = {what: name for what, name in names.items() if name is not None}
    if len(given) + (credential is not None) > 1:
        raise typer.BadParameter("one of --token-id, --session, --subject, --client, --credential at a time")
    now = time.time()
    before, end = _moments(issued_before, until, now)
    configuration, paths = deployment(config)
    keys = read_keys(paths)
    if identity is not None and identity not in configuration.identity:
        expected = f"one of {', '.join(sorted(configuration.identity))}"
        raise ConfigError([Problem(str(config), 0, 0, "identity", f"no provider is called {identity}", expected)])
    if credential is not None:
        target = _credential(credential, keys, revoking.verified_issuers(configuration))
    elif given:
        ((what, value),) = given.items()
        target = named(configuration, paths, keys, what, value, identity)
    elif before is not None:
        target = revoking.Target("all", "", identity, f"everything of {identity}" if identity else "everything")
    else:
        raise typer.BadParameter(
            "nothing to revoke: --token-id, --session, --subject, --client, --credential or --issued-before"
        )
    made, new = revocation_file.add(
        paths.revocations,
        target.what,
        target.key,
        provider=target.provider,
        before=before,
        until=target.until if end is None else end,
        shown=target.shown,
        reason=_scrub(reason),
        actor=f"os:{os.getuid()}",
        now=now,
        random=secrets.token_bytes,
        announce=_announce(configuration, "revoke"),
    )
    if as_json:
        say_json({**_told(made, now), "changed": new})
    elif new:
        say(
            f"{made.id}: {_words(made)} is refused within a second; `gatebook revoke undo {made.id}` takes it back"
        )
    else:
        say(f"{made.id} says so already, since {moment(made.created)}; nothing was changed")


def list_revocations(config: ConfigPath = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """List what is revoked, the latest last. What is over goes with the next change, a day later.

    Example: `gatebook revoke list --json | jq '.revocations[] | select(.state == "in force")'`
    """
    _, paths = deployment(config)
    now = time.time()
    told = [_told(entry, now) for entry in revocation_file.read(paths.revocations)]
    if as_json:
        say_json({"revocations": told})
        return
    if not told:
        note("Nothing is revoked.")
        return
    table = Table(*_COLUMNS, box=box.SIMPLE_HEAD)
    for entry in told:
        table.add_row(*(Text(harmless(str(entry[name] or "-")), overflow="fold") for name in _COLUMNS))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 1000, highlight=False).print(table)


def undo(
    revocation_id: Annotated[str, typer.Argument(metavar="ID", help="The revocation's id, from the list.")],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Take a revocation back: what it refused is accepted again within a second.

    Example: `gatebook revoke undo k7m2qzyx`
    """
    configuration, paths = deployment(config)
    gone = revocation_file.undo(paths.revocations, revocation_id, announce=_announce(configuration, "revoke.undo"))
    if as_json:
        say_json(_told(gone, time.time()))
    else:
        say(f"{gone.id} is taken back: {_words(gone)} is accepted again within a second")


def register(app: typer.Typer) -> None:
    group = typer.Typer()
    group.callback(invoke_without_command=True)(revoke)
    group.command("list")(list_revocations)
    group.command()(undo)
    app.add_typer(group, name="revoke", rich_help_panel=SET_UP)


def deployment(config: Path) -> tuple[Configuration, Paths]:
    configuration = load(config)
    paths = Paths(configuration.state_dir)
    check_private(paths.state)
    return configuration, paths


def _moments(issued_before: str | None, until: str | None, now: float) -> tuple[float | None, float | None]:
    before = end = None
    if issued_before is not None:
        before = now if issued_before == "now" else _moment(issued_before, now, "--issued-before")
    if until is not None:
        try:
            end = now + parse_duration(until)
        except ValueError:
            end = _moment(until, now, "--until")
        if end <= now:
            raise typer.BadParameter("that moment is over", param_hint="--until")
    return before, end


def _moment(text: str, now: float, option: str) -> float:
    try:
        return parse_time(text, int(now * 1e6)) / 1e6
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _credential(text: str, keys: Keys, issuers: Container[str]) -> revoking.Target:
    if text != "-":
        return revoking.credential(text, keys, issuers, whole=False)
    read = sys.stdin.read(_MAX_STDIN_BYTES + 1)
    if len(read) > _MAX_STDIN_BYTES:
        raise GatebookError("nothing was revoked: there is more on standard input than one credential")
    return revoking.credential(read, keys, issuers, whole=True)


def named(
    configuration: Configuration, paths: Paths, keys: Keys, what: What, value: str, identity: str | None
) -> revoking.Target:
    pseudonyms = configuration.audit.subject != "keep"
    if what == "subject" and pseudonyms and _PSEUDONYM.fullmatch(value):
        rows = vault.find(paths.vault, value)
        if len({row.lookup for row in rows}) == 1:
            return revoking.Target("subject", rows[0].lookup.hex(), identity, rows[-1].pseudonym.hex())
        if rows:
            raise GatebookError(f"nothing was revoked: {len(rows)} pseudonyms begin with {value}; give more of it")
        if len(value) == 32:
            warn("no pseudonym in the log is that; taken for a name")
    providers = list(configuration.identity)
    if identity is None:
        if len(providers) != 1:
            raise typer.BadParameter(f"one of {', '.join(sorted(providers))}", param_hint="--identity")
        (identity,) = providers
    shown = _scrub(value)
    if what == "subject" and pseudonyms:
        known = vault.rows_of(paths.vault, bytes.fromhex(keys.name(what, identity, value)))
        if not known:
            warn(f"nobody of that name is in the log, as far as {identity} goes; is it spelt as in its tokens?")
        shown = known[-1].pseudonym.hex() if known else "somebody who is not in the log yet"
    return revoking.named(what, identity, value, keys, shown[:300])


def _announce(configuration: Configuration, action: str) -> Callable[[Revocation], object]:
    def announce(entry: Revocation) -> None:
        actor = f"os:{os.getuid()}"
        submit(
            configuration,
            [record.Admin(time_us=time.time_ns() // 1000, action=action, actor=actor, detail=entry.detail())],
        )

    return announce


def _words(entry: Revocation) -> str:
    what = entry.shown if entry.what == "all" else f"{entry.what} {entry.shown}"
    if entry.provider is not None and entry.what != "all":
        what += f" of {entry.provider}"
    return what if entry.before is None else f"{what} if issued before {moment(entry.before)}"


def _told(entry: Revocation, now: float) -> dict[str, Any]:
    """What may be shown: everything but the keyed hash."""
    return {
        "id": entry.id,
        "what": entry.what,
        "provider": entry.provider,
        "of": entry.shown,
        "before": None if entry.before is None else moment(entry.before),
        "until": None if entry.until is None else moment(entry.until),
        "created": moment(entry.created),
        "actor": entry.actor,
        "reason": entry.reason,
        "state": "in force" if entry.holds(now) else "over",
    }
