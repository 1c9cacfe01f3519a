"""A verdict explained: route, caller, every rule with each of its conditions, and what came of it.

In: a request and who asks, as for `judge`. Out: plain data for JSON, from which a text is made, too; with what the
guard would look at besides, and nobody has here. Never holds a credential: values of header fields and query
parameters that carry one are masked wherever they occur. Pure.
"""

from __future__ import annotations

import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

import msgspec

from gatebook.config.model import ApiKeyProvider, Configuration
from gatebook.identity.types import Refusal
from gatebook.policy import Facts, Match, Miss, near, trace
from gatebook.redact import CREDENTIAL_HEADERS, CREDENTIAL_QUERY
from gatebook.scrub import MASK
from gatebook.trial.judge import Judge, Judged, Request, Who, later, refused

_SHORTEST_SECRET = 8  # the word Bearer is none


def explain(judge: Judge, request: Request, who: Who, verified: bool) -> dict[str, Any]:
    """`verified`: whether `who` comes of a real credential. The verdict is `judge.judge`'s."""
    match = judge.match(request)
    secrets, query = _secrets(judge.configuration, request, match.query)
    rules: list[Any] = []
    if refused(match, who) is not None or not isinstance(match, Match):
        found = judge.judge(request, who)
    else:
        identity = judge.gain(match, who, request.at)
        who = identity or who
        facts = request.facts()
        shown = (msgspec.structs.replace(match, query=query), _shown(judge.configuration, facts))
        ruling, seen = trace.explain(judge.policy, match, identity, facts, request.at, shown)
        found = judge.judged(match, identity, request, ruling)
        rules = msgspec.to_builtins(seen)
    told = {
        "request": {
            "method": request.method,
            "target": match.path + ("?" + query if match.query else ""),
            "host": request.host,
            "address": request.address,
            "at": datetime.datetime.fromtimestamp(request.at, datetime.UTC).isoformat(),
        },
        "route": _route(match) if isinstance(match, Match) else None,
        "miss": _miss(judge.configuration, request, match) if isinstance(match, Miss) else None,
        "identity": _identity(who, verified) if isinstance(match, Match) else None,
        "rules": rules,
        "verdict": _verdict(found),
        "limits": _limits(match),
        "not_evaluated": later(match) if found.verdict == "allow" else [],
    }
    masked: dict[str, Any] = _masked(told, secrets)
    return masked


def _route(match: Match) -> dict[str, Any]:
    route = match.route
    return {
        "name": route.name,
        "path": route.path,
        "params": match.params,
        "upstream": route.upstream,
        "identity": route.identity,
    }


def _miss(configuration: Configuration, request: Request, miss: Miss) -> dict[str, Any]:
    why = near.why_not_canonical(request.target) if miss.reason == "path_not_canonical" else None
    meant = near.near(configuration, request.method, miss.path)
    return {
        "why": why,
        "methods": list(miss.allow),
        "near": [
            {"name": route.name, "path": route.path, "methods": route.methods, "difference": difference}
            for route, difference in meant
        ],
    }


def _identity(who: Who, verified: bool) -> dict[str, Any] | None:
    if who is None:
        return None
    if isinstance(who, Refusal):
        return {"refused": who.reason, "provider": who.provider, "verified": verified}
    return {
        "provider": who.provider,
        "method": who.method,
        "subject": who.subject,
        "client": who.client,
        "roles": list(who.own_roles),
        "granted": [{"grant": name, "role": role} for name, role in who.grants],
        "groups": list(who.groups),
        "scopes": list(who.scopes),
        "verified": verified,
    }


def _verdict(found: Judged) -> dict[str, Any]:
    told: dict[str, Any] = {
        "verdict": found.verdict,
        "status": found.status,
        "reason": found.reason,
        "rule": found.rule,
    }
    told["grants"] = list(found.grants)
    shadow = found.shadow
    if shadow is None:
        return {**told, "shadow": None}
    verdict = "allow" if shadow.allowed else "deny"
    return {**told, "shadow": {"verdict": verdict, "reason": shadow.reason, "rule": shadow.rule}}


def _limits(match: Match | Miss) -> list[dict[str, Any]]:
    limits = match.route.limits if isinstance(match, Match) else []
    return [
        {"name": limit.name, "per": limit.per, "count": limit.rate.count, "period_s": limit.rate.period_s}
        for limit in limits
    ]


# -- nothing secret ---------------------------------------------------------------------------------------
def _credential_headers(configuration: Configuration) -> frozenset[str]:
    own = {p.header.lower() for p in configuration.identity.values() if isinstance(p, ApiKeyProvider)}
    return CREDENTIAL_HEADERS | own


def _shown(configuration: Configuration, facts: Facts) -> Facts:
    secret = _credential_headers(configuration)
    headers = {name: MASK if name in secret else value for name, value in facts.headers.items()}
    return msgspec.structs.replace(facts, headers=headers)


def _secrets(configuration: Configuration, request: Request, query: str) -> tuple[list[str], str]:
    """All texts that are credentials, the longest first; and the query without them."""
    headers = _credential_headers(configuration)
    found = {part for name, value in request.headers if name in headers for part in (value, *value.split())}
    pairs = parse_qsl(query, keep_blank_values=True, errors="replace")
    secret = [value for name, value in pairs if name.lower() in CREDENTIAL_QUERY]
    if secret:
        found |= {*secret, *map(unquote, secret)}
        query = urlencode([(n, MASK if n.lower() in CREDENTIAL_QUERY else v) for n, v in pairs], safe="[]")
    return sorted((text for text in found if len(text) >= _SHORTEST_SECRET), key=len, reverse=True), query


def _masked(value: Any, secrets: list[str]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, MASK)
        return value.encode("utf-8", "backslashreplace").decode()  # what a command line's bytes left in it
    if isinstance(value, dict):
        return {_masked(key, secrets): _masked(inner, secrets) for key, inner in value.items()}
    return [_masked(inner, secrets) for inner in value] if isinstance(value, (list, tuple)) else value
