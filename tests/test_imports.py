"""Who may import whom. The table is the architecture: a new module has to find its place in it first.

Read from the syntax trees, so that imports in functions and under TYPE_CHECKING count like any other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "gatebook"

# Part -> the parts it may import, besides itself. "identity.types" means that module of the part alone.
MAY_IMPORT: dict[str, frozenset[str]] = {
    part: frozenset(names.split())
    for part, names in {
        "errors": "",
        "record": "errors",
        "wire": "errors",
        "paths": "errors",
        "certificates": "",
        "web": "errors",
        "scrub": "",
        "page": "",
        "ownlog": "",
        "config": "errors",
        "ledger": "errors",
        "gateway": "config record wire paths page errors",
        "kept": "errors",
        "identity": "config record paths kept errors",
        "holds": "kept identity.api_key errors",  # ids are made there
        "policy": "config record errors identity.types",
        "limits": "config record errors identity.types",
        "sealed": "record errors",
        "redact": "config record errors identity.types scrub sealed",
        "guard": "config record wire paths identity policy limits redact page ownlog errors",
        "portal": "web config record wire paths kept identity limits redact page ownlog guard.asked guard.client"
        " errors",
        # A witness is asked over HTTP as a provider is, within the same bounds.
        "witness": "web paths ledger identity.fetch ownlog errors",
        "recorder": "config record wire paths redact scrub ledger witness identity.fetch holds kept ownlog errors",
        "access": "config record paths ledger errors",
        "trial": "config record paths identity policy redact scrub errors",
        # A grant's end is told with what the ledger says of it.
        "grants": "config record paths identity ledger recorder errors",
        # The trial's judge and the guard's own policy; what a record keeps, the redactor knows.
        "replay": "config record policy redact scrub trial identity.types errors",
        # What people are shown of a bundle is what `access` makes of its records.
        "evidence": "config record paths access ledger errors",
        "sinks": "config record access ledger policy.where paths scrub ownlog identity.fetch errors",
        "starter": "config paths certificates errors ledger.keys",
        # What is wrong with authorities and revocation lists, the guard's own readers say.
        "preflight": "config paths certificates policy limits redact gateway errors ledger.keys ledger.quorum"
        " witness.asking identity.chain identity.crl_watch",
        "kms": "ledger errors",
        "readers": "config record paths kms ledger recorder errors",
        "serve_log": "web ledger errors",
        "supervisor": "config record wire paths preflight gateway recorder grants ownlog errors",
        "demo": "config paths starter certificates identity supervisor access errors",
        "cli": "config record wire paths identity access ledger recorder starter preflight supervisor demo trial"
        " sealed replay sinks evidence holds kms readers serve_log witness ownlog scrub errors",
        "__main__": "cli",
        "__init__": "",
    }.items()
}

# Module -> the only parts that may import it.
ONLY_FOR = {
    "ledger.writer": {"ledger", "recorder"},  # one writer, one order, one lock
    "demo": {"cli"},
    "cli": {"__main__"},
}

# Package from PyPI -> the only parts that may import it.
OUTSIDE_ONLY_FOR = {
    "ruamel": {"config"},  # only `config` knows YAML
    "jinja2": {"evidence"},
    "crossplane": {"gateway"},  # nginx's configuration is data everywhere else
    "typer": {"cli"},
    "cel_expr_python": {"policy"},
    "rfc3161_client": {"ledger"},
}


def modules() -> dict[str, str]:
    """Dotted name below `gatebook` -> source text; a package is named like its folder."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path.read_text("utf-8")
    return found


def imports(text: str, known: set[str]) -> Iterator[str]:
    """Every module that a source imports: ours below `gatebook.` as `.name`, others by their package."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            base = node.module or ""
            below = base.removeprefix("gatebook").removeprefix(".")
            names = []
            for alias in node.names:
                inner = f"{below}.{alias.name}".removeprefix(".")
                names.append(f"gatebook.{inner}" if base.startswith("gatebook") and inner in known else base)
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            yield f".{rest or '__init__'}" if top == "gatebook" else top


def violations(sources: dict[str, str]) -> list[str]:
    known = set(sources)
    found = []
    for name, text in sources.items():
        part = name.partition(".")[0]
        if part not in MAY_IMPORT:
            found.append(f"{name}: no part of the table; say in tests/test_imports.py what it may import")
            continue
        for target in imports(text, known):
            if not target.startswith("."):
                if part not in OUTSIDE_ONLY_FOR.get(target, {part}):
                    found.append(f"{name} imports {target}, which is for {OUTSIDE_ONLY_FOR[target]} alone")
                continue
            ours = target[1:]
            allowed = MAY_IMPORT[part] | {part, "__init__"}
            if not any(ours == entry or ours.startswith(f"{entry}.") for entry in allowed):
                found.append(f"{name} imports {ours}")
            for guarded, parts in ONLY_FOR.items():
                if (ours == guarded or ours.startswith(f"{guarded}.")) and part not in parts | {guarded}:
                    found.append(f"{name} imports {ours}, which is for {sorted(parts)} alone")
    return found


def test_every_import_is_in_the_table() -> None:
    assert violations(modules()) == []


def test_table_has_no_part_that_is_gone() -> None:
    assert set(MAY_IMPORT) == {name.partition(".")[0] for name in modules()}


def test_table_itself_has_no_circle() -> None:
    def reach(part: str, path: tuple[str, ...]) -> None:
        assert part not in path, " -> ".join((*path, part))
        for entry in MAY_IMPORT[part]:
            reach(entry.partition(".")[0], (*path, part))

    for part in MAY_IMPORT:
        reach(part, ())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("newcomer", ""),
        ("config.model", "from gatebook.record import encode"),
        ("config.model", "from gatebook import policy"),
        ("config.model", "import gatebook.ledger.writer"),
        ("policy.rule", "from gatebook.identity import oidc"),
        ("policy.rule", "from gatebook.identity.oidc import verify"),
        ("gateway.render", "def f():\n    from gatebook.guard import service"),
        ("guard.service", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from gatebook import cli"),
        ("access.find", "from gatebook.ledger import writer"),
        ("cli.run", "from gatebook.ledger.writer import Writer"),
        ("supervisor", "from gatebook import demo"),
        ("gateway.nginx", "import ruamel.yaml"),
        ("gateway.nginx", "from ruamel.yaml import YAML"),
        ("limits", "try:\n    import typer\nexcept ImportError:\n    pass"),
    ],
)
def test_forbidden_import_is_found(name: str, text: str) -> None:
    rest = dict.fromkeys(["policy", "cli", "demo", "ledger.writer", "identity.oidc", "identity.types"], "")
    assert len(violations({**rest, name: text})) >= 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("policy.rule", "from gatebook.identity.types import Identity"),
        ("policy.rule", "from gatebook.identity import types"),
        ("recorder.process", "from gatebook.ledger.writer import Writer"),
        ("recorder.process", "from gatebook import __version__, record"),
        ("ledger.recover", "from gatebook.ledger import writer"),
        ("config.source", "from ruamel.yaml import YAML"),
    ],
)
def test_allowed_import_is_not_found(name: str, text: str) -> None:
    rest = dict.fromkeys(["record", "ledger.writer", "identity.types"], "")
    assert violations({**rest, name: text}) == []


def test_relative_import_is_refused() -> None:
    with pytest.raises(AssertionError, match="relative"):
        violations({"limits": "from . import record"})
