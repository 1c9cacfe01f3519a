"""`gatebook client …`: make, list and revoke clients of our own token service, on record before it takes effect.

The logic is identity.client_file's and identity.revocation_file's; here a change becomes an `admin` record, and a
client a line of text. The secret is printed by `create`, once, and is never in a record, a list or an error.
"""

from __future__ import annotations

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
from gatebook.cli.key import cell, moment
from gatebook.cli.option import DEFAULT_CONFIG, SET_UP, ConfigPath, Json, roles_of
from gatebook.cli.report import harmless, note, say, say_json
from gatebook.config.load import load
from gatebook.config.model import Configuration
from gatebook.config.value import parse_duration
from gatebook.errors import ConfigError, EnvironmentFault, Problem
from gatebook.identity import client_file, revocation_file
from gatebook.identity.client import Client
from gatebook.identity.keyed import read_keys
from gatebook.identity.revocation import Revocation
from gatebook.paths import Paths, check_private
from gatebook.recorder.submit import submit

_COLUMNS = ("id", "provider", "subject", "roles", "scopes", "refresh", "method", "created", "expires", "state")


def create(
    identity: Annotated[str, typer.Option(help="The provider of type gatebook that it is for.")],
    ttl: Annotated[str, typer.Option(help="How long its secret works, such as 90d or 1y.")],
    roles: Annotated[str, typer.Option(help="The roles in its tokens, with commas between.")] = "",
    scopes: Annotated[
        str, typer.Option(help="The scopes that it may ask for, with commas or spaces between.")
    ] = "",
    subject: Annotated[
        str | None, typer.Option(help="Whose it is: the name in the log. Default: the client's id.")
    ] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Give it refresh tokens, too.")] = False,
    key: Annotated[
        Path | None,
        typer.Option(help="Its public key, PEM or JWK: then it signs (private_key_jwt), and has no secret."),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Make a client of the token service. Its secret, if it has one, is shown once; it works at once.

    Only an Argon2id hash is kept, so nobody can show it again: a lost secret's client is revoked, another made.

    Example: `gatebook client create --identity own --roles reader --scopes orders.read --ttl 90d`
    """
    configuration, paths = _deployment(config)
    url = _service(configuration, identity, config)
    try:
        ttl_s = parse_duration(ttl)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--ttl") from None
    made = client_file.create(
        paths.clients,
        provider=identity,
        roles=roles_of(roles, configuration),
        scopes=tuple(dict.fromkeys(scopes.replace(",", " ").split())),
        subject=subject,
        refresh=refresh,
        ttl_s=ttl_s,
        now=time.time(),
        random=secrets.token_bytes,
        announce=_announce(configuration, "client.create"),
        key=None if key is None else client_file.public_key(_read(key)),
    )
    given = {"client_id": made.client.id} | ({"client_secret": made.secret} if made.secret else {})
    if as_json:
        say_json({**_told(made.client), **given})
        return
    for name, value in given.items():
        say(f"{name}={value}")
    once = " Its secret is not shown again." if made.secret else ""
    note(
        f"\nThis is client {made.client.id} of {identity}, until {moment(made.client.expires)}.{once}\n"
        f"It gets its tokens by POST {url}; `gatebook client revoke {made.client.id}` ends it."
    )


def list_clients(config: ConfigPath = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """List all clients of the token service, the latest last. Secrets are not among what is known of them.

    Example: `gatebook client list --json | jq '.clients[] | select(.state == "active")'`
    """
    _, paths = _deployment(config)
    told = [_told(client) for client in client_file.read(paths.clients)]
    if as_json:
        say_json({"clients": told})
        return
    if not told:
        note("There are no clients yet; `gatebook client create` makes one.")
        return
    table = Table(*_COLUMNS, box=box.SIMPLE_HEAD)
    for client in told:
        table.add_row(*(Text(harmless(cell(client[name])), overflow="fold") for name in _COLUMNS))
    # A pipe has no width, so nothing is folded for it.
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 1000, highlight=False).print(table)


def revoke(
    client_id: Annotated[str, typer.Argument(metavar="ID", help="The client's id, or its secret if that leaked.")],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """End a client, its refresh tokens and its access tokens, for good and within a second.

    Example: `gatebook client revoke k7m2qzyx`
    """
    configuration, paths = _deployment(config)
    # Of a whole secret only the id is looked at, so that an error does not show it again.
    wanted = client_id.removeprefix("gbs_")[:8] if client_id.startswith("gbs_") else client_id
    client, done = client_file.revoke(
        paths.clients, wanted, now=time.time(), announce=_announce(configuration, "client.revoke")
    )
    _end_tokens(configuration, paths, client)
    if as_json:
        say_json({**_told(client), "changed": done})
    elif done:
        say(f"revoked {client.id} of {client.provider}; neither it nor its tokens open anything within a second")
    else:
        say(f"{client.id} of {client.provider} was revoked before, at {moment(client.revoked)}")


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Clients of our own token service: make, list, revoke.")
    group.command()(create)
    group.command("list")(list_clients)
    group.command()(revoke)
    app.add_typer(group, name="client", rich_help_panel=SET_UP)


def _deployment(config: Path) -> tuple[Configuration, Paths]:
    configuration = load(config)
    paths = Paths(configuration.state_dir)
    check_private(paths.state)
    return configuration, paths


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(64 << 10)
    except OSError as error:
        raise EnvironmentFault(f"{path}: {(error.strerror or str(error)).lower()}") from None


def _service(configuration: Configuration, name: str, config: Path) -> str:
    """Where clients of this provider ask. Raises ConfigError when it is none that issues tokens."""
    service = configuration.token_service
    if service is not None and service[0] == name:
        return f"{configuration.own_issuer}/token"
    expected = service[0] if service else "one, such as `own: {type: gatebook}`"
    found = f"{name} issues no tokens" if name in configuration.identity else f"no provider is called {name}"
    raise ConfigError([Problem(str(config), 0, 0, "identity", found, expected)])


def _announce(configuration: Configuration, action: str) -> Callable[[Client], object]:
    def announce(client: Client) -> None:
        detail = {
            "id": client.id,
            "provider": client.provider,
            "roles": list(client.roles),
            "scopes": list(client.scopes),
            "expires_us": client.expires * 1_000_000,
        }
        made = record.Admin(
            time_us=time.time_ns() // 1000, action=action, actor=f"os:{os.getuid()}", detail=detail
        )
        submit(configuration, [made])

    return announce


def _end_tokens(configuration: Configuration, paths: Paths, client: Client) -> None:
    """Access tokens are good without the portal's word, so guards have to be told. Twice does no harm."""
    service = configuration.token_service
    lifetime_s = 0.0 if service is None else service[1].access_ttl + service[1].clock_skew
    actor = f"os:{os.getuid()}"

    def announce(made: Revocation) -> None:
        said = record.Admin(time_us=time.time_ns() // 1000, action="revoke", actor=actor, detail=made.detail())
        submit(configuration, [said])

    revocation_file.add(
        paths.revocations,
        "client",
        read_keys(paths).name("client", client.provider, client.id),
        provider=client.provider,
        until=(client.revoked or 0) + lifetime_s + 1,
        shown=client.id,
        reason="the client was revoked",
        actor=actor,
        now=time.time(),
        random=secrets.token_bytes,
        announce=announce,
    )


def _told(client: Client) -> dict[str, Any]:
    """What may be shown: everything but the hash."""
    return {
        "id": client.id,
        "provider": client.provider,
        "subject": client.subject,
        "roles": list(client.roles),
        "scopes": list(client.scopes),
        "refresh": client.refresh,
        "method": "client_secret" if client.key is None else "private_key_jwt",
        "created": moment(client.created),
        "expires": moment(client.expires),
        "revoked": None if client.revoked is None else moment(client.revoked),
        "state": client.state(time.time()),
    }
