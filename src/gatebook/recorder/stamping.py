"""Time stamps of the log (RFC 3161): asked for regularly and at the end, stored beside the log, anchored in it.

In: the configuration's `timestamps`. Each time the recorder signs a checkpoint behind a heartbeat, so that the
log says what time it was, and the authority is asked to stamp it. Out: `log/anchors/<size>.checkpoint` and
`.tsr`, then an ANCHOR entry. What does not lead to the configured certificates, or tells another time than this
machine, is never stored. An authority that is down, slow or hostile delays nobody: it is asked again, ever more
seldom.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import stamina
import structlog

from gatebook.config.evidence import Timestamps
from gatebook.errors import EnvironmentFault
from gatebook.identity import fetch
from gatebook.ledger import timestamp
from gatebook.ledger.boot import make_folder
from gatebook.ledger.entry import Anchor
from gatebook.ledger.files import Files
from gatebook.ledger.lock import Promise

STEP_S: Final = 10.0
ATTEMPT_S: Final = 20.0
AT_CLOSE_S: Final = 3.0  # what a stop may take longer, at most
FIRST_WAIT_S: Final = 10.0
LONGEST_WAIT_S: Final = 600.0
MAX_SKEW_US: Final = 300 * 1_000_000
JITTER: Final = 0.05  # of the interval, so that a fleet does not come at once
RFC3161: Final = 1  # Anchor.kind

_STORED = re.compile(r"([1-9][0-9]{0,18})\.tsr")

log = structlog.get_logger("recorder")


class Failed(Exception):
    """No stamp this time; the text says why, in words of ours."""


class Office(NamedTuple):
    """What the recorder does for it. `sign` signs for all that is durable, a heartbeat at its end."""

    sign: Callable[[], Awaitable[Promise]]
    anchor: Callable[[Anchor], None]
    say: Callable[[str, dict[str, Any]], None]
    now_us: Callable[[], int]


class Last(NamedTuple):
    time_us: int
    size: int
    authority: str | None


class Stamping:
    """`folder` is `log/anchors`. `first_wait_s`: before the second attempt."""

    def __init__(
        self, folder: Path, office: Office, files: Files | None = None, first_wait_s: float = FIRST_WAIT_S
    ) -> None:
        self._folder = folder
        self._office = office
        self._files = files or Files()
        self._first_wait_s = first_wait_s
        self._timestamps: Timestamps | None = None
        self._changed = asyncio.Event()
        self._last = _newest(folder)
        self._failing_us: int | None = None
        self._why = ""
        self._told = False

    def configure(self, timestamps: Timestamps | None) -> None:
        """From now on so; what waits for its next attempt waits no longer."""
        if timestamps != self._timestamps:
            self._timestamps = timestamps
            self._changed.set()

    def status(self) -> dict[str, Any] | None:
        """For `gatebook status`; None when no stamps are configured."""
        if self._timestamps is None:
            return None
        last = self._last._asdict() if self._last is not None else None
        failing = {"since_us": self._failing_us, "why": self._why} if self._failing_us is not None else None
        return {"last": last, "failing": failing}

    async def run(self) -> None:
        """Until it is cancelled. Raises LedgerError."""
        stamina.instrumentation.set_on_retry_hooks(())  # what is tried again is logged here
        while True:
            self._changed.clear()
            work = asyncio.ensure_future(self._regularly())
            change = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait({work, change}, return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    work.result()
            finally:
                work.cancel()
                change.cancel()
                await asyncio.gather(work, change, return_exceptions=True)

    async def at_close(self) -> None:
        """The last stamp. One attempt, and a short one: nobody should have to wait long for a stop."""
        if self._timestamps is not None:
            try:
                await self._attempt(self._timestamps, AT_CLOSE_S)
            except Failed:
                return

    async def _regularly(self) -> None:
        if self._timestamps is None:
            await asyncio.Event().wait()
            return
        timestamps = self._timestamps
        await asyncio.sleep(self._due_in_s(timestamps))
        while True:
            async for attempt in stamina.retry_context(
                on=Failed,
                attempts=None,
                timeout=None,
                wait_initial=self._first_wait_s,
                wait_max=LONGEST_WAIT_S,
                wait_jitter=self._first_wait_s,
            ):
                with attempt:
                    await self._attempt(timestamps, ATTEMPT_S)
            await asyncio.sleep(timestamps.every * random.uniform(1 - JITTER, 1))  # noqa: S311 - no secret

    def _due_in_s(self, timestamps: Timestamps) -> float:
        """A recorder that is started again and again does not ask each time."""
        if self._last is None:
            return 0.0
        age_s = (self._office.now_us() - self._last.time_us) / 1e6
        return max(0.0, timestamps.every - age_s) if age_s >= 0 else timestamps.every

    # -- one attempt ------------------------------------------------------------------------------------------
    async def _attempt(self, timestamps: Timestamps, patience_s: float) -> None:
        """Raises Failed, having told what is to be told."""
        try:
            await self._stamp(timestamps, patience_s)
        except (fetch.Unusable, timestamp.Unusable, EnvironmentFault, OSError) as error:
            self._failed(str(error), timestamps)
            raise Failed(str(error)) from None
        if self._told:
            self._office.say("timestamps.restored", {})
        self._failing_us, self._told = None, False

    def _failed(self, why: str, timestamps: Timestamps) -> None:
        now = self._office.now_us()
        if self._failing_us is None:
            self._failing_us = now
        self._why = why
        log.warning("no time stamp", why=why)
        if not self._told and now - self._failing_us >= timestamps.every * 1e6:
            self._told = True
            self._office.say("timestamps.failing", {"since_us": self._failing_us, "why": why})

    async def _stamp(self, timestamps: Timestamps, patience_s: float) -> None:
        promise = await self._office.sign()
        request = timestamp.ask_for(promise.note)
        before = self._office.now_us()
        reply = await _post(timestamps.url, request.body, patience_s)
        stamp = await asyncio.to_thread(
            _checked, reply, promise.note, timestamps.certificates, request.nonce, (before, self._office.now_us())
        )
        size = promise.checkpoint.size
        await asyncio.to_thread(self._store, size, promise.note, reply)
        self._office.anchor(Anchor(RFC3161, size, hashlib.sha256(reply).digest()))
        self._last = Last(stamp.time_us, size, stamp.authority)
        log.info("time stamp", entries=size, authority=stamp.authority)

    def _store(self, size: int, note: bytes, reply: bytes) -> None:
        make_folder(self._files, self._folder)
        self._files.store(self._folder / f"{size}.checkpoint", note, durable=True)
        # A crash here: a checkpoint without a stamp, which says nothing; the next start takes another.
        self._files.store(self._folder / f"{size}.tsr", reply, durable=True)
        # A crash here: a stamp that no ANCHOR names. It proves the same.


async def _post(url: str, query: bytes, patience_s: float) -> bytes:
    """Raises fetch.Unusable or EnvironmentFault."""
    context = None if fetch.is_local(url) else fetch.tls_context(None)
    step_s = min(STEP_S, patience_s)
    sent = {"Content-Type": timestamp.QUERY_TYPE, "Accept": timestamp.REPLY_TYPE}
    async with fetch.patience(step_s, patience_s), fetch.new_client(context, step_s, 1) as client:
        return await fetch.ask(client, url, timestamp.MAX_REPLY_BYTES, content=query, headers=sent)


def _checked(
    reply: bytes, note: bytes, certificates: Path, nonce: int, asked_us: tuple[int, int]
) -> timestamp.Stamp:
    """Raises timestamp.Unusable or EnvironmentFault."""
    try:
        stamp = timestamp.check(reply, note, timestamp.load_authorities(certificates), nonce)
    except timestamp.Unusable as error:
        raise timestamp.Unusable(error.kind, f"the authority's answer {error}") from None
    # Either clock may be the wrong one. If it is ours, a stamp would contradict the log for ever.
    off_us = max(asked_us[0] - stamp.time_us, stamp.time_us - asked_us[1])
    if off_us > MAX_SKEW_US:
        why = f"the authority's clock and this machine's differ by {off_us // 1_000_000} s: one of them is wrong"
        raise timestamp.Unusable("wrong", why)
    return stamp


def _newest(folder: Path) -> Last | None:
    """By its own word: it was checked before it was stored. Of a broken one `gatebook verify` tells."""
    try:
        sizes = [int(found[1]) for path in folder.iterdir() if (found := _STORED.fullmatch(path.name))]
        if not sizes:
            return None
        size = max(sizes)
        with (folder / f"{size}.tsr").open("rb") as stream:
            stamp = timestamp.claimed(stream.read(timestamp.MAX_REPLY_BYTES + 1))
    except (OSError, timestamp.Unusable):
        return None
    return Last(stamp.time_us, size, stamp.authority)
