"""Rules: default deny, in order, and nothing that fails allows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.policy.conftest import Configure, configuration_of, facts_of, identity_of

from gatebook.errors import ConfigError
from gatebook.identity.types import Identity
from gatebook.policy import Facts, Match, Policy, Routes, Ruling, problems, warnings
from gatebook.record import REASONS


def ruling(
    allow: list[dict[str, Any]],
    caller: Identity | None,
    facts: Facts | None = None,
    identity: str = "partners",
) -> Ruling:
    configuration = configuration_of(
        {"path": "/o/{id}", "identity": ["partners"] if identity == "partners" else identity, "allow": allow}
    )
    match = Routes(configuration).match("GET", "/o/1")
    assert isinstance(match, Match)
    return Policy(configuration).authorise(match, caller, facts or facts_of(), 1e9)


READERS = {"name": "readers", "roles": ["reader", "admin"]}


def test_route_without_rules_denies_everybody() -> None:
    assert ruling([], identity_of(roles=("admin",))) == Ruling(False, None, "no_rule")


def test_rule_allows_whoever_has_one_of_its_roles() -> None:
    assert ruling([READERS], identity_of(roles=("x", "reader"))) == Ruling(True, "readers", "rule")


@pytest.mark.parametrize("roles", [(), ("Reader",), ("reader ",), ("readers",), ("reader,admin",)])
def test_role_that_is_nearly_right_is_wrong(roles: tuple[str, ...]) -> None:
    assert ruling([READERS], identity_of(roles=roles)) == Ruling(False, None, "no_rule")


def test_role_is_neither_a_group_nor_a_scope() -> None:
    assert not ruling([READERS], identity_of(groups=("reader",), scopes=("reader",))).allowed


def test_every_condition_of_a_rule_must_hold() -> None:
    rule = {"name": "all", "roles": ["r"], "groups": ["g"], "scopes": ["s"], "when": 'path.id == "1"'}
    full = {"roles": ("r",), "groups": ("g",), "scopes": ("s",)}
    assert ruling([rule], identity_of(**full)).allowed
    for missing in full:
        assert not ruling([rule], identity_of(**{**full, missing: ()})).allowed
    assert not ruling([{**rule, "when": 'path.id == "2"'}], identity_of(**full)).allowed


def test_first_rule_that_holds_is_named() -> None:
    rules: list[dict[str, Any]] = [
        {"name": "no", "roles": ["x"]},
        {"name": "first", "scopes": ["s"]},
        {"name": "second", "roles": ["r"]},
    ]
    assert ruling(rules, identity_of(roles=("r",), scopes=("s",))).rule == "first"


def test_condition_that_fails_does_not_allow_and_says_so() -> None:
    rules: list[dict[str, Any]] = [
        {"name": "broken", "when": 'identity.claims.tenant != "evil"'},
        {"name": "no", "roles": ["x"]},
    ]
    assert ruling(rules, identity_of()) == Ruling(False, None, "condition_error")


def test_condition_that_fails_does_not_stop_a_later_rule() -> None:
    rules: list[dict[str, Any]] = [{"name": "broken", "when": "identity.claims.missing"}, READERS]
    assert ruling(rules, identity_of(roles=("reader",))) == Ruling(True, "readers", "rule")


def test_condition_is_not_asked_when_the_role_is_missing() -> None:
    rules: list[dict[str, Any]] = [{"name": "both", "roles": ["x"], "when": "identity.claims.missing"}]
    assert ruling(rules, identity_of()) == Ruling(False, None, "no_rule")


def test_caller_without_identity_is_denied_where_one_is_wanted() -> None:
    rules = [{"name": "anyone", "when": "true"}]
    assert ruling(rules, None) == Ruling(False, None, "no_rule")


def test_identity_of_another_provider_is_denied() -> None:
    rules: list[dict[str, Any]] = [{"name": "anyone", "when": "true"}, READERS]
    assert not ruling(rules, identity_of(provider="others", roles=("reader",))).allowed


def test_public_route_asks_for_nothing() -> None:
    assert ruling([], None, identity="none") == Ruling(True, None, "public")


def test_public_route_with_rules_is_decided_by_them() -> None:
    rules = [{"name": "inside", "when": 'client.address.startsWith("10.")'}]
    assert ruling(rules, None, identity="none") == Ruling(False, None, "no_rule")
    assert ruling(rules, None, facts_of(address="10.1.2.3"), identity="none") == Ruling(True, "inside", "rule")


def test_identity_that_nobody_checked_is_not_used_on_a_public_route() -> None:
    rules = [{"name": "ann", "when": 'identity.subject == "ann"'}]
    assert ruling(rules, identity_of(), identity="none") == Ruling(False, None, "condition_error")


def test_every_reason_is_in_the_record() -> None:
    for reason in ("rule", "public", "no_rule", "condition_error"):
        assert REASONS[reason].source == "policy"


def test_rules_are_the_matched_routes_own() -> None:
    configuration = configuration_of(
        {"path": "/a", "identity": ["partners"], "allow": [READERS]},
        {"path": "/b", "identity": ["partners"], "allow": [{"name": "writers", "roles": ["writer"]}]},
    )
    table, policy = Routes(configuration), Policy(configuration)
    for path, role, allowed in [("/a", "reader", True), ("/a", "writer", False), ("/b", "writer", True)]:
        match = table.match("GET", path)
        assert isinstance(match, Match)
        assert policy.authorise(match, identity_of(roles=(role,)), facts_of(), 1e9).allowed is allowed


names = st.lists(st.sampled_from("abcd"), max_size=3)


@given(names, names, names, names, names, names)
def test_rule_is_all_of_any(
    r: list[str], g: list[str], s: list[str], hr: list[str], hg: list[str], hs: list[str]
) -> None:
    if not (r or g or s):
        return
    rule = {"name": "x", "roles": r, "groups": g, "scopes": s}
    identity = identity_of(roles=tuple(hr), groups=tuple(hg), scopes=tuple(hs))
    expected = all(not wanted or set(wanted) & set(held) for wanted, held in [(r, hr), (g, hg), (s, hs)])
    assert ruling([rule], identity).allowed is expected


def test_condition_that_does_not_compile_is_a_problem_in_its_place(configure: Configure) -> None:
    rules: list[dict[str, Any]] = [
        {"name": "a", "when": "identity.rolez"},
        {"name": "b", "when": 'path.nope == "1"'},
        {"name": "b", "when": "1"},
    ]
    configuration = configure("/ok", {"path": "/o/{id}", "identity": ["partners"], "allow": rules})
    found = problems(configuration)
    assert [place for place, _, _ in found] == [
        ("routes", 1, "allow", 0, "when"),
        ("routes", 1, "allow", 1, "when"),
        ("routes", 1, "allow", 2, "name"),
        ("routes", 1, "allow", 2, "when"),
    ]
    assert "undeclared reference to 'identity.rolez'" in found[0][1]
    assert found[1][1:] == ("the path has no parameter 'nope'", "id")
    assert found[3][1:] == ("is of type INT", "a CEL expression of type bool")
    with pytest.raises(ConfigError, match=r"routes\[1\]\.allow\[0\]\.when"):
        Policy(configuration)


def test_route_that_can_never_be_used_is_warned_of(configure: Configure) -> None:
    found = warnings(configure("/public", {"path": "/o", "identity": ["partners"]}))
    assert [place for place, _, _ in found] == [("routes", 1, "allow")]


def test_broken_template_is_reported_once_and_hides_nothing_else(configure: Configure) -> None:
    rules = [{"name": "a", "when": 'path.id == "1" && nope'}, {"name": "b", "when": 'path.id == "1"'}]
    configuration = configure({"path": "/o/{id", "identity": ["partners"], "allow": rules}, "/{")
    places = [place for place, _, _ in problems(configuration)]
    assert places == [("routes", 0, "path"), ("routes", 1, "path"), ("routes", 0, "allow", 0, "when")]
    assert warnings(configuration) == []
