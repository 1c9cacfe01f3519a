"""What is wrong with a configuration's rules, and what is legal but hardly meant.

In: a configuration. Out: findings, each with its location in it. `problems` make rules meaningless and stop
everything: conditions that do not compile, names that stand twice. `warnings` stop nothing; those about rules
that never decide are `unreachable`'s. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from gatebook.config.model import Configuration, Route, Rule
from gatebook.policy import reach
from gatebook.policy.condition import compile_condition, names_identity, unknown_parameters, unknown_roles
from gatebook.policy.reach import Effect
from gatebook.policy.route import Finding, parse_template

_BOOL = "a CEL expression of type bool"
Place = tuple[str | int, ...]


def rules(configuration: Configuration) -> Iterator[tuple[Place, Route, Effect, Rule]]:
    """Every rule with its place, in the order in which they are asked."""
    for index, route in enumerate(configuration.routes):
        for at, rule in enumerate(route.deny):
            yield ("routes", index, "deny", at), route, "deny", rule
        for at, rule in enumerate(route.allow):
            yield ("routes", index, "allow", at), route, "allow", rule


def problems(configuration: Configuration) -> list[Finding]:
    """What makes the rules meaningless."""
    found: list[Finding] = []
    names: set[tuple[object, str]] = set()
    for place, route, effect, rule in rules(configuration):
        name = (place[1], rule.name)
        if name in names:
            found.append(((*place, "name"), f"{rule.name} is taken by another rule", "a name of its own"))
        names.add(name)
        found += reach.problems(rule, route, effect, place)
        if rule.when is not None:
            try:
                compile_condition(rule.when)
            except ValueError as error:
                found.append(((*place, "when"), str(error), _BOOL))
            else:
                found += _parameter_problems(route, rule.when, (*place, "when"))
                found += _role_problems(configuration, rule.when, (*place, "when"))
    return found


def _role_problems(configuration: Configuration, text: str, place: Place) -> list[Finding]:
    """Roles of `roles:` lists are config.crosscheck's; these stand inside of expressions."""
    declared = configuration.roles
    if not declared:
        return []
    wanted = "one of " + ", ".join(sorted(declared)[:20])
    return [(place, f"no role is called {name!r}", wanted) for name in unknown_roles(text, declared)]


def _parameter_problems(route: Route, text: str, place: Place) -> list[Finding]:
    try:
        params = frozenset(part.text for part in parse_template(route.path) if part.kind != "literal")
    except ValueError:
        return []  # reported with the template
    wanted = " or ".join(sorted(params)) or "no parameter, for the path has none"
    return [(place, f"the path has no parameter {name!r}", wanted) for name in unknown_parameters(text, params)]


def warnings(configuration: Configuration) -> list[Finding]:
    """Routes that nobody can ever use, those that anybody can although they have rules, and vain conditions."""
    found: list[Finding] = [
        ((*place, "when"), "asks for an identity, which this route never has", "conditions on the request alone")
        for place, route, _, rule in rules(configuration)
        if route.identity == "none" and rule.when is not None and names_identity(rule.when)
    ]
    for index, route in enumerate(configuration.routes):
        if any(rule.mode == "enforce" for rule in route.allow):
            continue
        none = "no rule that is enforced" if route.allow else "no rule"
        if route.identity != "none":
            said = f"route {route.name} has {none}, so every request to it is denied"
            found.append((("routes", index, "allow"), said, "at least one rule, or identity: none"))
        elif route.allow:
            said = f"route {route.name} has {none} and no identity, so it is public"
            found.append((("routes", index, "allow"), said, "a rule in mode enforce, unless it is meant to be"))
    return found
