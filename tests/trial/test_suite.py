"""Cases judged: each expectation is compared, and what no case reaches is named."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from tests.policy.conftest import configuration_of

from gatebook.trial.cases import read_cases
from gatebook.trial.judge import Judge
from gatebook.trial.junit import junit
from gatebook.trial.suite import Result, coverage, run

ROUTES: list[dict[str, Any]] = [
    {"name": "health", "path": "/healthz"},
    {
        "name": "order",
        "path": "/o/{id}",
        "identity": ["partners"],
        "deny": [
            {"name": "frozen", "groups": ["frozen"]},
            {"name": "night", "when": "now.getHours() < 6", "mode": "shadow"},
        ],
        "allow": [{"name": "readers", "roles": ["reader"]}, {"name": "admins", "roles": ["admin"]}],
    },
]
JUDGE = Judge(configuration_of(*ROUTES))


def results(folder: Path, *cases: str) -> list[Result]:
    path = folder / "cases.yaml"
    lines = [f"  - {{name: c{number}, {case}}}" for number, case in enumerate(cases)]
    path.write_text("\n".join(["at: 2026-01-05T10:00:00Z", "cases:", *lines]))
    return run(JUDGE, read_cases(path, JUDGE.configuration, 0.0), path)


READER = "request: GET /o/1, identity: {roles: [reader]}"


@pytest.mark.parametrize(
    ("case", "expect", "wrong"),
    [
        (READER, "allow", []),
        (READER, "deny", ["verdict: expected deny, got allow"]),
        (READER, "{status: 200, reason: rule, rule: readers, route: order, shadow: same}", []),
        (
            READER,
            "{status: 403, rule: admins}",
            ["status: expected 403, got 200", "rule: expected admins, got readers"],
        ),
        (
            READER,
            "{route: health, shadow: deny}",
            ["route: expected health, got order", "shadow: expected deny, got same"],
        ),
        (f"{READER}, at: '2026-01-05T03:00:00Z'", "{verdict: allow, shadow: deny}", []),
        ("request: GET /o/1", "{status: 401, reason: credential_missing}", []),
        ("request: GET /o/1, identity: {provider: others, roles: [reader]}", "{status: 401}", []),
        (
            "request: GET /o/1, identity: {roles: [reader], groups: [frozen]}",
            "{rule: frozen, reason: deny_rule}",
            [],
        ),
        ("request: GET /nowhere", "{status: 404, rule: x}", ["rule: expected x, got none"]),
        ("request: GET /nowhere", "{route: order}", ["route: expected order, got none"]),
        ("request: DELETE /healthz, identity: none", "{status: 405}", []),
        ("request: GET /healthz", "{reason: public}", []),
        ("request: GET /o/..%2f1", "{reason: path_not_canonical}", []),
    ],
)
def test_each_expectation_is_compared(tmp_path: Path, case: str, expect: str, wrong: list[str]) -> None:
    (result,) = results(tmp_path, f"{case}, expect: {expect}")
    assert result.wrong == wrong
    assert (result.name, result.line) == ("c0", 3)


def test_rules_that_decide_in_no_case_are_named_with_their_places(tmp_path: Path) -> None:
    found = coverage(JUDGE, results(tmp_path, f"{READER}, expect: allow"))
    assert [(each.route, each.rule, each.location, each.reached) for each in found] == [
        ("health", None, ("routes", 0), False),
        ("order", "frozen", ("routes", 1, "deny", 0), False),
        ("order", "night", ("routes", 1, "deny", 1), False),
        ("order", "readers", ("routes", 1, "allow", 0), True),
        ("order", "admins", ("routes", 1, "allow", 1), False),
    ]


def test_rule_in_shadow_is_reached_where_it_would_decide(tmp_path: Path) -> None:
    found = coverage(
        JUDGE,
        results(tmp_path, f"{READER}, at: 2026-01-05, expect: allow", "request: GET /healthz, expect: allow"),
    )
    assert {each.rule for each in found if each.reached} == {None, "night", "readers"}


ATTRIBUTES = {
    "testsuites": set[str](),
    "testsuite": {"id", "name", "package", "timestamp", "hostname", "tests", "failures", "errors", "time"},
    "properties": set[str](),
    "testcase": {"name", "classname", "time"},
    "failure": {"message", "type"},
    "system-out": set[str](),
    "system-err": set[str](),
}


def test_junit_has_what_every_schema_requires_and_nothing_that_one_forbids(tmp_path: Path) -> None:
    """Apache Ant's and Jenkins's schemas: these attributes, and these children in this order."""
    found = results(tmp_path, f"{READER}, expect: allow", f"{READER}, expect: deny")
    found += [found[0]._replace(file="other <&>.yaml", name='a "quoted" <name> \x07')]
    now = datetime.datetime(2026, 1, 5, 11, 0, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
    root = ElementTree.fromstring(junit(found, now))
    for element in root.iter():
        assert set(element.attrib) == ATTRIBUTES[element.tag]
    first, second = root
    assert [child.tag for child in first] == ["properties", "testcase", "testcase", "system-out", "system-err"]
    told = {name: first.get(name) for name in ("id", "timestamp", "tests", "failures", "errors")}
    assert told == {"id": "0", "timestamp": "2026-01-05T10:00:00", "tests": "2", "failures": "1", "errors": "0"}
    failure = first.find("testcase/failure")
    assert failure is not None
    assert failure.text == f"{tmp_path}/cases.yaml:4: verdict: expected deny, got allow"
    assert (second.get("name"), second.get("id")) == ("other <&>.yaml", "1")
    assert second[1].get("name") == r'a "quoted" <name> \x07'
