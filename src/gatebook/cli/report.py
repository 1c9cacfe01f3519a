"""How commands speak: results on stdout, everything else on stderr, one shape for every error.

In: what a command has to say. Out: text, red and yellow only on a terminal and never with NO_COLOR; or,
with `--json`, one JSON object a line. What came from outside is never taken for markup. An error is
`{"error": {"kind", "message", "problems": [...]}}` in JSON, and `error: …` in text.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import Any, TextIO

from gatebook.errors import ConfigError, GatebookError, Problem


def say(text: str = "") -> None:
    """A result: one line or several on stdout."""
    sys.stdout.write(text + "\n")


def say_json(value: Any) -> None:
    """A result as one line of JSON on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def note(text: str) -> None:
    """What a person should know beside the result: on stderr."""
    sys.stderr.write(text + "\n")


def warn(text: str) -> None:
    """`warning: …` on stderr."""
    sys.stderr.write(f"{paint('warning:', '33', sys.stderr)} {harmless(text)}\n")


def harmless(text: str) -> str:
    """One line, without characters that could end it, move a terminal's cursor or rename its window.

    Who wants several lines divides them first: a value must never be able to print a line of its own.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def paint(text: str, colour: str, stream: TextIO) -> str:
    """`text` in an ANSI colour, if `stream` is a terminal that wants colours (no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\x1b[1;{colour}m{text}\x1b[0m"


def problem_json(problem: Problem) -> dict[str, Any]:
    return dataclasses.asdict(problem)


def error_json(error: GatebookError) -> dict[str, Any]:
    problems = [problem_json(p) for p in error.problems] if isinstance(error, ConfigError) else []
    return {"error": {"kind": type(error).__name__, "message": str(error), "problems": problems}}


def fail(error: GatebookError, as_json: bool) -> int:
    """Shows the error; returns the exit code that goes with it."""
    if as_json:
        say_json(error_json(error))
        return error.exit_code
    told = [str(problem) for problem in error.problems] if isinstance(error, ConfigError) else [str(error)]
    for text in told:
        sys.stderr.write(f"{paint('error:', '31', sys.stderr)} {harmless(text)}\n")
    return error.exit_code
