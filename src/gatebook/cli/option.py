"""The options that commands share, so that they are called and explained alike everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_CONFIG = Path("gatebook.yaml")

ConfigPath = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="GATEBOOK_CONFIG", help="The configuration file.", show_default=True),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]

# The panels that `gatebook --help` groups commands in.
SET_UP = "Set up"
RUN = "Run"
LOOK = "Look into the log"
