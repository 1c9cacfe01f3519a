"""`gatebook init`: what it makes can be used at once, and what exists is never written over."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatebook import policy, starter
from gatebook.config.load import load, parse
from gatebook.config.model import Configuration
from gatebook.config.schema import schema_text
from gatebook.config.source import read
from gatebook.paths import Paths

Run = Callable[..., Any]
SECRETS = ["log.key", "reader.key", "pseudonym.key", "fingerprint.key"]


# Keys that a starter need not show: long forms, and what few providers want. docs/config.md has all.
LEFT_TO_THE_REFERENCE = {
    "count",
    "period_s",
    "method",
    "key_id",
    "algorithm",
    "accept_untyped",
    "only_at_jwt",
    "one_time",
    "claims",
    "retain",
}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def uncommented(text: str) -> str:
    """The starter with all its examples switched on: lines that begin with # and no single space."""
    return re.sub(r"^#(?! \S|$)", "", text, flags=re.M)


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(folder)): (p.lstat().st_mode, p.read_bytes() if p.is_file() else b"")
        for p in sorted(folder.rglob("*"))
    }


def test_what_it_makes_is_private_whatever_the_umask(run: Run, tmp_path: Path) -> None:
    for number, umask in enumerate((0o000, 0o077)):
        folder = tmp_path / str(number)
        before = os.umask(umask)
        try:
            assert run("init", str(folder)).code == 0
        finally:
            os.umask(before)
        paths = Paths(folder / "state")
        assert mode(paths.state) == mode(paths.keys) == 0o700
        assert {mode(paths.keys / name) for name in SECRETS} == {0o600}
        assert mode(folder / "tls" / "server.key") == 0o600
        assert mode(folder / "tls" / "ca.pem") == 0o644
        assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


def test_keys_differ_between_two_deployments(run: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run("init", str(tmp_path / name))
    for name in SECRETS:
        one, two = ((tmp_path / d / "state" / "keys" / name).read_bytes() for d in ("a", "b"))
        assert one != two
    assert len((tmp_path / "a/state/keys/pseudonym.key").read_bytes()) == 32


def test_configuration_names_its_schema_and_loads(run: Run, tmp_path: Path) -> None:
    assert run("init", str(tmp_path), "--name", "shop").code == 0
    text = (tmp_path / "gatebook.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=./gatebook.schema.json\n")
    assert (tmp_path / "gatebook.schema.json").read_text() == schema_text()
    configuration = load(tmp_path / "gatebook.yaml")
    assert configuration.origin == "shop/node-1"
    assert [route.name for route in configuration.routes] == ["health", "read-order"]
    assert policy.problems(configuration) == []


@pytest.mark.parametrize("name", ["true", "null", "1", "1e3", "0x1f", "a.b", "x" * 64])
def test_names_that_yaml_would_take_for_something_else(name: str) -> None:
    assert parse(starter.starter_text(name), "f", Path("/etc")).name == name


@pytest.mark.parametrize("name", ["", "Acme", "a/b", "a b", "a\n", "-a", "x" * 65, "../x"])
def test_names_that_are_none_make_nothing(run: Run, tmp_path: Path, name: str) -> None:
    ran = run("init", str(tmp_path / "new"), f"--name={name}")
    assert ran.code == 2
    assert "lower-case letters" in ran.err
    assert not (tmp_path / "new").exists()


def test_every_example_in_it_is_valid() -> None:
    configuration = parse(uncommented(starter.starter_text()), "f", Path("/etc/gatebook"))
    assert policy.problems(configuration) == []
    assert [route.name for route in configuration.routes] == ["health", "read-order", "files"]


def test_it_shows_every_key_there_is() -> None:
    source = read(uncommented(starter.starter_text()).encode(), "f")
    shown = {location[-1] for location in source.keys}

    def keys(node: Any, definitions: dict[str, Any]) -> set[str]:
        found = set(node.get("properties", {}))
        for below in definitions.values():
            if "records" not in below.get("properties", {}):  # sinks, of which docs/sinks.md tells
                found |= set(below.get("properties", {}))
        return found

    made = Configuration.model_json_schema()
    assert keys(made, made["$defs"]) - shown == LEFT_TO_THE_REFERENCE


@pytest.mark.parametrize("existing", ["gatebook.yaml", "gatebook.schema.json", "state", "tls"])
@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_nothing_is_written_over(run: Run, tmp_path: Path, existing: str, kind: str) -> None:
    target = tmp_path / existing
    if kind == "file":
        target.write_text("precious")
    elif kind == "folder":
        target.mkdir()
    else:
        target.symlink_to(tmp_path / "nowhere")
    before = tree(tmp_path)
    ran = run("init", str(tmp_path))
    assert ran.code == 3
    assert f"there is already {target};" in ran.err
    assert tree(tmp_path) == before


def test_second_init_names_everything_that_is_there(run: Run, tmp_path: Path) -> None:
    run("init", str(tmp_path))
    before = tree(tmp_path)
    ran = run("init", str(tmp_path), "--json")
    assert ran.code == 3
    assert all(name in ran.json()["error"]["message"] for name in ("state", "tls", "gatebook.yaml"))
    assert tree(tmp_path) == before


class Crash(BaseException):
    """What the kernel does to a killed process: nothing after it happens."""


@pytest.mark.parametrize("moves", range(4))
def test_crash_between_moves_leaves_no_configuration_and_destroys_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    real, left = starter._move, iter(range(moves))

    def move(source: Path, target: Path) -> None:
        if next(left, None) is None:
            raise Crash
        real(source, target)

    monkeypatch.setattr(starter, "_move", move)
    monkeypatch.setattr("gatebook.starter.shutil.rmtree", lambda path: None)
    with pytest.raises(Crash):
        run("init", str(tmp_path))
    monkeypatch.undo()
    assert not (tmp_path / "gatebook.yaml").exists()
    before = tree(tmp_path)
    ran = run("init", str(tmp_path))
    assert ran.code == (0 if moves == 0 else 3)
    after = tree(tmp_path)
    assert {name: after[name] for name in before} == before


def test_file_that_comes_into_being_meanwhile_is_not_lost(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = starter._move

    def move(source: Path, target: Path) -> None:
        if target.name == "gatebook.yaml":
            target.write_text("precious")
        real(source, target)

    monkeypatch.setattr(starter, "_move", move)
    assert run("init", str(tmp_path)).code == 3
    assert (tmp_path / "gatebook.yaml").read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_folder_that_cannot_be_made_is_an_error_with_its_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = run("init", str(tmp_path / "file" / "below"))
    assert ran.code == 3
    assert "file/below: not a directory" in ran.err


def test_new_certificate_leaves_everything_else_alone(run: Run, tmp_path: Path) -> None:
    run("init", str(tmp_path))
    assert run("init", str(tmp_path), "--certificate").code == 3  # tls is still there
    before = tree(tmp_path)
    (tmp_path / "tls").rename(tmp_path / "old")
    assert run("init", str(tmp_path), "--certificate").code == 0
    after = tree(tmp_path)
    assert after["tls/server.pem"] != before["tls/server.pem"]
    assert after["tls/server.key"][0] == before["tls/server.key"][0]
    same = [name for name in before if not name.startswith("tls/")]
    assert [after[name] for name in same] == [before[name] for name in same]


def test_it_says_what_to_do_next(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = run("init", str(tmp_path / "new")).out
    for command in (
        f"cd {tmp_path / 'new'}",
        "gatebook check",
        "gatebook run",
        "gatebook key create",
        "curl --cacert",
    ):
        assert command in text
    monkeypatch.chdir(tmp_path / "new")
    for name in ("state", "tls"):
        Path(name).rename(f"old-{name}")
    for name in ("gatebook.yaml", "gatebook.schema.json"):
        Path(name).unlink()
    assert "cd " not in run("init").out


def test_json_lists_what_was_made(run: Run, tmp_path: Path) -> None:
    made = run("init", str(tmp_path), "--json").json()["made"]
    assert made == [str(tmp_path / name) for name in ("state", "tls", "gatebook.schema.json", "gatebook.yaml")]
    assert json.loads((tmp_path / "gatebook.schema.json").read_text())["title"] == "gatebook.yaml"
