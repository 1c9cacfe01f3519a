"""Rules that can never decide anything, as `gatebook check` warns of them.

In: a configuration. Out: findings. One rule covers another when it holds whenever the other does: it asks for
less, of the same things. What a condition means is not understood here, only whether it is the same text or
always true or false; so every finding is right, and some useless rules stay unnoticed. Pure.
"""

from __future__ import annotations

from gatebook.config.model import Configuration, Route, Rule
from gatebook.policy.reach import WHOLE, Effect, Reach
from gatebook.policy.roles import Hierarchy
from gatebook.policy.route import Finding
from gatebook.policy.rule import Clause, compile_rule


def warnings(configuration: Configuration) -> list[Finding]:
    hierarchy = Hierarchy(configuration.roles)
    found: list[Finding] = []
    for index, route in enumerate(configuration.routes):
        before: list[tuple[Effect, Clause]] = []
        for effect, at, rule in _rules(route):
            place = ("routes", index, effect, at)
            clause = _compiled(rule, route, effect)
            if clause is None:
                continue  # a problem; it is reported as one
            if clause.condition is not None and clause.condition.constant is False:
                found.append(
                    ((*place, "when"), "is always false, so the rule never holds", "a rule that can hold")
                )
            else:
                other = _covering(before, clause, route, hierarchy)
                if other is not None:
                    found.append((place, _said(*other, clause, effect), "another order, or another rule"))
                elif effect == "deny" and rule.mode == "enforce" and _is_always(clause, route):
                    said = f"holds for every request of route {route.name}, so no other rule is ever asked"
                    found.append((place, said, "a rule for some requests, unless the route is to be closed"))
                    break
            before.append((effect, clause))
    return found


def _rules(route: Route) -> list[tuple[Effect, int, Rule]]:
    deny: list[tuple[Effect, int, Rule]] = [("deny", at, rule) for at, rule in enumerate(route.deny)]
    return [*deny, *(("allow", at, rule) for at, rule in enumerate(route.allow))]


def _compiled(rule: Rule, route: Route, effect: Effect) -> Clause | None:
    try:
        return compile_rule(rule, route, effect)
    except ValueError:
        return None


def _covering(
    before: list[tuple[Effect, Clause]], clause: Clause, route: Route, hierarchy: Hierarchy
) -> tuple[Effect, Clause] | None:
    """The first rule before this one that leaves nothing to it."""
    for kind, other in before:
        outranks = other.rule.mode == "enforce" or clause.rule.mode == "shadow"
        if outranks and covers(other, clause, route, hierarchy):
            return kind, other
    return None


def covers(one: Clause, other: Clause, route: Route, hierarchy: Hierarchy) -> bool:
    """Whether `one` holds whenever `other` does. False where that cannot be told."""
    if not _reaches(one, other.reach or WHOLE, route):
        return False
    theirs = dict(other.needs)
    for kind, wanted in one.needs:
        asked = theirs.get(kind)
        if asked is None:
            return False
        for name in asked:
            if wanted.isdisjoint(hierarchy.held((name,)) if kind == "roles" else (name,)):
                return False
    return _is_unconditional(one) or one.rule.when == other.rule.when


def _is_always(clause: Clause, route: Route) -> bool:
    return not clause.needs and _is_unconditional(clause) and _reaches(clause, WHOLE, route)


def _is_unconditional(clause: Clause) -> bool:
    return clause.condition is None or clause.condition.constant is True


def _reaches(clause: Clause, whole: Reach, route: Route) -> bool:
    try:
        return clause.reach is None or clause.reach.covers(whole, route)
    except ValueError:
        return False  # the route's own template is none


def _said(kind: Effect, other: Clause, clause: Clause, effect: Effect) -> str:
    before = f"the deny rule {other.rule.name}" if kind != effect else f"{other.rule.name} before it"
    return f"rule {clause.rule.name} never decides: {before} holds whenever it does"
