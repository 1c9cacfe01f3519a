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
    deny: list[dict[str, Any]] | None = None,
) -> Ruling:
    accepted = ["partners"] if identity == "partners" else identity
    configuration = configuration_of({"path": "/o/{id}", "identity": accepted, "deny": deny or [], "allow": allow})
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
    for reason in ("rule", "public", "deny_rule", "no_rule", "condition_error"):
        assert REASONS[reason].source == "policy"


# -- deny -------------------------------------------------------------------------------------------------
BANNED = {"name": "banned", "roles": ["banned"]}
BROKEN = {"name": "broken", "when": "identity.claims.missing"}
EVERYBODY = {"name": "everybody", "when": "true"}


def test_deny_comes_before_allow() -> None:
    caller = identity_of(roles=("reader", "banned"))
    assert ruling([READERS], caller, deny=[BANNED]) == Ruling(False, "banned", "deny_rule")
    assert ruling([READERS], identity_of(roles=("reader",)), deny=[BANNED]) == Ruling(True, "readers", "rule")


def test_first_deny_that_holds_is_named() -> None:
    deny: list[dict[str, Any]] = [{**BANNED, "name": "no", "roles": ["x"]}, BANNED, EVERYBODY]
    assert ruling([READERS], identity_of(roles=("banned",)), deny=deny).rule == "banned"


def test_deny_whose_condition_fails_denies_and_is_named() -> None:
    assert ruling([EVERYBODY], identity_of(), deny=[BROKEN]) == Ruling(False, "broken", "condition_error")


def test_deny_whose_condition_fails_is_not_asked_of_others() -> None:
    deny = [{**BROKEN, "roles": ["contractor"]}]
    assert ruling([EVERYBODY], identity_of(roles=("reader",)), deny=deny).allowed
    assert not ruling([EVERYBODY], identity_of(roles=("contractor",)), deny=deny).allowed


def test_deny_alone_allows_nobody() -> None:
    assert ruling([], identity_of(), deny=[BANNED]) == Ruling(False, None, "no_rule")


def test_public_route_with_deny_is_public_for_all_others() -> None:
    deny = [{"name": "outside", "when": '!client.address.startsWith("10.")'}]
    assert ruling([], None, facts_of(address="10.1.2.3"), "none", deny) == Ruling(True, None, "public")
    assert ruling([], None, facts_of(), "none", deny) == Ruling(False, "outside", "deny_rule")


def test_deny_by_an_identity_that_nobody_checked_denies() -> None:
    deny = [{"name": "ann", "when": 'identity.subject == "ann"'}]
    assert ruling([], identity_of(), None, "none", deny) == Ruling(False, "ann", "condition_error")


def test_provider_whose_name_is_part_of_none_is_not_accepted_by_a_public_route() -> None:
    """`"one" in "none"` holds: what is compared must be the list, never the word."""
    deny = [{"name": "not-ann", "when": 'identity.subject != "ann"'}]
    configuration = configuration_of({"path": "/o", "deny": deny}, identity={"one": {"type": "api_key"}})
    match = Routes(configuration).match("GET", "/o")
    assert isinstance(match, Match)
    found = Policy(configuration).authorise(match, identity_of(provider="one"), facts_of(), 1e9)
    assert found == Ruling(False, "not-ann", "condition_error")


# -- shadow -----------------------------------------------------------------------------------------------
def shadow(rule: dict[str, Any]) -> dict[str, Any]:
    return {**rule, "mode": "shadow"}


def test_shadow_deny_lets_pass_and_is_told() -> None:
    found = ruling([EVERYBODY], identity_of(roles=("banned",)), deny=[shadow(BANNED)])
    assert found == Ruling(True, "everybody", "rule", Ruling(False, "banned", "deny_rule"))


def test_shadow_deny_that_cannot_be_evaluated_would_deny() -> None:
    found = ruling([EVERYBODY], identity_of(), deny=[shadow(BROKEN)])
    assert found == Ruling(True, "everybody", "rule", Ruling(False, "broken", "condition_error"))


def test_shadow_allow_lets_nobody_pass_and_is_told() -> None:
    found = ruling([shadow(READERS)], identity_of(roles=("reader",)))
    assert found == Ruling(False, None, "no_rule", Ruling(True, "readers", "rule"))


def test_shadow_that_would_change_no_verdict_is_not_told() -> None:
    reader = identity_of(roles=("reader",))
    assert ruling([shadow(EVERYBODY), READERS], reader) == Ruling(True, "readers", "rule")
    assert ruling([READERS], reader, deny=[shadow(BANNED)]) == Ruling(True, "readers", "rule")
    banned = identity_of(roles=("banned",))
    assert ruling([], banned, deny=[BANNED, shadow(EVERYBODY)]) == Ruling(False, "banned", "deny_rule")
    assert ruling([shadow(EVERYBODY)], banned, deny=[BANNED]) == Ruling(False, "banned", "deny_rule")


def test_shadow_deny_stands_before_shadow_allow() -> None:
    found = ruling([shadow(EVERYBODY)], identity_of(roles=("banned",)), deny=[shadow(BANNED)])
    assert found == Ruling(False, None, "no_rule")


def test_public_route_whose_only_rules_are_shadows_stays_public() -> None:
    rules = [shadow({"name": "inside", "when": 'client.address.startsWith("10.")'})]
    assert ruling(rules, None, identity="none") == Ruling(True, None, "public", Ruling(False, None, "no_rule"))
    assert ruling(rules, None, facts_of(address="10.1.2.3"), "none") == Ruling(True, None, "public")


@st.composite
def rule_lists(draw: st.DrawFn) -> list[dict[str, Any]]:
    conditions = st.sampled_from([{}, {"when": "true"}, {"when": "false"}, {"when": "identity.claims.missing"}])
    roles = st.lists(st.sampled_from("ab"), max_size=2)
    modes = st.sampled_from(["enforce", "shadow"])
    made = draw(st.lists(st.tuples(conditions, roles, modes), max_size=4))
    return [{**when, "roles": roles, "mode": mode} for when, roles, mode in made if when or roles]


@given(rule_lists(), rule_lists(), st.lists(st.sampled_from("ab"), max_size=2))
def test_ruling_is_what_a_plain_reading_of_the_rules_says(
    deny: list[dict[str, Any]], allow: list[dict[str, Any]], held: list[str]
) -> None:
    rules = [
        [{"name": f"{word}{at}", **rule} for at, rule in enumerate(side)]
        for word, side in (("d", deny), ("a", allow))
    ]

    def plainly(modes: set[str]) -> tuple[Any, ...]:
        outcomes = {"true": True, "false": False, None: True}
        failed = False
        for effect, side in enumerate(rules):
            for rule in side:
                if rule["mode"] not in modes or (rule["roles"] and not set(rule["roles"]) & set(held)):
                    continue
                holds = outcomes.get(rule.get("when"))
                if holds:
                    return bool(effect), rule["name"], ("deny_rule", "rule")[effect]
                if holds is None and not effect:
                    return False, rule["name"], "condition_error"
                failed = failed or holds is None
        return False, None, "condition_error" if failed else "no_rule"

    found = ruling(rules[1], identity_of(roles=tuple(held)), deny=rules[0])
    live, tried = plainly({"enforce"}), plainly({"enforce", "shadow"})
    assert (found.allowed, found.rule, found.reason) == live
    if tried[0] is live[0]:
        assert found.shadow is None
    else:
        assert found.shadow == Ruling(*tried)


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
