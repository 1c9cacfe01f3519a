"""What `gatebook check` finds in rules: what can never hold, and what was hardly meant."""

from __future__ import annotations

from typing import Any

from tests.policy.conftest import configuration_of

from gatebook.policy import problems, warnings


def told(*routes: dict[str, Any], **sections: Any) -> list[tuple[tuple[str | int, ...], str]]:
    return [(place, said) for place, said, _ in warnings(configuration_of(*routes, **sections))]


def test_route_whose_rules_are_all_in_shadow_is_warned_of() -> None:
    rules = [{"name": "x", "when": "true", "mode": "shadow"}]
    found = told({"path": "/a", "identity": ["partners"], "allow": rules}, {"path": "/b", "allow": rules})
    assert found == [
        (("routes", 0, "allow"), "route r0 has no rule that is enforced, so every request to it is denied"),
        (("routes", 1, "allow"), "route r1 has no rule that is enforced and no identity, so it is public"),
    ]


def test_condition_on_an_identity_that_is_never_there_is_warned_of() -> None:
    rules = [
        {"name": "a", "when": 'identity.subject == "ann"'},
        {"name": "b", "when": 'request.headers["x-identity."] == "identity"'},
    ]
    found = told({"path": "/a", "deny": rules}, {"path": "/b", "identity": ["partners"], "allow": rules})
    assert found == [
        (("routes", 0, "deny", 0, "when"), "asks for an identity, which this route never has"),
    ]


def test_role_that_is_not_declared_is_a_problem_in_a_condition_too() -> None:
    rules = [
        {"name": "a", "when": "'reader' in identity.roles || \"raeder\" in identity . roles"},
        {"name": "b", "when": "'x' in identity.groups || 'y' in identity.claims.roles"},
    ]
    route = {"path": "/a", "identity": ["partners"], "allow": rules}
    place = ("routes", 0, "allow", 0, "when")
    found = problems(configuration_of(route, roles={"reader": {}, "admin": {}}))
    assert found == [(place, "no role is called 'raeder'", "one of admin, reader")]
    assert problems(configuration_of(route)) == []
