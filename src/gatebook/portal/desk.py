"""What the token service keeps while configurations come and go: clients, families, and theft not yet told.

A theft ends its family at once, then raises an alert, then revokes the family's access tokens; how far that has
come stands beside the family, so it is gone on with after a crash or a recorder that was away. All that waits
for a disk is done in threads. Never two things at a time with one family.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar
from weakref import WeakValueDictionary

import structlog

from gatebook import kept
from gatebook.errors import GatebookError
from gatebook.identity import client_file
from gatebook.identity.client import Clients
from gatebook.identity.revocation import What
from gatebook.paths import Paths
from gatebook.portal.authenticate import Authenticator
from gatebook.portal.call import Scribe, Who
from gatebook.portal.family import ALERTED, MAX_FAMILIES, TOLD, Families
from gatebook.portal.throttle import Throttle
from gatebook.portal.withdraw import withdraw

TELL_S: Final = 2.0
BURST: Final = MAX_FAMILIES
INTERVAL_S: Final = 30.0
THEFTS: Final = {
    "reused": "refresh_reused",
    "foreign": "refresh_foreign",
}  # why a family ended -> reason and alert

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger("portal")


class Desk:
    """`scribe`: of the configuration in force; `lifetime_s`: the longest that an access token may be good."""

    def __init__(self, paths: Paths, scribe: Callable[[], Scribe], lifetime_s: Callable[[], float]) -> None:
        self._paths = paths
        self._scribe = scribe
        self._lifetime_s = lifetime_s
        watch = kept.Watch(paths.clients, client_file.KIND, lambda document: Clients(document.clients))
        self.authenticator = Authenticator(watch)
        self.families = Families(paths.refresh)
        # By client: whoever began families or revoked tokens without bound would fill the file of revocations.
        self.begins = Throttle(BURST, INTERVAL_S)
        self.wishes = Throttle(BURST, INTERVAL_S)
        self._disk = ThreadPoolExecutor(1, "refresh")
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._telling: asyncio.Task[None] | None = None

    # -- its life ---------------------------------------------------------------------------------------
    def start(self) -> None:
        self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def stop(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        self._disk.shutdown()
        self.families.close()

    async def on_disk(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """One after the other, beside the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, lambda: work(*args, **kwargs))

    def turn(self, family_id: str) -> asyncio.Lock:
        """Hold it for whatever looks at a family and then changes it."""
        return self._turns.setdefault(family_id, asyncio.Lock())

    # -- theft ------------------------------------------------------------------------------------------
    async def _tell(self) -> None:
        """What a crash or an absent recorder has left untold."""
        while True:
            try:
                untold = await self.on_disk(self.families.untold) if self._scribe().service else []
                for family in untold:
                    async with self.turn(family.id):
                        await self.tell(family.id, None, None)
            except GatebookError as error:
                log.error("a theft of refresh tokens is not on record yet", why=str(error))
            except Exception:
                log.exception("a theft of refresh tokens is not on record yet: a fault of ours")
            await asyncio.sleep(TELL_S)

    async def tell(self, family_id: str, who: Who, address: str | None) -> None:
        """Hold its turn. Raises GatebookError; then the rest is told later."""
        untold = await self.on_disk(self.families.untold)
        family = next((each for each in untold if each.id == family_id), None)
        if family is None:
            return
        scribe = self._scribe()
        if family.told < ALERTED:
            detail: dict[str, object] = {"family": family.id, "client": family.client}
            await scribe.alert(THEFTS[family.why or ""], who, address, detail)
            # A crash here alerts twice: better than never.
            await self.on_disk(self.families.tell, family.id, ALERTED)
        await self.revoke(scribe, "session", family.id, family.id, "a refresh token was stolen")
        await self.on_disk(self.families.tell, family.id, TOLD)

    async def revoke(self, scribe: Scribe, what: What, value: str, shown: str, why: str) -> None:
        """Access tokens that guards would still take. On record before it takes effect. Raises GatebookError."""
        assert scribe.service is not None  # noqa: S101 - who has families has a token service
        await withdraw(
            self._paths.revocations,
            scribe,
            scribe.service,
            what,
            value,
            until=time.time() + self._lifetime_s() + 1,
            shown=shown,
            why=why,
        )
