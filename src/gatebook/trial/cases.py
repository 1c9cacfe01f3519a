"""A cases file: requests, callers and the verdicts that are expected of a policy, as YAML.

In: a path, and the configuration that its names are of. Out: frozen cases with their lines, or a ConfigError with
every problem of the file. The same YAML as `gatebook.yaml`: unknown keys, tags and duplicates are errors.
docs/policy.md describes it. A case that expects nothing is an error, never a pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from gatebook.config.explain import explain, nearest
from gatebook.config.model import Configuration
from gatebook.config.source import MAX_BYTES, Source, dotted, read, shown
from gatebook.errors import ConfigError, Problem
from gatebook.record import REASONS
from gatebook.trial.given import Given, GivenIdentity, GivenRequest, Moment


def _reason(value: object) -> object:
    if isinstance(value, str) and value not in REASONS:
        raise ValueError(f"expected a reason as records have it, such as no_rule, found {shown(value)}")
    return value


class Expected(Given):
    """What a case expects; all that is given must be so. As text: `allow` or `deny`."""

    verdict: Literal["allow", "deny"] | None = Field(default=None, description="allow or deny")
    status: int | None = Field(default=None, description="what the client is told; 200 where it is let through")
    reason: Annotated[str, BeforeValidator(_reason)] | None = Field(default=None, description="a reason")
    rule: str | None = Field(default=None, description="the rule that decides")
    route: str | None = Field(default=None, description="the route that the request belongs to")
    shadow: Literal["allow", "deny", "same"] | None = Field(
        default=None, description="the verdict if the rules in shadow mode were enforced; same: no other"
    )

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return {"verdict": value}
        if not value:
            raise ValueError(f"expected one of {', '.join(cls.model_fields)}")
        return value


def _none(value: object) -> object:
    return None if value == "none" else value


class Case(Given):
    name: str = Field(min_length=1, description="what it is about")
    request: GivenRequest = Field(description="`GET /orders/7`, or a mapping")
    identity: Annotated[GivenIdentity | None, BeforeValidator(_none)] = Field(
        default=None, description="who asks; none: nobody"
    )
    at: Moment | None = Field(default=None, description="when; default: the file's `at`")
    expect: Expected = Field(description="`allow`, `deny`, or a mapping")


class CasesFile(Given):
    at: Moment | None = Field(default=None, description="when all cases are; default: now")
    cases: list[Case] = Field(min_length=1, description="requests and what is expected")


class Located(NamedTuple):
    """A case, its line and its time (seconds since 1970)."""

    case: Case
    line: int
    at: float


def read_cases(path: Path, configuration: Configuration, now: float) -> list[Located]:
    """Raises ConfigError."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        why = (error.strerror or "cannot be read").lower()
        raise ConfigError([Problem(str(path), 0, 0, "", why, "a file of cases")]) from None
    source = read(data, str(path))
    if not isinstance(source.data, dict):
        raise ConfigError([source.problem((1, 1), "", "the file is no mapping", "`cases:` and a list of them")])
    try:
        found = CasesFile.model_validate(source.data, strict=True)
    except ValidationError as error:
        raise ConfigError(explain(error, source, CasesFile)) from None
    problems = _problems(found, configuration, source)
    if problems:
        raise ConfigError(problems)
    return [
        Located(
            case,
            source.value_at(("cases", at))[0],
            moment.timestamp() if (moment := case.at or found.at) is not None else now,
        )
        for at, case in enumerate(found.cases)
    ]


def _problems(found: CasesFile, configuration: Configuration, source: Source) -> list[Problem]:
    """Names that must be the configuration's, and cases that could not be told apart."""
    problems: list[Problem] = []
    lines: dict[str, int] = {}
    for at, case in enumerate(found.cases):
        provider = case.identity.provider if case.identity is not None else None
        if provider is not None and provider not in configuration.identity:
            place = ("cases", at, "identity", "provider")
            hint = nearest(provider, configuration.identity)
            said = f"no identity provider is called {shown(provider)}"
            problems.append(source.problem(source.value_at(place), dotted(place), said, hint=hint))
        line, column = source.value_at(("cases", at, "name"))
        if lines.setdefault(case.name, line) != line:
            said = f"a second case {shown(case.name)}"
            wanted = f"a name of its own; the first is in line {lines[case.name]}"
            problems.append(source.problem((line, column), dotted(("cases", at, "name")), said, wanted))
    return problems
