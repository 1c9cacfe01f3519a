"""Rules that can never decide: they are found, and no other rule is called so."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.policy.conftest import configuration_of, facts_of
from tests.policy.strategies import ROLES, callers, headers, methods, paths, routes

from gatebook.identity.types import Identity
from gatebook.policy import Match, Policy, Routes
from gatebook.policy.unreachable import warnings

NEVER = "rule {} never decides: {} before it holds whenever it does"
NEVER_FOR_DENY = "rule {} never decides: the deny rule {} holds whenever it does"


def told(allow: list[dict[str, Any]], deny: list[dict[str, Any]] | None = None, **more: Any) -> list[str]:
    route = {"path": "/o/{id}", "methods": ["GET", "PUT"], "identity": ["partners"], "deny": deny or []}
    return [said for _, said, _ in warnings(configuration_of({**route, "allow": allow, **more}, roles=ROLES))]


def rule(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, **more}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"roles": ["reader", "writer"]}, {"roles": ["reader"]}),
        ({"roles": ["reader"]}, {"roles": ["admin", "writer"]}),  # who include it
        ({"roles": ["reader"]}, {"roles": ["reader"], "groups": ["g"], "when": "request.id == ''"}),
        ({"groups": ["g", "h"]}, {"groups": ["h"]}),
        ({"scopes": ["s"]}, {"scopes": ["s"], "methods": ["GET"]}),
        ({"methods": ["GET", "PUT"]}, {"roles": ["reader"]}),
        ({"methods": ["GET"]}, {"methods": ["HEAD"], "roles": ["reader"]}),
        ({"paths": ["/o/{x}"]}, {"groups": ["g"]}),
        ({"paths": ["/o/{x}", "/o/b"]}, {"paths": ["/o/a", "/o/b"], "groups": ["g"]}),
        ({"when": "true"}, {"groups": ["g"]}),
        ({"when": "request.id == 'x'"}, {"when": "request.id == 'x'", "groups": ["g"]}),
    ],
)
def test_rule_after_one_that_asks_for_less_is_found(first: dict[str, Any], second: dict[str, Any]) -> None:
    between = rule("between", groups=["x"], when="request.host == ''")
    rules = [rule("first", **first), between, rule("second", **second)]
    assert NEVER.format("second", "first") in told(rules)


def test_deny_after_one_that_asks_for_less_is_found() -> None:
    deny = [rule("first", roles=["reader"]), rule("second", roles=["reader"], groups=["g"])]
    assert told([rule("x", groups=["g"])], deny) == [NEVER.format("second", "first")]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"roles": ["writer"]}, {"roles": ["reader"]}),
        ({"roles": ["reader"]}, {"roles": ["reader", "guest"]}),
        ({"roles": ["reader"]}, {"groups": ["reader"]}),
        ({"roles": ["reader"], "groups": ["g"]}, {"roles": ["reader"]}),
        ({"groups": ["writer"]}, {"groups": ["admin"]}),  # groups include nothing
        ({"methods": ["GET"]}, {"roles": ["reader"]}),
        ({"methods": ["HEAD"]}, {"methods": ["GET"]}),
        ({"paths": ["/o/a"]}, {"roles": ["reader"]}),
        ({"when": "request.id == 'x'"}, {"roles": ["reader"]}),
        ({"roles": ["reader"], "when": "identity.claims.x"}, {"roles": ["reader"]}),
    ],
)
def test_rule_that_may_still_decide_is_not_found(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert told([rule("first", **first), rule("second", **second)]) == []


def test_allow_of_what_a_deny_takes_away_is_found() -> None:
    deny = [rule("externals", groups=["external"])]
    assert told([rule("x", groups=["external"], roles=["reader"])], deny) == [
        NEVER_FOR_DENY.format("x", "externals")
    ]
    deny = [rule("secret", paths=["/o/SECRET/"])]
    assert told([rule("x", paths=["/o/secret"])], deny) == [NEVER_FOR_DENY.format("x", "secret")]
    assert told([rule("x", paths=["/o/{y}"])], deny) == []


@pytest.mark.parametrize(
    "everything", [{"when": "true"}, {"methods": ["GET", "PUT"]}, {"paths": ["/{a}/{b...}"], "when": "1 < 2"}]
)
def test_deny_that_leaves_nothing_is_told_once_and_of_itself(everything: dict[str, Any]) -> None:
    deny = [rule("closed", **everything), rule("other", roles=["reader"])]
    found = told([rule("x", roles=["reader"])], deny)
    assert found == ["holds for every request of route r0, so no other rule is ever asked"]
    assert told([], [rule("closed", **everything)], identity="none") == found


def test_condition_that_is_always_false_is_found() -> None:
    assert told([rule("x", when="request.method == 'GET' && false")]) == [
        "is always false, so the rule never holds"
    ]


def test_shadow_leaves_everything_to_the_rules_that_are_enforced() -> None:
    first, second = rule("first", roles=["reader"], mode="shadow"), rule("second", roles=["reader"])
    assert told([first, second]) == []
    assert told([second, first]) == [NEVER.format("first", "second")]
    assert told([first, {**second, "mode": "shadow"}]) == [NEVER.format("second", "first")]
    assert told([second], [rule("closed", when="true", mode="shadow")]) == []


def test_broken_rules_and_routes_are_others_business() -> None:
    rules = [rule("x", when="nope"), rule("y", paths=["/{"])]
    assert told(rules) == []
    assert told([rule("x", paths=["/o/a"]), rule("y", roles=["reader"])], path="/o/{") == []


def test_finding_stands_at_the_rule_that_never_decides() -> None:
    rules = [rule("x", roles=["reader"]), rule("y", roles=["reader"]), rule("z", when="false")]
    found = warnings(configuration_of("/a", {"path": "/b", "identity": ["partners"], "allow": rules}))
    assert [place for place, _, _ in found] == [("routes", 1, "allow", 1), ("routes", 1, "allow", 2, "when")]


@given(routes(), callers(), methods, paths, headers)
def test_rule_that_is_called_unreachable_never_decides(
    route: dict[str, Any], caller: Identity | None, method: str, path: str, fields: dict[str, str]
) -> None:
    configuration = configuration_of(route, roles=ROLES)
    match = Routes(configuration).match(method, path)
    if not isinstance(match, Match):
        return
    ruling = Policy(configuration).authorise(match, caller, facts_of(method=method, headers=fields), 1e9)
    vain: set[str] = set()
    closed = False
    for place, said, _ in warnings(configuration):
        kind, at = place[2], place[3]
        assert isinstance(at, int)
        if "no other rule" in said:
            closed = True
        else:
            vain.add(getattr(configuration.routes[0], str(kind))[at].name)
    decided = {ruling.rule, ruling.shadow.rule if ruling.shadow else None}
    assert not vain & decided
    if closed:
        assert not ruling.allowed


@given(st.data())
def test_order_of_warnings_is_the_files(data: st.DataObject) -> None:
    configuration = configuration_of(data.draw(routes()), roles=ROLES)
    found = [(place[2] == "allow", place[3]) for place, _, _ in warnings(configuration)]
    assert found == sorted(found)
