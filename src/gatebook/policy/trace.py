"""A ruling explained: each rule of the route, each of its conditions, what was wanted and what was found.

In: what `Policy.authorise` takes. Out: its ruling, which is asked of it and not made here, and a `Seen` for
every rule, also for those that the ruling never came to. Whether a condition holds is asked of the same compiled
parts that decide. Never part of a live request's way. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec

from gatebook.identity.types import Identity
from gatebook.policy.condition import Condition, Facts, compile_value
from gatebook.policy.reach import Effect
from gatebook.policy.route import Match
from gatebook.policy.rule import Clause, Policy, Ruling, held

_LITERAL = r"""\"(?:\\.|[^"\\])*\"|'(?:\\.|[^'\\])*'"""
_MEMBER = r"""\s*\.\s*(?:[A-Za-z_]\w*+(?!\s*\()|`[^`]*`)|\s*\[\s*(?:"[^"\\]*"|'[^'\\]*'|\d+)\s*\]"""
# A variable and all that is read from it; texts are passed over.
_VARIABLE = re.compile(
    rf"(?:{_LITERAL})|(?<![\w.`])((?:identity|request|route|path|client|tls|now)\b(?!\s*\()(?:{_MEMBER})*)"
)
_MAX_VALUE_LETTERS = 200


class Value(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What an expression reads: its value as text, or why it has none."""

    name: str
    value: str | None = None
    error: str | None = None


class Part(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One condition of a rule. Of `when`, `wanted` is the expression and `values` is what it reads."""

    what: Literal["methods", "paths", "roles", "groups", "scopes", "when"]
    wanted: tuple[str, ...]
    found: tuple[str, ...] | None = None
    holds: bool | None  # None: it cannot be evaluated
    error: str | None = None
    values: tuple[Value, ...] = ()


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One rule. `asked`: the ruling came to it; `decides`: it is the ruling."""

    name: str
    effect: Effect
    mode: Literal["enforce", "shadow"]
    holds: bool | None
    asked: bool
    decides: bool
    parts: tuple[Part, ...]


Shown = tuple[Match, Facts]


def explain(
    policy: Policy, match: Match, identity: Identity | None, facts: Facts, now: float, shown: Shown | None = None
) -> tuple[Ruling, tuple[Seen, ...]]:
    """`shown`: match and facts without what must not be shown; values of variables are read from them."""
    ruling = policy.authorise(match, identity, facts, now)
    asker = policy.asker(match, identity)
    refused = asker is None and match.route.identity != "none"  # no rule is ever asked for nobody
    enforced, tried = policy.rulebooks[match.index]
    decider = ruling.rule
    found: list[Seen] = []
    over = refused
    for effect, clause in _clauses(enforced if tried is None else tried):
        rule = clause.rule
        decides = rule.name == decider  # no two rules of a route have one name
        found.append(
            Seen(
                name=rule.name,
                effect=effect,
                mode=rule.mode,
                holds=clause.holds(match, asker, facts, now),
                asked=not over,
                decides=decides,
                parts=tuple(_parts(clause, match, asker, facts, now, shown or (match, facts))),
            )
        )
        over = over or decides
    return ruling, tuple(found)


def _clauses(chain: Any) -> Iterator[tuple[Effect, Clause]]:
    for clause in chain.deny:
        yield "deny", clause
    for clause in chain.allow:
        yield "allow", clause


def _parts(
    clause: Clause, match: Match, identity: Identity | None, facts: Facts, now: float, shown: Shown
) -> Iterator[Part]:
    rule, reach = clause.rule, clause.reach
    if reach is not None and reach.methods is not None:
        fits = reach.takes_method(facts.method)
        yield Part(what="methods", wanted=tuple(sorted(reach.methods)), found=(facts.method,), holds=fits)
    if reach is not None and reach.shapes is not None:
        fits = reach.takes_path(match.path)
        yield Part(what="paths", wanted=tuple(rule.paths), found=(match.path,), holds=fits)
    for kind, wanted in clause.needs:
        has = held(identity, kind) if identity is not None else ()
        yield Part(what=kind, wanted=tuple(sorted(wanted)), found=has, holds=not wanted.isdisjoint(has))
    if clause.condition is not None and rule.when is not None:
        yield _condition(clause.condition, rule.when, match, identity, facts, now, shown)


def _condition(
    condition: Condition,
    text: str,
    match: Match,
    identity: Identity | None,
    facts: Facts,
    now: float,
    shown: Shown,
) -> Part:
    holds = condition.holds(match, identity, facts, now)
    error = None
    if holds is None:
        error = condition.read(match, identity, facts, now).error or "is not of type bool"
    values = []
    for name in variables(text):
        try:
            read = compile_value(name).read(shown[0], identity, shown[1], now)
        except ValueError:
            continue  # a name of a macro's own, such as the `path` in `paths.all(path, …)`
        said = None if read.error is not None else _text(read.value)
        values.append(Value(name=name, value=said, error=read.error))
    return Part(what="when", wanted=(text,), holds=holds, error=error, values=tuple(values))


def variables(text: str) -> list[str]:
    """What an expression reads, each once and in order: `identity.claims.tenant`, `request.headers["x-a"]`."""
    return list(dict.fromkeys(found[1] for found in _VARIABLE.finditer(text) if found[1]))


def _text(value: Any) -> str:
    """As JSON, cut where it is long."""
    made = (
        str(value)
        if isinstance(value, (datetime, timedelta))
        else json.dumps(value, ensure_ascii=False, default=str)
    )
    return made if len(made) <= _MAX_VALUE_LETTERS else made[:_MAX_VALUE_LETTERS] + "…"
