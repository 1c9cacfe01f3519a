"""`gatebook policy test`: exit codes, failures with their lines, JUnit XML, JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from gatebook import starter

Run = Callable[..., Any]
CASES = """cases:
  - name: readers read
    request: GET /orders/7
    identity: {roles: [reader]}
    expect: allow
  - {name: others do not, request: GET /orders/7, identity: {}, expect: {status: 403, reason: no_rule}}
  - {name: health is public, request: GET /healthz, expect: {reason: public}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration alone: no state folder, no certificate."""
    (tmp_path / "gatebook.yaml").write_text(starter.starter_text())
    (tmp_path / "cases.yaml").write_text(CASES)
    return tmp_path


def tried(run: Run, folder: Path, *more: str) -> Any:
    return run("policy", "test", str(folder / "cases.yaml"), "-c", str(folder / "gatebook.yaml"), *more)


def test_cases_that_pass_are_0_and_one_line(run: Run, folder: Path) -> None:
    ran = tried(run, folder)
    assert (ran.code, ran.out) == (0, "ok: 3 cases; 2 of 2 rules reached\n")


def test_case_that_fails_is_1_and_names_its_line(run: Run, folder: Path) -> None:
    (folder / "cases.yaml").write_text(CASES.replace("expect: allow", "expect: {verdict: deny, rule: other}"))
    ran = tried(run, folder)
    assert ran.code == 1
    assert ran.out.splitlines() == [
        f"failed: {folder}/cases.yaml:2: readers read: "
        "verdict: expected deny, got allow; rule: expected other, got readers",
        "failed: 3 cases, 1 failed; 2 of 2 rules reached",
    ]


def test_rule_that_no_case_reaches_is_named_with_its_line(run: Run, folder: Path) -> None:
    (folder / "cases.yaml").write_text(CASES[: CASES.index("  - {name: others")].replace("reader]", "writer]"))
    config = (folder / "gatebook.yaml").read_text()
    health, readers = (
        config[: config.index(text)].count("\n") + 1 for text in ("{name: health", "{name: readers")
    )
    ran = tried(run, folder)
    assert ran.out.splitlines()[1:] == [
        f"{folder}/gatebook.yaml:{health}: route health is not reached by any case",
        f"{folder}/gatebook.yaml:{readers}: rule read-order/readers is not reached by any case",
        "failed: 1 cases, 1 failed; 0 of 2 rules reached",
    ]


def test_junit_file_is_written_whether_cases_pass_or_not(run: Run, folder: Path) -> None:
    for text, code in ((CASES, 0), (CASES.replace("expect: allow", "expect: deny"), 1)):
        (folder / "cases.yaml").write_text(text)
        assert tried(run, folder, "--junit", str(folder / "out.xml")).code == code
        suite = ElementTree.parse(folder / "out.xml").getroot()[0]
        assert (suite.get("tests"), suite.get("failures")) == ("3", str(code))
    assert tried(run, folder, "--junit", str(folder / "none" / "out.xml")).code == 3


def test_json_holds_every_case_and_rule(run: Run, folder: Path) -> None:
    told = tried(run, folder, "--json").json()
    assert told["ok"] is True
    assert [(case["name"], case["line"], case["ok"], case["rule"]) for case in told["cases"]] == [
        ("readers read", 2, True, "readers"),
        ("others do not", 6, True, None),
        ("health is public", 7, True, None),
    ]
    assert [(rule["route"], rule["rule"], rule["reached"]) for rule in told["rules"]] == [
        ("health", None, True),
        ("read-order", "readers", True),
    ]


def test_cases_that_mean_nothing_are_2_with_a_place(run: Run, folder: Path) -> None:
    (folder / "cases.yaml").write_text(CASES.replace("roles:", "role:"))
    ran = tried(run, folder, "--json")
    (problem,) = ran.json()["error"]["problems"]
    assert (ran.code, problem["line"], problem["key"]) == (2, 4, "cases[0].identity.role")


def test_configuration_that_is_wrong_is_2_before_any_case(run: Run, folder: Path) -> None:
    path = folder / "gatebook.yaml"
    path.write_text(path.read_text().replace("roles: [reader, admin]", "when: 1 + 1 == 'x'"))
    ran = tried(run, folder)
    assert ran.code == 2
    assert "routes[1].allow[0].when" in ran.err


def test_several_files_are_one_run(run: Run, folder: Path) -> None:
    other = folder / "other.yaml"
    other.write_text(CASES)
    assert tried(run, folder, str(other)).out.startswith("ok: 6 cases")
