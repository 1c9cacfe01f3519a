"""`gatebook retention …`: have retention go on when it has stopped believing the clock. No logic.

What retention is, and what it trusts, is recorder.retention's and recorder.past's.
"""

from __future__ import annotations

from typing import Annotated

import typer

from gatebook.cli.actor import whoever
from gatebook.cli.option import DEFAULT_CONFIG, SET_UP, ConfigPath, Json
from gatebook.cli.report import say, say_json
from gatebook.cli.revoke import deployment
from gatebook.recorder.submit import order
from gatebook.scrub import Scrubber

_scrub = Scrubber().scrub


def resume(
    reason: Annotated[str, typer.Option(help="Why the clock can be trusted: a line, for the log.")],
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Say that the machine's clock is right: retention goes by it again, and destroys what is due.

    Needed after more than a week without gatebook, or after the clock was set ahead. Look at `date` first.

    Example: `gatebook retention resume --reason "back from storage, NTP is in sync"`
    """
    configuration, _ = deployment(config)
    parameters = {"reason": _scrub(reason)[:300], "actor": whoever().actor}
    told = order(configuration, "retention.resume", parameters)
    if as_json:
        say_json(told)
    elif not told["changed"]:
        say("nothing had been stopped: retention goes by the clock; nothing was changed, nor put on record")
    else:
        say("retention goes by the clock again, within a minute")


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="How long records are kept.")
    group.command()(resume)
    app.add_typer(group, name="retention", rich_help_panel=SET_UP)
