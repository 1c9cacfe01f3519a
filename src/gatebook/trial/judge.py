"""A request that nobody sent -> the verdict that the guard would give.

In: a configuration, a request, and who asks: an identity, why there is none, or nobody. Out: `Judged`. The rules
are asked of the guard's own `policy`; a test holds the guard to the same answers. Limits are not counted, and
nothing that is remembered between requests is asked. Pure.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from gatebook.config.model import Configuration, Route
from gatebook.identity.types import Identity, Presented, Refusal
from gatebook.policy import Facts, Match, Miss, Policy, Routes, Ruling, joined
from gatebook.record import REASONS

Who = Identity | Refusal | None
Verdict = Literal["allow", "deny"]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """`headers`: names in lower case, in order. `at` is in seconds since 1970.

    `certificate`: SHA-256 of the client's, hex; `der`: the certificate itself, where somebody has it.
    """

    method: str
    target: str
    host: str
    headers: tuple[tuple[str, str], ...] = ()
    address: str
    port: int
    protocol: str
    tls_version: str | None
    certificate: str | None = None
    der: bytes = b""
    at: float

    def facts(self) -> Facts:
        return Facts(
            id="0" * 32,
            method=self.method,
            host=self.host,
            protocol=self.protocol,
            headers=joined(list(self.headers)),
            address=self.address,
            port=self.port,
            tls_version=self.tls_version,
            tls_sni=self.host.rpartition(":")[0] or self.host if self.tls_version is not None else None,
            tls_certificate=self.certificate,
        )

    def presented(self) -> Presented:
        """What identification looks at, as the guard makes it."""
        headers = [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in self.headers]
        scheme = "http" if self.tls_version is None else "https"
        url = f"{scheme}://{self.host}{self.target.partition('?')[0]}"
        return Presented(headers, self.method, url, self.der)


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """`reason` is a key of record.REASONS, `status` what the client is told; 200 where it is let through."""

    match: Match | Miss
    verdict: Verdict
    status: int
    reason: str
    rule: str | None = None
    shadow: Ruling | None = None


class Judge:
    """Compiled once. Raises ConfigError where the configuration's routes or rules are wrong."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.routes = Routes(configuration)
        self.policy = Policy(configuration)

    def match(self, request: Request) -> Match | Miss:
        return self.routes.match(request.method, request.target)

    def route(self, request: Request) -> Route | None:
        match = self.match(request)
        return match.route if isinstance(match, Match) else None

    def judge(self, request: Request, who: Who) -> Judged:
        """An identity of a provider that the route does not accept is no credential there."""
        match = self.match(request)
        refusal = refused(match, who)
        if refusal is not None:
            return Judged(match=match, verdict="deny", status=REASONS[refusal].status, reason=refusal)
        assert isinstance(match, Match)  # noqa: S101 - a miss is refused
        identity = who if isinstance(who, Identity) else None
        return judged(match, self.policy.authorise(match, identity, request.facts(), request.at))


def refused(match: Match | Miss, who: Who) -> str | None:
    """The reason, where no rule is ever asked."""
    if isinstance(match, Miss):
        return match.reason
    accepted = match.route.identity
    if accepted == "none":
        return None
    if isinstance(who, Refusal):
        return who.reason
    return None if who is not None and who.provider in accepted else "credential_missing"


def judged(match: Match, ruling: Ruling) -> Judged:
    return Judged(
        match=match,
        verdict="allow" if ruling.allowed else "deny",
        status=REASONS[ruling.reason].status,
        reason=ruling.reason,
        rule=ruling.rule,
        shadow=ruling.shadow,
    )
