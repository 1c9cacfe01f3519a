"""What is sent: by kind and by `where`, which may send too much when it is wrong, and never loses a record."""

from __future__ import annotations

import pytest
from tests.sinks.test_fields import full, items, others

from gatebook.config.sinks import FileSink
from gatebook.errors import EnvironmentFault
from gatebook.policy.where import compile_where
from gatebook.sinks.item import Item
from gatebook.sinks.wanted import wanted


def settings(**more: object) -> FileSink:
    return FileSink.model_validate({"type": "file", "path": "/x", **more})


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ('record.request.path.startsWith("/orders/")', True),
        ("record.response.status >= 500", True),
        ("record.response.status < 500", False),
        ('"reader" in record.identity.roles', True),
        ('kind == "admin"', False),
        ('has(record.error) && record.error.source == "upstream"', True),
        ('record.decision.verdict == "deny"', False),
        ("record.nothing.of.the.kind == 1", True),
        ("record.response.status / 0 == 1", True),
        ('record.response.status == "a text"', False),
    ],
)
def test_where(where: str, expected: bool) -> None:
    assert wanted(settings(where=where))(full()) is expected


def test_kinds() -> None:
    asked = wanted(settings(records=["admin", "alert"]))
    assert [asked(one) for one in (full(), *others())] == [False, True, True, False]


def test_record_of_a_newer_version_is_always_sent() -> None:
    (strange,) = items(b'{"v":1,"kind":"novelty"}')  # type: ignore[arg-type]
    assert isinstance(strange, Item)
    assert wanted(settings(records=["access"], where="false"))(strange)


@pytest.mark.parametrize("where", ["record.", "size(record)", "unknown.name", "x" * 5000, ""])
def test_expression_that_is_none_is_refused(where: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - CEL's own words
        compile_where(where)
    with pytest.raises(EnvironmentFault):
        wanted(settings(where=where))
