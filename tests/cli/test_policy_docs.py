"""What docs/policy.md shows is what the program says: its examples run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatebook import policy
from gatebook.config.load import parse
from gatebook.trial.cases import Case, CasesFile, Expected
from gatebook.trial.given import GivenIdentity, GivenRequest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "policy.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
Run = Callable[..., Any]

WHOLE = """version: 1
name: acme
listen: [{{address: "127.0.0.1:8080"}}]
identity:
  staff: {{type: oidc, issuer: "https://login.acme.example", audience: [orders-api]}}
  partners: {{type: api_key}}
upstreams: {{files: {{url: "http://127.0.0.1:9001"}}}}
{roles}
routes:
  - name: files
    path: /files/{{rest...}}
    methods: [GET, PUT, DELETE]
    upstream: files
{route}
"""


def fenced(text: str, language: str = "") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


@pytest.mark.parametrize(
    "example", [text for text in fenced(TEXT, "yaml") if text.startswith(("identity", "roles"))]
)
def test_example_of_rules_and_roles_is_one(example: str, tmp_path: Path) -> None:
    if example.startswith("roles"):
        text = WHOLE.format(roles=example, route="    identity: none")
    else:
        text = WHOLE.format(roles="", route=indented(example))
    found = parse(text, "policy.md", tmp_path)
    assert policy.problems(found) == policy.warnings(found) == []


def test_cases_of_the_example_pass_and_reach_every_rule(config: Path, run: Run) -> None:
    (cases,) = [text for text in fenced(TEXT, "yaml") if text.startswith("at: ")]
    path = config.parent / "cases.yaml"
    path.write_text(cases)
    ran = run("policy", "test", str(path), "-c", str(config))
    assert (ran.code, ran.out) == (0, "ok: 4 cases; 2 of 2 rules reached\n")


def test_every_key_of_a_case_is_documented() -> None:
    section = TEXT[TEXT.index("## Cases") : TEXT.index("## Limits")]
    for model in (CasesFile, Case, Expected, GivenRequest):
        for key in model.model_fields:
            assert re.search(rf"`{key}`|^{key}:", section, re.M), key
    explained = TEXT[TEXT.index("## Explain") : TEXT.index("## Cases")]
    for key in GivenIdentity.model_fields:
        assert f"`{key}`" in explained, key


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The README's configuration, which the examples for a shell are about."""
    path = tmp_path / "gatebook.yaml"
    path.write_text(fenced(README, "yaml")[0])
    return path


SHELL = [text for text in fenced(TEXT) if text.startswith("$ gatebook explain")]


def test_there_are_lines_for_a_shell() -> None:
    assert SHELL


@pytest.mark.parametrize("example", SHELL)
def test_line_for_a_shell_says_what_is_shown(example: str, config: Path, run: Run) -> None:
    line, _, shown = example.partition("\n")
    ran = run(*shlex.split(line.removeprefix("$ gatebook ")), "-c", str(config))
    assert ran.out == shown
