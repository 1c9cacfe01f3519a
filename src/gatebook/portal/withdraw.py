"""Revokes what the portal has issued, or what a provider says is over: within a second it opens nothing any more.

In: a name, of which the revocation file keeps a keyed hash. On record (`admin`, actor `portal`) before it takes
effect; saying the same again changes nothing. What waits for the disk is done in a thread.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path
from typing import Final

from gatebook import record
from gatebook.identity import revocation_file
from gatebook.identity.revocation import Revocation, What
from gatebook.portal.call import Scribe

ACTOR: Final = "portal"
ANNOUNCE_S: Final = 10.0


async def withdraw(
    revocations: Path,
    scribe: Scribe,
    provider: str,
    what: What,
    value: str,
    *,
    until: float,
    before: float | None = None,
    shown: str,
    why: str,
) -> None:
    """Raises GatebookError."""
    loop = asyncio.get_running_loop()

    def announce(made: Revocation) -> None:
        said = record.Admin(time_us=time.time_ns() // 1000, action="revoke", actor=ACTOR, detail=made.detail())
        asyncio.run_coroutine_threadsafe(scribe.append(said), loop).result(ANNOUNCE_S)

    await asyncio.to_thread(
        revocation_file.add,
        revocations,
        what,
        scribe.keys.name(what, provider, value),
        provider=provider,
        before=before,
        until=until,
        shown=shown,
        reason=why,
        actor=ACTOR,
        now=time.time(),
        random=secrets.token_bytes,
        announce=announce,
    )
