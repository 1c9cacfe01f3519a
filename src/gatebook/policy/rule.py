"""Authorisation: a route's rules in order, the first that holds allows; otherwise the answer is no.

In: a matched route, who asks (or nobody), the request's facts and the time. Out: a `Ruling` that names the
rule or the reason. A condition that cannot be evaluated never allows. Pure: the same arguments always
give the same ruling, for the live request, for `explain` and for a replay.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from gatebook.config.model import Configuration, Route, Rule
from gatebook.errors import ConfigError, Problem
from gatebook.identity.types import Identity
from gatebook.policy.condition import Condition, Facts, compile_condition, unknown_parameters
from gatebook.policy.route import Finding, Match, dotted, parse_template

_BOOL = "a CEL expression of type bool"


class Ruling(msgspec.Struct, frozen=True, gc=False):
    """`reason` is a key of record.REASONS; `rule` is the name of the rule that allowed."""

    allowed: bool
    rule: str | None
    reason: Literal["rule", "public", "no_rule", "condition_error"]


_PUBLIC = Ruling(True, None, "public")
_NO_RULE = Ruling(False, None, "no_rule")
_CONDITION_ERROR = Ruling(False, None, "condition_error")


class _Clause(NamedTuple):
    """A rule, compiled: each collection that is there needs one match, the condition must hold."""

    allows: Ruling
    needs: tuple[tuple[Literal["roles", "groups", "scopes"], frozenset[str]], ...]
    condition: Condition | None


def _clause(rule: Rule) -> _Clause:
    needs: list[tuple[Literal["roles", "groups", "scopes"], frozenset[str]]] = []
    if rule.roles:
        needs.append(("roles", frozenset(rule.roles)))
    if rule.groups:
        needs.append(("groups", frozenset(rule.groups)))
    if rule.scopes:
        needs.append(("scopes", frozenset(rule.scopes)))
    condition = compile_condition(rule.when) if rule.when is not None else None
    return _Clause(Ruling(True, rule.name, "rule"), tuple(needs), condition)


def _has_one(identity: Identity, what: Literal["roles", "groups", "scopes"], wanted: frozenset[str]) -> bool:
    held = identity.roles if what == "roles" else identity.groups if what == "groups" else identity.scopes
    return not wanted.isdisjoint(held)


class Policy:
    """All rules of a configuration, compiled once. Raises ConfigError where `problems` finds any."""

    def __init__(self, configuration: Configuration) -> None:
        found = problems(configuration)
        if found:
            raise ConfigError([Problem("", 0, 0, dotted(place), said, wanted) for place, said, wanted in found])
        self._clauses = [tuple(_clause(rule) for rule in route.allow) for route in configuration.routes]

    def authorise(self, match: Match, identity: Identity | None, facts: Facts, now: float) -> Ruling:
        """`now` is in seconds since 1970. An identity of another provider than the route's is none."""
        route = match.route
        anonymous = route.identity == "none"
        if not anonymous and (identity is None or identity.provider not in route.identity):
            return _NO_RULE
        clauses = self._clauses[match.index]
        if anonymous:
            if not clauses:
                return _PUBLIC
            identity = None  # nobody has checked one for this route
        failed = False
        for allows, needs, condition in clauses:
            for what, wanted in needs:
                if identity is None or not _has_one(identity, what, wanted):
                    break
            else:
                if condition is None:
                    return allows
                holds = condition.holds(match, identity, facts, now)
                if holds is True:
                    return allows
                failed = failed or holds is None
        return _CONDITION_ERROR if failed else _NO_RULE


def problems(configuration: Configuration) -> list[Finding]:
    """What makes the rules meaningless: conditions that do not compile, names that stand twice."""
    found: list[Finding] = []
    for index, route in enumerate(configuration.routes):
        names: set[str] = set()
        for at, rule in enumerate(route.allow):
            place = ("routes", index, "allow", at)
            if rule.name in names:
                found.append(((*place, "name"), f"{rule.name} is taken by another rule", "a name of its own"))
            names.add(rule.name)
            if rule.when is not None:
                try:
                    compile_condition(rule.when)
                except ValueError as error:
                    found.append(((*place, "when"), str(error), _BOOL))
                else:
                    found += _parameter_problems(route, rule.when, (*place, "when"))
    return found


def _parameter_problems(route: Route, text: str, place: tuple[str | int, ...]) -> list[Finding]:
    try:
        params = frozenset(part.text for part in parse_template(route.path) if part.kind != "literal")
    except ValueError:
        return []  # reported with the template
    wanted = " or ".join(sorted(params)) or "no parameter, for the path has none"
    return [(place, f"the path has no parameter {name!r}", wanted) for name in unknown_parameters(text, params)]


def warnings(configuration: Configuration) -> list[Finding]:
    """Routes that nobody can ever use: an identity is asked for, and no rule is there to allow one."""
    return [
        (
            ("routes", index, "allow"),
            f"route {route.name} has no rule, so every request to it is denied",
            "at least one rule, or identity: none",
        )
        for index, route in enumerate(configuration.routes)
        if route.identity != "none" and not route.allow
    ]
