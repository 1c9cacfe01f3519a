"""Asks witnesses to cosign the newest checkpoint, beside everything else, and publishes what they answer.

A round: the newest signed checkpoint, each witness of the policy that has not cosigned it and is due, all at
once; then the lines that verified go into `log/checkpoint` if it is still the newest, into `log/cosigned` if they
are enough, and an ANCHOR entry names them, once an hour at most, so that the log does not grow by it. A witness
that is down costs nothing but its row in `gatebook status` and one record. Never publishes a line that was not
checked, nor anything else that a witness sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import httpx2
import msgspec
import structlog

from gatebook.config.evidence import Witnesses as Settings
from gatebook.errors import ConfigError, Damaged, EnvironmentFault, LedgerError, Tampered
from gatebook.identity.fetch import is_local, new_client, tls_context
from gatebook.ledger.consistency import consistency_from_tiles
from gatebook.ledger.entry import Anchor
from gatebook.ledger.lock import Promise
from gatebook.ledger.note import Checkpoint, check_note
from gatebook.ledger.quorum import Trust, Witness, parse_trust
from gatebook.paths import Paths
from gatebook.recorder import vouched
from gatebook.recorder.vouched import Seen
from gatebook.witness.asking import Answer, Conflict, Contradicted, Failed, Vouched, ask, url_problem
from gatebook.witness.protocol import Cosigned, Request

BY_WITNESSES: Final = 2  # the ANCHOR entry's kind
ANCHOR_S: Final = 3600
_REWRITTEN: Final = "the log was put back to an older state, or its key has signed another history"
SILENT_AFTER: Final = 3  # failures in a row
MAX_BACKOFF_S: Final = 300.0
IDLE_S: Final = 1.0
AT_CLOSE_S: Final = 2.0

log = structlog.get_logger("recorder")


class Ledger(Protocol):
    """The part of `ledger.writer.Writer` that is used here."""

    @property
    def promise(self) -> Promise: ...
    def show_cosigned(self, checkpoint: Checkpoint, note: bytes, *, newest: bool, receipt: bool) -> None: ...


class Tell(NamedTuple):
    """How the recorder hears of it: an event or an alert with its detail, an entry for the ledger."""

    event: Callable[[str, dict[str, object]], None]
    alert: Callable[[str, dict[str, object]], None]
    anchor: Callable[[Anchor], None]


class Witnesses:
    """`run` goes on until it is cancelled; `configure` may be called at any time in between."""

    def __init__(
        self, paths: Paths, ledger: Ledger, tell: Tell, *, now_s: Callable[[], float] = time.time
    ) -> None:
        self._paths = paths
        self._log = paths.ledger / "log"
        self._ledger = ledger
        self._tell = tell
        self._now_s = now_s
        self._settings: Settings | None = None
        self._known = vouched.read(paths.witnesses)
        self._trust: Trust | None = None
        self._policy: bytes | None = None
        self._clients: dict[bool, httpx2.AsyncClient] = {}
        self._old_clients: list[httpx2.AsyncClient] = []
        self._text = ""
        self._lines: dict[str, Cosigned] = {}  # vkey -> its cosignature of `_text`
        self._not_before: dict[str, float] = {}  # vkey -> by the monotonic clock
        self._enough_shown: bool | None = None  # whether `log/cosigned` meets the policy; None: not known

    def configure(self, settings: Settings | None) -> None:
        if settings != self._settings:
            self._settings = settings
            self._policy = None  # read it again
            self._old_clients += self._clients.values()
            self._clients = {}

    def status(self) -> dict[str, Any] | None:
        """For `gatebook status`; None when nobody is to be asked."""
        if self._settings is None:
            return None
        told: dict[str, Any] = msgspec.to_builtins(self._known)
        return told

    async def run(self) -> None:
        """Raises LedgerError when the ledger cannot be written: that is the recorder's end, whoever finds it."""
        try:
            while True:
                await asyncio.sleep(self._settings.every if self._settings else IDLE_S)
                try:
                    await self._close_old()
                    if self._settings is not None:
                        await self.round(self._settings)
                except LedgerError:
                    raise
                except Exception:
                    log.exception("error of our own while asking witnesses")
        finally:
            await self.close()

    async def at_close(self) -> None:
        """Show the last checkpoint to whoever is due; a stop should not take long. Raises LedgerError."""
        if self._settings is None:
            return
        brief = self._settings.model_copy(update={"timeout": min(self._settings.timeout, AT_CLOSE_S)})
        try:
            await self.round(brief)
        finally:
            await self.close()

    async def close(self) -> None:
        """Let go of all connections."""
        self._old_clients += self._clients.values()
        self._clients = {}
        await self._close_old()

    async def _close_old(self) -> None:
        while self._old_clients:
            await self._old_clients.pop().aclose()

    async def round(self, settings: Settings) -> None:
        """Ask everybody who is due, once."""
        trust = self._read_policy(settings)
        promise = self._ledger.promise
        if trust is not None:
            if promise.checkpoint.text() != self._text:
                self._text, self._lines = promise.checkpoint.text(), {}
            due = [witness for witness in trust.witnesses if self._is_due(witness)]
            answers = await asyncio.gather(*(self._ask(each, promise, settings) for each in due))
            fresh = [
                self._learn(witness, old, answer, promise.checkpoint, settings)
                for witness, (old, answer) in zip(due, answers, strict=True)
            ]
            if any(fresh):
                await self._publish(trust, promise)
        try:
            vouched.write(self._paths.witnesses, self._known)
        except OSError as error:
            log.error("what witnesses did is not kept", error=str(error))

    def _read_policy(self, settings: Settings) -> Trust | None:
        """The policy as it is now. One that is spoilt while we run leaves the one before in force."""
        try:
            data = settings.policy.read_bytes()
            if data != self._policy:
                trust = parse_trust(data, str(settings.policy))
                keys = {witness.verifier.vkey for witness in trust.witnesses}
                self._known.witnesses = [seen for seen in self._known.witnesses if seen.key in keys]
                for witness in trust.witnesses:
                    seen = self._known.of(witness.name, witness.verifier.vkey)
                    if witness.url is not None and (wrong := url_problem(witness.url)):
                        seen.error = f"it is not asked: its URL {wrong}"
                self._trust, self._policy, self._enough_shown = trust, data, None
            self._known.error = ""
        except (OSError, ConfigError) as error:
            if str(error) != self._known.error:
                log.error("the policy of witnesses cannot be used; the one before holds", error=str(error))
            self._known.error = str(error)
        return self._trust

    def _is_due(self, witness: Witness) -> bool:
        key = witness.verifier.vkey
        due = key not in self._lines and time.monotonic() >= self._not_before.get(key, 0.0)
        return due and witness.url is not None and url_problem(witness.url) is None

    def _client(self, url: str, settings: Settings) -> httpx2.AsyncClient:
        """Raises EnvironmentFault."""
        local = is_local(url)
        if local not in self._clients:
            context = None if local else tls_context(settings.ca)
            self._clients[local] = new_client(context, settings.timeout, connections=64)
        return self._clients[local]

    async def _ask(self, witness: Witness, promise: Promise, settings: Settings) -> tuple[int, Answer]:
        """The old size that was said last, and what was answered to it."""
        checkpoint = promise.checkpoint
        old = min(self._known.of(witness.name, witness.verifier.vkey).size, checkpoint.size)
        for corrected in (False, True):
            try:
                client = self._client(witness.url or "", settings)
                _, proof = await asyncio.to_thread(consistency_from_tiles, self._log, old, checkpoint)
                request = Request(old, tuple(proof), promise.note)
                answer = await ask(
                    client, witness.url or "", witness.verifier, request, settings.timeout, self._now_s()
                )
            except (EnvironmentFault, Damaged, Tampered) as error:
                return old, Failed(f"it is not asked: {error}")
            except Exception as error:
                log.exception("error of our own while asking a witness", witness=witness.name)
                return old, Failed(f"it is not asked: an error of our own ({type(error).__name__})")
            match answer:
                case Conflict(int(size)) if not corrected and size != old and size <= checkpoint.size:
                    old = size
                case _:
                    break
        return old, answer

    def _learn(
        self, witness: Witness, old: int, answer: Answer, checkpoint: Checkpoint, settings: Settings
    ) -> bool:
        """Whether there is a new cosignature."""
        seen = self._known.of(witness.name, witness.verifier.vkey)
        match answer:
            case Vouched(line, time_s):
                self._lines[seen.key] = Cosigned(line, time_s)
                if seen.silent or seen.disagrees:
                    self._tell.event("witness.answers", self._told(seen, size=checkpoint.size))
                seen.size, seen.time_s = checkpoint.size, time_s
                seen.failures, seen.error, seen.silent, seen.disagrees = 0, "", False, False
                return True
            case Conflict(int(size)) if size > checkpoint.size:
                own = checkpoint.size
                self._disagree(seen, f"has cosigned {size} entries of this log, which has {own} now; {_REWRITTEN}")
            case Contradicted() if old:
                self._disagree(
                    seen, f"has cosigned {old} entries that are not the first of this log; {_REWRITTEN}"
                )
            case Conflict(size) if size == old == checkpoint.size:  # how the protocol said it before
                self._disagree(seen, f"has cosigned {old} entries that are not those of this log; {_REWRITTEN}")
            case Contradicted():
                self._fail(seen, "it refuses a first checkpoint (status 422)", settings)
            case Conflict(size):
                said = "no size" if size is None else f"another size, {size}, than when it was asked before"
                self._fail(seen, f"it answered with a conflict (status 409) and {said}", settings)
            case Failed(why, retry_s):
                self._fail(seen, why, settings, retry_s)
        return False

    def _fail(self, seen: Seen, why: str, settings: Settings, retry_s: float = 0.0) -> None:
        seen.failures += 1
        seen.error = why
        wait_s = min(settings.every * 2.0 ** min(seen.failures - 1, 10), MAX_BACKOFF_S)
        self._not_before[seen.key] = time.monotonic() + max(wait_s, retry_s)
        if seen.failures >= SILENT_AFTER and not seen.silent:
            seen.silent = True
            self._tell.event("witness.silent", self._told(seen, why=why, size=seen.size))
            log.error("a witness does not cosign", witness=seen.name, why=why)

    def _disagree(self, seen: Seen, why: str) -> None:
        self._not_before[seen.key] = time.monotonic() + MAX_BACKOFF_S
        if not seen.disagrees:
            seen.disagrees = True
            self._tell.alert("witness_disagrees", self._told(seen, why=why))
            log.error("a witness has seen another history of this log", witness=seen.name, why=why)
        seen.error = why

    def _told(self, seen: Seen, **detail: object) -> dict[str, object]:
        return {"witness": seen.name, "key": seen.key.split("+")[0] + "+" + seen.key.split("+")[1], **detail}

    async def _publish(self, trust: Trust, promise: Promise) -> None:
        checkpoint, now_s = promise.checkpoint, int(self._now_s())
        by = [witness for witness in trust.witnesses if witness.verifier.vkey in self._lines]
        enough = trust.met_by({witness.name: self._lines[witness.verifier.vkey].time_s for witness in by})
        if self._enough_shown is None:
            self._enough_shown = self._is_enough(trust)
        newest = enough or not self._enough_shown
        receipt = enough and abs(now_s - self._known.anchored_s) >= ANCHOR_S
        lines = "".join(str(self._lines[witness.verifier.vkey].line) for witness in by)
        note = promise.note + lines.encode()
        await asyncio.to_thread(self._ledger.show_cosigned, checkpoint, note, newest=newest, receipt=receipt)
        if enough:
            self._enough_shown = True
            self._known.met_size, self._known.met_s = checkpoint.size, now_s
        if receipt:
            self._known.anchored_s = now_s
            self._tell.anchor(Anchor(BY_WITNESSES, checkpoint.size, hashlib.sha256(note).digest()))

    def _is_enough(self, trust: Trust) -> bool:
        """Of what `log/cosigned` has from before."""
        names = {witness.verifier: witness.name for witness in trust.witnesses}
        try:
            checked = check_note((self._log / "cosigned").read_bytes(), names)
        except (OSError, LedgerError):
            return False
        return trust.met_by({names[verifier]: time_s for verifier, time_s in checked.signatures if time_s})
