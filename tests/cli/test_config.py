"""`gatebook config …` prints what can be used as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatebook.config.model import Configuration
from gatebook.config.schema import reference, schema

Run = Callable[..., Any]
CASE = Path(__file__).parents[1] / "config" / "cases" / "accepted.case"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "gatebook.yaml"
    path.write_text(CASE.read_text("utf-8").partition("----------\n")[0])
    return path


def test_schema_is_printed_as_json(run: Run) -> None:
    assert run("config", "schema").json() == schema()


def test_reference_is_printed_as_the_file_holds_it(run: Run) -> None:
    assert run("config", "docs").out == reference()


def test_show_prints_the_bytes_that_decisions_name(run: Run, config: Path) -> None:
    out = run("config", "show", "-c", str(config)).out
    assert Configuration.model_validate_json(out).effective().decode() + "\n" == out
    assert json.loads(out)["guard"]["processes"] == 1


def test_configuration_may_be_named_by_the_environment(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEBOOK_CONFIG", str(config))
    assert run("config", "show").code == 0


def test_configuration_is_looked_for_in_the_working_folder(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GATEBOOK_CONFIG", raising=False)
    monkeypatch.chdir(config.parent)
    assert run("config", "show").code == 0


def test_show_of_a_wrong_configuration_shows_nothing_of_it(run: Run, config: Path) -> None:
    config.write_text(config.read_text() + "gatway: {}\n")
    ran = run("config", "show", "-c", str(config))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"error: {config}:21:1: gatway: unknown key (did you mean `gateway`?)\n"
