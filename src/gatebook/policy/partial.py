"""Authorisation where not everything is known: every ruling that there may have been.

In: what `Policy.authorise` takes, as far as it is known, and the names of the variables that are not. Out: the
rulings that are possible, and what would have to be known for fewer. One ruling means that it is certain: the
guard's own clauses and conditions were asked, and no value of anything unknown changes their answer. Never takes
what is unknown for missing. Pure; the walk through a chain is `Chain.possible`, beside the guard's own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec

from gatebook.identity.types import Identity
from gatebook.policy.condition import Condition, Facts
from gatebook.policy.route import Match
from gatebook.policy.rule import Chain, Clause, Policy, Ruling, held

MAPS = ("request.headers", "request.query")  # of which single keys may be known
Outcomes = frozenset[bool | None]

_ANY: Outcomes = frozenset({True, False, None})
_UNUSUAL = re.compile(r"""\\|`|//|\"\"\"|'''""")  # spellings that the patterns below do not read
_TEXT = re.compile(r"""(\w?)(?:\"([^"]*)\"|'([^']*)')""")
_LOOP = re.compile(r"\b(?:all|exists|exists_one|map|filter)\s*\(")
_MEMBER = re.compile(r"\s*(?:\.\s*([A-Za-z_]\w*+)(?!\s*\()|\[\s*\"(\d+)\"\s*\])")
_KEY_BEFORE = re.compile(r"(?:^|[(\[,?:]|&&|\|\|)\s*\"(\d+)\"\s+in\s+$")


class Partial(NamedTuple):
    """What is known of a request. `facts.headers` and `match.query` hold what is known of the two.

    `unknown`: variables that may have any value or none; a list of those holds at least what `identity` has.
    `absent`: of a map of MAPS, the keys that are known to be missing.
    """

    match: Match
    identity: Identity | None
    facts: Facts
    now: float
    unknown: frozenset[str]
    query: Mapping[str, str]
    absent: Mapping[str, frozenset[str]]


class Possible(NamedTuple):
    """`tried`: had the rules in shadow mode been enforced; None where there are none. `why`: what is unknown."""

    rulings: frozenset[Ruling]
    tried: frozenset[Ruling] | None
    why: frozenset[str]


def possible(policy: Policy, known: Partial) -> Possible:
    """Whoever asks must be accepted by the route, or it has no identity."""
    known = known._replace(identity=policy.asker(known.match, known.identity))
    enforced, tried = policy.rulebooks[known.match.index]
    why: set[str] = set()
    rulings = _walk(enforced, known, why)
    return Possible(rulings, None if tried is None else _walk(tried, known, set()), frozenset(why))


def _walk(chain: Chain, known: Partial, why: set[str]) -> frozenset[Ruling]:
    def outcomes(clause: Clause) -> Outcomes:
        found, missing = _outcomes(clause, known)
        why.update(missing)
        return found

    return chain.possible(outcomes)


def _outcomes(clause: Clause, known: Partial) -> tuple[Outcomes, Collection[str]]:
    """What the clause may come to; and what is unknown, where that is more than one thing."""
    open_needs = [
        kind
        for kind, wanted in clause.needs
        if f"identity.{kind}" in known.unknown
        and known.identity is not None
        and wanted.isdisjoint(held(known.identity, kind))
    ]
    certain = clause._replace(needs=tuple(n for n in clause.needs if n[0] not in open_needs), condition=None)
    match, identity, facts, now = known.match, known.identity, known.facts, known.now
    if not certain.holds(match, identity, facts, now):
        return frozenset({False}), ()
    found: Outcomes = frozenset({True})
    why = [f"identity.{kind}" for kind in open_needs]
    if clause.condition is not None and clause.rule.when is not None:
        found, missing = _condition(clause.condition, clause.rule.when, known)
        why += missing
    if open_needs:
        found |= {False}
    return found, why if len(found) > 1 else ()


def _condition(condition: Condition, text: str, known: Partial) -> tuple[Outcomes, list[str]]:
    unbound: dict[str, list[str]] = {}
    for name in condition.names:
        missing = [name] if name in known.unknown else _unknown_keys(name, text, known)
        if missing:
            unbound[name] = missing
    if not unbound:
        return frozenset({condition.holds(known.match, known.identity, known.facts, known.now)}), []
    why = [each for missing in unbound.values() for each in missing]
    if _LOOP.search(text):
        return _ANY, why  # the work of a loop counts, and depends on what it goes through
    # CEL's && and || let what is certain outweigh what fails; so what holds with these unbound holds always.
    rest = condition._replace(names=tuple(name for name in condition.names if name not in unbound))
    holds = rest.holds(known.match, known.identity, known.facts, known.now)
    return (_ANY, why) if holds is None else (frozenset({holds}), [])


def _unknown_keys(name: str, text: str, known: Partial) -> list[str]:
    if name not in MAPS:
        return []
    keys = touched(text, name)
    if keys is None:
        return [name]
    there = known.facts.headers if name == "request.headers" else known.query
    return [f'{name}["{key}"]' for key in sorted(keys) if key not in there and key not in known.absent[name]]


@lru_cache(maxsize=4096)
def touched(text: str, name: str) -> frozenset[str] | None:
    """The keys of a map that an expression can possibly read; None: any of them.

    Only `map.key`, `map["key"]` and `"key" in map` are understood. Whatever else names the map reads all of it.
    """
    if _UNUSUAL.search(text):
        return None
    literals: list[str] = []
    prefixed = False

    def numbered(found: re.Match[str]) -> str:
        nonlocal prefixed
        prefixed = prefixed or found[1] != ""  # r"…" and b"…" mean something else
        literals.append(found[2] if found[2] is not None else found[3])
        return f'"{len(literals) - 1}"'

    plain = _TEXT.sub(numbered, text)
    if prefixed:
        return None
    scope, _, field = name.partition(".")
    keys: set[str] = set()
    for word in re.finditer(rf"\b{field}\b", plain):
        whole = re.search(rf"(?<![\w.])\.?{scope}\s*\.\s*$", plain[: word.start()])
        if whole is None:
            if re.search(r"[\w.]\s*\.\s*$", plain[: word.start()]):
                return None
            continue  # a name of a macro's own cannot be followed by what it stands for
        member = _MEMBER.match(plain, word.end())
        before = _KEY_BEFORE.search(plain[: whole.start()])
        if member is not None:
            keys.add(member[1] if member[1] is not None else literals[int(member[2])])
        elif before is not None and not plain[word.end() :].lstrip().startswith((".", "[")):
            keys.add(literals[int(before[1])])
        else:
            return None
    return frozenset(keys)


def with_query(match: Match, query: Mapping[str, str]) -> Match:
    """The match as if its query were this."""
    return msgspec.structs.replace(match, query=urlencode(query))
