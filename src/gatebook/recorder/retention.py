"""What is old enough is destroyed: closed segments, keys and files, a few at a time; the tree stays.

In: how long records are kept, the time that it surely is (`past`), holds. A segment goes when all of it is older,
no hold forbids it, and its public entries are in durable bundles. First comes an `erase.segment` record by the
actor `retention`, then the ERASE entries, then keys and files (`ledger.erase`). Never destroys anything while
holds or the time cannot be told. Reading and examining runs in a thread, the rest in the recorder's loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import structlog
from msgspec import Meta

from gatebook import holds, record
from gatebook.config.evidence import Retention as Terms
from gatebook.errors import Damaged, EnvironmentFault, LedgerError, UsageError
from gatebook.ledger import erase, segment
from gatebook.ledger.entry import EraseReason
from gatebook.ledger.erase import Old
from gatebook.ledger.segment import NO_DEK
from gatebook.ledger.writer import Writer
from gatebook.paths import Paths
from gatebook.recorder import past
from gatebook.recorder.hands import Hands, Parameters
from gatebook.recorder.past import Past

ACTOR: Final = "retention"
EVERY_S: Final = 60.0
LOOK_EVERY_S: Final = 3600.0  # between two passes over all segments, where nothing was due
PAUSE_S: Final = 1.0
BATCH: Final = 16
BATCH_BYTES: Final = 64 << 20
BEHIND_US: Final = 3_600_000_000  # told of, beyond
# A record's time is its request's; it was sealed after that, an outcome by as much as a request may last.
SEALED_AFTER_US: Final = 24 * 3_600_000_000

log = structlog.get_logger("recorder")


def counted_us() -> int:
    """Microseconds that the machine has counted, asleep or not."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


class Retention:
    """`commit` makes durable what waits before this, so that what is appended here comes behind it."""

    def __init__(
        self,
        paths: Paths,
        writer: Writer,
        commit: Callable[[], None],
        *,
        now_us: Callable[[], int],
        counted: Callable[[], int] = counted_us,
    ) -> None:
        self._paths = paths
        self._writer = writer
        self._commit = commit
        self._now_us = now_us
        self._counted = counted
        self._terms: Terms | None = None
        self._past: Past | None = None
        self._kept_us = 0  # what the file says
        self._destroyed = 0
        self._held: dict[str, int] = {}  # hold -> how many segments it keeps that would go
        self._trouble = ""
        self._looked_s = float("-inf")

    def configure(self, terms: Terms | None) -> None:
        self._terms, self._looked_s = terms, float("-inf")

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            await self.work()

    async def work(self) -> None:
        """One look: destroys all that is due, a batch at a time, with a pause between."""
        if self._terms is None:
            return
        try:
            surely = self._time()
            if time.monotonic() - self._looked_s < LOOK_EVERY_S:
                return
            due = surely - int(self._terms.records * 1e6)
            loop = asyncio.get_running_loop()
            self._held, self._trouble = {}, ""
            paths = await loop.run_in_executor(None, self._candidates, due, surely)
            while paths:
                found, paths = await loop.run_in_executor(None, self._examine, paths, due)
                if self._destroy(found):
                    await asyncio.sleep(PAUSE_S)
            self._looked_s = time.monotonic()
        except EnvironmentFault as error:
            self._tell(str(error))

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.error("retention destroys nothing", why=trouble)
        self._trouble = trouble

    # -- the time ---------------------------------------------------------------------------------------
    def _time(self) -> int:
        """What time it surely is. Raises EnvironmentFault when the file cannot be used."""
        now, counted, path = self._now_us(), self._counted(), self._paths.retention
        kept_us = past.read(path)
        if self._past is None or kept_us != self._kept_us:  # an operator has said that the clock is right
            self._past = Past(kept_us, self._known_us(now), now, counted)
            self._kept_us = kept_us
        self._past.count(now, counted)
        if abs(self._past.trusted_us - self._kept_us) >= LOOK_EVERY_S * 1e6 or not self._kept_us:
            past.write(path, self._past.trusted_us)
            self._kept_us = self._past.trusted_us
        return self._past.surely_us(now)

    def _known_us(self, now: int) -> int:
        """When the last segment before this process was begun: that late it was."""
        for path in reversed(erase.closed_segments(self._writer)):
            try:
                with path.open("rb") as stream:
                    return segment.parse_header(stream.read(segment.HEADER_BYTES)).created_us
            except (OSError, Damaged):
                continue
        return now

    # -- what is due --------------------------------------------------------------------------------------
    def _candidates(self, due: int, surely: int) -> list[Path]:
        """By their headers alone: those that were begun before then, and have a key.

        None is older than one before it, so that a clock that was set back ages nothing. What claims to be of the
        future says nothing of others.
        """
        found, after = [], 0
        for path in erase.closed_segments(self._writer):
            try:
                with path.open("rb") as stream:
                    header = segment.parse_header(stream.read(segment.HEADER_BYTES))
            except (OSError, Damaged):
                continue  # `verify` says so
            after = max(after, header.created_us) if header.created_us <= surely else after
            if max(after, header.created_us) < due and header.dek_id != NO_DEK:
                found.append(path)
        return found

    def _examine(self, paths: list[Path], due: int) -> tuple[list[Old], list[Path]]:
        """A batch of those that may go, as far as their times and the tree go; and the paths behind them."""
        found: list[Old] = []
        size = 0
        for number, path in enumerate(paths):
            if len(found) >= BATCH or size >= BATCH_BYTES:
                return found, paths[number:]
            try:
                old = erase.examine(self._writer, path, self._paths.ledger / "log")
            except LedgerError as error:
                self._tell(str(error))
                continue
            if old is not None and old.times_us[1] < due:
                found.append(old)
                size += path.stat().st_size if path.exists() else 0
        return found, []

    def _destroy(self, found: list[Old]) -> bool:
        """All of them that no hold keeps; in the loop, and at once."""
        with holds.standing(self._paths.holds) as standing:
            free = []
            for old in found:
                times = old.times_us[0] - SEALED_AFTER_US, old.times_us[1]
                keeping = holds.blocking(standing, times_us=times)
                for hold in keeping:
                    self._held[hold.id] = self._held.get(hold.id, 0) + 1
                if not keeping and _unchanged(old):
                    free.append(old)
            if not free:
                return False
            self._commit()
            detail = {
                "segments": len(free),
                "entries": [[old.first, old.end - 1] for old in free],
                "until_us": max(old.times_us[1] for old in free),
                "kept_s": int(self._terms.records) if self._terms is not None else 0,
            }
            made = record.Admin(time_us=self._now_us(), action="erase.segment", actor=ACTOR, detail=detail)
            order = record.encode(made)
            self._writer.append([order])
            # A crash here: it was ordered, and not done; the next look does it, by an order of its own.
            erase.destroy(self._writer, free, EraseReason.RETENTION, hashlib.sha256(order).digest())
        self._destroyed += len(free)
        log.info("destroyed by retention", segments=len(free), until_us=detail["until_us"])
        return True

    def status(self) -> dict[str, Any] | None:
        if self._terms is None:
            return None
        now = self._now_us()
        behind = now - self._past.surely_us(now) if self._past is not None else 0
        return {
            "records_s": int(self._terms.records),
            "destroyed": self._destroyed,
            "held": self._held,
            "clock_ahead_s": behind // 1_000_000 if behind > BEHIND_US else 0,
            "trouble": self._trouble or None,
        }


def _unchanged(old: Old) -> bool:
    """Whether it is still the file that was examined: a record may have been removed from it meanwhile."""
    try:
        with old.path.open("rb") as stream:
            return segment.parse_header(stream.read(segment.HEADER_BYTES)).dek_id == old.dek_id
    except (OSError, Damaged):
        return False


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    reason: Annotated[str, Meta(min_length=1, max_length=300)]
    actor: Annotated[str, Meta(pattern=r"\Aos:[0-9]{1,10}\Z")]


def resume(hands: Hands, parameters: Parameters) -> dict[str, Any]:
    """The order `retention.resume`: the machine's clock is right, whatever retention has thought of it."""
    try:
        asked = msgspec.convert(parameters, _Asked, strict=True)
    except msgspec.ValidationError as error:
        raise UsageError(f"nothing was changed: {error}") from None
    now = time.time_ns() // 1000
    before = past.read(hands.paths.retention)
    # What is kept lags by as much, and so much again is not told of: nothing has been stopped.
    if before and 0 <= now - before <= LOOK_EVERY_S * 1e6 + BEHIND_US:
        return {"trusted_us": before, "before_us": before, "changed": False}

    def announce() -> None:
        detail = {"reason": asked.reason, "trusted_us": before}
        hands.record(record.Admin(time_us=now, action="retention.resume", actor=asked.actor, detail=detail))
        hands.writer.sync()

    past.write(hands.paths.retention, now, announce)
    return {"trusted_us": now, "before_us": before, "changed": True}
