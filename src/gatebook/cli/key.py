"""`gatebook key …`: make, rotate, list and revoke API keys. What is done is on record before it takes effect.

The logic is identity.api_key_file's; here a change becomes an `admin` record, and a key a line of text. The
secret is printed by `create`, once, and is never in a record, a list or an error.
"""

from __future__ import annotations

import datetime
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gatebook import record
from gatebook.cli.option import DEFAULT_CONFIG, SET_UP, ConfigPath, Json, roles_of
from gatebook.cli.report import harmless, note, say, say_json
from gatebook.config.load import load
from gatebook.config.model import ApiKeyProvider, Configuration
from gatebook.config.value import parse_duration
from gatebook.errors import ConfigError, Problem
from gatebook.identity import api_key_file
from gatebook.identity.api_key import ApiKey
from gatebook.identity.last_use import last_use
from gatebook.paths import Paths, check_private
from gatebook.recorder.submit import submit

_COLUMNS = ("id", "provider", "subject", "roles", "created", "expires", "last_used", "state")


def create(
    identity: Annotated[str, typer.Option(help="The api_key provider of the configuration that it is for.")],
    ttl: Annotated[str, typer.Option(help="How long it works, such as 12h or 90d.")],
    roles: Annotated[str, typer.Option(help="Its roles, with commas between.")] = "",
    subject: Annotated[
        str | None, typer.Option(help="Whose it is: the name in the log. Default: the key's id.")
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Make an API key. It is shown once, and works within a second.

    Only its SHA-256 is kept, so nobody can show it again: a lost key is revoked, and another made.

    Example: `gatebook key create --identity partners --roles reader --ttl 90d`
    """
    configuration, path = _deployment(config)
    header = _header(configuration, identity, config)
    ttl_s = _duration(ttl, "--ttl")
    made = api_key_file.create(
        path,
        provider=identity,
        roles=roles_of(roles, configuration),
        subject=subject,
        ttl_s=ttl_s,
        now=time.time(),
        random=secrets.token_bytes,
        announce=_announce(configuration, "key.create"),
    )
    if as_json:
        say_json({**_told(made.key), "key": made.text})
        return
    say(made.text)
    note(
        f"\nThis is key {made.key.id} of {identity}, until {moment(made.key.expires)}. It is not shown again.\n"
        f"Clients send it in the header {header}; `gatebook key revoke {made.key.id}` ends it."
    )


def rotate(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The old key's id.")],
    overlap: Annotated[str, typer.Option(help="How long the old one goes on working, such as 24h.")],
    ttl: Annotated[
        str | None, typer.Option(help="How long the new one works. Default: as long as the old one was made for.")
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Make a new API key for the same caller, with the same roles; the old one ends when the overlap does.

    Example: `gatebook key rotate k7m2qzyx --overlap 24h`
    """
    configuration, path = _deployment(config)

    def announce(new: ApiKey, old: ApiKey) -> None:
        detail = {"id": old.id, "expires_us": old.expires * 1_000_000, "new": _detail(new)}
        _submit(configuration, "key.rotate", detail)

    made, old = api_key_file.rotate(
        path,
        key_id,
        overlap_s=_duration(overlap, "--overlap"),
        ttl_s=None if ttl is None else _duration(ttl, "--ttl"),
        now=time.time(),
        random=secrets.token_bytes,
        announce=announce,
    )
    if as_json:
        say_json({**_told(made.key), "key": made.text, "old": _told(old)})
        return
    say(made.text)
    note(
        f"\nThis is key {made.key.id}, until {moment(made.key.expires)}. It is not shown again.\n"
        f"The old one, {old.id}, works until {moment(old.expires)}; `gatebook key list` shows its last use."
    )


def list_keys(config: ConfigPath = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """List all API keys, the latest last, and to the hour when each was last presented. Secrets are not known.

    Example: `gatebook key list --json | jq '.keys[] | select(.state == "active")'`
    """
    configuration, path = _deployment(config)
    used = Paths(configuration.state_dir).last_use
    told = [{**_told(key), "last_used": _hour(last_use(used, key.id))} for key in api_key_file.read(path)]
    if as_json:
        say_json({"keys": told})
        return
    if not told:
        note("There are no keys yet; `gatebook key create` makes one.")
        return
    table = Table(*_COLUMNS, box=box.SIMPLE_HEAD)
    for key in told:
        table.add_row(*(Text(harmless(cell(key[name])), overflow="fold") for name in _COLUMNS))
    # A pipe has no width, so nothing is folded for it.
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 1000, highlight=False).print(table)


def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, or the key itself if it leaked.")],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """End an API key, for good and within a second.

    Example: `gatebook key revoke k7m2qzyx`
    """
    configuration, path = _deployment(config)
    # Of a whole key only the id is looked at, so that an error does not show the secret again.
    wanted = key_id.removeprefix("gbk_")[:8] if key_id.startswith("gbk_") else key_id
    key, done = api_key_file.revoke(path, wanted, now=time.time(), announce=_announce(configuration, "key.revoke"))
    if as_json:
        say_json({**_told(key), "changed": done})
    elif done:
        say(f"revoked {key.id} of {key.provider}; it opens nothing any more within a second")
    else:
        say(f"{key.id} of {key.provider} was revoked before, at {moment(key.revoked)}; nothing was changed")


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True,
        help="API keys: make, rotate, list and revoke them. The ledger's own are `gatebook keys`.",
    )
    group.command()(create)
    group.command()(rotate)
    group.command("list")(list_keys)
    group.command()(revoke)
    app.add_typer(group, name="key", rich_help_panel=SET_UP)


def _deployment(config: Path) -> tuple[Configuration, Path]:
    configuration = load(config)
    paths = Paths(configuration.state_dir)
    check_private(paths.state)
    return configuration, paths.api_keys


def _duration(text: str, option: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _header(configuration: Configuration, name: str, config: Path) -> str:
    """Where clients put keys of this provider. Raises ConfigError when it is none of API keys."""
    known = {n: p for n, p in configuration.identity.items() if isinstance(p, ApiKeyProvider)}
    if name in known:
        return known[name].header
    expected = f"one of {', '.join(sorted(known))}" if known else "one, such as `partners: {type: api_key}`"
    what = (
        f"{name} is no provider of API keys" if name in configuration.identity else f"no provider is called {name}"
    )
    raise ConfigError([Problem(str(config), 0, 0, "identity", what, expected)])


def _announce(configuration: Configuration, action: str) -> Callable[[ApiKey], object]:
    return lambda key: _submit(configuration, action, _detail(key))


def _detail(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "provider": key.provider,
        "roles": list(key.roles),
        "expires_us": key.expires * 1_000_000,
    }


def _submit(configuration: Configuration, action: str, detail: dict[str, Any]) -> None:
    actor = f"os:{os.getuid()}"
    submit(
        configuration,
        [record.Admin(time_us=time.time_ns() // 1000, action=action, actor=actor, detail=detail)],
    )


def _told(key: ApiKey) -> dict[str, Any]:
    """What may be shown: everything but the hash."""
    return {
        "id": key.id,
        "provider": key.provider,
        "subject": key.subject,
        "roles": list(key.roles),
        "created": moment(key.created),
        "expires": moment(key.expires),
        "revoked": None if key.revoked is None else moment(key.revoked),
        "state": key.state(time.time()),
    }


def _hour(seconds: int | None) -> str | None:
    return None if seconds is None else moment(seconds)


def cell(value: object) -> str:
    if value is None:
        return "-"
    return ",".join(value) if isinstance(value, list) else str(value)


def moment(seconds: int | None) -> str:
    return datetime.datetime.fromtimestamp(seconds or 0, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
