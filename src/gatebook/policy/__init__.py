"""Which route a request belongs to, and whether a rule allows it. Decisions only; nothing is done here.

`path` says which request targets are canonical, `route` finds the route, `rule` decides; `reach`, `roles`
and `condition` are what a rule is made of, `review` and `unreachable` what `gatebook check` says of them. The
guard asks them in that order. Never imports the gateway, the recorder or a clock.
"""

from __future__ import annotations

from gatebook.config.model import Configuration
from gatebook.policy import review, route, unreachable
from gatebook.policy.condition import Facts, joined, query_is_clear
from gatebook.policy.route import Finding, Match, Miss, Routes
from gatebook.policy.rule import Policy, Ruling

__all__ = [
    "Facts",
    "Finding",
    "Match",
    "Miss",
    "Policy",
    "Routes",
    "Ruling",
    "joined",
    "problems",
    "query_is_clear",
    "warnings",
]


def problems(configuration: Configuration) -> list[Finding]:
    """What makes a configuration's routes and rules unusable, as (location, message, expected)."""
    return route.problems(configuration) + review.problems(configuration)


def warnings(configuration: Configuration) -> list[Finding]:
    """What is legal in a configuration's routes and rules, but hardly meant."""
    return route.warnings(configuration) + review.warnings(configuration) + unreachable.warnings(configuration)
