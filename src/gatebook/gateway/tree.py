"""nginx directives as data, and the exact bytes of a file of them.

In: blocks of `directive(name, *arguments)`. Out: text, quoted by crossplane. A value that nginx would read
differently from how it is meant (a `$` in a file's path begins a variable, a backslash an escape) is never
written: `file` refuses it. Pure.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import crossplane

from gatebook.errors import EnvironmentFault

Directive = dict[str, Any]
Block = list[Directive]

MAX_TIME_MS = 2_000_000_000  # nginx counts milliseconds in 32 bits; this is 23 days


def directive(name: str, *arguments: object, block: Block | None = None) -> Directive:
    made: Directive = {"directive": name, "args": [str(argument) for argument in arguments]}
    if block is not None:
        made["block"] = block
    return made


def build(block: Block) -> bytes:
    """The file's bytes; the same block always gives the same ones."""
    text: str = crossplane.build(block)
    return text.encode() + b"\n"


def parse(path: Path) -> Block:
    """The directives of a file that `build` made."""
    parsed = crossplane.parse(str(path), single=True, check_ctx=False, check_args=False)
    block: Block = parsed["config"][0]["parsed"]
    return block


def file(path: Path) -> str:
    """A path as an argument. Raises EnvironmentFault for one that nginx's configuration cannot say."""
    text = str(path)
    if not path.is_absolute():
        raise EnvironmentFault(
            f"{text!r}: nginx would count a relative path from its own folder; name it from '/'"
        )
    if not text.isprintable() or any(character in text for character in "$\\\"'"):
        raise EnvironmentFault(
            f"{text!r}: nginx cannot be given a path with quotes, '$', a backslash or control characters; "
            f"choose another name"
        )
    return text


def milliseconds(seconds: float) -> str:
    return f"{min(max(1, round(seconds * 1000)), MAX_TIME_MS)}ms"
