"""A rule's methods and paths: an allow means what it says, a deny whatever a server could take for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.policy.conftest import configuration_of, facts_of, identity_of

from gatebook.policy import Match, Policy, Routes, Ruling, problems
from gatebook.policy.reach import Effect, Reach, reach

EVERYBODY = {"name": "everybody", "when": "true"}
FILES: dict[str, Any] = {"path": "/files/{rest...}", "methods": ["GET", "PUT"], "identity": ["partners"]}


def ruling(uri: str, method: str = "GET", **rules: list[dict[str, Any]]) -> Ruling:
    configuration = configuration_of({**FILES, "allow": [EVERYBODY], **rules})
    match = Routes(configuration).match(method, uri)
    assert isinstance(match, Match)
    return Policy(configuration).authorise(match, identity_of(), facts_of(method=method), 1e9)


def test_rule_speaks_of_its_methods_alone() -> None:
    allow = [{"name": "reads", "methods": ["GET"]}]
    assert ruling("/files/a", allow=allow) == Ruling(True, "reads", "rule")
    assert ruling("/files/a", "PUT", allow=allow) == Ruling(False, None, "no_rule")


@pytest.mark.parametrize("effect", ["deny", "allow"])
def test_rule_for_get_speaks_of_head_as_the_route_does(effect: str) -> None:
    found = ruling("/files/a", "HEAD", **{effect: [{"name": "x", "methods": ["GET"]}]})
    assert found.rule == "x"


def test_head_that_the_route_lists_is_a_method_of_its_own() -> None:
    rule = {"name": "x", "methods": ["GET"]}
    configuration = configuration_of({**FILES, "methods": ["GET", "HEAD"], "allow": [rule]})
    match = Routes(configuration).match("HEAD", "/files/a")
    assert isinstance(match, Match)
    assert not Policy(configuration).authorise(match, identity_of(), facts_of(method="HEAD"), 1e9).allowed


def test_rule_speaks_of_its_paths_alone() -> None:
    allow = [{"name": "public", "paths": ["/files/public/{rest...}", "/files/index", "/files/{y}/caf%C3%A9"]}]
    for uri in ("/files/public/a/b", "/files/index", "/files/2026/caf%c3%a9"):
        assert ruling(uri, allow=allow).rule == "public", uri
    for uri in ("/files/public", "/files/public/", "/files/index/x", "/files/private/a", "/files/caf%C3%A9"):
        assert not ruling(uri, allow=allow).allowed, uri


@pytest.mark.parametrize(
    "uri", ["/files/Public/a", "/files/PUBLIC/a", "/files/%EF%BD%90ublic/a", "/files/pub%E2%80%8Dlic/a"]
)
def test_allow_does_not_reach_a_look_alike(uri: str) -> None:
    assert not ruling(uri, allow=[{"name": "public", "paths": ["/files/public/{rest...}"]}]).allowed


@pytest.mark.parametrize(
    "uri",
    [
        "/files/secret",
        "/files/Secret",
        "/files/SECRET/",
        "/files/secret/",
        "/files/%EF%BD%93ecret",
        "/files/secre%E2%80%8Dt",
        "/files/%C5%BFecret",
        "/files/a/KEYS/x",
        "/files/A/keys/x/y/",
    ],
)
def test_no_look_alike_slips_past_a_deny(uri: str) -> None:
    """IIS and macOS ignore letter case, Express a slash at the end, NFKC the width: they would serve it."""
    deny = [{"name": "secret", "paths": ["/files/secret", "/files/{owner}/keys/{rest...}"]}]
    assert ruling(uri, deny=deny) == Ruling(False, "secret", "deny_rule")


@pytest.mark.parametrize("uri", ["/files/secrets", "/files/secret/x", "/files/keys/x", "/files/a/keys"])
def test_deny_does_not_reach_other_paths(uri: str) -> None:
    deny = [{"name": "secret", "paths": ["/files/secret", "/files/{owner}/keys/{rest...}"]}]
    assert ruling(uri, deny=deny).allowed


def test_condition_and_path_must_both_hold() -> None:
    allow = [{"name": "x", "paths": ["/files/a"], "when": 'path.rest == "a"'}]
    assert ruling("/files/a", allow=allow).allowed
    assert not ruling("/files/b", allow=allow).allowed


def test_condition_is_not_asked_on_another_path() -> None:
    deny = [{"name": "x", "paths": ["/files/a"], "when": "identity.claims.missing"}]
    assert ruling("/files/a", deny=deny) == Ruling(False, "x", "condition_error")
    assert ruling("/files/b", deny=deny).allowed


def test_methods_and_paths_that_no_request_of_the_route_has_are_problems() -> None:
    rule: dict[str, Any] = {
        "name": "x",
        "methods": ["GET", "HEAD", "POST"],
        "paths": ["/files/a", "/other/{rest...}", "/files", "/files/", "/{a}/{b}", "/files/{"],
    }
    found = problems(configuration_of({**FILES, "deny": [rule]}))
    place = ("routes", 0, "deny", 0)
    assert [where for where, _, _ in found] == [
        (*place, "methods", 2),
        (*place, "paths", 1),
        (*place, "paths", 2),
        (*place, "paths", 3),
        (*place, "paths", 5),
    ]
    assert found[0][1:] == ("route r0 has no method POST", "GET or HEAD or PUT")
    assert found[1][1:] == ("no path of route r0 fits", "a template within /files/{rest...}")


def test_parameters_of_a_rules_paths_bind_nothing() -> None:
    rule = {"name": "x", "paths": ["/files/{owner}/{name}"], "when": 'path.owner == "a"'}
    found = problems(configuration_of({**FILES, "allow": [rule]}))
    assert [said for _, said, _ in found] == ["the path has no parameter 'owner'"]


segments = st.lists(st.sampled_from(["a", "b", "A", "{x}"]), min_size=1, max_size=3)
ends = st.sampled_from(["", "/", "/{rest...}"])
templates = st.tuples(segments, ends).map(
    lambda made: (
        "/" + "/".join(f"{{x{at}}}" if text == "{x}" else text for at, text in enumerate(made[0])) + made[1]
    )
)
paths = st.tuples(
    st.lists(st.sampled_from(["a", "b", "A", "c"]), min_size=1, max_size=5), st.sampled_from(["", "/"])
).map(lambda made: "/" + "/".join(made[0]) + made[1])
effects: st.SearchStrategy[Effect] = st.sampled_from(["deny", "allow"])


def reach_of(effect: Effect, templates: list[str], methods: list[str], route: dict[str, Any]) -> Reach:
    rule = {"name": "x", "paths": templates, "methods": methods, "when": "true"}
    made = configuration_of({**route, effect: [rule]}).routes[0]
    return reach((made.deny or made.allow)[0], made, effect)


@given(
    effects,
    effects,
    st.lists(templates, max_size=2),
    st.lists(templates, max_size=2),
    st.sets(st.sampled_from(["GET", "PUT"])),
    st.sets(st.sampled_from(["GET", "PUT"])),
    paths,
    st.sampled_from(["GET", "HEAD", "PUT"]),
)
def test_whatever_is_covered_is_reached_by_what_covers_it(
    effect: Effect,
    other: Effect,
    wide: list[str],
    narrow: list[str],
    methods: set[str],
    others: set[str],
    path: str,
    method: str,
) -> None:
    route = {"path": "/{x}/{rest...}", "methods": ["GET", "PUT"]}
    configuration = configuration_of(route)
    if not isinstance(Routes(configuration).match(method, path), Match):
        return
    one = reach_of(effect, wide, sorted(methods), route)
    two = reach_of(other, narrow, sorted(others), route)
    if one.covers(two, configuration.routes[0]) and two.takes_method(method) and two.takes_path(path):
        assert one.takes_method(method)
        assert one.takes_path(path)


def test_deny_covers_other_spellings_and_an_allow_does_not() -> None:
    route = {"path": "/{x}/{rest...}", "methods": ["GET"]}
    whole = configuration_of(route).routes[0]
    for path in ("/a/secret", "/a/Secret"):
        deny, allow = reach_of("deny", [path], [], route), reach_of("allow", [path], [], route)
        assert deny.covers(allow, whole)
        assert deny.covers(deny, whole)
        assert not allow.covers(deny, whole)


@given(templates, paths)
def test_template_of_a_rule_means_what_it_means_for_a_route(template: str, path: str) -> None:
    matched = isinstance(Routes(configuration_of(template)).match("GET", path), Match)
    taken = reach_of("allow", [template], [], {"path": "/{rest...}"}).takes_path(path)
    if matched:
        assert taken
    elif taken:  # only what a laxer server reads otherwise is no route, and yet fits
        assert path != path.lower() or path.endswith("/")
