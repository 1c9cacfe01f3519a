"""The schema takes what the loader takes, and the reference is what the model says."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from gatebook.config.load import parse
from gatebook.config.model import Configuration
from gatebook.config.schema import _size as size_text
from gatebook.config.schema import duration as duration_text
from gatebook.config.schema import reference, schema, schema_text
from gatebook.config.source import read
from gatebook.config.value import parse_duration, parse_size
from gatebook.errors import ConfigError

ROOT = Path(__file__).parents[2]
CASES = sorted((Path(__file__).parent / "cases").glob("*.case"))


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


def test_schema_text_is_the_same_every_time() -> None:
    assert schema_text() == schema_text()
    assert json.loads(schema_text()) == schema()


def data_of(case: Path) -> object:
    try:
        return read(case.read_text("utf-8").partition("----------\n")[0].encode(), "f").data
    except ConfigError:
        return None


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_schema_refuses_nothing_that_the_loader_accepts(case: Path) -> None:
    _, _, expected = case.read_text("utf-8").partition("----------\n")
    if expected == "accepted\n":
        jsonschema.validate(data_of(case), schema())


@pytest.mark.parametrize(
    "name",
    [
        "unknown-key-at-the-top",
        "unknown-keys-deep",
        "misspelt-key-in-a-union-branch",
        "misspelt-provider-type",
        "missing-in-a-list-item",
        "algorithm-none",
        "duration-in-words",
        "duration-negative",
        "size-in-words",
        "rate-of-a-fortnight",
        "name-in-capitals",
        "name-of-a-provider-in-capitals",
        "identity-is-one-name",
        "per-misspelt",
        "tls-version-not-in-quotes",
        "routes-empty",
    ],
)
def test_schema_marks_what_an_editor_can_see(name: str) -> None:
    data = data_of(Path(__file__).parent / "cases" / f"{name}.case")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema())


def test_units_may_be_text_or_numbers() -> None:
    text = (Path(__file__).parent / "cases" / "accepted.case").read_text("utf-8").partition("----------\n")[0]
    text += "gateway: {max_body: 10m, max_header: 65536, header_timeout: 5s, body_timeout: 30}\n"
    jsonschema.validate(read(text.encode(), "f").data, schema())
    gateway = parse(text, "f", Path("/etc")).gateway
    assert (gateway.max_body, gateway.max_header) == (10 << 20, 65536)
    assert (gateway.header_timeout, gateway.body_timeout) == (5.0, 30.0)


def test_every_mapping_refuses_unknown_keys() -> None:
    made = schema()
    for name, node in [("top", made), *made["$defs"].items()]:
        for branch in [node, *node.get("anyOf", [])]:
            if "properties" in branch:
                assert branch["additionalProperties"] is False, name


def test_every_key_is_described() -> None:
    made = schema()
    for name, node in [("top", made), *made["$defs"].items()]:
        for key, value in node.get("properties", {}).items():
            assert value.get("description"), f"{name}.{key} has no description"


def test_reference_in_docs_is_current() -> None:
    assert (ROOT / "docs" / "config.md").read_text("utf-8") == reference(), (
        "run: gatebook config docs > docs/config.md"
    )


def test_reference_holds_every_key() -> None:
    text = reference()
    for name in Configuration.model_fields:
        assert f"| `{name}` |" in text
    for heading in ("`identity.<name>: {type: oidc}`", "`routes[].limits[].rate`", "`gateway.flood`"):
        assert f"## {heading}" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "500ms"), (1.5, "1500ms"), (30, "30s"), (90, "90s"), (3600, "1h"), (86400, "1d")]
)
def test_defaults_are_written_as_a_person_would(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("count", "text"), [(0, 0), (1000, 1000), (1024, "1k"), (10 << 20, "10m"), (3 << 30, "3g")]
)
def test_sizes_too(count: int, text: str | int) -> None:
    assert size_text(count) == text
    assert parse_size(text) == count
