"""Guessing a client's secret: throttled, bounded in cost, and learning nothing of who exists."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.portal.place import House
from tests.portal.service import Asking, error, make_client, reason

from gatebook import kept, record
from gatebook.identity import client_file
from gatebook.identity.client import Client, Clients, is_secret_of
from gatebook.portal import authenticate
from gatebook.portal.authenticate import Authenticator, Refused
from gatebook.portal.form import Claimed
from gatebook.portal.throttle import Throttle


def test_secret_guessing_is_throttled_and_raises_one_alert(alone: Asking) -> None:
    house = alone.house
    wrong = make_client(house).secret
    guesser = Asking(house, client_file.Made(wrong, alone.made.client), "203.0.113.5")
    answers = [guesser.credentials() for _ in range(8)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 3
    assert {reason(house, answer) for answer in answers[:5]} == {"client_refused"}
    assert reason(house, answers[5]) == "attempts_exceeded"
    assert error(answers[5], 429) == "temporarily_unavailable"
    assert 1 <= int(answers[5].headers["Retry-After"]) <= 10
    (alert,) = [each for each in house.records if isinstance(each, record.Alert)]
    assert alert.alert == "secret_guessing"
    assert alert.identity is not None
    assert alert.identity.client == alone.made.client.id
    # Not even the right secret is looked at from there; from elsewhere it works.
    assert Asking(house, alone.made, "203.0.113.5").credentials().status_code == 429
    assert alone.credentials().status_code == 200


def test_failures_name_whom_was_tried_and_never_what(alone: Asking) -> None:
    house = alone.house
    wrong = make_client(house).secret
    Asking(house, client_file.Made(wrong, alone.made.client), "203.0.113.5").credentials()
    found = house.decisions[-1].identity
    assert found is not None
    assert found.client == alone.made.client.id
    assert found.subject is None  # nothing was established
    assert found.credential is not None
    Asking(house, client_file.Made("guess my id", alone.made.client), "203.0.113.5").credentials()
    assert wrong not in str(house.records)
    assert "guess my id" not in str(house.records)


async def nobody(assertion: bytes, client: Client | None) -> bool:
    raise AssertionError("nobody here signs")


class Bench:
    """The authenticator alone, with a count of Argon2id checks."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = folder / "clients.json"
        self.checked: list[str | None] = []
        self.busy = self.most = 0
        self.gate = threading.Event()
        self.gate.set()

        def counted(client: Client | None, secret: bytes) -> bool:
            self.checked.append(client.id if client else None)
            self.gate.wait(20)
            return is_secret_of(client, secret)

        monkeypatch.setattr(authenticate, "is_secret_of", counted)
        watch = kept.Watch(self.path, client_file.KIND, lambda document: Clients(document.clients))
        self.authenticator = Authenticator(watch)

    def client(self, **changed: Any) -> client_file.Made:
        settings: dict[str, Any] = {"provider": "own", "roles": (), "scopes": (), "subject": None, "ttl_s": 60.0}
        settings |= {"refresh": False, "now": time.time(), "random": os.urandom, "announce": lambda client: None}
        return client_file.create(self.path, **{**settings, **changed})

    def ask(
        self, client_id: str, secret: str, address: str = "192.0.2.1"
    ) -> Coroutine[Any, Any, Client | Refused]:
        return self.authenticator.authenticate("own", Claimed(client_id, secret.encode()), address, nobody)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_unknown_client_costs_what_a_wrong_secret_costs(bench: Bench) -> None:
    """Timing: one check of the same cost each, and none for what cannot be a secret, whoever it is for."""
    one, two = bench.client(), bench.client()

    async def main() -> None:
        await bench.ask(one.client.id, two.secret, "192.0.2.1")
        await bench.ask("aaaaaaaa", two.secret, "192.0.2.2")
        assert bench.checked == [one.client.id, None]
        for client_id in (one.client.id, "aaaaaaaa"):
            await bench.ask(client_id, "no secret", "192.0.2.3")
            await bench.ask(client_id, two.secret[:-1] + "!", "192.0.2.4")
        assert len(bench.checked) == 2

    asyncio.run(main())


def test_dummy_hash_has_the_cost_of_a_real_one(bench: Bench) -> None:
    from gatebook.identity import client

    def cost(text: str) -> list[str]:
        return text.split("$")[1:4]

    assert cost(client._NOBODY) == cost(str(bench.client().client.hash))
    assert not is_secret_of(None, b"x" * 63)  # not even the secret that the dummy was made of


def test_many_guesses_at_once_are_not_more_guesses(bench: Bench) -> None:
    one, two = bench.client(), bench.client()

    async def main() -> Counter[str]:
        found = await asyncio.gather(*(bench.ask(one.client.id, two.secret) for _ in range(8)))
        found += await asyncio.gather(*(bench.ask(one.client.id, two.secret) for _ in range(8)))
        return Counter(each.reason for each in found if isinstance(each, Refused))

    assert asyncio.run(main()) == {"client_refused": 5, "attempts_exceeded": 11}
    assert len(bench.checked) == 5


def test_one_address_that_tries_many_clients_is_throttled(bench: Bench) -> None:
    secret = bench.client().secret

    async def main() -> list[str]:
        found = [await bench.ask(f"client{number:02d}", secret) for number in range(25)]
        return [each.reason for each in found if isinstance(each, Refused)]

    assert asyncio.run(main()) == ["client_refused"] * 20 + ["attempts_exceeded"] * 5


def test_addresses_of_one_ipv6_network_count_as_one(bench: Bench) -> None:
    one, two = bench.client(), bench.client()

    async def main() -> list[str]:
        found = [await bench.ask(one.client.id, two.secret, f"2001:db8:1:2::{n}") for n in range(1, 8)]
        return [each.reason for each in found if isinstance(each, Refused)]

    assert asyncio.run(main())[5:] == ["attempts_exceeded"] * 2


def test_flood_from_many_addresses_waits_for_no_more_than_a_few_checks(bench: Bench) -> None:
    secret = bench.client().secret
    bench.gate.clear()

    async def main() -> Counter[str]:
        flood = [
            asyncio.create_task(bench.ask("aaaaaaaa", secret, f"198.51.{n // 200}.{n % 200}")) for n in range(500)
        ]
        await asyncio.sleep(0.05)
        assert len(bench.checked) <= authenticate.THREADS
        bench.gate.set()
        found = await asyncio.gather(*flood)
        return Counter(each.reason for each in found if isinstance(each, Refused))

    told = asyncio.run(main())
    strangers = authenticate.MAX_WAITING // 2
    assert told == {"client_refused": strangers, "portal_busy": 500 - strangers}


def test_flood_from_many_addresses_keeps_out_nobody_who_was_let_in_before(bench: Bench) -> None:
    made = bench.client()

    async def main() -> None:
        assert await bench.ask(made.client.id, made.secret, "192.0.2.7") == made.client
        bench.gate.clear()
        flood = [asyncio.create_task(bench.ask("aaaaaaaa", made.secret, f"198.51.100.{n}")) for n in range(200)]
        await asyncio.sleep(0.05)
        known = asyncio.create_task(bench.ask(made.client.id, made.secret, "192.0.2.7"))
        elsewhere = await bench.ask(made.client.id, made.secret, "203.0.113.1")
        assert isinstance(elsewhere, Refused)
        assert elsewhere.reason == "portal_busy"
        bench.gate.set()
        assert await known == made.client
        await asyncio.gather(*flood)

    asyncio.run(main())


def test_flood_of_one_address_leaves_room_for_others(bench: Bench) -> None:
    made = bench.client()
    bench.gate.clear()

    async def main() -> None:
        flood = [asyncio.create_task(bench.ask("aaaaaaaa", made.secret)) for _ in range(100)]
        other = asyncio.create_task(bench.ask(made.client.id, made.secret, "198.51.100.7"))
        await asyncio.sleep(0.05)
        bench.gate.set()
        assert await other == made.client
        told = Counter(each.reason for each in await asyncio.gather(*flood) if isinstance(each, Refused))
        assert told["portal_busy"] == 100 - authenticate.MAX_OF_ADDRESS

    asyncio.run(main())


def test_clients_file_that_cannot_be_used_lets_nobody_in(bench: Bench) -> None:
    made = bench.client()
    bench.path.write_text("{}")

    async def main() -> None:
        assert await bench.ask(made.client.id, made.secret) == Refused("provider_unavailable")

    asyncio.run(main())


def test_client_that_was_revoked_a_moment_ago_is(bench: Bench) -> None:
    made = bench.client()

    async def main() -> None:
        assert await bench.ask(made.client.id, made.secret) == made.client
        client_file.revoke(bench.path, made.client.id, now=1, announce=lambda client: None)
        found = await bench.ask(made.client.id, made.secret)
        assert isinstance(found, Refused)
        assert found.reason == "client_refused"

    asyncio.run(main())


# -- the throttle -------------------------------------------------------------------------------------------
def test_throttle_lets_go_with_time_and_never_sooner() -> None:
    made = Throttle(burst=3, interval_s=10.0)
    assert [made.count("a", 100.0) for _ in range(3)] == [False, False, True]
    assert made.wait_s("a", 100.0) == 10
    assert made.wait_s("b", 100.0) == 0
    assert made.wait_s("a", 109.5) == 1
    assert made.wait_s("a", 110.0) == 0
    assert made.count("a", 110.0)
    assert made.wait_s("a", 110.0) == 10
    assert made.wait_s("a", 1000.0) == 0


def test_throttle_forgets_who_failed_longest_ago_when_it_is_full() -> None:
    made = Throttle(burst=1, interval_s=10.0, max_keys=2)
    for key in ("a", "b", "a", "c"):
        made.count(key, 0.0)
    assert [made.wait_s(key, 0.0) > 0 for key in "abc"] == [True, False, True]


def test_owner_of_a_client_is_not_shut_out_by_guesses_from_elsewhere(shared: House) -> None:
    owner = Asking(shared, make_client(shared), "203.0.113.200")
    for number in range(3):
        thief = Asking(
            shared, client_file.Made(make_client(shared).secret, owner.made.client), f"203.0.113.{201 + number}"
        )
        for _ in range(6):
            thief.credentials()
    assert owner.credentials().status_code == 200
