"""A request that nobody sent -> the verdict that the guard would give.

In: a configuration, the grants that are held, a request, and who asks: an identity, why there is none, or nobody.
Out: `Judged`. Rules and grants are asked of the guard's own `policy` and `identity`; a test holds the guard to the
same answers. Never counts a limit nor asks what is remembered between requests: `later` names what of that the
guard would still look at. Pure.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from gatebook.config.model import Configuration, Route
from gatebook.identity.grant import Held, Seen
from gatebook.identity.once import of_token
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
    """`reason` is a key of record.REASONS, `status` what the client is told; 200 where it is let through.

    `grants`: those without which it would be a denial.
    """

    match: Match | Miss
    verdict: Verdict
    status: int
    reason: str
    rule: str | None = None
    shadow: Ruling | None = None
    grants: tuple[str, ...] = ()


class Judge:
    """Compiled once. `held`: grants that lend their roles. Raises ConfigError where routes or rules are wrong."""

    def __init__(self, configuration: Configuration, held: Held | None = None) -> None:
        self.configuration = configuration
        self._held = held
        self._grantable = {each.role: each for each in configuration.grants}
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
        identity = self.gain(match, who, request.at)
        return self.judged(
            match, identity, request, self.policy.authorise(match, identity, request.facts(), request.at)
        )

    def gain(self, match: Match, who: Who, at: float) -> Identity | None:
        """Who asks, with the roles of their grants that are in force then. A public route knows nobody."""
        if not isinstance(who, Identity) or match.route.identity == "none":
            return None
        return self._held.gain(who, self._grantable, Seen(), at, 0.0) if self._held else who

    def judged(self, match: Match, identity: Identity | None, request: Request, ruling: Ruling) -> Judged:
        """What becomes of a ruling. A token without an id opens no route where each opens once."""
        verdict: Verdict = "allow" if ruling.allowed else "deny"
        reason: str = ruling.reason
        shadow = ruling.shadow
        grants: tuple[str, ...] = ()
        if ruling.allowed and identity is not None:
            use = of_token(identity) if match.route.one_time else None
            if isinstance(use, Refusal):
                verdict, reason, shadow = "deny", use.reason, None
            elif identity.grants:
                grants = self.policy.needed(match, identity, request.facts(), request.at)
        return Judged(
            match=match,
            verdict=verdict,
            status=REASONS[reason].status,
            reason=reason,
            rule=ruling.rule,
            shadow=shadow,
            grants=grants,
        )


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


def later(match: Match | Miss) -> list[str]:
    """What the guard looks at once rules have allowed a request, and nothing here does, in words."""
    if isinstance(match, Miss):
        return []
    found = [
        f"limit {limit.name}: {limit.rate.count} in {limit.rate.period_s} s per {limit.per}"
        for limit in match.route.limits
    ]
    return [*found, "one_time: whether the token has been used before"] if match.route.one_time else found
