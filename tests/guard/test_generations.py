"""Workers of the gateway that were started under an older configuration: where their requests may go."""

from __future__ import annotations

from typing import Any

import msgspec
from tests.guard.place import KEYS, configured, route
from tests.guard.test_shadow import ANN, ASKED

from gatebook.guard.rules import Rules, Verdict
from gatebook.policy import Match
from gatebook.wire import upstreams_mark

OLD, NEW = {"old": {"url": "http://127.0.0.1:1"}}, {"new": {"url": "http://127.0.0.1:2"}}
ADMINS = [{"name": "admins", "roles": ["admin"]}]


def rules(upstreams: dict[str, Any], previous: Rules | None = None, **changes: Any) -> Rules:
    (name,) = upstreams
    made = configured(upstreams=upstreams, routes=[route("a", "/a", upstream=name, **changes)])
    return Rules(made, KEYS, previous)


def judged(by: Rules, mark: str, uri: str = "/a") -> Verdict:
    asked = msgspec.structs.replace(ASKED, upstreams=mark, uri=uri)
    match = by.match(asked)
    assert isinstance(match, Match)
    return by.judge(asked, match, by.facts(asked), ANN, 1e9, 0.0)


def test_worker_of_this_configuration_goes_to_its_upstream() -> None:
    young = rules(NEW, rules(OLD))
    for names in (["new"], ["new", "old"]):  # as at a start, and as after a reload
        assert judged(young, upstreams_mark(names)).upstream == "new"


def test_older_worker_goes_to_the_upstream_that_it_knows() -> None:
    young = rules(NEW, rules(OLD))
    assert judged(young, upstreams_mark(["old"])).upstream == "old"


def test_older_worker_does_not_open_what_the_older_rules_kept_closed() -> None:
    """A path that is open now, to another service, must not open the old one."""
    young = rules(NEW, rules(OLD, allow=ADMINS))
    found = judged(young, upstreams_mark(["old"]))
    assert (found.allowed, found.reason) == (False, "gateway_reloading")


def test_older_worker_does_not_open_what_the_newer_rules_close() -> None:
    young = rules(NEW, rules(OLD), allow=ADMINS)
    assert judged(young, upstreams_mark(["old"])).reason == "no_rule"


def test_older_worker_does_not_hand_on_what_either_route_keeps_back() -> None:
    for new, old in ((True, False), (False, True)):
        young = rules(NEW, rules(OLD, strip_credential=old), strip_credential=new)
        found = judged(young, upstreams_mark(["old"]))
        assert (found.upstream, found.strip) == ("old", True)


def test_guard_that_was_restarted_leaves_it_to_the_gateway() -> None:
    assert judged(rules(NEW), upstreams_mark(["old"])).upstream == "new"


def test_older_worker_is_still_known_after_a_reload_that_came_to_nothing() -> None:
    young = rules(NEW, rules(OLD))
    rules({"newest": {"url": "http://127.0.0.1:3"}}, young)  # made, and never put in force
    assert judged(young, upstreams_mark(["old"])).upstream == "old"


def test_few_generations_are_kept() -> None:
    found = rules(OLD)
    for _ in range(20):
        old, found = found, rules(NEW, found)
        old.retire()
    depth, rest = 0, [found]
    while rest:
        depth += 1
        rest = [elder for each in rest for elder in each._elders]
    assert depth == 2
    assert len(found._elders) <= 4
