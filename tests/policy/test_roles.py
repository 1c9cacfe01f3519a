"""The role hierarchy: who holds a role holds what it includes, everywhere, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.policy.conftest import configuration_of, facts_of, identity_of

from gatebook.config.model import Role
from gatebook.policy import Match, Policy, Routes, Ruling
from gatebook.policy.roles import Hierarchy

LADDER = {"admin": {"includes": ["writer"]}, "writer": {"includes": ["reader"]}, "reader": {}}


def hierarchy(roles: dict[str, Any]) -> Hierarchy:
    return Hierarchy({name: Role(**role) for name, role in roles.items()})


def ruling(held: tuple[str, ...], roles: dict[str, Any] = LADDER, **rules: list[dict[str, Any]]) -> Ruling:
    configuration = configuration_of({"path": "/o", "identity": ["partners"], **rules}, roles=roles)
    match = Routes(configuration).match("GET", "/o")
    assert isinstance(match, Match)
    return Policy(configuration).authorise(match, identity_of(roles=held), facts_of(), 1e9)


def test_role_brings_what_it_includes_and_what_that_includes() -> None:
    assert hierarchy(LADDER).held(("admin", "x")) == ("admin", "x", "writer", "reader")
    assert ruling(("admin",), allow=[{"name": "readers", "roles": ["reader"]}]).allowed


def test_role_does_not_bring_what_includes_it() -> None:
    assert not ruling(("reader",), allow=[{"name": "writers", "roles": ["writer"]}]).allowed


def test_condition_sees_included_roles() -> None:
    assert ruling(("admin",), allow=[{"name": "a", "when": '"reader" in identity.roles'}]).allowed


def test_deny_of_an_included_role_is_not_slipped_past_by_the_including_one() -> None:
    roles = {"contractor": {"includes": ["external"]}, "external": {}}
    everybody = [{"name": "all", "when": "true"}]
    for deny in ({"roles": ["external"]}, {"when": '"external" in identity.roles'}):
        found = ruling(("contractor",), roles, deny=[{"name": "externals", **deny}], allow=everybody)
        assert found == Ruling(False, "externals", "deny_rule")


def test_set_of_roles_is_a_role_that_others_include() -> None:
    roles: dict[str, Any] = {"office": {}, "sales": {"includes": ["office"]}, "support": {"includes": ["office"]}}
    allow = [{"name": "office", "roles": ["office"]}]
    assert [ruling((who,), roles, allow=allow).allowed for who in ("sales", "support", "stock")] == [
        True,
        True,
        False,
    ]


def test_identity_itself_stays_as_the_credential_said() -> None:
    identity = identity_of(roles=("admin",))
    assert hierarchy(LADDER).widen(identity).roles == ("admin", "writer", "reader")
    assert identity.roles == ("admin",)


@pytest.mark.parametrize("roles", [{}, {"a": {}, "b": {"includes": []}}])
def test_nothing_is_compiled_where_no_role_includes_another(roles: dict[str, Any]) -> None:
    assert not hierarchy(roles)


graphs = st.dictionaries(
    st.sampled_from("abcdef"),
    st.lists(st.sampled_from("abcdefx"), max_size=3).map(lambda names: {"includes": names}),
    max_size=6,
)


@given(graphs, st.lists(st.sampled_from("abcdefx"), max_size=3))
def test_any_hierarchy_ends_and_holds_just_what_can_be_reached(graph: dict[str, Any], held: list[str]) -> None:
    """Circles, too, which the configuration refuses, but a file of another origin could hold."""
    expected = set(held)
    while True:
        more = {inner for name in expected for inner in graph.get(name, {}).get("includes", ())} - expected
        if not more:
            break
        expected |= more
    found = hierarchy(graph).held(held)
    assert set(found) == expected
    assert len(found) == len(expected)
