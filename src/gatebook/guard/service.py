"""The life of one request in the guard: match, identify, judge, record, and only then answer.

The common case (a known token, a known pseudonym) runs through without a wait until the recorder's receipt.
What has to wait (a signature with an unknown key, a new pseudonym) goes on as a task of its own and disturbs
nobody. Never answers 2xx without a receipt, unless the route asks for that (durability: after-response), and
not even then while the recorder is away; an error of ours is a 503.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine

import structlog

from gatebook import record, wire
from gatebook.errors import RecorderUnavailable
from gatebook.guard import answer
from gatebook.guard.asked import Asked, presented
from gatebook.guard.client import RecorderClient
from gatebook.guard.rules import NO_NAMES, Rules, Verdict
from gatebook.identity import Identifier
from gatebook.identity.types import Credential, Identity, Presented, Refusal
from gatebook.policy import Facts, Match, Miss
from gatebook.redact import Names

MAX_PSEUDONYMS = 100_000
MAX_TASKS = 10_000

log = structlog.get_logger("guard")

Reply = Callable[[bytes], None]


class Case:
    """One request on its way. `rules` stay the same to its end, whatever is reloaded meanwhile."""

    __slots__ = ("asked", "credential", "facts", "match", "reply", "rules", "verdict", "who")

    def __init__(self, asked: Asked, rules: Rules, reply: Reply) -> None:
        self.asked = asked
        self.rules = rules
        self.reply = reply
        self.match: Match | Miss = rules.match(asked)
        self.facts: Facts = rules.facts(asked)
        self.credential: Credential | None = None
        self.who: Identity | Refusal | None = None
        self.verdict: Verdict | None = None

    def refuse(self, reason: str) -> None:
        self.verdict = Verdict(False, reason)


class Service:
    def __init__(self, rules: Rules, identifier: Identifier, recorder: RecorderClient) -> None:
        self.rules = rules
        self._identifier = identifier
        self._recorder = recorder
        self._pseudonyms: OrderedDict[str, str] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self.draining = False

    # -- readiness --------------------------------------------------------------------------------------
    @property
    def ready(self) -> bool:
        return self._recorder.up and not self.draining

    @property
    def idle(self) -> bool:
        return not self._tasks and self._recorder.idle

    def page(self, path: str) -> bytes:
        """`/ready` for load balancers, `/status` for the supervisor."""
        if path == "/ready":
            ready = self.ready
            return answer.plainly(
                "200 OK" if ready else "503 Service Unavailable", b"ready\n" if ready else b"not ready\n"
            )
        if path == "/status":
            told = {"ready": self.ready, "configuration": self.rules.digest, "pid": os.getpid()}
            return answer.plainly("200 OK", json.dumps(told).encode())
        return answer.plainly("404 Not Found")

    # -- one request ------------------------------------------------------------------------------------
    def decide(self, asked: Asked, reply: Reply) -> None:
        """Calls `reply` once, now or later, with the bytes of an answer."""
        if not self._recorder.up:
            # Without the recorder nobody is let through; there is nothing to decide.
            reply(answer.deny(receipt=None, reason="recorder_unavailable", request_id=asked.id))
            return
        try:
            self._identify(Case(asked, self.rules, reply))
        except Exception:
            self._failed(asked, reply)

    def _failed(self, asked: Asked, reply: Reply) -> None:
        log.exception("error while deciding: refused", request=asked.id)
        reply(answer.deny(receipt=None, reason="guard_error", request_id=asked.id))

    def _identify(self, case: Case) -> None:
        match = case.match
        if isinstance(match, Miss):
            case.refuse(match.reason)
            return self._record(case)
        if match.route.identity == "none":
            return self._judge(case)
        accept = tuple(match.route.identity)
        shown = presented(case.asked)
        found = self._identifier.present(shown, accept)
        if isinstance(found, Credential):
            case.credential = found
            case.who = self._identifier.lookup(found, accept, time.time())
            if case.who is None:
                return self._later(case, self._verify(case, found, accept, shown))
            return self._confirm(case, found, shown)
        case.who = found if found is not None else Refusal("credential_missing")
        return self._identified(case)

    async def _verify(self, case: Case, credential: Credential, accept: tuple[str, ...], shown: Presented) -> None:
        try:
            patience_s = self._recorder.timeout_s
            case.who = await asyncio.wait_for(self._identifier.verify(credential, accept, time.time()), patience_s)
        except TimeoutError:
            case.who = Refusal("provider_unavailable")
        self._confirm(case, credential, shown)

    def _confirm(self, case: Case, credential: Credential, shown: Presented) -> None:
        if isinstance(case.who, Identity):
            case.who = self._identifier.confirm(case.who, credential, shown, time.time()) or case.who
        self._identified(case)

    def _identified(self, case: Case) -> None:
        if isinstance(case.who, Refusal):
            case.refuse(case.who.reason)
            return self._record(case)
        return self._judge(case)

    def _judge(self, case: Case) -> None:
        assert isinstance(case.match, Match)  # noqa: S101 - a miss has been refused
        who = case.who if isinstance(case.who, Identity) else None
        case.verdict = case.rules.judge(case.asked, case.match, case.facts, who, time.time(), time.monotonic())
        self._record(case)

    # -- the record -------------------------------------------------------------------------------------
    def _record(self, case: Case) -> None:
        names = case.rules.names(case.asked, case.who if isinstance(case.who, Identity) else None)
        if names == NO_NAMES:
            return self._append(case, NO_NAMES)
        known = self._known(names)
        if known is None:
            return self._later(case, self._name(case, names))
        return self._append(case, known)

    def _known(self, names: Names) -> Names | None:
        subject = self._pseudonyms.get(names.subject) if names.subject is not None else None
        address = self._pseudonyms.get(names.address) if names.address is not None else None
        if (names.subject is None or subject) and (names.address is None or address):
            return Names(subject, address)
        return None

    async def _name(self, case: Case, names: Names) -> None:
        try:
            self._append(case, Names(await self._pseudonym(names.subject), await self._pseudonym(names.address)))
        except RecorderUnavailable:
            self._unrecorded(case)

    async def _pseudonym(self, name: str | None) -> str | None:
        if name is None:
            return None
        made = self._pseudonyms[name] = await self._recorder.pseudonym(name)
        while len(self._pseudonyms) > MAX_PSEUDONYMS:
            self._pseudonyms.popitem(last=False)
        return made

    def _append(self, case: Case, pseudonyms: Names) -> None:
        assert case.verdict is not None  # noqa: S101 - whoever comes here has judged
        decision = case.rules.decision(
            case.asked,
            case.match,
            case.facts,
            case.who,
            case.credential,
            case.verdict,
            pseudonyms,
            time.time_ns() // 1000,
        )
        item = wire.Item(record.encode(decision), case.asked.worker, case.asked.id)
        if case.verdict.allowed and decision.decision.durability == "after-response":
            if self._recorder.append(item, _nobody):
                self._answer(case, None)
            else:
                self._unrecorded(case)
            return

        def told(index: int | None) -> None:
            if index is None:
                self._unrecorded(case)
                return
            try:
                self._answer(case, index)
            except Exception:
                self._failed(case.asked, case.reply)

        if not self._recorder.append(item, told):
            self._unrecorded(case)

    def _unrecorded(self, case: Case) -> None:
        case.reply(answer.deny(receipt=None, reason="recorder_unavailable", request_id=case.asked.id))

    def _answer(self, case: Case, index: int | None) -> None:
        verdict, match, rules = case.verdict, case.match, case.rules
        assert verdict is not None  # noqa: S101
        receipt = None if index is None else (rules.origin, index)
        if verdict.allowed and isinstance(match, Match):
            who = case.who
            case.reply(
                answer.allow(
                    receipt=receipt,
                    reason=verdict.reason,
                    upstream=verdict.upstream or match.route.upstream,
                    strip=match.route.strip_credential,
                    who=(who.subject, who.roles, who.provider) if isinstance(who, Identity) else None,
                    taken=verdict.taken,
                )
            )
            return
        case.reply(
            answer.deny(
                receipt=receipt,
                reason=verdict.reason,
                request_id=case.asked.id,
                allowed_methods=match.allow if isinstance(match, Miss) else (),
                authenticate=""
                if isinstance(match, Miss)
                else rules.challenge(match.route, refused=case.credential is not None),
                taken=verdict.taken,
            )
        )

    # -- what has to wait -------------------------------------------------------------------------------
    def _later(self, case: Case, work: Coroutine[None, None, None]) -> None:
        if len(self._tasks) >= MAX_TASKS:
            work.close()
            case.reply(answer.deny(receipt=None, reason="guard_error", request_id=case.asked.id))
            return
        task = asyncio.get_running_loop().create_task(self._guarded(case, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, case: Case, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception:
            self._failed(case.asked, case.reply)


def _nobody(_index: int | None) -> None:
    """Nobody waits for this receipt."""
