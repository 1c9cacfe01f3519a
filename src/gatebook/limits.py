"""Rate limits: the generic cell rate algorithm (GCRA), one number a key, in this process's memory.

In: a route, who asks, from where, and a monotonic clock's seconds. Out: `Taken`, whether every limit of
the route allows and how the tightest stands. A request counts against all of its route's limits or
against none. A flood of new keys never resets a caller that is being limited: keys are dropped only when
they are full again, and without room newcomers share a fixed number of slots. No I/O; why it is ours
stands in docs/decisions/0002-limits-are-gcra-of-our-own.md.
"""

from __future__ import annotations

import hashlib
import socket
from collections import deque
from math import ceil

import msgspec

from gatebook.config.model import Configuration, Limit, Route
from gatebook.identity.types import Identity
from gatebook.record import LimitPart

MAX_KEYS = 1_000_000
_SHARED_SLOTS = 4096  # for each limit, fewer where there are many limits
_LOOKED_AT = 4  # old keys examined for each new one; above 1 the table cannot fill up with idle keys
_EPSILON_S = 1e-6  # what float arithmetic may be early by at most; it does not add up


class Taken(msgspec.Struct, frozen=True, gc=False):
    """What became of one request. `next_s`: seconds until one more request is allowed, rounded up."""

    allowed: bool
    part: LimitPart
    policy: str  # value of the RateLimit-Policy field
    next_s: int

    def fields(self) -> tuple[tuple[str, str], ...]:
        """Response fields (draft-ietf-httpapi-ratelimit-headers-10), with Retry-After on a refusal."""
        state = f'"{self.part.name}";r={self.part.remaining};t={self.next_s}'
        fields = (("RateLimit-Policy", self.policy), ("RateLimit", state))
        if self.part.retry_after_s is None:
            return fields
        return (*fields, ("Retry-After", str(self.part.retry_after_s)))


class _Gauge:
    """One limit of one route, compiled. A key's number is the time at which it will be full again."""

    __slots__ = ("capacity", "epsilon_s", "interval_s", "name", "per", "prefix", "slack_s")

    def __init__(self, route: Route, limit: Limit) -> None:
        self.name = limit.name
        self.per = limit.per
        self.prefix = f"{route.name}\0{limit.name}\0"
        self.capacity = limit.capacity
        self.interval_s = limit.rate.period_s / limit.rate.count
        self.epsilon_s = min(_EPSILON_S, self.interval_s / 1000)
        self.slack_s = (self.capacity - 1) * self.interval_s


class Limiter:
    """The limits of one configuration. `previous` hands on who is limited when the configuration changes."""

    def __init__(
        self, configuration: Configuration, previous: Limiter | None = None, max_keys: int = MAX_KEYS
    ) -> None:
        self._gauges = {
            route.name: tuple(_Gauge(route, limit) for limit in route.limits)
            for route in configuration.routes
            if route.limits
        }
        self._policies = {
            route.name: ", ".join(
                f'"{limit.name}";q={limit.rate.count};w={limit.rate.period_s}' for limit in route.limits
            )
            for route in configuration.routes
        }
        self._max_keys = max_keys
        self._slots = max(1, min(_SHARED_SLOTS, max_keys // max(1, sum(map(len, self._gauges.values())))))
        self._full_at: dict[str, float] = previous._full_at if previous else {}
        self._oldest: deque[str] = previous._oldest if previous else deque()
        self._last_s: float = previous._last_s if previous else float("-inf")
        self._behind_s: float = previous._behind_s if previous else 0.0

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, route: Route, identity: Identity | None, address: str, now: float) -> Taken | None:
        """Count one request, unless some limit is exceeded. None when the route has no limits."""
        gauges = self._gauges.get(route.name)
        if gauges is None:
            return None
        now = self._steady(now)
        full_at = self._full_at
        keys: list[str] = []
        worst: _Gauge | None = None
        longest_s = 0.0
        for gauge in gauges:
            key = self._key(gauge, identity, address, now)
            keys.append(key)
            wait_s = full_at.get(key, now) - gauge.slack_s - now
            if wait_s > gauge.epsilon_s and wait_s > longest_s:
                worst, longest_s = gauge, wait_s
        if worst is not None:
            after_s = max(1, ceil(longest_s - worst.epsilon_s))
            part = LimitPart(
                name=worst.name,
                limit=worst.capacity,
                remaining=0,
                reset_s=max(1, ceil(longest_s + worst.slack_s - worst.epsilon_s)),
                retry_after_s=after_s,
            )
            return Taken(False, part, self._policies[route.name], after_s)
        return self._count(gauges, keys, now, self._policies[route.name])

    def _count(self, gauges: tuple[_Gauge, ...], keys: list[str], now: float, policy: str) -> Taken:
        tightest: _Gauge | None = None
        fewest, owed_s = 0, 0.0
        for gauge, key in zip(gauges, keys, strict=True):
            at = self._full_at.get(key)
            if at is None:
                self._oldest.append(key)
            at = (now if at is None or at < now else at) + gauge.interval_s
            self._full_at[key] = at
            left = int((gauge.slack_s + gauge.interval_s - (at - now) + gauge.epsilon_s) / gauge.interval_s)
            if tightest is None or left < fewest:
                tightest, fewest, owed_s = gauge, left, at - now
        assert tightest is not None  # noqa: S101 - a route without limits never comes here
        next_s = owed_s - (tightest.capacity - fewest - 1) * tightest.interval_s
        part = LimitPart(
            name=tightest.name,
            limit=tightest.capacity,
            remaining=fewest,
            reset_s=ceil(owed_s - tightest.epsilon_s),
        )
        return Taken(True, part, policy, max(1, ceil(next_s - tightest.epsilon_s)))

    def _steady(self, now: float) -> float:
        """A clock that goes backwards is taken to have stood still: nobody gains or loses by it."""
        now += self._behind_s
        if now < self._last_s:
            self._behind_s += self._last_s - now
            now = self._last_s
        self._last_s = now
        return now

    def _key(self, gauge: _Gauge, identity: Identity | None, address: str, now: float) -> str:
        if gauge.per == "route":
            who = ""
        elif identity is None or gauge.per == "address":
            who = "a" + address_key(address)  # nobody known: the address stands for the caller
        elif gauge.per == "identity":
            who = f"i{identity.provider}\0{identity.subject}"
        else:
            who = "c" + identity.credential_sha256.hex()
        if len(who) > 80:
            who = "h" + hashlib.sha256(who.encode("utf-8", "surrogatepass")).hexdigest()
        key = gauge.prefix + who
        if key in self._full_at:
            return key
        # Python's hash of a text is keyed at random for each process: nobody can aim at another's slot.
        shared = f"{gauge.prefix}s{hash(key) % self._slots}"
        if not self._has_room(now):
            return shared
        if shared in self._full_at:  # nobody gains by moving from a shared slot to one of their own
            self._full_at[key] = self._full_at[shared]
            self._oldest.append(key)
        return key

    def _has_room(self, now: float) -> bool:
        """Drop some of the oldest keys that are full again: forgetting those changes nothing."""
        oldest, full_at = self._oldest, self._full_at
        for _ in range(min(_LOOKED_AT, len(oldest))):
            key = oldest.popleft()
            if full_at[key] <= now:
                del full_at[key]
            else:
                oldest.append(key)
        return len(full_at) < self._max_keys


def address_key(address: str) -> str:
    """What counts as one address: an IPv4 address (mapped or not), or an IPv6 network of 64 bits."""
    if ":" not in address:
        return address
    try:
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except OSError:
        return address
    if packed[:12] == b"\0" * 10 + b"\xff\xff":
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return packed[:8].hex()


def problems(configuration: Configuration) -> list[tuple[tuple[str | int, ...], str, str]]:
    """Limits of one route that would be taken for one another, as (location, message, expected)."""
    found: list[tuple[tuple[str | int, ...], str, str]] = []
    for index, route in enumerate(configuration.routes):
        names: set[str] = set()
        for at, limit in enumerate(route.limits):
            if limit.name in names:
                place = ("routes", index, "limits", at, "name")
                found.append((place, f"{limit.name} is taken by another limit of this route", "a name of its own"))
            names.add(limit.name)
    return found
