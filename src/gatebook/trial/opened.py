"""A configuration's file -> its Judge, and where everything stands in it.

In: a path. Out: what is compiled of it, or a ConfigError with every problem of the file, its routes and its rules,
each with line and column. Nothing else of the deployment is needed: a policy can be tried where no gateway could
run. With `grants`, those that are in force in its state folder count, if there is one.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gatebook import policy
from gatebook.config.load import examine, locate
from gatebook.config.source import Source
from gatebook.errors import ConfigError
from gatebook.trial.judge import Judge
from gatebook.trial.lent import Lent, read_lent


class Opened(NamedTuple):
    """`unread`: why grants could not be read, so that none counts."""

    judge: Judge
    source: Source
    unread: str = ""


def open_judge(path: Path, grants: bool) -> Opened:
    """Raises ConfigError."""
    configuration, source, problems = examine(path)
    if configuration is None or source is None or problems:
        raise ConfigError(problems)
    found = locate(policy.problems(configuration), source)
    if found:
        raise ConfigError(sorted(found, key=lambda problem: (problem.line, problem.column)))
    lent = read_lent(configuration) if grants else Lent(None)
    return Opened(Judge(configuration, lent.held), source, lent.why)
