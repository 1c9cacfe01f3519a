"""Whether a client is whom it says: bounded in what it costs us, and the same for who does not exist.

In: what a client claims, its address. Out: the Client, or `Refused` with a reason of record.REASONS. A secret
that is not in form is refused without work, for anybody; every other costs one Argon2id check, in a thread. One
address has one at a time, and all together MAX_WAITING; half of these places are for clients that were let in from
the same address before. Failures are counted by client and address, and by address; who has too many waits, even
with the right secret. Never tells an unknown client from a wrong secret, or from a revoked one.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from gatebook.identity.client import Client, Clients, is_secret_of, may_be_a_secret
from gatebook.identity.client_file import Document
from gatebook.identity.flood import Vouched
from gatebook.kept import Watch
from gatebook.limits import address_key
from gatebook.portal.form import Claimed
from gatebook.portal.throttle import Throttle

THREADS: Final = max(1, (os.cpu_count() or 1) // 2)
MAX_WAITING: Final = 32  # of whom strangers are no more than half
MAX_OF_ADDRESS: Final = 8


Prove = Callable[[bytes, Client | None], Awaitable[bool]]


class Refused(NamedTuple):
    """`known`: the client that it claimed to be, if there is one. `guessing`: that has just become too much."""

    reason: str
    known: Client | None = None
    retry_after_s: int = 0
    guessing: bool = False


class Authenticator:
    """Outlives configurations: who is throttled stays so."""

    def __init__(self, clients: Watch[Document, Clients]) -> None:
        self._clients = clients
        self._pairs = Throttle(burst=5, interval_s=10.0)
        self._addresses = Throttle(burst=20, interval_s=3.0)
        self._threads = ThreadPoolExecutor(THREADS, "argon2")
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._waiting: Counter[str] = Counter()  # by address
        self._vouched = Vouched()  # clients at addresses

    async def authenticate(self, provider: str, claimed: Claimed, address: str, prove: Prove) -> Client | Refused:
        """`prove` says whether an assertion is the client's, and was never used before."""
        self._clients.poll()  # a client that was revoked a moment ago is
        known = self._clients.value
        if known is None:
            return Refused("provider_unavailable")
        client = known.find(claimed.client_id)
        who = address_key(address)
        pair = f"{claimed.client_id[:64]}\0{who}"
        places = MAX_WAITING if pair.encode() in self._vouched else MAX_WAITING // 2
        if self._waiting.total() >= places or self._waiting[who] >= MAX_OF_ADDRESS:
            return Refused("portal_busy", client, 1)
        self._waiting[who] += 1
        try:
            # One at a time of an address: so that each try sees what became of the one before.
            async with self._turns.setdefault(who, asyncio.Lock()):
                return await self._judge(provider, claimed, client, who, pair, prove)
        finally:
            self._waiting[who] -= 1
            if not self._waiting[who]:
                del self._waiting[who]

    async def _judge(
        self, provider: str, claimed: Claimed, client: Client | None, who: str, pair: str, prove: Prove
    ) -> Client | Refused:
        now = time.monotonic()
        wait_s = max(self._pairs.wait_s(pair, now), self._addresses.wait_s(who, now))
        if wait_s:
            return Refused("attempts_exceeded", client, wait_s)
        if claimed.signed:
            same = await prove(claimed.secret, client)
        else:
            same = may_be_a_secret(claimed.secret) and await self._is_secret(client, claimed.secret)
        if client is not None and same and client.provider == provider and client.state(time.time()) == "active":
            self._vouched.add(pair.encode())
            return client
        now = time.monotonic()
        guessing = self._pairs.count(pair, now)
        guessing = self._addresses.count(who, now) or guessing
        return Refused("client_refused", client, guessing=guessing)

    async def _is_secret(self, client: Client | None, secret: bytes) -> bool:
        return await asyncio.get_running_loop().run_in_executor(self._threads, is_secret_of, client, secret)
