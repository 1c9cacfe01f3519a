"""The `gatebook` command: one file a noun, each with `register(app)`, and no logic in any of them.

`main` is the process's entry. It turns every GatebookError into one message and its exit code; what is
left is a fault of ours and shows its traceback, without local variables, which may be secrets. Nothing
imports this package.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated, cast

import typer

from gatebook import __version__
from gatebook.cli.report import fail
from gatebook.errors import GatebookError, UsageError

_HELP = """An API access proxy whose access logs stand up in an audit.

Start here: `gatebook init`, then `gatebook check`, then `gatebook run`.

Or see it all at work: `gatebook demo`.
"""

app = typer.Typer(
    name="gatebook",
    help=_HELP,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


_WRONG_USAGE = cast(
    type[typer.BadParameter], typer.BadParameter.__mro__[1]
)  # which typer gives no name of its own


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"gatebook {__version__}\n")
        raise typer.Exit


@app.callback()
def _gatebook(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def _register() -> None:
    nouns = (
        "init",
        "check",
        "config",
        "key",
        "keys",
        "client",
        "revoke",
        "grant",
        "hold",
        "redact",
        "retention",
        "forget",
        "subject",
        "unseal",
        "explain",
        "policy",
        "replay",
        "run",
        "demo",
        "sinks",
        "log",
        "show",
        "prove",
        "bundle",
        "verify",
        "serve_log",
        "witness",
        "version",
    )
    for name in nouns:
        importlib.import_module(f"gatebook.cli.{name}").register(app)


_register()


def main() -> None:
    """Runs the command line and exits: 0, the error's own code, 2 for wrong usage, 130 for Ctrl-C."""
    try:
        code = _run()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _run() -> int:
    as_json = "--json" in sys.argv
    try:
        # Left to itself, typer draws a box around what is wrong with the command line, which no program reads.
        code = app(prog_name="gatebook", standalone_mode=not as_json)
        return code if isinstance(code, int) else 0
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except KeyboardInterrupt:
        return 130
    except GatebookError as error:
        return fail(error, as_json)
    except _WRONG_USAGE as error:
        return fail(UsageError(error.format_message()), as_json)
