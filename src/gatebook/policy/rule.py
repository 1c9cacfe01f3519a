"""Authorisation: a route's deny rules, then its allow rules; the first that holds decides, otherwise no.

In: a matched route, who asks (or nobody), the request's facts and the time. Out: a `Ruling` that names the
rule or the reason, and what the rules in shadow mode would have changed. A condition that cannot be evaluated
never allows, and denies where it stands in a deny rule. Pure: the same arguments always give the same
ruling, for the live request, for `explain` and for a replay. `policy.review` says what is wrong with rules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal, NamedTuple

import msgspec

from gatebook.config.model import Configuration, Route, Rule
from gatebook.errors import ConfigError, Problem
from gatebook.identity.types import Identity
from gatebook.policy import review
from gatebook.policy.condition import Condition, Facts, compile_condition
from gatebook.policy.reach import Effect, Reach, reach
from gatebook.policy.roles import Hierarchy
from gatebook.policy.route import Match, dotted

Kind = Literal["roles", "groups", "scopes"]
KINDS: tuple[Kind, ...] = ("roles", "groups", "scopes")


class Ruling(msgspec.Struct, frozen=True, gc=False):
    """`reason` is a key of record.REASONS; `rule` is the rule that decided, if one did.

    `shadow`: the ruling had the rules in shadow mode been enforced, where that allows otherwise.
    """

    allowed: bool
    rule: str | None
    reason: Literal["rule", "public", "deny_rule", "no_rule", "condition_error"]
    shadow: Ruling | None = None


_PUBLIC = Ruling(True, None, "public")
_NO_RULE = Ruling(False, None, "no_rule")
_CONDITION_ERROR = Ruling(False, None, "condition_error")


class Clause(NamedTuple):
    """A rule, compiled: each collection that is there needs one match, the condition must hold."""

    rule: Rule
    says: Ruling  # when it holds
    fails: Ruling  # when its condition cannot be evaluated; of an allow rule: unless a later one holds
    reach: Reach | None
    needs: tuple[tuple[Kind, frozenset[str]], ...]
    condition: Condition | None

    def holds(self, match: Match, identity: Identity | None, facts: Facts, now: float) -> bool | None:
        """None when everything else holds, but the condition cannot be evaluated."""
        reach = self.reach
        if reach is not None and not (reach.takes_method(facts.method) and reach.takes_path(match.path)):
            return False
        for what, wanted in self.needs:
            if identity is None or wanted.isdisjoint(held(identity, what)):
                return False
        return True if self.condition is None else self.condition.holds(match, identity, facts, now)


def held(identity: Identity, what: Kind) -> tuple[str, ...]:
    return identity.roles if what == "roles" else identity.groups if what == "groups" else identity.scopes


def compile_rule(rule: Rule, route: Route, effect: Effect) -> Clause:
    """Raises ValueError where `review.problems` finds something."""
    lists = {"roles": rule.roles, "groups": rule.groups, "scopes": rule.scopes}
    denies = effect == "deny"
    return Clause(
        rule=rule,
        says=Ruling(not denies, rule.name, "deny_rule" if denies else "rule"),
        fails=Ruling(False, rule.name, "condition_error") if denies else _CONDITION_ERROR,
        reach=reach(rule, route, effect) if rule.methods or rule.paths else None,
        needs=tuple((kind, frozenset(lists[kind])) for kind in KINDS if lists[kind]),
        condition=compile_condition(rule.when) if rule.when is not None else None,
    )


class Chain(NamedTuple):
    """All rules of a route that count, in order, and the answer when none of them holds."""

    deny: tuple[Clause, ...]
    allow: tuple[Clause, ...]
    otherwise: Ruling

    def decide(self, match: Match, identity: Identity | None, facts: Facts, now: float) -> Ruling:
        for clause in self.deny:
            holds = clause.holds(match, identity, facts, now)
            if holds is not False:
                return clause.says if holds else clause.fails
        failed = False
        for clause in self.allow:
            holds = clause.holds(match, identity, facts, now)
            if holds:
                return clause.says
            failed = failed or holds is None
        return _CONDITION_ERROR if failed else self.otherwise

    def possible(self, outcomes: Callable[[Clause], Collection[bool | None]]) -> frozenset[Ruling]:
        """Every ruling that `decide` may come to, when each clause may come to any of its outcomes."""
        found: set[Ruling] = set()
        for clause in self.deny:
            holds = outcomes(clause)
            if True in holds:
                found.add(clause.says)
            if None in holds:
                found.add(clause.fails)
            if False not in holds:
                return frozenset(found)
        clean, failed = True, False  # whether no condition, or one, may have failed so far
        for clause in self.allow:
            holds = outcomes(clause)
            if True in holds:
                found.add(clause.says)
            failed = (failed and False in holds) or (None in holds)
            clean = clean and False in holds
            if not (clean or failed):
                return frozenset(found)
        return frozenset(
            found | ({_CONDITION_ERROR} if failed else set()) | ({self.otherwise} if clean else set())
        )


def _chain(route: Route, deny: tuple[Clause, ...], allow: tuple[Clause, ...]) -> Chain:
    return Chain(deny, allow, _PUBLIC if route.identity == "none" and not allow else _NO_RULE)


class Rulebook(NamedTuple):
    """A route's rules: those that are enforced, and, where some are in shadow mode, all of them."""

    enforced: Chain
    tried: Chain | None


def _rulebook(route: Route) -> Rulebook:
    deny = tuple(compile_rule(rule, route, "deny") for rule in route.deny)
    allow = tuple(compile_rule(rule, route, "allow") for rule in route.allow)
    strict_deny = tuple(clause for clause in deny if clause.rule.mode == "enforce")
    strict_allow = tuple(clause for clause in allow if clause.rule.mode == "enforce")
    enforced = _chain(route, strict_deny, strict_allow)
    some_shadow = len(strict_deny) + len(strict_allow) < len(deny) + len(allow)
    return Rulebook(enforced, _chain(route, deny, allow) if some_shadow else None)


class Policy:
    """All rules of a configuration, compiled once. Raises ConfigError where `review` finds problems."""

    def __init__(self, configuration: Configuration) -> None:
        found = review.problems(configuration)
        if found:
            raise ConfigError([Problem("", 0, 0, dotted(place), said, wanted) for place, said, wanted in found])
        self.hierarchy = Hierarchy(configuration.roles)
        self.rulebooks = [_rulebook(route) for route in configuration.routes]

    def authorise(self, match: Match, identity: Identity | None, facts: Facts, now: float) -> Ruling:
        """`now` is in seconds since 1970. An identity of another provider than the route's is none."""
        asker = self.asker(match, identity)
        if asker is None and match.route.identity != "none":
            return _NO_RULE
        enforced, tried = self.rulebooks[match.index]
        ruling = enforced.decide(match, asker, facts, now)
        if tried is not None:
            other = tried.decide(match, asker, facts, now)
            if other.allowed is not ruling.allowed:
                return msgspec.structs.replace(ruling, shadow=other)
        return ruling

    def needed(self, match: Match, identity: Identity, facts: Facts, now: float) -> tuple[str, ...]:
        """The grants without which an allowed request is denied: none, one that suffices, or all of them."""
        own = identity.own_roles
        for grants in ((), *((grant,) for grant in identity.grants)):
            with_these = msgspec.structs.replace(identity, roles=(*own, *(role for _, role in grants)))
            if self.authorise(match, with_these, facts, now).allowed:
                return tuple(name for name, _ in grants)
        return tuple(name for name, _ in identity.grants)

    def asker(self, match: Match, identity: Identity | None) -> Identity | None:
        """Who counts as asking on this route, with all roles that they hold."""
        accepted = match.route.identity
        if identity is None or accepted == "none" or identity.provider not in accepted:
            return None  # on a route without identity, nobody has checked one
        return self.hierarchy.widen(identity) if self.hierarchy else identity
