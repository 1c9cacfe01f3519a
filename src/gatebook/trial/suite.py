"""Cases judged: which are not as expected, and which rules and routes no case has reached.

In: a Judge and cases. Out: `Result` for each case, `Reached` for each rule. A rule is reached by a case in which
it decides, or would, were the rules in shadow mode enforced. Pure.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from gatebook.config.source import Location
from gatebook.policy import Match
from gatebook.trial.cases import Expected, Located
from gatebook.trial.judge import Judge, Judged


class Result(NamedTuple):
    """`wrong`: what was expected and is not so, in words; empty where the case passes."""

    file: str
    line: int
    name: str
    found: Judged
    wrong: list[str]

    @property
    def route(self) -> str | None:
        match = self.found.match
        return match.route.name if isinstance(match, Match) else None


class Reached(NamedTuple):
    """A rule and its place in the configuration, or, with `rule` None, a route as a whole."""

    route: str
    rule: str | None
    location: Location
    reached: bool


def run(judge: Judge, cases: list[Located], file: Path) -> list[Result]:
    return [_run(judge, each, str(file)) for each in cases]


def _run(judge: Judge, located: Located, file: str) -> Result:
    case = located.case
    request = case.request.request(located.at)
    route = judge.route(request)
    who = None
    if case.identity is not None and route is not None:
        who = case.identity.identity(judge.configuration, route)
    found = judge.judge(request, who)
    return Result(file, located.line, case.name, found, _wrong(case.expect, found))


def _wrong(expected: Expected, found: Judged) -> list[str]:
    route = found.match.route.name if isinstance(found.match, Match) else None
    shadow = "same" if found.shadow is None else "allow" if found.shadow.allowed else "deny"
    pairs: list[tuple[str, object, object]] = [
        ("verdict", expected.verdict, found.verdict),
        ("status", expected.status, found.status),
        ("reason", expected.reason, found.reason),
        ("rule", expected.rule, found.rule),
        ("route", expected.route, route),
        ("shadow", expected.shadow, shadow),
    ]
    return [
        f"{name}: expected {wanted}, got {got if got is not None else 'none'}"
        for name, wanted, got in pairs
        if wanted is not None and wanted != got
    ]


def coverage(judge: Judge, results: list[Result]) -> list[Reached]:
    """Every rule in the configuration's order; a route without rules stands for itself."""
    routes = {result.route for result in results}
    decided = {(result.route, rule) for result in results for rule in _deciders(result.found)}
    found: list[Reached] = []
    for index, route in enumerate(judge.configuration.routes):
        for effect, rules in (("deny", route.deny), ("allow", route.allow)):
            for at, rule in enumerate(rules):
                place = ("routes", index, effect, at)
                found.append(Reached(route.name, rule.name, place, (route.name, rule.name) in decided))
        if not route.deny and not route.allow:
            found.append(Reached(route.name, None, ("routes", index), route.name in routes))
    return found


def _deciders(found: Judged) -> list[str]:
    rules = (found.rule, found.shadow.rule if found.shadow is not None else None)
    return [rule for rule in rules if rule is not None]
