"""Limits: exactly as many as allowed, whoever floods, whichever way the clock goes."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.config.model import Configuration
from gatebook.identity.types import Identity
from gatebook.limits import Limiter, Taken, address_key, problems
from gatebook.record import LimitPart

CALLER = {"name": "per-caller", "per": "identity", "rate": "100/minute", "burst": 20}
HERE = "192.0.2.7"


def configure(*limits: dict[str, Any]) -> Configuration:
    return Configuration.model_validate(
        {
            "version": 1,
            "name": "acme",
            "listen": [{"address": "127.0.0.1:8080"}],
            "identity": {"partners": {"type": "api_key"}},
            "upstreams": {"orders": {"url": "http://127.0.0.1:9001"}},
            "routes": [
                {
                    "name": name,
                    "path": f"/{name}",
                    "methods": ["GET"],
                    "upstream": "orders",
                    "identity": ["partners"],
                    "limits": list(limits),
                }
                for name in ("one", "two")
            ],
        }
    )


class Desk:
    """A limiter and its first route, asked in short."""

    def __init__(self, *limits: dict[str, Any], max_keys: int = 1000) -> None:
        self.configuration = configure(*limits)
        self.limiter = Limiter(self.configuration, max_keys=max_keys)

    def take(
        self, now: float, who: str | None = "ann", address: str = HERE, key: bytes = b"k", route: int = 0
    ) -> Taken:
        identity = who and Identity(
            provider="partners", method="api_key", subject=who, credential_sha256=key, expires_at=2e9
        )
        taken = self.limiter.take(self.configuration.routes[route], identity or None, address, now)
        assert taken is not None
        return taken

    def burst(self, now: float, count: int = 100, **asked: Any) -> int:
        return sum(self.take(now, **asked).allowed for _ in range(count))


def test_route_without_limits_is_not_limited() -> None:
    configuration = configure()
    assert Limiter(configuration).take(configuration.routes[0], None, HERE, 0.0) is None


def test_burst_is_exactly_as_large_as_configured_then_the_rate_holds() -> None:
    desk = Desk(CALLER)
    assert desk.burst(1000.0) == 20
    assert desk.burst(1000.59) == 0
    assert desk.burst(1000.6) == 1
    assert desk.burst(1006.6) == 10
    assert desk.burst(5000.0) == 20


def test_without_burst_the_whole_count_may_come_at_once() -> None:
    assert Desk({"name": "a", "per": "identity", "rate": "7/hour"}).burst(5.0) == 7


def test_window_edges_cannot_be_used_to_double_the_rate() -> None:
    desk = Desk({"name": "a", "per": "identity", "rate": "60/minute", "burst": 1})
    allowed = sum(desk.take(59.0 + step / 100).allowed for step in range(200))
    assert allowed <= 3


def test_refusal_names_the_limit_and_when_to_come_back() -> None:
    desk = Desk(CALLER)
    desk.burst(10.0, 20)
    refused = desk.take(10.1)
    assert not refused.allowed
    assert refused.part == LimitPart(name="per-caller", limit=20, remaining=0, reset_s=12, retry_after_s=1)
    assert refused.fields() == (
        ("RateLimit-Policy", '"per-caller";q=100;w=60'),
        ("RateLimit", '"per-caller";r=0;t=1'),
        ("Retry-After", "1"),
    )


def test_coming_back_when_told_to_succeeds() -> None:
    desk = Desk({"name": "slow", "per": "identity", "rate": "7/hour", "burst": 2})
    desk.burst(3.0)
    after_s = desk.take(3.1).part.retry_after_s
    assert after_s == 515  # a seventh of an hour is 514.28 s, of which 0.1 have passed
    assert desk.take(3.1 + after_s).allowed
    assert desk.take(3.1 + after_s).part.retry_after_s == 514


def test_allowed_request_says_what_is_left() -> None:
    taken = Desk(CALLER).take(10.0)
    assert taken.part == LimitPart(name="per-caller", limit=20, remaining=19, reset_s=1)
    assert taken.fields()[1] == ("RateLimit", '"per-caller";r=19;t=1')


def test_time_to_the_next_request_is_not_the_time_to_all_of_them() -> None:
    desk = Desk({"name": "a", "per": "identity", "rate": "10/minute"})
    desk.burst(0.0, 10)
    taken = desk.take(13.0)  # two are back, one of them is taken, the third comes at 18 s
    assert (taken.part.remaining, taken.part.reset_s, taken.next_s) == (1, 53, 5)


WIDE = {"name": "wide", "per": "address", "rate": "5/hour"}
NARROW = {"name": "narrow", "per": "identity", "rate": "2/hour"}


def test_request_counts_against_all_limits_or_none() -> None:
    desk = Desk(WIDE, NARROW)
    assert desk.burst(0.0, 50, who="ann") == 2  # 48 refusals by `narrow` must not eat up `wide`
    assert desk.burst(0.0, 50, who="bob") == 2
    assert desk.burst(0.0, 50, who="eve") == 1
    refused = desk.take(0.0, who="eve")
    assert (refused.part.name, refused.allowed) == ("wide", False)
    assert desk.burst(0.0, 50, who="eve", address="198.51.100.1") == 1  # nor 49 by `wide` eat up `narrow`


def test_tightest_limit_is_reported() -> None:
    desk = Desk(WIDE, NARROW)
    assert desk.take(0.0).part.name == "narrow"
    assert dict(desk.take(0.0).fields())["RateLimit-Policy"] == '"wide";q=5;w=3600, "narrow";q=2;w=3600'


def test_longest_wait_is_told_when_two_limits_refuse() -> None:
    short = {"name": "short", "per": "route", "rate": "1/second"}
    long = {"name": "long", "per": "route", "rate": "1/day"}
    for desk in (Desk(short, long), Desk(long, short)):
        desk.take(0.0)
        assert desk.take(0.1).part.name == "long"


@pytest.mark.parametrize(
    ("per", "change", "fresh"),
    [
        ("identity", {"who": "bob"}, True),
        ("identity", {"address": "198.51.100.1", "key": b"other"}, False),
        ("credential", {"key": b"other"}, True),
        ("credential", {"who": "bob", "address": "198.51.100.1"}, False),
        ("address", {"address": "198.51.100.1"}, True),
        ("address", {"who": "bob", "key": b"other"}, False),
        ("route", {"who": "bob", "address": "198.51.100.1", "key": b"other"}, False),
        ("route", {"route": 1}, True),
        ("identity", {"route": 1}, True),
    ],
)
def test_who_shares_a_limit(per: str, change: dict[str, Any], fresh: bool) -> None:
    desk = Desk({"name": "a", "per": per, "rate": "1/day"})
    assert desk.take(0.0).allowed
    assert desk.take(0.0, **change).allowed is fresh


def test_nobody_is_limited_by_address() -> None:
    for per in ("identity", "credential"):
        desk = Desk({"name": "a", "per": per, "rate": "1/day"})
        assert desk.burst(0.0, who=None) == 1
        assert desk.burst(0.0, who=None, address="198.51.100.1") == 1


def test_subject_cannot_be_chosen_to_hit_another_key() -> None:
    desk = Desk({"name": "a", "per": "identity", "rate": "1/day"})
    desk.take(0.0, who="ann")
    for who in ("a" + HERE, "ann\0", "\0ann", "x" * 5000, "x" * 5001, "\udce9"):
        assert desk.take(0.0, who=who).allowed


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.7", "192.0.2.7", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("unix:", "not an address", False),
    ],
)
def test_network_of_one_customer_counts_once(one: str, other: str, same: bool) -> None:
    """Whoever has an IPv6 line has 2^64 addresses."""
    assert (address_key(one) == address_key(other)) is same


def test_flood_of_new_keys_never_resets_a_limited_caller() -> None:
    desk = Desk({"name": "a", "per": "identity", "rate": "1/hour"}, max_keys=50)
    assert desk.take(0.0, who="limited").allowed
    for number in range(5000):
        desk.take(number / 100, who=f"flood-{number}")
        if number % 100 == 0:
            assert not desk.take(number / 100, who="limited").allowed
    assert len(desk.limiter) <= 100  # the keys and the shared slots


def test_flood_itself_is_limited_when_there_is_no_room() -> None:
    desk = Desk({"name": "a", "per": "identity", "rate": "1/hour"}, max_keys=50)
    allowed = sum(desk.take(1.0, who=f"flood-{number}").allowed for number in range(5000))
    assert allowed <= 100


def test_moving_out_of_a_shared_slot_wins_nothing() -> None:
    desk = Desk({"name": "a", "per": "identity", "rate": "2/hour"}, max_keys=2)
    desk.take(0.0, who="first")
    desk.take(0.0, who="second")
    assert desk.burst(1700.0, 10, who="late") == 2  # the others are not full again: `late` shares a slot
    assert desk.burst(1801.0, 10, who="late") == 0  # they are, and `late` gets a key of its own
    assert desk.burst(3501.0, 10, who="late") == 1


def test_long_subjects_cost_no_more_memory_than_short_ones() -> None:
    desk = Desk(CALLER)
    desk.take(0.0, who="x" * 100_000)
    assert max(map(len, desk.limiter._full_at)) < 200


def test_keys_that_are_full_again_are_forgotten() -> None:
    desk = Desk({"name": "a", "per": "identity", "rate": "1/second"}, max_keys=100_000)
    for number in range(20_000):
        desk.take(number / 100, who=f"caller-{number}")
    assert len(desk.limiter) < 500


def test_clock_that_goes_backwards_gives_nothing_and_takes_nothing() -> None:
    desk = Desk({"name": "a", "per": "identity", "rate": "60/minute", "burst": 5})
    assert desk.burst(10_000.0) == 5
    assert desk.burst(100.0) == 0
    assert desk.burst(101.0) == 1
    assert desk.burst(99.0) == 0
    assert desk.burst(103.0) == 4


def test_new_configuration_does_not_pardon_anybody() -> None:
    desk = Desk(CALLER)
    desk.burst(0.0)
    desk.limiter = Limiter(configure(CALLER, WIDE), previous=desk.limiter)
    assert desk.burst(0.1) == 0


def test_new_configuration_does_not_forget_the_clock() -> None:
    desk = Desk(CALLER)
    desk.burst(100.0)
    desk.limiter = Limiter(desk.configuration, previous=desk.limiter)
    assert desk.burst(40.0) == 0
    assert desk.burst(40.61) == 1


def test_very_fast_rate_is_not_rounded_up() -> None:
    desk = Desk({"name": "a", "per": "route", "rate": "10000000/second", "burst": 1})
    assert desk.burst(1.0, 5) == 1


steps = st.lists(st.integers(0, 4000), max_size=150)  # quarters of a millisecond, exact in binary and in sum


@given(steps, st.integers(1, 50), st.sampled_from([("second", 1), ("minute", 60)]), st.integers(1, 8))
def test_agrees_with_exact_arithmetic(gaps: list[int], count: int, period: tuple[str, int], burst: int) -> None:
    desk = Desk({"name": "a", "per": "route", "rate": f"{count}/{period[0]}", "burst": burst})
    interval, full_at, now = Fraction(period[1], count), Fraction(0), Fraction(0)
    for gap in gaps:
        now += Fraction(gap, 4096)
        expected = full_at - now <= (burst - 1) * interval
        if expected:
            full_at = max(full_at, now) + interval
        taken = desk.take(float(now))
        assert taken.allowed is expected
        left = (burst * interval - max(full_at - now, Fraction(0))) // interval
        assert taken.part.remaining == (left if expected else 0)


@given(st.lists(st.floats(-1e6, 1e6), max_size=60))
def test_no_clock_whatever_gives_more_than_time_has_passed(times: list[float]) -> None:
    desk = Desk({"name": "a", "per": "route", "rate": "1/second", "burst": 3})
    passed = sum(max(0.0, after - before) for before, after in pairwise(times))
    assert sum(desk.take(now).allowed for now in times) <= 3 + passed


def test_two_limits_of_one_name_are_a_problem() -> None:
    found = problems(configure(WIDE, NARROW, WIDE))
    assert [place for place, _, _ in found] == [("routes", n, "limits", 2, "name") for n in (0, 1)]
    assert problems(configure(WIDE, NARROW)) == []
