"""`gatebook init`: asks `starter` for a new deployment's files and says what to do next."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

from gatebook import starter
from gatebook.cli.option import SET_UP, Json
from gatebook.cli.report import say, say_json


def init(
    folder: Annotated[Path, typer.Argument(help="Where to; made if it does not exist.")] = Path(),
    name: Annotated[str, typer.Option(help="The deployment's name: part of the ledger's origin.")] = "acme",
    certificate: Annotated[
        bool, typer.Option("--certificate", help="Make only a new development certificate, in tls/.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a commented gatebook.yaml, keys and a development certificate.

    Nothing that exists is written over.

    Example: `gatebook init --name acme`, or `gatebook init /etc/gatebook`
    """
    now = datetime.datetime.now(datetime.UTC)
    made = starter.renew_certificate(folder, now) if certificate else starter.initialise(folder, name, now)
    if as_json:
        say_json({"made": [str(path) for path in made]})
        return
    for path in made:
        say(f"made {path}{'/' if path.is_dir() else ''}")
    if not certificate:
        say(_next_steps(folder))


def _next_steps(folder: Path) -> str:
    here = folder.resolve() == Path.cwd()
    change = "" if here else f"  cd {folder}\n"
    return f"""
Next:
{change}  edit gatebook.yaml                 your service's address, and what may be called
  gatebook check                     all that is wrong, at once
  gatebook run                       in the foreground; Ctrl-C stops it
  gatebook key create --identity partners --roles reader --ttl 90d
  curl --cacert tls/ca.pem https://127.0.0.1:8443/healthz

Back up state/keys now, somewhere else: without them the log can neither be continued nor read."""


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=SET_UP)(init)
