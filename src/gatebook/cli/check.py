"""`gatebook check`: shows what `preflight` finds. Exit code 0 when `gatebook run` may go on, else 2."""

from __future__ import annotations

import sys

import typer

from gatebook.cli.option import DEFAULT_CONFIG, SET_UP, ConfigPath, Json
from gatebook.cli.report import paint, problem_json, say, say_json, warn
from gatebook.errors import ConfigError
from gatebook.preflight import preflight


def check(config: ConfigPath = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """Report everything that would keep `gatebook run` from starting, at once.

    Reads the configuration, the state folder, keys and certificates, tries the addresses, and has nginx
    test what it would be given. Changes nothing and may be used beside a running gatebook.

    Example: `gatebook check -c /etc/gatebook/gatebook.yaml --json`
    """
    configuration, problems, warnings = preflight(config)
    if as_json:
        found = {"problems": [problem_json(p) for p in problems], "warnings": [problem_json(w) for w in warnings]}
        say_json({"ok": not problems, **found})
        raise typer.Exit(ConfigError.exit_code if problems else 0)
    for warning in warnings:
        warn(str(warning))
    if problems or configuration is None:
        raise ConfigError(problems)
    count, digest = len(configuration.routes), configuration.digest().hex()[:16]
    say(f"{paint('ok:', '32', sys.stdout)} {config}: {count} routes, configuration {digest}")


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel=SET_UP)(check)
