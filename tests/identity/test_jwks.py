"""A provider's keys over time: rotation, outage, floods of unknown key ids."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog
import uvloop
from structlog.testing import capture_logs
from tests.identity.mint import NOW, ec_key, oidc
from tests.identity.provider import JWKS, Provider, hang, plain

from gatebook.identity import jwks
from gatebook.identity.discovery import WELL_KNOWN, Discovery
from gatebook.identity.jwks import KeySource

FIRST, SECOND = ec_key("first").jwk(kid="first"), ec_key("second").jwk(kid="second")


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Rig:
    """A source on a real provider, with a clock of its own."""

    def __init__(self, provider: Provider, **settings: Any) -> None:
        self.provider = provider
        self.clock = Clock()
        config = oidc(issuer=provider.issuer, **settings)
        self.source = KeySource("staff", config, Discovery(config), self.clock)

    def kids(self) -> list[str | None]:
        return [key.kid for key in self.source.keys(self.clock.now).named(None)]

    async def until(self, wanted: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not wanted():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.005)

    async def first(self) -> None:
        """Start, and wait until the first fetch is done."""
        self.source.start()
        await self.source.refetch(10)


def run(test: Callable[[Rig], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with Provider(FIRST) as provider:
            rig = Rig(provider, **settings)
            try:
                await test(rig)
            finally:
                await rig.source.stop()

    uvloop.run(main())


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds that the tests would wait become milliseconds."""
    monkeypatch.setattr(jwks, "SHORTEST_S", 0.01)
    monkeypatch.setattr(jwks, "RETRY_FIRST_S", 0.01)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing key may be asked for at any time."""
    monkeypatch.setattr(jwks, "REFETCH_S", 0.0)


def test_no_key_before_the_first_fetch_and_none_without_start() -> None:
    async def test(rig: Rig) -> None:
        assert rig.kids() == []
        assert await rig.source.refetch(1) is False
        assert not rig.provider.asked
        await rig.first()
        assert rig.kids() == ["first"]

    run(test)


@pytest.mark.usefixtures("hasty")
def test_rotation_is_seen_in_the_background() -> None:
    async def test(rig: Rig) -> None:
        await rig.first()
        rig.provider.keys = [FIRST, SECOND]
        await rig.until(lambda: rig.kids() == ["first", "second"])
        rig.provider.keys = [SECOND]
        await rig.until(lambda: rig.kids() == ["second"])

    run(test, jwks_refresh=0.01)


def test_flood_of_unknown_key_ids_causes_one_fetch() -> None:
    async def test(rig: Rig) -> None:
        await rig.first()
        for _ in range(20):
            assert all(await asyncio.gather(*(rig.source.refetch(3) for _ in range(100))))
        assert rig.provider.asked[JWKS] == 1

    run(test)


@pytest.mark.usefixtures("eager")
def test_all_who_wait_share_one_fetch() -> None:
    async def test(rig: Rig) -> None:
        await rig.first()
        rig.provider.keys = [SECOND]
        assert all(await asyncio.gather(*(rig.source.refetch(3) for _ in range(100))))
        assert rig.kids() == ["second"]
        assert rig.provider.asked[JWKS] == 2

    run(test)


@pytest.mark.usefixtures("eager")
def test_one_who_leaves_does_not_stop_the_fetch_for_the_others() -> None:
    async def test(rig: Rig) -> None:
        await rig.first()
        rig.provider.keys = [SECOND]
        leaves, stays = (asyncio.ensure_future(rig.source.refetch(3)) for _ in range(2))
        await asyncio.sleep(0)
        leaves.cancel()
        assert await stays is True
        assert rig.kids() == ["second"]
        assert leaves.cancelled()

    run(test)


@pytest.mark.usefixtures("eager")
def test_provider_that_stalls_holds_nobody_longer_than_his_patience() -> None:
    async def test(rig: Rig) -> None:
        await rig.first()
        rig.provider.answers[JWKS] = hang
        assert await rig.source.refetch(0.02) is False
        assert rig.kids() == ["first"]

    run(test)


@pytest.mark.usefixtures("eager")
def test_waiting_room_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "MAX_WAITING", 5)

    async def test(rig: Rig) -> None:
        await rig.first()
        rig.provider.answers[JWKS] = hang
        waiting = [asyncio.ensure_future(rig.source.refetch(60)) for _ in range(5)]
        await asyncio.sleep(0)
        assert await rig.source.refetch(60) is False
        waiting[0].cancel()
        await asyncio.gather(waiting[0], return_exceptions=True)
        assert await rig.source.refetch(0.01) is False
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    run(test)


@pytest.mark.usefixtures("eager")
def test_stopping_frees_those_who_wait_and_cancels_none_of_them() -> None:
    async def test(rig: Rig) -> None:
        rig.provider.answers[WELL_KNOWN] = hang
        rig.source.start()
        waiting = asyncio.ensure_future(rig.source.refetch(60))
        await asyncio.sleep(0.01)
        await rig.source.stop()
        assert await waiting is False

    run(test)


@pytest.mark.usefixtures("eager")
def test_provider_that_is_down_leaves_known_keys_until_they_are_too_old() -> None:
    async def test(rig: Rig) -> None:
        await rig.first()
        await rig.provider.down()
        assert await rig.source.refetch(5) is False
        rig.clock.now = NOW + 599
        assert rig.kids() == ["first"]
        rig.clock.now = NOW + 600
        assert rig.kids() == []
        assert await rig.source.refetch(5) is False
        await rig.provider.up()
        assert await rig.source.refetch(5) is True
        assert rig.kids() == ["first"]

    run(test, jwks_max_age=600)


@pytest.mark.usefixtures("hasty")
def test_provider_that_was_down_at_the_start_is_found_in_the_background() -> None:
    async def test(rig: Rig) -> None:
        await rig.provider.down()
        await rig.first()
        assert rig.kids() == []
        await rig.provider.up()
        await rig.until(lambda: rig.kids() == ["first"])

    run(test)


@pytest.mark.usefixtures("eager")
def test_age_counts_from_before_the_question() -> None:
    """A slow answer may be as old as the question."""

    async def test(rig: Rig) -> None:
        async def slow(writer: asyncio.StreamWriter) -> None:
            rig.clock.now += 500
            await plain(b'{"keys":[]}')(writer)

        rig.provider.answers[JWKS] = slow
        await rig.first()
        assert rig.source._good_until == NOW + 600

    run(test, jwks_max_age=600)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("body", [b'{"keys":[]}', b'{"keys":[{"kty":"new"}]}'])
def test_provider_that_withdraws_all_keys_is_believed(body: bytes) -> None:
    async def test(rig: Rig) -> None:
        await rig.first()
        rig.provider.answers[JWKS] = plain(body)
        assert await rig.source.refetch(5) is True
        assert rig.kids() == []

    run(test)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", b'{"keys":5}'])
def test_provider_that_talks_nonsense_is_not_believed(body: bytes) -> None:
    async def test(rig: Rig) -> None:
        await rig.first()
        rig.provider.answers[JWKS] = plain(body)
        assert await rig.source.refetch(5) is False
        assert rig.kids() == ["first"]

    run(test)


def test_pause_grows_while_the_provider_fails_and_is_never_short() -> None:
    config = oidc(jwks_refresh=0.001)
    source = KeySource("staff", config, Discovery(config), lambda: NOW)
    assert 0.9 <= source._pause_s() <= 1.0
    source = KeySource("staff", oidc(jwks_refresh=300), Discovery(config), lambda: NOW)
    assert 270 <= source._pause_s() <= 300
    longest = []
    for _ in range(40):
        source._failures += 1
        longest.append(source._pause_s())
    assert 0.9 <= longest[0] <= 1.0
    assert all(pause <= jwks.RETRY_LONGEST_S for pause in longest)
    assert longest[-1] > 13


@pytest.mark.usefixtures("hasty")
def test_fault_of_ours_does_not_end_the_refreshing() -> None:
    async def test(rig: Rig) -> None:
        real = rig.source._discovery.keys

        async def broken() -> Any:
            rig.source._discovery.keys = real  # type: ignore[method-assign]
            raise RuntimeError("oh")

        rig.source._discovery.keys = broken  # type: ignore[method-assign]
        with capture_logs() as logs:
            rig.source.start()
            await rig.until(lambda: rig.kids() == ["first"])
        assert [entry["log_level"] for entry in logs] == ["error", "info"]

    run(test)


@pytest.mark.usefixtures("eager")
def test_what_is_logged_has_counts_and_nothing_that_was_sent() -> None:
    async def test(rig: Rig) -> None:
        with capture_logs() as logs:
            await rig.first()
            rig.provider.answers[JWKS] = plain(b'{"keys": "s3cret-of-the-provider"}')
            await rig.source.refetch(5)
            rig.provider.answers[JWKS] = plain(b'{"keys": [{"kty": "s3cret"}]}')
            await rig.source.refetch(5)
        assert [entry["event"].partition(":")[0] for entry in logs] == [
            "keys refreshed",
            "keys not refreshed",
            "keys refreshed",
            "the provider publishes no usable key",
        ]
        assert logs[2]["ignored"] == {"unknown type": 1}
        assert "s3cret" not in repr(logs)

    structlog.reset_defaults()
    run(test)
