"""Verified tokens in memory: bounded, and never longer than they hold."""

from __future__ import annotations

from typing import Any

from tests.identity.mint import NOW

from gatebook.identity.cache import TokenCache
from gatebook.identity.jwk import Mark
from gatebook.identity.jwt import Verified
from gatebook.identity.types import Identity

MARK: Mark = ("r1", "thumbprint", "RS256")
PUBLISHED = frozenset({MARK})


def verified(subject: str = "alice", expires_at: float = NOW + 60, claims: Any = None) -> Verified:
    identity = Identity(
        provider="staff",
        method="oidc",
        subject=subject,
        claims=claims or {},
        credential_sha256=bytes(32),
        expires_at=expires_at,
    )
    return Verified(identity, MARK)


def put(cache: TokenCache, digest: bytes, verified: Verified) -> None:
    cache.put(digest, verified.identity, verified.mark, verified.identity.expires_at)


def key(number: int) -> bytes:
    return number.to_bytes(32)


def test_expired_token_is_forgotten_at_the_moment_it_expires() -> None:
    cache = TokenCache()
    put(cache, key(1), verified(expires_at=NOW))
    assert cache.get(key(1), PUBLISHED, NOW - 0.001) is not None
    assert cache.get(key(1), PUBLISHED, NOW) is None
    assert len(cache) == 0


def test_token_whose_key_is_gone_is_forgotten() -> None:
    for published in (
        frozenset[Mark](),
        frozenset({("r1", "thumbprint", "PS256")}),
        frozenset({("r1", "other", "RS256")}),
    ):
        cache = TokenCache()
        put(cache, key(1), verified())
        assert cache.get(key(1), published, NOW) is None
        assert cache.get(key(1), PUBLISHED, NOW) is None


def test_number_is_bounded_and_the_least_used_goes_first() -> None:
    cache = TokenCache(max_tokens=3)
    for number in range(3):
        put(cache, key(number), verified())
    assert cache.get(key(0), PUBLISHED, NOW) is not None
    put(cache, key(3), verified())
    assert [n for n in range(4) if cache.get(key(n), PUBLISHED, NOW)] == [0, 2, 3]


def test_memory_is_bounded_whatever_tokens_claim() -> None:
    cache = TokenCache(max_weight_bytes=1_000_000)
    for number in range(1000):
        put(cache, key(number), verified(claims={"x": [[]] * 1000}))
    assert 0 < len(cache) < 20


def test_weight_of_what_is_gone_is_given_back() -> None:
    cache = TokenCache(max_weight_bytes=100_000)
    for round_ in range(100):
        put(cache, key(1), verified(claims={"x": "y" * 5000}))
        if round_ % 2:
            cache.get(key(1), frozenset(), NOW)
    put(cache, key(2), verified())
    put(cache, key(1), verified(claims={"x": "y" * 5000}))
    assert len(cache) == 2


def test_word_that_serves_for_a_while_serves_no_longer_though_the_token_would_live() -> None:
    cache = TokenCache()
    identity = verified(expires_at=NOW + 3600).identity
    cache.put(key(1), identity, None, NOW + 60, NOW)
    assert cache.get(key(1), frozenset((None,)), NOW + 59) is identity
    assert cache.get(key(1), frozenset((None,)), NOW + 60) is None


def test_clock_that_is_set_back_does_not_lengthen_a_word() -> None:
    cache = TokenCache()
    cache.put(key(1), verified(expires_at=NOW + 3600).identity, None, NOW + 60, NOW)
    assert cache.get(key(1), frozenset((None,)), NOW - 1) is None
    assert len(cache) == 0
