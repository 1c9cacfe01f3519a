"""One configuration, compiled: what is asked, by whom -> a verdict, and the decision record of it.

In: `Asked`, an identity or why there is none, clocks. Out: `Verdict`, and `record.Decision` once the
pseudonyms are known. Only the limits remember anything. Never allows what no rule of the configuration
allows; knows no socket, no recorder and no clock.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal
from urllib.parse import quote

import msgspec

from gatebook import record
from gatebook.config.model import Configuration, Route
from gatebook.config.value import is_local_path
from gatebook.guard.asked import Asked, Fields, certificate_sha256, trace_id
from gatebook.guard.challenge import Challenges
from gatebook.identity import session
from gatebook.identity.keyed import Keys, signed_sha256
from gatebook.identity.session import is_navigation
from gatebook.identity.types import Credential, Identity, Refusal
from gatebook.limits import Limiter, Taken
from gatebook.policy import Facts, Match, Miss, Policy, Routes, Ruling, query_is_clear
from gatebook.redact import (
    Known,
    Names,
    Redactor,
    canonical_address,
    cipher_name,
    protocol_version,
    tls_version,
)
from gatebook.wire import MAX_CERTIFICATE_BYTES, MAX_OFFER_BYTES, upstreams_mark

MAX_ELDERS = 4  # configurations that workers of the gateway may still have been started under
MAX_FINGERPRINTS = 1 << 14  # remembered, for they cost more than most of a decision


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What the client is told and why. `reason` is a key of record.REASONS.

    `upstream` and `strip`: where the request goes, and whether without its credential.
    `shadow`: the ruling had the rules in shadow mode been enforced, where it would be another verdict.
    `grants`: those without which it would be a denial.
    """

    allowed: bool
    reason: str
    rule: str | None = None
    taken: Taken | None = None
    shadow: Ruling | None = None
    upstream: str | None = None
    strip: bool = False
    grants: tuple[str, ...] = ()


class Rules:
    """Everything that a request is judged by, of one configuration; replaced as a whole on reload."""

    def __init__(self, configuration: Configuration, keys: Keys, previous: Rules | None = None) -> None:
        self.configuration = configuration
        self.digest = configuration.digest().hex()
        self.origin = configuration.origin
        # The gateway says the host twice more than the client did, and adds fields of its own.
        self.max_head_bytes = 2 * configuration.gateway.max_header + MAX_CERTIFICATE_BYTES + MAX_OFFER_BYTES
        self._keys = keys
        self._fingerprint = lru_cache(MAX_FINGERPRINTS)(keys.fingerprint)  # of those who were identified
        self._upstreams = set(configuration.upstreams)
        self._marks = {upstreams_mark(self._upstreams)}
        self._elders: tuple[Rules, ...] = ()
        if previous is not None:
            # The gateway keeps the upstreams of the configuration before; see supervisor.reload.
            self._marks.add(upstreams_mark(self._upstreams | previous._upstreams))
            self._elders = (previous, *previous._elders)[:MAX_ELDERS]
        self._routes = Routes(configuration)
        self._policy = Policy(configuration)
        self._limiter: Limiter = Limiter(configuration, previous._limiter if previous else None)
        self._redactor = Redactor(configuration)
        self._methods = {name: provider.type for name, provider in configuration.identity.items()}
        self.challenges = Challenges(configuration)
        self._logins = {route.name: _login(configuration, route) for route in configuration.routes}

    def retire(self) -> None:
        """Others are in force. Those before these are theirs to remember, or all would be for ever."""
        self._elders = ()

    def match(self, asked: Asked) -> Match | Miss:
        return self._routes.match(asked.method, asked.uri)

    def facts(self, asked: Asked) -> Facts:
        """In the record's own forms."""
        return Facts(
            id=asked.id,
            method=asked.method,
            host=asked.host,
            protocol=protocol_version(asked.protocol),
            headers=Fields(asked.headers),
            address=_spelt_once(asked.address),
            port=asked.port,
            tls_version=tls_version(asked.tls) or None,
            tls_cipher=cipher_name(asked.cipher) or None,
            tls_group=asked.group or None,
            tls_sni=asked.sni or None,
            tls_certificate=certificate_sha256(asked),
        )

    def judge(
        self, asked: Asked, match: Match, facts: Facts, identity: Identity | None, now: float, monotonic_s: float
    ) -> Verdict:
        """Rules first, then limits: a caller without a right uses up nobody's."""
        ruling = self._policy.authorise(match, identity, facts, now)
        if not ruling.allowed:
            return Verdict(False, ruling.reason, ruling.rule, None, ruling.shadow)
        goes_by = match.route
        if asked.upstreams not in self._marks:
            known = self._known_way(match.route, asked, facts, identity, now)
            if known is None:
                return Verdict(False, "gateway_reloading", ruling.rule)
            goes_by = known
        # What either route keeps from its upstream, this one does not get.
        strip = match.route.strip_credential or goes_by.strip_credential
        taken = self._limiter.take(match.route, identity, facts.address, monotonic_s)
        if taken is not None and not taken.allowed:
            return Verdict(False, "limit_exceeded", ruling.rule, taken)  # a shadow rule could only deny, too
        grants = (
            () if identity is None or not identity.grants else self._policy.needed(match, identity, facts, now)
        )
        return Verdict(True, ruling.reason, ruling.rule, taken, ruling.shadow, goes_by.upstream, strip, grants)

    def _known_way(
        self, route: Route, asked: Asked, facts: Facts, identity: Identity | None, now: float
    ) -> Route | None:
        """The route by which a worker of the gateway can go that was started under an older configuration.

        To an upstream that it knows: by that configuration's route, if its rules allow this too.
        """
        elder = next((elder for elder in self._elders if asked.upstreams in elder._marks), None)
        if elder is None or route.upstream in elder._upstreams:
            return route
        match = elder.match(asked)
        if isinstance(match, Match) and elder._policy.authorise(match, identity, facts, now).allowed:
            return match.route
        return None

    def login(self, route: Route, asked: Asked) -> str:
        """Where a person who waits for a page of this route can log in, and come back; empty for anybody else."""
        page = self._logins[route.name]
        if not page or asked.method != "GET" or not is_navigation(asked.headers):
            return ""
        return f"{page}&return_to={quote(asked.uri, safe='')}" if is_local_path(asked.uri) else page

    def durability(self, match: Match | Miss) -> str:
        own = match.route.durability if isinstance(match, Match) else None
        return own or self.configuration.audit.durability

    def names(self, asked: Asked, identity: Identity | None) -> Names[str]:
        return self._redactor.names(identity, asked.address)

    @property
    def seals(self) -> bool:
        """Whether records hold what is sealed, so that keys are needed besides pseudonyms."""
        return self._redactor.seals

    def decision(
        self,
        asked: Asked,
        match: Match | Miss,
        facts: Facts,
        who: Identity | Refusal | None,
        credential: Credential | None,
        verdict: Verdict,
        known: Names[Known],
        now_us: int,
        bare: bool = False,
        signals: tuple[str, ...] = (),
    ) -> record.Decision:
        """The record. `known`: of the names that `names` asked for.

        With `bare` it always fits: it has nothing whose size a client or a provider chooses, but for a path.
        """
        route = match.route if isinstance(match, Match) else None
        redactor = self._redactor
        identity = who if isinstance(who, Identity) else None
        return record.Decision(
            id=asked.id,
            time_us=now_us,
            trace_id=trace_id(facts.headers),
            identity=self._identity(who, credential, known.subject and known.subject.pseudonym, bare),
            request=redactor.request_part(
                method=asked.method,
                path=match.path,
                query="" if bare else match.query,
                route=route.name if route is not None else None,
                host=asked.host or None,
                protocol=asked.protocol,
                headers=None if bare else facts.headers,
                claimed_id=None if bare else facts.headers.get("x-request-id"),
                unclear=_unclear(match, asked),
            ),
            client=redactor.client_part(
                asked.address, asked.port or None, known.address and known.address.pseudonym
            ),
            tls=redactor.tls_part(
                asked.tls or None,
                asked.cipher or None,
                asked.group or None,
                asked.sni or None,
                facts.tls_certificate,
            ),
            decision=record.DecisionPart(
                verdict="allow" if verdict.allowed else "deny",
                status=record.REASONS[verdict.reason].status,
                reason=verdict.reason,
                configuration=self.digest,
                durability=self.durability(match),
                rule=verdict.rule,
                shadow=_shadow(verdict.shadow) if verdict.shadow is not None else None,
                grants=verdict.grants,
            ),
            upstream=verdict.upstream,
            limit=verdict.taken.part if verdict.taken is not None else None,
            connection=asked.connection,
            connection_request=asked.connection_request,
            signals=signals,
            sealed=redactor.sealed(asked.id, identity, asked.address, known) if redactor.seals else None,
        )

    def _identity(
        self, who: Identity | Refusal | None, credential: Credential | None, subject: str | None, bare: bool
    ) -> record.IdentityPart | None:
        if isinstance(who, Identity):
            if bare:
                who = msgspec.structs.replace(who, roles=(), grants=())
            return self._redactor.identity_part(who, subject, self._fingerprint(who.credential_sha256))
        if isinstance(who, Refusal) and who.provider is not None and credential is not None:
            # Whose credential it claims to be, without a subject: nothing was established.
            by_session = credential.method == session.METHOD
            method = session.METHOD if by_session else self._methods.get(who.provider, credential.method)
            presented = self._keys.fingerprint(signed_sha256(credential))
            return record.IdentityPart(provider=who.provider, method=method, credential=presented)
        return None


def _spelt_once(address: str) -> str:
    """So that `::ffff:192.0.2.7` is 192.0.2.7 to conditions and limits, as it is on record."""
    return address if ":" not in address else canonical_address(address) or address


def _unclear(match: Match | Miss, asked: Asked) -> tuple[Literal["query", "headers"], ...]:
    """What no condition could read, so that the record does not look as if it could have."""
    query = not match.query or query_is_clear(match.query)
    headers = all(value.isascii() or _is_text(value) for _, value in asked.headers)
    if query:
        return () if headers else ("headers",)
    return ("query",) if headers else ("query", "headers")


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _shadow(ruling: Ruling) -> record.ShadowPart:
    verdict: Literal["allow", "deny"] = "allow" if ruling.allowed else "deny"
    return record.ShadowPart(verdict=verdict, reason=ruling.reason, rule=ruling.rule)


def _login(configuration: Configuration, route: Route) -> str:
    """The login page for the first of the route's providers that has one."""
    names = [] if route.identity == "none" else [name for name in route.identity if name in configuration.logins]
    return f"{configuration.portal.url}/.gatebook/login?provider={names[0]}" if names else ""
