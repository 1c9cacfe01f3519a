"""Signing keys: published before they sign and as long as it matters, wherever a crash falls."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey
from joserfc.jws import extract_compact
from structlog.testing import capture_logs

from gatebook import kept
from gatebook.errors import EnvironmentFault, RecorderUnavailable
from gatebook.identity import own
from gatebook.portal import signing
from gatebook.portal.signing import KIND, Schedule, Signing, SigningKey, new_key, plan, signer

NOW = 1_800_000_000.0
DAILY = Schedule(period_s=86400.0, keep_s=360.0)
_spare = [new_key(0) for _ in range(8)]


def named(number: int, starts: float) -> SigningKey:
    """Making real keys takes time; for a schedule any will do."""
    public = own.PublicKey(
        kid=f"{number:043d}", kty="EC", crv="P-256", alg="ES256", use="sig", x="x" * 43, y="y" * 43
    )
    return SigningKey(public=public, d="d" * 43, starts=starts)


@given(
    st.floats(2, 1e6),
    st.floats(1, 1e5),
    st.lists(st.one_of(st.floats(0, 1e4), st.floats(0, 1e7)), min_size=1, max_size=60),
)
def test_what_signs_was_published_in_time_and_stays_as_long_as_what_it_signed(
    period_s: float, keep_s: float, steps: list[float]
) -> None:
    schedule = Schedule(period_s, keep_s)
    now, made = NOW, 0
    keys: tuple[SigningKey, ...] = ()
    published_at: dict[str, float] = {}
    signed_at: dict[str, float] = {}

    def make(starts: float) -> SigningKey:
        nonlocal made
        made += 1
        return named(made, starts)

    for step in steps:
        # What was signed up to now was signed by the keys as they were.
        for at in (now, now + step):
            if keys:
                signed_at[signer(keys, at).public.kid] = at
        now += step
        keys = plan(keys, now, schedule, make)
        there = {key.public.kid for key in keys}
        for key in keys:
            published_at.setdefault(key.public.kid, now)
        for kid, at in signed_at.items():
            assert kid in there or now >= at + keep_s, "withdrawn while what it signed is good"
        chosen = signer(keys, now)
        first = chosen.public.kid == f"{1:043d}"
        assert first or published_at[chosen.public.kid] + schedule.lead_s <= now + 1e-3, "signs too early"
        assert [key.starts for key in keys] == sorted(key.starts for key in keys)
        assert plan(keys, now, schedule, make) == keys


def test_keys_that_change_faster_than_they_may_go_stay_as_many_as_are_read() -> None:
    hasty = Schedule(period_s=2.0, keep_s=1000.0)
    keys: tuple[SigningKey, ...] = ()
    for second in range(400):
        keys = plan(keys, NOW + second, hasty, lambda starts: named(int(starts), starts))
    assert len(keys) == own.MAX_KEYS
    for second in range(400, 3000):
        keys = plan(keys, NOW + second, hasty, lambda starts: named(int(starts), starts))
    assert signer(keys, NOW + 3000).starts > NOW + 2000


def test_clock_that_was_set_back_still_finds_a_key() -> None:
    keys = (named(1, NOW), named(2, NOW + 10))
    assert signer(keys, NOW - 1e6) == keys[0]


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[dict[str, object]] = []
        self.down = False

    def signing(self, schedule: Schedule = DAILY) -> Signing:
        async def announce(detail: dict[str, object]) -> None:
            if self.down:
                raise RecorderUnavailable("down")
            self.told.append(detail)

        return Signing(self.folder / "keys" / "signing.json", self.folder / "jwks.json", schedule, announce)

    def published(self) -> set[str]:
        return {key.kid for key in kept.read(self.folder / "jwks.json", own.KIND).document.keys}

    def private(self) -> set[str]:
        return {key.public.kid for key in kept.read(self.folder / "keys" / "signing.json", KIND).document.keys}

    def verifies(self, token: str) -> bool:
        keys = kept.read(self.folder / "jwks.json", own.KIND).document.keys
        kid = _kid(token)
        for key in keys:
            if key.kid == kid:
                try:
                    jwt.decode(token, ECKey.import_key({"kty": "EC", "crv": "P-256", "x": key.x, "y": key.y}))
                except JoseError:
                    return False
                return True
        return False


def _kid(token: str) -> str:
    kid: str = extract_compact(token.encode()).headers()["kid"]
    return kid


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def turn(made: Signing, now: float) -> None:
    asyncio.run(made.turn(now))


def sign(made: Signing, now: float) -> str:
    return made.sign({"sub": "x"}, "at+jwt", now)


def test_first_key_is_on_record_private_and_published(bench: Bench) -> None:
    made = bench.signing()
    with pytest.raises(EnvironmentFault):
        sign(made, NOW)
    turn(made, NOW)
    (kid,) = bench.published()
    assert bench.told == [{"added": [kid], "removed": [], "signs": kid}]
    assert bench.verifies(sign(made, NOW))
    assert b'"d"' not in (bench.folder / "jwks.json").read_bytes()
    assert b'"d"' not in made.jwks()
    assert oct((bench.folder / "keys").stat().st_mode)[-3:] == "700"


def test_new_key_is_published_long_before_it_signs(bench: Bench) -> None:
    made = bench.signing()
    turn(made, NOW)
    (old,) = bench.published()
    turn(made, NOW + 43200)
    assert len(bench.published()) == 2
    assert _kid(sign(made, NOW + 43200)) == old
    assert _kid(sign(made, NOW + 86400)) != old


def test_without_a_record_keys_stay_as_they_are(bench: Bench) -> None:
    made = bench.signing()
    turn(made, NOW)
    before = bench.private()
    bench.down = True
    with pytest.raises(RecorderUnavailable):
        turn(made, NOW + 43200)
    assert bench.private() == bench.published() == before
    assert bench.verifies(sign(made, NOW + 43200))


def test_crash_between_keeping_and_publishing_is_made_good_before_anything_is_signed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench.signing()
    turn(made, NOW)
    token = sign(made, NOW)
    real = signing._keep

    def killed(path: Path, kind: kept.Kind[Any], document: Any) -> None:
        if kind is own.KIND:
            raise KeyboardInterrupt
        real(path, kind, document)

    monkeypatch.setattr(signing, "_keep", killed)
    with pytest.raises(KeyboardInterrupt):
        turn(made, NOW + 43200)
    assert bench.private() > bench.published()
    monkeypatch.undo()
    again = bench.signing()
    turn(again, NOW + 86500)  # by now the key that nobody has seen would sign
    assert bench.private() == bench.published()
    assert bench.verifies(sign(again, NOW + 86500))
    assert bench.verifies(token)
    assert len(bench.told) == 2


def test_removed_key_is_removed_everywhere_even_after_a_crash(bench: Bench) -> None:
    made = bench.signing()
    turn(made, NOW)
    (old,) = bench.published()
    turn(made, NOW + 43200)
    stale = (bench.folder / "jwks.json").read_bytes()
    turn(made, NOW + 86400 + 360)
    assert old not in bench.published()
    (bench.folder / "jwks.json").write_bytes(stale)  # as if killed before it was published
    turn(bench.signing(), NOW + 86400 + 361)
    assert old not in bench.published()


@pytest.mark.parametrize("which", ["keys/signing.json", "jwks.json"])
def test_file_that_is_not_in_order_stops_signing(bench: Bench, which: str) -> None:
    turn(bench.signing(), NOW)
    (bench.folder / which).write_text("{}")
    again = bench.signing()
    with pytest.raises(EnvironmentFault, match="not as gatebook writes it"):
        turn(again, NOW + 1)
    with pytest.raises(EnvironmentFault, match="no keys yet"):
        sign(again, NOW + 1)


def test_lost_keys_are_not_silently_made_anew(bench: Bench) -> None:
    turn(bench.signing(), NOW)
    (bench.folder / "keys" / "signing.json").unlink()
    with pytest.raises(EnvironmentFault, match="is gone"):
        turn(bench.signing(), NOW + 1)


def test_lost_public_keys_are_published_again(bench: Bench) -> None:
    made = bench.signing()
    turn(made, NOW)
    token = sign(made, NOW)
    for again in (made, bench.signing()):
        (bench.folder / "jwks.json").unlink()
        turn(again, NOW + 1)
        assert bench.verifies(token)


def test_folder_taken_away_is_an_operator_s_wish_for_new_keys(bench: Bench) -> None:
    made = bench.signing()
    turn(made, NOW)
    token = sign(made, NOW)
    shutil.rmtree(bench.folder / "keys")
    turn(bench.signing(), NOW + 1)
    assert not bench.verifies(token)


def test_secret_is_not_in_what_is_shown_of_a_key() -> None:
    assert _spare[0].d not in repr(_spare)


def test_turning_goes_on_after_a_failure(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "TICK_S", 0.01)
    bench.down = True
    made = bench.signing()

    async def main() -> None:
        made.start()
        await asyncio.sleep(0.05)
        assert not made.ready
        bench.down = False
        async with asyncio.timeout(10):
            while not made.ready:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.005)
        await made.stop()

    with capture_logs() as logs:
        asyncio.run(main())
    assert [entry["event"] for entry in logs] == ["keys not turned"]
