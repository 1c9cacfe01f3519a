"""A configuration's file -> its Judge, and where everything stands in it.

In: a path. Out: what is compiled of it, or a ConfigError with every problem of the file, its routes and its rules,
each with line and column. Nothing else of the deployment is looked at: a policy can be tried where no gateway
could run.
"""

from __future__ import annotations

from pathlib import Path

from gatebook import policy
from gatebook.config.load import examine, locate
from gatebook.config.source import Source
from gatebook.errors import ConfigError
from gatebook.trial.judge import Judge


def open_judge(path: Path) -> tuple[Judge, Source]:
    """Raises ConfigError."""
    configuration, source, problems = examine(path)
    if configuration is None or source is None or problems:
        raise ConfigError(problems)
    found = locate(policy.problems(configuration), source)
    if found:
        raise ConfigError(sorted(found, key=lambda problem: (problem.line, problem.column)))
    return Judge(configuration), source
