"""Filters: what is asked for is shown, and words that say nothing are refused."""

from __future__ import annotations

import msgspec
import pytest
from tests.access.ledger import ORIGIN, T0, decision, outcome, refused

from gatebook import record
from gatebook.access.filter import Filter, parse_status, parse_time
from gatebook.access.found import Access, Event, Placed, Strange, access

ALLOWED = access(ORIGIN, Placed(0, decision(1)), Placed(1, outcome(1, 0, 502)))
DENIED = access(ORIGIN, Placed(2, decision(2, verdict="deny")), None)
REFUSED = access(
    ORIGIN,
    None,
    Placed(3, record.decode(record.encode(refused(3, 413)))),
)
SHADOW = record.ShadowPart(verdict="deny", reason="deny_rule", rule="frozen")
TRIED = access(
    ORIGIN, Placed(5, decision(5, decision=msgspec.structs.replace(decision(5).decision, shadow=SHADOW))), None
)
ADMIN = Event(4, record.Admin(time_us=T0, action="key.create", actor="os:0"))


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("403", [403], [402, 404]),
        ("4xx", [400, 499], [399, 500]),
        ("5XX", [500, 599], [499]),
        (">=400", [400, 503], [399]),
        (">400", [401], [400]),
        ("<400", [101, 399], [400]),
        ("<=400", [400], [401]),
        ("400-404", [400, 404], [399, 405]),
        ("200, 5xx", [200, 500], [201, 404]),
    ],
)
def test_status_words_mean_what_they_say(text: str, inside: list[int], outside: list[int]) -> None:
    wanted = Filter(statuses=parse_status(text))
    for status in inside:
        assert wanted.matches(access(ORIGIN, None, Placed(0, outcome(1, None, status))))
    for status in outside:
        assert not wanted.matches(access(ORIGIN, None, Placed(0, outcome(1, None, status))))


@pytest.mark.parametrize(
    "text", ["", "4", "40", "4000", "xx", "0xx", "6xx", "=400", ">=4xx", "400-", "400,", "\u0664\u0660\u0663"]
)
def test_other_status_words_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected 403"):
        parse_status(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", T0 - 600_000_000),
        ("90s", T0 - 90_000_000),
        ("2h", T0 - 7_200_000_000),
        ("7d", T0 - 604_800_000_000),
        ("1w", T0 - 604_800_000_000),
        ("2023-11-14", 1_699_920_000_000_000),
        ("2023-11-14T22:13:20", T0),
        ("2023-11-14T22:13:20Z", T0),
        ("2023-11-14T23:13:20.000001+01:00", T0 + 1),
        ("1969-12-31T23:59:59Z", -1_000_000),
    ],
)
def test_times_are_ago_or_utc(text: str, expected: int) -> None:
    assert parse_time(text, T0) == expected


@pytest.mark.parametrize(
    "text", ["", "10", "m", "-5m", "10 minutes", "yesterday", "2023-13-01", "1e3s", "9" * 12 + "s"]
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected 10m"):
        parse_time(text, T0)


@pytest.mark.parametrize("found", [ALLOWED, DENIED, REFUSED])
def test_nothing_asked_matches_every_access_and_no_event(found: Access) -> None:
    assert Filter().matches(found)
    assert not Filter().matches(ADMIN)
    assert not Filter().matches(Strange(9, "why"))
    assert Filter(events=True).matches(ADMIN)
    assert Filter(events=True).matches(Strange(9, "why"))


@pytest.mark.parametrize(
    ("wanted", "matching"),
    [
        (Filter(verdict="allow"), [ALLOWED]),
        (Filter(verdict="deny"), [DENIED]),
        (Filter(route="read-order"), [ALLOWED, DENIED]),
        (Filter(route="read"), []),
        (Filter(method="get"), [ALLOWED, DENIED, REFUSED]),
        (Filter(method="POST"), []),
        (Filter(statuses=((500, 599),)), [ALLOWED]),
        (Filter(statuses=((403, 403),)), [DENIED]),
        (Filter(reason="no_rule"), [DENIED]),
        (Filter(reason="rule"), [ALLOWED]),
        (Filter(identity="staff"), [ALLOWED, DENIED]),
        (Filter(identity="app"), [ALLOWED, DENIED]),
        (Filter(identity="ab" * 16), [ALLOWED, DENIED]),
        (Filter(identity="ab" * 4), [ALLOWED, DENIED]),
        (Filter(identity="abab"), []),
        (Filter(identity="cd" * 16), []),
        (Filter(since_us=T0 + 2_000_000), [DENIED, REFUSED]),
        (Filter(until_us=T0 + 2_000_000), [ALLOWED]),
        (Filter(verdict="allow", statuses=((200, 299),)), []),
    ],
)
def test_only_what_is_asked_for_is_shown(wanted: Filter, matching: list[Access]) -> None:
    assert [found for found in (ALLOWED, DENIED, REFUSED) if wanted.matches(found)] == matching


def test_reason_finds_where_an_error_came_from() -> None:
    part = record.ErrorPart(source="upstream", detail="connect_refused")
    failed = access(ORIGIN, Placed(0, decision(1)), Placed(1, outcome(1, 0, 502, error=part)))
    assert Filter(reason="connect_refused").matches(failed)
    assert Filter(reason="upstream").matches(failed)
    assert not Filter(reason="timeout").matches(failed)


def test_only_what_a_shadow_would_have_changed_is_shown() -> None:
    wanted = Filter(shadow_differs=True)
    assert [found for found in (ALLOWED, DENIED, REFUSED, TRIED) if wanted.matches(found)] == [TRIED]


def test_filter_for_accesses_shows_no_events() -> None:
    assert not Filter(events=True, identity="staff").matches(ADMIN)
    assert not Filter(events=True, shadow_differs=True).matches(ADMIN)
    assert not Filter(events=True, since_us=T0 + 1).matches(ADMIN)
    assert Filter(events=True, since_us=T0).matches(ADMIN)
