"""One provider's keys over time: known at once, refreshed in the background, fetched anew when one is missing.

A provider that is down stops nobody whose key is known: keys serve until `jwks_max_age` after the last
fetch that succeeded. A key that leaves the provider's JWKS is gone with the next fetch. There is one fetch at a
time, whoever waits for it, and strangers' tokens cause at most one in REFETCH_S: an unknown key id costs the
provider nothing. Never logs what a client or the provider sent, but for counts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import structlog

from gatebook.config.model import OIDCProvider
from gatebook.identity.discovery import Discovery
from gatebook.identity.fetch import Unusable
from gatebook.identity.jwk import NONE, Keys

REFETCH_S = 10.0
SHORTEST_S = 1.0  # between two refreshes, whatever the configuration says
RETRY_FIRST_S = 1.0
RETRY_LONGEST_S = 15.0
MAX_WAITING = 1024

log = structlog.get_logger("identity")


class KeySource:
    """`clock` is the wall clock: ages outlast a suspended machine. Needs a running loop from `start` on."""

    def __init__(
        self, name: str, provider: OIDCProvider, discovery: Discovery, clock: Callable[[], float]
    ) -> None:
        self.provider = provider
        self._name = name
        self._discovery = discovery
        self._clock = clock
        self._known = NONE
        self._good_until = float("-inf")
        self._fetch: asyncio.Task[None] | None = None
        self._began_s = float("-inf")  # of the last fetch, by the loop's clock
        self._failures = 0  # in a row, up to the last fetch
        self._waiting = 0
        self._refreshing: asyncio.Task[None] | None = None

    def keys(self, now: float) -> Keys:
        """The keys that serve now; none before the first fetch, and none once they are too old."""
        return self._known if now < self._good_until else NONE

    def start(self) -> None:
        """Begins to fetch, and waits for nothing."""
        if self._refreshing is None:
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())

    async def stop(self) -> None:
        tasks = [task for task in (self._refreshing, self._fetch) if task is not None]
        self._refreshing = self._fetch = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def refetch(self, timeout_s: float) -> bool:
        """Keys anew, if that may be. Whether what is known then is as new as may be had, and good to go by.

        Whoever waits may be cancelled; the fetch goes on for the others.
        """
        if self._refreshing is None or self._waiting >= MAX_WAITING:
            return False
        if self._fetch is not None or asyncio.get_running_loop().time() - self._began_s >= REFETCH_S:
            self._waiting += 1
            try:
                # Unlike awaiting it, waiting for a task neither cancels it nor is cancelled with it.
                _, unfinished = await asyncio.wait({self._one_fetch()}, timeout=timeout_s)
            finally:
                self._waiting -= 1
            if unfinished:
                return False
        return not self._failures and self._clock() < self._good_until

    def _one_fetch(self) -> asyncio.Task[None]:
        if self._fetch is None:
            loop = asyncio.get_running_loop()
            self._began_s = loop.time()
            self._fetch = loop.create_task(self._get())
        return self._fetch

    async def _refresh(self) -> None:
        while True:
            await asyncio.wait({self._one_fetch()})
            await asyncio.sleep(self._pause_s())

    def _pause_s(self) -> float:
        """Spread a little, so that many guards do not ask at the same moment."""
        pause_s = max(self.provider.jwks_refresh, SHORTEST_S)
        if self._failures:
            pause_s = min(pause_s, RETRY_LONGEST_S, RETRY_FIRST_S * 2 ** min(self._failures - 1, 10))
        return pause_s * random.uniform(0.9, 1.0)  # noqa: S311 - nothing secret hangs on it

    async def _get(self) -> None:
        """One fetch, and what comes of it. Never raises but for cancellation: the refreshing must not end."""
        began = self._clock()
        try:
            found = await self._discovery.keys()
        except Unusable as error:
            self._failed(str(error))
        except Exception:
            log.exception("keys not refreshed: a fault of ours", provider=self._name)
            self._failed("")
        else:
            self._learned(found, began)
        finally:
            self._fetch = None

    def _failed(self, why: str) -> None:
        self._failures += 1
        if why:
            left_s = max(0, int(self._good_until - self._clock())) if self._known is not NONE else 0
            log.warning("keys not refreshed", provider=self._name, why=why, known=len(self._known), left_s=left_s)

    def _learned(self, found: Keys, began: float) -> None:
        changed = found.marks != self._known.marks or found.ignored != self._known.ignored or self._known is NONE
        # From this line on tokens of keys that are gone open nothing, verified before or not.
        self._known = found
        self._good_until = began + self.provider.jwks_max_age
        if changed or self._failures:
            log.info("keys refreshed", provider=self._name, keys=len(found), ignored=found.ignored or None)
        if not len(found):
            log.warning("the provider publishes no usable key: none of its tokens is valid", provider=self._name)
        self._failures = 0
