"""What `gatebook check` finds in rules: what can never hold, and what was hardly meant."""

from __future__ import annotations

from typing import Any

from tests.policy.conftest import configuration_of

from gatebook.policy import warnings


def told(*routes: dict[str, Any], **sections: Any) -> list[tuple[tuple[str | int, ...], str]]:
    return [(place, said) for place, said, _ in warnings(configuration_of(*routes, **sections))]


def test_route_whose_rules_are_all_in_shadow_is_warned_of() -> None:
    rules = [{"name": "x", "when": "true", "mode": "shadow"}]
    found = told({"path": "/a", "identity": ["partners"], "allow": rules}, {"path": "/b", "allow": rules})
    assert found == [
        (("routes", 0, "allow"), "route r0 has no rule that is enforced, so every request to it is denied"),
        (("routes", 1, "allow"), "route r1 has no rule that is enforced and no identity, so it is public"),
    ]
