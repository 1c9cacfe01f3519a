"""What a client is told to present, and what was wrong with what it did: the WWW-Authenticate field of a 401.

In: a configuration; a route, a credential and why it was refused. Out: the field. The scheme that the client spoke
comes first, with an error: never says more than whether the token, the proof or its nonce was at fault.
RFC 9110, 11.6.1; RFC 6750, 3; RFC 9449, 7.1 and 9. Pure.
"""

from __future__ import annotations

from gatebook.config.model import Configuration, GatebookProvider, Provider, Route, TokenProvider
from gatebook.identity.dpop import ALGORITHMS
from gatebook.identity.types import Credential

_BEARER, _DPOP = "Bearer", "DPoP"


class Challenges:
    def __init__(self, configuration: Configuration) -> None:
        self._realm = configuration.name
        self._schemes = {route.name: _schemes(configuration, route) for route in configuration.routes}

    def of(self, route: Route, credential: Credential | None, reason: str) -> str:
        """`credential` is None when there was none to look at."""
        known = self._schemes[route.name]
        spoken = ""
        if credential is not None and credential.method == "bearer":
            spoken = _DPOP if credential.scheme == "dpop" else _BEARER
        first = spoken if spoken in known else known[0]
        error = _error(reason, spoken) if spoken else ""
        others = [self._challenge(scheme) for scheme in known if scheme != first]
        return ", ".join([self._challenge(first, error), *others])

    def _challenge(self, scheme: str, error: str = "") -> str:
        parts = [f'realm="{self._realm}"']
        if scheme == _DPOP:
            parts.append(f'algs="{" ".join(ALGORITHMS)}"')
        if error:
            parts.append(f'error="{error}"')
        return f"{scheme} {', '.join(parts)}"


def _error(reason: str, spoken: str) -> str:
    if spoken == _DPOP and reason == "proof_nonce":
        return "use_dpop_nonce"
    return "invalid_dpop_proof" if spoken == _DPOP and reason.startswith("proof_") else "invalid_token"


def _schemes(configuration: Configuration, route: Route) -> tuple[str, ...]:
    accepted = [] if route.identity == "none" else [configuration.identity[name] for name in route.identity]
    schemes = []
    if any(isinstance(provider, GatebookProvider) or _takes(provider, "off", "allow") for provider in accepted):
        schemes.append(_BEARER)
    if any(_takes(provider, "allow", "require") for provider in accepted):
        schemes.append(_DPOP)
    if schemes:
        return tuple(schemes)
    return ("ApiKey",) if any(provider.type == "api_key" for provider in accepted) else ("ClientCertificate",)


def _takes(provider: Provider, *bindings: str) -> bool:
    return isinstance(provider, TokenProvider) and provider.dpop in bindings
