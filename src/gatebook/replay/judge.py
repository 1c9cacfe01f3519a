"""One recorded decision -> what another policy says of the same request.

In: the other configuration's Judge, other configurations that records name, a decision record. Out: `Replayed`.
Who was identified is taken from the record; limits, one-time use, revocations and the gateway's own faults are
left as they were. What would hang on anything unknown is unknown, and says why: never a guess. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Literal, NamedTuple

from gatebook import record
from gatebook.config.model import (
    Configuration,
    GatebookProvider,
    IntrospectionProvider,
    OIDCProvider,
    Provider,
    Route,
)
from gatebook.errors import ConfigError
from gatebook.identity.types import Identity
from gatebook.policy import Match, Miss, Ruling
from gatebook.policy.partial import Partial, possible, with_query
from gatebook.record import REASONS
from gatebook.redact import Redactor
from gatebook.replay import known
from gatebook.trial.judge import Judge

Kind = Literal[
    "same", "allow->deny", "deny->allow", "other rule", "other reason", "other route", "unknown", "outside"
]
DIFFERENT: tuple[Kind, ...] = ("allow->deny", "deny->allow", "other rule", "other reason", "other route")

OWN_PATHS = "/.gatebook/"
_OURS = frozenset({"guard_error", "gateway_reloading", "recorder_unavailable"})
_OF_RULES = frozenset({"rule", "public", "deny_rule", "no_rule", "condition_error"})
_OF_ROUTES = frozenset({"path_not_canonical", "no_route", "method_not_allowed"})


class Said(NamedTuple):
    """A verdict. None: several are possible."""

    verdict: Literal["allow", "deny"]
    status: int | None = None
    reason: str | None = None
    rule: str | None = None
    route: str | None = None


class Replayed(NamedTuple):
    """`now` is None where not even the verdict is certain. `shadow`: rules in shadow mode would change it.

    `why`: of `unknown`, what would have to be known; of `outside`, why it was not judged.
    """

    kind: Kind
    now: Said | None
    why: tuple[str, ...] = ()
    shadow: bool = False


class Replay:
    """`known`: configurations that records may have been made under, the other one among them or not."""

    def __init__(self, judge: Judge, others: Iterable[Configuration] = ()) -> None:
        self._judge = judge
        self._digest = judge.configuration.digest().hex()
        self._known = {self._digest: judge}
        for each in others:
            digest = each.digest().hex()
            if digest not in self._known:
                with suppress(ConfigError):  # its rules are wrong, so nothing was ever judged by it
                    self._known[digest] = Judge(each)
        self._redactors = {digest: Redactor(each.configuration) for digest, each in self._known.items()}

    def knows(self, decision: record.Decision) -> bool:
        """Whether the configuration that it was made under is at hand."""
        return decision.decision.configuration in self._known

    def judge(self, decision: record.Decision) -> Replayed:
        asked, made = decision.request, decision.decision
        if asked.path.startswith(OWN_PATHS):
            return Replayed("outside", None, ("gatebook's own pages, which no rule decides on",))
        if made.reason not in REASONS:
            return Replayed("outside", None, ("a reason that this version does not know",))
        if made.reason in _OURS:
            return Replayed("outside", None, (f"{made.reason}: a fault or a moment of gatebook's own",))
        if made.reason == "path_not_canonical":
            return Replayed("same", _refused(made.reason, None))  # in every configuration
        if not known.exact(asked.path):
            return _unknown("request.path, which was masked or cut")
        if not known.exact(asked.method):
            return _unknown("request.method")
        match = self._judge.routes.match(asked.method, asked.path)
        if isinstance(match, Miss):
            return _compared(decision, _refused(match.reason, None))
        return self._authorised(decision, match)

    def _authorised(self, decision: record.Decision, match: Match) -> Replayed:
        who: Identity | None = None
        seen = known.seen(decision, self._redactors.get(decision.decision.configuration))
        unknown = seen.unknown
        if match.route.identity != "none":
            found = self._who(decision, match.route, match.route.identity)
            if isinstance(found, Replayed):
                return found
            who, more = found
            unknown |= more
        partial = Partial(
            match=with_query(match, seen.query),
            identity=who,
            facts=seen.facts,
            now=decision.time_us / 1_000_000,
            unknown=unknown,
            query=seen.query,
            absent=seen.absent,
        )
        answer = possible(self._judge.policy, partial)
        said = _said(answer.rulings, match.route.name)
        if said is None:
            return Replayed("unknown", None, tuple(sorted(answer.why)))
        tried = None if answer.tried is None else _said(answer.tried, match.route.name)
        shadow = tried is not None and tried.verdict != said.verdict
        compared = _compared(decision, said, shadow)
        return compared._replace(why=tuple(sorted(answer.why))) if compared.kind == "unknown" else compared

    def _who(
        self, decision: record.Decision, route: Route, accepted: list[str]
    ) -> Replayed | tuple[Identity, frozenset[str]]:
        """Who asks, as the record has it; or what becomes of it where nobody does."""
        made, part = decision.decision, decision.identity
        before = self._known.get(made.configuration)
        if _is_refusal(decision):
            if before is not None and self._identifies_alike(before, decision, accepted):
                return _compared(decision, _refused(made.reason, route.name))
            return _unknown("whether the credential that was refused would be now")
        if part is None:
            return _unknown("who asked: nobody was identified on a route without identity, or without a route")
        here, there = self._judge.configuration.identity, before.configuration.identity if before else {}
        ours = here.get(part.provider)
        if part.provider in accepted and ours is not None:
            if before is not None and (
                there.get(part.provider) != ours or not self._same_issuer(before.configuration, ours)
            ):
                return _unknown(f"who asked: provider {part.provider} is configured otherwise")
            return known.identity(part)
        if ours is not None and all(_is_stranger(ours, here[name]) for name in accepted):
            return _compared(decision, Said("deny", 401, None, None, route.name))
        return _unknown(f"who asked: {part.provider} is not accepted, but others might know the credential")

    def _identifies_alike(self, before: Judge, decision: record.Decision, accepted: list[str]) -> bool:
        match = before.routes.match(decision.request.method, decision.request.path)
        old, new = before.configuration, self._judge.configuration
        return (
            isinstance(match, Match)
            and match.route.identity == accepted
            and old.identity == new.identity
            and old.portal == new.portal
        )

    def _same_issuer(self, before: Configuration, provider: Provider) -> bool:
        return (
            not isinstance(provider, GatebookProvider) or before.own_issuer == self._judge.configuration.own_issuer
        )


def _is_refusal(decision: record.Decision) -> bool:
    """Of a credential, or for want of one, before any rule was asked."""
    return decision.decision.reason not in _OF_RULES | _OF_ROUTES and not _is_after_rules(decision.decision)


def _is_after_rules(made: record.DecisionPart) -> bool:
    """Refused although the rules had allowed it: by a limit, or because something can be used once only."""
    if made.reason in _OF_RULES:
        return False
    return made.rule is not None or made.reason == "limit_exceeded"


def _is_stranger(provider: Provider, other: Provider) -> bool:
    """Whether no credential of the one could ever be the other's."""
    if provider.type == other.type == "api_key":
        return True  # a key is in one provider's keeping
    if isinstance(provider, OIDCProvider) and isinstance(other, OIDCProvider):
        return provider.issuer != other.issuer
    tokens = (OIDCProvider, IntrospectionProvider, GatebookProvider)
    return provider.type != other.type and not (isinstance(provider, tokens) and isinstance(other, tokens))


def _unknown(why: str) -> Replayed:
    return Replayed("unknown", None, (why,))


def _refused(reason: str, route: str | None) -> Said:
    return Said("deny", REASONS[reason].status, reason, None, route)


def _said(rulings: frozenset[Ruling], route: str) -> Said | None:
    """What all of them have in common; None where they differ in the verdict."""
    first = next(iter(rulings))
    verdict: Literal["allow", "deny"] = "allow" if first.allowed else "deny"
    if len(rulings) == 1:
        return Said(verdict, REASONS[first.reason].status, first.reason, first.rule, route)
    if any(each.allowed is not first.allowed for each in rulings):
        return None
    return Said(verdict, REASONS[first.reason].status, None, None, route)


def was(decision: record.Decision) -> Said:
    """What the rules said then, where they allowed what was refused later."""
    made, route = decision.decision, decision.request.route
    if _is_after_rules(made):
        return Said("allow", 200, "rule" if made.rule is not None else "public", made.rule, route)
    return Said(made.verdict, made.status, made.reason, made.rule, route)


def _compared(decision: record.Decision, now: Said, shadow: bool = False) -> Replayed:
    before = was(decision)
    kind: Kind = "same"
    if before.verdict != now.verdict:
        refused_since = decision.decision.verdict == "deny" and now.verdict == "deny"
        kind = "other reason" if refused_since else "allow->deny" if now.verdict == "deny" else "deny->allow"
    elif now.reason is None:
        kind = "unknown"
    elif before.reason != now.reason or before.status != now.status:
        kind = "other reason"
    elif before.rule != now.rule:
        kind = "other rule"
    elif before.route != now.route and now.route is not None:
        kind = "other route"
    return Replayed(kind, now, (), shadow)
