"""Cookies of people who are logged in: upstreams see all but ours; a session stays with one guard."""

from __future__ import annotations

from typing import Any

from tests.gateway.rig import Rig

from gatebook.config.model import LOGIN_COOKIE, SESSION_COOKIE

LOGIN: dict[str, Any] = {
    "identity": {
        "staff": {
            "type": "oidc",
            "issuer": "https://login.acme.example",
            "audience": ["orders-api"],
            "login": {"client": {"id": "gateway", "secret": {"env": "NEVER_READ_HERE"}}},
        }
    },
    "portal": {"url": "https://api.acme.example"},
}
OURS, LOGS_IN = f"{SESSION_COOKIE}=e30.e30.AA", f"{LOGIN_COOKIE}=x"


CASES: list[tuple[list[str], str | None]] = [
    (["a=1; b=2"], "a=1; b=2"),
    (["a=1", "b=2"], "a=1; b=2"),
    ([OURS], None),
    ([f"{OURS}; {LOGS_IN}"], None),
    ([f"{LOGS_IN}; {OURS}; a=1"], "a=1"),
    ([f"a=1; {OURS}; b=2; {LOGS_IN}"], "a=1; b=2"),
    (["a=1", OURS, "b=2"], "a=1; b=2"),
    ([f"a={SESSION_COOKIE}"], None),  # of whom it is, nobody can tell: too little is better than too much
    ([f"{OURS}; {OURS}; a=1"], None),
    ([f"x{OURS}; a=1"], None),
    ([f"{OURS}; a=1;{OURS}"], None),
    (["a=1; x=__host-gatebook-session=y"], None),
    (["a=1;;  b=2"], "a=1;;  b=2"),
]


def test_upstream_never_sees_a_cookie_of_ours_but_all_others_and_the_guard_sees_all(fresh: Rig) -> None:
    fresh.start(**LOGIN)
    for sent, seen in CASES:
        assert fresh.ask("/", *(f"Cookie: {field}" for field in sent)).status == 200, sent
        assert fresh.forwarded[-1].one("Cookie") == seen, sent
        told = "; ".join(fresh.guarded[-1].all("Cookie"))
        assert all(field in told for field in sent), sent


def test_session_stays_with_one_guard_wherever_it_comes_in_the_field(fresh: Rig) -> None:
    fresh.start(**LOGIN, guard={"processes": 3})
    of: dict[int, set[int]] = {}
    for number in range(12):
        session = f"{SESSION_COOKIE}=e30.{number}.AA"
        for field in (session, f"a={number}; {session}", f"{session}; b=2"):
            fresh.ask("/", f"Cookie: {field}")
            of.setdefault(number, set()).add(fresh.asked[-1])
    assert all(len(guards) == 1 for guards in of.values())
    assert len(set.union(*of.values())) > 1


def test_without_a_session_a_client_is_known_by_its_address(fresh: Rig) -> None:
    fresh.start(**LOGIN, guard={"processes": 3}, gateway={"trusted_proxies": ["127.0.0.1"]})
    for number in range(12):
        fresh.ask("/", f"X-Forwarded-For: 192.0.2.{number}", "Cookie: a=1")
    assert len(set(fresh.asked)) > 1
