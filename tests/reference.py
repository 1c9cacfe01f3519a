"""Makes docs/commands.md of the program: every command with its options, exit codes, reasons.

`python -m tests.reference > docs/commands.md` remakes it; tests/test_docs.py compares. Pure.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

import typer.main
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from gatebook import cli, errors
from gatebook.record import REASONS

_HEAD = """# Commands, exit codes, reasons

Made from the program by `python -m tests.reference`; change the program, not this file.

Results go to stdout, everything else to stderr. With `--json`, results and errors are JSON, one object a line;
an error is `{"error": {"kind", "message", "problems": [{"file", "line", "column", "key", "message", …}]}}`.
`NO_COLOR` is heeded. `--config` may also be given by the environment variable `GATEBOOK_CONFIG`.
"""

_EXIT_CODES = """
## Exit codes

| code | kind | meaning |
|---|---|---|
| 0 | | all is well |
"""

_REASONS = """
## Reasons

Why a decision fell as it did: `decision.reason` of an access record; and, where the request was refused, the
status, whose doing it was, and all that the client is told of it. An allowed request ends as its upstream says.

| reason | status | source | in words |
|---|---|---|---|
"""


def commands(
    group: TyperGroup | None = None, name: str = "gatebook"
) -> Iterator[tuple[str, TyperCommand | TyperGroup]]:
    """(whole name, command), in the order of `--help`."""
    if group is None:
        made = typer.main.get_command(cli.app)
        assert isinstance(made, TyperGroup)
        group = made
    for key, command in group.commands.items():
        if isinstance(command, TyperGroup):
            if command.invoke_without_command:
                yield f"{name} {key}", command
            yield from commands(command, f"{name} {key}")
        elif isinstance(command, TyperCommand) and not command.hidden:
            yield f"{name} {key}", command


def text() -> str:
    parts = [_HEAD, *(_command(name, command) for name, command in commands())]
    parts += [_EXIT_CODES, *_exit_codes(), _REASONS]
    parts += [f"| `{r}` | {said.status} | {said.source} | {said.title} |\n" for r, said in REASONS.items()]
    return "".join(parts)


def _command(name: str, command: TyperCommand | TyperGroup) -> str:
    arguments = [p for p in command.params if isinstance(p, TyperArgument)]
    options = [p for p in command.params if isinstance(p, TyperOption) and not p.hidden]
    usage = " ".join([name, *(_argument(a) for a in arguments)])
    help_text = inspect.cleandoc(command.help or "").replace("\f", "")
    rows = [f"| {_names(o)} | {(o.help or '').strip()}{_default(o)} |\n" for o in options]
    table = "".join(["\n| option | |\n|---|---|\n", *rows]) if rows else ""
    return f"\n## `{usage}`\n{help_text}\n{table}"


def _argument(argument: TyperArgument) -> str:
    name = (argument.name or "").upper()
    return name if argument.required else f"[{name}]"


def _names(option: TyperOption) -> str:
    return ", ".join(f"`{name}`" for name in sorted(option.opts, key=len, reverse=True))


def _default(option: TyperOption) -> str:
    if option.is_flag or option.default is None or option.required or callable(option.default):
        return ""
    return f" Default: `{option.default}`."


def _exit_codes() -> Iterator[str]:
    kinds: list[type[errors.GatebookError]] = [errors.GatebookError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    for kind in sorted(kinds, key=lambda kind: (kind.exit_code, kind.__name__)):  # whatever was imported first
        said = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
        yield f"| {kind.exit_code} | `{kind.__name__}` | {said} |\n"
    yield "| 2 | | wrong usage of the command line |\n"
    yield "| 130 | | interrupted |\n"


if __name__ == "__main__":
    sys.stdout.write(text())
