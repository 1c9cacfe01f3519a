"""`gatebook config …`: the configuration's schema, its reference, and what is in effect. No logic."""

from __future__ import annotations

import typer

from gatebook.cli.option import DEFAULT_CONFIG, SET_UP, ConfigPath
from gatebook.cli.report import say
from gatebook.config.load import load
from gatebook.config.schema import reference, schema_text


def schema() -> None:
    """Print the JSON Schema of the configuration, for editors.

    Example: `gatebook config schema > gatebook.schema.json`
    """
    say(schema_text().rstrip("\n"))


def show(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Print the effective configuration as JSON: with all defaults, paths absolute.

    Its SHA-256 is what each decision names as its configuration.

    Example: `gatebook config show | jq .routes`
    """
    say(load(config).effective().decode())


def docs() -> None:
    """Print the reference of all keys as Markdown: this is docs/config.md.

    Example: `gatebook config docs | less`
    """
    say(reference().rstrip("\n"))


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="The configuration's schema, reference and effect.")
    for command in (schema, show, docs):
        group.command()(command)
    app.add_typer(group, name="config", rich_help_panel=SET_UP)
