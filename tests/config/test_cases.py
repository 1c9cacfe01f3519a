"""Each case file: a configuration, a dashed line, and every line that its author is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatebook.config.load import parse
from gatebook.errors import ConfigError

CASES = sorted((Path(__file__).parent / "cases").glob("*.case"))


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_case(case: Path) -> None:
    text, _, expected = case.read_text("utf-8").partition("----------\n")
    try:
        parse(text, "gatebook.yaml", Path("/etc/gatebook"))
        said = "accepted"
    except ConfigError as error:
        said = str(error)
    assert said.splitlines() == expected.splitlines()


def test_there_are_cases() -> None:
    assert len(CASES) > 100
