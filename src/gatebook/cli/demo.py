"""`gatebook demo`: shows gatebook at work, with an API and a provider of its own. No logic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gatebook.cli.option import RUN
from gatebook.cli.report import note
from gatebook.demo.run import run
from gatebook.errors import GatebookError


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the traffic instead of staying up.")] = False,
    folder: Annotated[
        Path | None,
        typer.Option(help="Keep everything there; it must not hold a deployment yet.", show_default=False),
    ] = None,
) -> None:
    """See gatebook at work: real requests of every kind, and what is on record of them.

    Starts a demo API, a demo OpenID provider and gatebook, on loopback alone and with keys of their own;
    then stays up until Ctrl-C, with lines to try. Without --folder, nothing is left afterwards.

    Example: `gatebook demo --once`
    """
    try:
        run(folder, once)
    except GatebookError as error:
        for text in getattr(error, "__notes__", []):
            note(text)
        raise


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=RUN)(demo)
