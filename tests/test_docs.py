"""What the documentation says is so: commands, keys, links, examples, and the lines for a shell.

A reader types what a README shows. So its lines run here, in a folder of their own, and its configuration
goes through the same checks as a person's.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests import reference, test_imports

from gatebook import policy
from gatebook.config.load import parse
from gatebook.config.schema import schema
from gatebook.record import REASONS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
DOCS = {path: path.read_text("utf-8") for path in sorted((ROOT / "docs").rglob("*.md"))}
EVERYWHERE = {
    ROOT / "README.md": README,
    ROOT / "CHANGELOG.md": (ROOT / "CHANGELOG.md").read_text("utf-8"),
    **DOCS,
}
COMMANDS = [name for name, _ in reference.commands()]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]*)?\)")


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 120


def test_commands_of_the_command_line_are_all_there() -> None:
    names = ["init", "check", "demo", "run", "reload", "status", "log", "show", "verify", "version"]
    groups = ["config schema", "config show", "config docs", "key create", "key list", "key revoke"]
    groups += ["revoke", "revoke list", "revoke undo", "key rotate"]
    assert {f"gatebook {name}" for name in names + groups} <= set(COMMANDS)


def test_reference_of_commands_is_what_the_program_says() -> None:
    found = DOCS[ROOT / "docs" / "commands.md"]
    assert found == reference.text(), "run: python -m tests.reference > docs/commands.md"


@pytest.mark.parametrize("name", COMMANDS)
def test_readme_names_every_command(name: str) -> None:
    rows = re.findall(r"^\| (`gatebook .*?) \|", README, re.M)
    named = [f"gatebook {part.removeprefix('gatebook ')}" for row in rows for part in re.findall(r"`(.*?)`", row)]
    assert name in named


def test_every_key_of_the_configuration_is_documented() -> None:
    text = DOCS[ROOT / "docs" / "config.md"]
    for part in (schema(), *schema()["$defs"].values()):
        for key in part.get("properties", {}):
            assert f"`{key}`" in text, key


@pytest.mark.parametrize("path", EVERYWHERE, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target, anchor in LINK.findall(EVERYWHERE[path]):
        found = (path.parent / target).resolve() if target else path
        assert found.exists(), target
        assert found.is_relative_to(ROOT), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text("utf-8"), re.M)
            assert anchor[1:] in [re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in headings]


def test_configuration_in_the_readme_is_one(tmp_path: Path) -> None:
    (text,) = fenced(README, "yaml")
    found = parse(text, "README.md", tmp_path)
    assert list(policy.problems(found)) == list(policy.warnings(found)) == []


def test_what_the_readme_shows_of_the_demo_is_what_docs_show() -> None:
    (piece,) = fenced(README, "text")
    whole = "\n".join(fenced(DOCS[ROOT / "docs" / "demo.md"], "text"))
    for line in piece.splitlines():
        assert line.strip(" …") in whole, line


def test_lines_of_the_readme_work(tmp_path: Path) -> None:
    """Those that set up; what runs until it is stopped is tested end to end."""
    lines = [re.sub(r"\s+#.*", "", line) for line in "".join(fenced(README, "sh")).splitlines()]
    start, check, run = (line for line in lines if line.startswith("gatebook"))
    assert check == "gatebook check"
    assert run == "gatebook run"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    other_port = f"sed -i s/127.0.0.1:8443/127.0.0.1:{port}/ gatebook.yaml"  # somebody may be using that one
    for script in ("gatebook --help", f"set -e; {start}; {other_port}; {check}"):
        done = subprocess.run(
            ["/bin/sh", "-c", script],
            cwd=tmp_path,
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "ok:" in done.stdout


def test_make_has_the_targets_that_the_readme_names() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in set(re.findall(r"\bmake ([a-z]+)", README)) - {"and"}:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_changes_are_kept_under_a_heading_for_what_is_not_released_yet() -> None:
    assert "\n## [Unreleased]\n" in EVERYWHERE[ROOT / "CHANGELOG.md"]


IDENTITY = DOCS[ROOT / "docs" / "identity.md"]
AROUND_IDENTITY = """
version: 1
name: acme
listen: [{address: "127.0.0.1:8443", tls: {certificate: a.pem, key: a.key}}]
upstreams: {orders: {url: "http://127.0.0.1:9001"}}
"""


@pytest.mark.parametrize("example", fenced(IDENTITY, "yaml"))
def test_examples_of_identity_are_configurations(example: str, tmp_path: Path) -> None:
    names = re.findall(r"^  ([a-z]+):", example, re.M)
    route = (
        f"name: r, path: /r, methods: [GET], upstream: orders, identity: {names}, allow: [{{name: a, roles: [b]}}]"
    )
    routes = "" if "\nroutes:" in example else f"routes: [{{{route}}}]\n"
    found = parse(AROUND_IDENTITY + example + routes, "identity.md", tmp_path)
    assert list(policy.problems(found)) == list(policy.warnings(found)) == []


def test_every_way_to_identify_has_a_section_and_an_example() -> None:
    kinds = {part["properties"]["type"]["const"] for part in schema()["$defs"].values() if _is_provider(part)}
    assert {"oidc", "api_key"} <= kinds
    sections = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", IDENTITY, re.M | re.S))
    for kind in kinds:
        assert any(f"type: {kind}" in example for example in fenced(sections[kind], "yaml")), kind
        assert f"| [`{kind}`](#{kind}) |" in IDENTITY


def _is_provider(part: dict[str, Any]) -> bool:
    properties = part.get("properties", {})
    return "const" in properties.get("type", {}) and "records" not in properties  # which sinks have


AGAINST_CREDENTIALS = [
    reason
    for reason, said in REASONS.items()
    if said.title.startswith("Authentication") and re.match("(credential|token|key)_", reason)
]


@pytest.mark.parametrize("reason", AGAINST_CREDENTIALS)
def test_every_reason_against_a_credential_is_explained(reason: str) -> None:
    assert f"`{reason}`" in IDENTITY


def test_every_part_of_the_program_is_in_the_architecture() -> None:
    table = DOCS[ROOT / "docs" / "architecture.md"].partition("## Modules")[2]
    named = {name.rstrip("/") for cell in re.findall(r"^\| (`.*?`) \|", table, re.M) for name in cell.split("`")}
    assert set(test_imports.MAY_IMPORT) - {"__init__", "__main__"} <= named


def test_messages_that_an_operator_is_told_of_are_those_of_the_program() -> None:
    said = "\n".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    said += os.strerror(errno.ENOSPC).lower()
    table = DOCS[ROOT / "docs" / "operate.md"].partition("| it says |")[2].partition("\n\n")[0]
    messages = [part for row in re.findall(r"^\| (.*?) \|", table, re.M) for part in re.findall(r"`(.*?)`", row)]
    assert len(messages) > 5
    for message in messages:
        name, separator, _ = message.partition(" are out of use")  # said of every kept file, by its title
        assert (f'title="{name}"' if separator else message) in said, message


def test_exit_codes_that_an_operator_is_told_of_are_those_of_the_program() -> None:
    told = DOCS[ROOT / "docs" / "operate.md"].partition("Exit codes of all commands:")[2]
    codes = {int(code) for code in re.findall(r"\b(\d+) [a-z]", told)}
    known = {int(code) for code in re.findall(r"^\| (\d+) \|", DOCS[ROOT / "docs" / "commands.md"], re.M)}
    assert codes == known - {10, 130}  # the base of ledgers' errors, and Ctrl-C


def test_every_test_that_the_attacks_name_exists() -> None:
    """A case in brackets is looked for where its test is."""
    rows = re.findall(r"^\|(?! attack |---)(.+)\|$", DOCS[ROOT / "docs" / "attacks.md"], re.M)
    named = [re.findall(r"`(test_\w+)(?:\[([^`]+)\])?`", row.rpartition("|")[2]) for row in rows]
    assert all(named), "an attack without a test"
    sources = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    for name, case in (each for names in named for each in names):
        found = [source for source in sources if f"def {name}(" in source]
        assert found, name
        assert not case or any(f'"{case}"' in source for source in found), f"{name}[{case}]"
