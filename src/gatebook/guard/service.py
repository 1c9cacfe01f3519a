"""The life of one request in the guard: match, identify, judge, record, and only then answer.

The common case (a known token, a known pseudonym) runs through without a wait until the recorder's receipt.
What has to wait (a signature with an unknown key, a new pseudonym) goes on as a task of its own and disturbs
nobody. Never answers 2xx without a receipt, unless the route asks for that (durability: after-response), and
not even then while the recorder does not take the record; an error of ours is a 503.
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
from gatebook.guard.rules import Rules, Verdict
from gatebook.guard.signals import Signals
from gatebook.identity import Identifier
from gatebook.identity.once import Use, of_token
from gatebook.identity.types import Credential, Identity, Presented, Proved, Refusal
from gatebook.policy import Facts, Match, Miss
from gatebook.redact import NO_NAMES, Known, Names

MAX_NAMES = 100_000
MAX_TASKS = 10_000

log = structlog.get_logger("guard")

Reply = Callable[[bytes], None]


class Case:
    """One request on its way, judged by `rules` to its end, whatever is reloaded meanwhile. Answered once."""

    __slots__ = (
        "_reply",
        "asked",
        "credential",
        "facts",
        "judged_us",
        "match",
        "rules",
        "signals",
        "verdict",
        "who",
    )

    match: Match | Miss
    facts: Facts

    def __init__(self, asked: Asked, rules: Rules, reply: Reply) -> None:
        self.asked = asked
        self.rules = rules
        self.credential: Credential | None = None
        self.who: Identity | Refusal | None = None
        self.verdict: Verdict | None = None
        self.signals: tuple[str, ...] = ()
        self.judged_us: int | None = None  # the moment that rules were asked about
        self._reply: Reply | None = reply

    def refuse(self, reason: str) -> None:
        self.verdict = Verdict(False, reason)

    def answer(self, data: bytes) -> None:
        """A second answer would be taken for the connection's next request's."""
        reply, self._reply = self._reply, None
        if reply is not None:
            reply(data)

    @property
    def answered(self) -> bool:
        return self._reply is None

    def give_up(self, reason: str) -> None:
        """Without a receipt. `reason` is one of ours, a 503."""
        self.answer(answer.finish(answer.deny(reason=reason, request_id=self.asked.id)))


class Service:
    def __init__(self, rules: Rules, identifier: Identifier, recorder: RecorderClient) -> None:
        self.rules = rules
        self._identifier = identifier
        self._recorder = recorder
        recorder.on_erasure = self._forget_names
        self._names: OrderedDict[str, Known] = OrderedDict()
        self._names_until = 0.0  # seconds since 1970; 0: for good
        self._forgotten = 0  # how often all of them were
        self._signals = Signals()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lost = 0  # records of requests that were let through before
        self.draining = False

    def switch(self, rules: Rules) -> None:
        """From here on every new request is judged by these."""
        old, self.rules = self.rules, rules
        old.retire()
        self._forget_names()  # these may want another period's, or keys besides

    # -- readiness --------------------------------------------------------------------------------------
    @property
    def ready(self) -> bool:
        return self._recorder.up and not self.draining

    @property
    def idle(self) -> bool:
        return not self._tasks and self._recorder.idle

    @property
    def max_head_bytes(self) -> int:
        return self.rules.max_head_bytes

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
        case = Case(asked, self.rules, reply)
        if not self._recorder.up:
            # Without the recorder nobody is let through; there is nothing to decide.
            case.give_up("recorder_unavailable")
            return
        try:
            self._begin(case)
        except Exception:
            self._failed(case)

    def _failed(self, case: Case) -> None:
        log.exception("error while deciding: refused", request=case.asked.id)
        case.give_up("guard_error")

    def _begin(self, case: Case) -> None:
        match = case.match = case.rules.match(case.asked)
        case.facts = case.rules.facts(case.asked)
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
        if found is None:
            found = Refusal(
                "login_required" if case.rules.login(match.route, case.asked) else "credential_missing"
            )
        case.who = found
        return self._identified(case)

    async def _verify(self, case: Case, credential: Credential, accept: tuple[str, ...], shown: Presented) -> None:
        try:
            async with asyncio.timeout(self._recorder.timeout_s):
                case.who = await self._identifier.verify(credential, accept, time.time())
        except TimeoutError:
            case.who = Refusal("provider_unavailable")
        if case.rules is not self.rules:
            # Identified by another configuration than it would be judged by: both might refuse it.
            case.rules, case.credential, case.who = self.rules, None, None
            return self._begin(case)
        return self._confirm(case, credential, shown)

    def _confirm(self, case: Case, credential: Credential, shown: Presented) -> None:
        if isinstance(case.who, Identity):
            case.who = self._identifier.confirm(case.who, credential, shown, time.time()) or case.who
        if credential.proof is not None and isinstance(case.who, Identity):
            return self._later(case, self._prove(case, case.who, credential.proof))
        return self._confirmed(case)

    async def _prove(self, case: Case, who: Identity, proof: Proved) -> None:
        """A proof is used up before anything is decided by it: a replay takes nothing of its owner's limits."""
        again = Refusal("proof_replayed", who.provider)
        refusal = await self._use(case, Use(proof.once, proof.until_us, again))
        if case.answered:
            return
        case.who = refusal or who
        self._confirmed(case)

    def _confirmed(self, case: Case) -> None:
        if isinstance(case.who, Identity):
            asked = case.asked
            case.signals = self._signals.notice(case.who, asked.address, asked.tls, asked.ciphers)
            case.who = self._identifier.gain(case.who, time.time(), time.monotonic())
        self._identified(case)

    def _identified(self, case: Case) -> None:
        if isinstance(case.who, Refusal):
            case.refuse(case.who.reason)
            return self._record(case)
        return self._judge(case)

    def _judge(self, case: Case) -> None:
        assert isinstance(case.match, Match)  # noqa: S101 - a miss has been refused
        who = case.who if isinstance(case.who, Identity) else None
        case.judged_us = time.time_ns() // 1000
        now = case.judged_us / 1_000_000
        case.verdict = case.rules.judge(case.asked, case.match, case.facts, who, now, time.monotonic())
        if case.verdict.allowed and case.match.route.one_time:
            return self._later(case, self._use_up(case))
        return self._record(case)

    async def _use_up(self, case: Case) -> None:
        """Only what is allowed uses anything up. Whoever fails from here on has used it all the same."""
        assert case.verdict is not None  # noqa: S101 - it has been judged
        use = of_token(case.who) if isinstance(case.who, Identity) else Refusal("token_id_missing")
        refusal = await self._use(case, use) if isinstance(use, Use) else use
        if case.answered:
            return
        if refusal is not None:
            case.verdict = Verdict(False, refusal.reason, case.verdict.rule, case.verdict.taken)
        self._record(case)

    async def _use(self, case: Case, use: Use) -> Refusal | None:
        """None for the first use; without an answer of the recorder's the case is answered."""
        try:
            return None if await self._recorder.first_use(use.key, use.until_us) else use.again
        except RecorderUnavailable:
            case.give_up("recorder_unavailable")
            return None

    # -- the record -------------------------------------------------------------------------------------
    def _record(self, case: Case) -> None:
        names = case.rules.names(case.asked, case.who if isinstance(case.who, Identity) else None)
        if names == NO_NAMES:
            return self._append(case, Names(None, None))
        known = self._known(names, case.rules.seals)
        if known is None:
            return self._later(case, self._name(case, names))
        return self._append(case, known)

    def _known(self, names: Names[str], sealing: bool) -> Names[Known] | None:
        if self._names_until and time.time() >= self._names_until:
            self._forget_names()
        subject = self._names.get(names.subject) if names.subject is not None else None
        address = self._names.get(names.address) if names.address is not None else None
        if (names.subject is not None and subject is None) or (names.address is not None and address is None):
            return None
        if sealing and not all(each.key for each in (subject, address) if each is not None):
            return None  # remembered for older rules, which had no use for keys
        return Names(subject, address)

    async def _name(self, case: Case, names: Names[str]) -> None:
        try:
            seals = case.rules.seals
            known = Names(await self._resolve(names.subject, seals), await self._resolve(names.address, seals))
        except RecorderUnavailable:
            case.give_up("recorder_unavailable")
        else:
            self._append(case, known)

    async def _resolve(self, name: str | None, sealing: bool) -> Known | None:
        if name is None:
            return None
        known = self._names.get(name)
        if known is None or (sealing and not known.key):
            forgotten = self._forgotten
            made = await self._recorder.pseudonym(name, sealing)
            known = Known(made.pseudonym, made.key)
            if forgotten != self._forgotten:
                return known  # it may be of somebody who has been forgotten since: not to be remembered
            self._names[name] = known
            if made.until:
                self._names_until = min(made.until, self._names_until or made.until)
            # The oldest goes, used or not: a caller is asked for again once in so many newcomers.
            while len(self._names) > MAX_NAMES:
                self._names.popitem(last=False)
        return known

    def _forget_names(self) -> None:
        """Somebody was forgotten, a period has ended, or another configuration is in force: ask anew."""
        self._names.clear()
        self._names_until = 0.0
        self._forgotten += 1

    def _append(self, case: Case, known: Names[Known]) -> None:
        try:
            data, head = self._encoded(case, known), self._head(case)
        except ValueError as error:
            # Too large, or nothing that could be written down: refused, and on record as that.
            log.error("refused: no record or no answer can be made of it", request=case.asked.id, why=str(error))
            case.refuse("guard_error")
            data, head = self._encoded(case, known, bare=True), self._head(case)
        item = wire.Item(data, case.asked.worker, case.asked.id)
        assert case.verdict is not None  # noqa: S101 - `_encoded` has looked
        if case.verdict.allowed and case.rules.durability(case.match) == "after-response":
            if self._recorder.append(item, self._count_lost):
                case.answer(answer.finish(head))
            else:
                case.give_up("recorder_unavailable")
            return

        def told(index: int | None) -> None:
            if index is None:
                case.give_up("recorder_unavailable")
            else:
                case.answer(answer.finish(head, (case.rules.origin, index)))

        if not self._recorder.append(item, told):
            case.give_up("recorder_unavailable")

    def _encoded(self, case: Case, known: Names[Known], bare: bool = False) -> bytes:
        """The record's bytes. Raises ValueError, but not with `bare`."""
        assert case.verdict is not None  # noqa: S101 - whoever comes here has judged
        decision = case.rules.decision(
            case.asked,
            case.match,
            case.facts,
            case.who,
            case.credential,
            case.verdict,
            known,
            case.judged_us or time.time_ns() // 1000,
            bare,
            case.signals,
        )
        return record.encode(decision)

    def _head(self, case: Case) -> bytes:
        """The answer, but for its receipt. Raises ValueError, but not for a refusal of ours."""
        verdict, match, who, shown = case.verdict, case.match, case.who, case.credential
        assert verdict is not None  # noqa: S101 - whoever comes here has judged
        nonce = shown.nonce if shown is not None else ""
        if verdict.allowed and verdict.upstream is not None:
            return answer.allow(
                reason=verdict.reason,
                upstream=verdict.upstream,
                strip="1" if verdict.strip else _used_up(shown),
                nonce=nonce,
                who=(who.subject, who.roles, who.provider) if isinstance(who, Identity) else None,
                taken=verdict.taken,
            )
        return answer.deny(
            reason=verdict.reason,
            request_id=case.asked.id,
            allowed_methods=match.allow if isinstance(match, Miss) else (),
            login=case.rules.login(match.route, case.asked) if isinstance(match, Match) else "",
            authenticate=""
            if isinstance(match, Miss)
            else case.rules.challenges.of(match.route, shown, verdict.reason),
            nonce=nonce,
            taken=verdict.taken,
        )

    def _count_lost(self, index: int | None) -> None:
        """Nobody waits for this receipt; but that one has been let through without is to be known."""
        if index is None:
            if not self._lost:
                asyncio.get_running_loop().call_soon(self._tell_lost)
            self._lost += 1

    def _tell_lost(self) -> None:
        log.error("let through, but perhaps not on record (durability: after-response)", requests=self._lost)
        self._lost = 0

    # -- what has to wait -------------------------------------------------------------------------------
    def _later(self, case: Case, work: Coroutine[None, None, None]) -> None:
        if len(self._tasks) >= MAX_TASKS:
            work.close()
            case.give_up("guard_error")
            return
        task = asyncio.get_running_loop().create_task(self._guarded(case, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, case: Case, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            case.give_up("guard_error")  # or it would wait for an answer that never comes
            raise
        except Exception:
            self._failed(case)


def _used_up(shown: Credential | None) -> str:
    """What does not go on to the upstream, of its own: a proof ends here, and a bound token is of no use alone."""
    return "proof" if shown is not None and shown.proof is not None and not shown.proof.forward else ""
