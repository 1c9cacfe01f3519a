"""A person's gatebook.yaml -> a Configuration, or every problem in it.

In: a path, or text and the folder that relative paths count from. Out: a frozen Configuration, or a
ConfigError that carries all problems at once, each with file, line, column and dotted key. `examine`
gives both where it can: a file whose only fault is an unknown key is checked further without that key.
Never reads more than source.MAX_BYTES, and never gives out a configuration that has a problem from `load`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from gatebook.config.crosscheck import crosscheck
from gatebook.config.explain import explain, unknown_keys
from gatebook.config.model import Configuration
from gatebook.config.salvage import salvage
from gatebook.config.source import MAX_BYTES, Location, Source, dotted, read
from gatebook.errors import ConfigError, Problem


class Examined(NamedTuple):
    """`configuration` is what can still be checked further; it is in order only if `problems` is empty."""

    configuration: Configuration | None
    source: Source | None
    problems: list[Problem]


def load(path: Path) -> Configuration:
    """Raises ConfigError."""
    return _accept(examine(path))


def state_dir(path: Path) -> Path:
    """Where the state lies, even while the rest of the file is being edited. Raises ConfigError."""
    try:
        with path.open("rb") as stream:
            source = read(stream.read(MAX_BYTES + 1), str(path))
    except OSError:
        raise ConfigError(examine(path).problems) from None
    named = source.data.get("state_dir", "./state") if isinstance(source.data, dict) else None
    if not isinstance(named, str) or not named:
        return load(path).state_dir
    return path.absolute().parent / Path(named).expanduser()


def parse(text: str, file: str, base: Path) -> Configuration:
    """As `load`, of text: `file` is what problems call it, `base` what relative paths count from."""
    return _accept(_examine(text.encode("utf-8", "surrogatepass"), file, base))


def examine(path: Path) -> Examined:
    """Never raises for what the file is or says."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        why = (error.strerror or "cannot be read").lower()
        hint = "run `gatebook init`, or name another with --config" if isinstance(error, FileNotFoundError) else ""
        return Examined(None, None, [Problem(str(path), 0, 0, "", why, "a configuration file", hint)])
    return _examine(data, str(path), path.absolute().parent)


def rest_of(path: Path, source: Source) -> tuple[Configuration | None, list[Location]]:
    """Of a file that holds wrong values, what can be checked beside them, and where they were: see `salvage`."""
    if not isinstance(source.data, dict):
        return None, []
    return salvage(source.data, lambda data: _validate(data, path.absolute().parent))


def locate(problems: Iterable[tuple[Location, str, str]], source: Source) -> list[Problem]:
    """(location, message, expected), as other packages report them, with their places in the file."""
    return [
        source.problem(source.value_at(location), dotted(location), message, expected)
        for location, message, expected in problems
    ]


def _accept(examined: Examined) -> Configuration:
    if examined.problems or examined.configuration is None:
        raise ConfigError(examined.problems)
    return examined.configuration


def _examine(data: bytes, file: str, base: Path) -> Examined:
    try:
        source = read(data, file)
    except ConfigError as error:
        return Examined(None, None, error.problems)
    if not isinstance(source.data, dict):
        message = "the file is empty" if source.data is None else "the file is no mapping"
        return Examined(None, source, [source.problem((1, 1), "", message, "keys such as version, name, listen")])
    problems: list[Problem] = []
    configuration: Configuration | None = None
    try:
        configuration = _validate(source.data, base)
    except ValidationError as error:
        problems += explain(error, source)
        configuration = _without(unknown_keys(error), source.data, base)
    problems += crosscheck(source)
    return Examined(configuration, source, sorted(problems, key=lambda p: (p.line, p.column)))


def _validate(data: dict[str, Any], base: Path) -> Configuration:
    return Configuration.model_validate(data, strict=True, context={"base": base})


def _without(unknown: list[Location], data: dict[str, Any], base: Path) -> Configuration | None:
    """The configuration as it would be without its unknown keys; None when more than those is wrong."""
    for *parents, key in unknown:
        inner: Any = data
        for part in parents:
            inner = inner[part]
        inner.pop(key, None)
    try:
        return _validate(data, base) if unknown else None
    except ValidationError:
        return None
