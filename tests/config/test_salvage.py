"""What is left of a file with wrong values: enough to be checked further, and never a reason to fall over."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook import limits, policy, redact
from gatebook.config.load import rest_of
from gatebook.config.source import Source, read

GOOD = (Path(__file__).parent / "cases" / "accepted.case").read_text("utf-8").partition("----------\n")[0]
FILE = Path("/etc/gatebook.yaml")


def source(text: str = GOOD) -> Source:
    return read(text.encode(), "f")


def locations(data: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [place for key, value in pairs for place in ((*before, key), *locations(value, (*before, key)))]


def broken(places: list[tuple[Any, ...]], junk: Any) -> Source:
    found = source()
    data = found.data = copy.deepcopy(found.data)
    for place in places:
        holder = data
        for part in place[:-1]:
            holder = holder[part]
        holder[place[-1]] = junk
    return found


JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [None, -3, "", "?", [], {}, [None], {"?": 1}, ["?"], [[]], True, "1/minutes"]
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([p for p in locations(source().data) if p != ("version",)]), JUNK)
def test_whatever_a_value_is_the_rest_can_be_looked_at(place: tuple[Any, ...], junk: Any) -> None:
    configuration, _ = rest_of(FILE, broken([place], junk))
    assert configuration is not None
    for part in (policy, limits, redact):
        list(part.problems(configuration))


def test_what_takes_the_place_of_a_wrong_value_is_named_so_that_nobody_is_blamed_for_it() -> None:
    text = GOOD + "guard: {processes: two}\n"
    configuration, places = rest_of(FILE, source(text))
    assert configuration is not None
    assert places == [("guard", "processes")]
    assert configuration.name == "acme"


def test_wrong_item_does_not_give_another_number_to_the_items_behind_it() -> None:
    found = source()
    found.data["routes"].insert(0, {"name": "wrong"})
    configuration, places = rest_of(FILE, found)
    assert configuration is not None
    assert [route.name for route in configuration.routes][1:] == [r["name"] for r in found.data["routes"][1:]]
    assert ("routes", 0) in places


@pytest.mark.parametrize("version", ["2", "'1'", "[]"])
def test_file_of_another_version_is_not_guessed_at(version: str) -> None:
    assert rest_of(FILE, source(GOOD.replace("version: 1", f"version: {version}"))) == (None, [])
