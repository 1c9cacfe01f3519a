"""The options that commands share, so that they are called and explained alike everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gatebook.cli.report import warn
from gatebook.config.model import Configuration

DEFAULT_CONFIG = Path("gatebook.yaml")

ConfigPath = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="GATEBOOK_CONFIG", help="The configuration file.", show_default=True),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Grants = Annotated[bool, typer.Option(help="Whether grants in force lend their roles, as they do in a guard.")]

# The panels that `gatebook --help` groups commands in.
SET_UP = "Set up"
RUN = "Run"
LOOK = "Look into the log"


def roles_of(text: str, configuration: Configuration) -> tuple[str, ...]:
    """`--roles a,b` -> the roles. Warns of those that no rule can name."""
    roles = tuple(dict.fromkeys(filter(None, map(str.strip, text.split(",")))))
    for name in roles:
        if configuration.roles and name not in configuration.roles:
            warn(f"{name} is none of the roles that the configuration declares: no rule can name it")
    return roles
