"""Whose a credential is, by the real verification: as a guard does it, with the providers asked over the network.

In: a request that carries a credential, and the providers that its route accepts. Out: an Identity, or a
Refusal. A guard has its providers' keys before anybody calls; here they are waited for. Never shows, logs or
keeps a credential.
"""

from __future__ import annotations

import asyncio
import time

import msgspec

from gatebook.config.model import ApiKeyProvider, Configuration, Route
from gatebook.identity import Identifier
from gatebook.identity.types import Credential, Identity, Refusal
from gatebook.paths import Paths
from gatebook.trial.judge import Request, Who

PATIENCE_S = 10.0
_AGAIN_S = 0.2


async def identify(
    configuration: Configuration, request: Request, route: Route, token: str | None
) -> tuple[Request, Who]:
    """The request as it was sent with `token`, and who that is; None where it shows no credential to the route.

    Raises EnvironmentFault where the deployment's own keys or files cannot be read.
    """
    accept = () if route.identity == "none" else tuple(route.identity)
    if not accept or (token is None and not request.headers and not request.der):
        return request, None
    identifier = Identifier(configuration, Paths(configuration.state_dir), clock=lambda: request.at)
    await identifier.start()
    try:
        answers: list[tuple[Request, Who]] = []
        for sent in _sent(configuration, request, accept, token):
            answers.append((sent, await _identify(identifier, sent, accept)))
            if isinstance(answers[-1][1], Identity):
                return answers[-1]
        return answers[0]
    finally:
        await identifier.stop()


def _sent(
    configuration: Configuration, request: Request, accept: tuple[str, ...], token: str | None
) -> list[Request]:
    """With the token where a client would put it. An API key does not say whose header it belongs in."""
    if token is None:
        return [request]
    if token.startswith("gbk_"):
        providers = [configuration.identity[name] for name in accept]
        names = [provider.header.lower() for provider in providers if isinstance(provider, ApiKeyProvider)]
        fields = [(name, token) for name in dict.fromkeys(names)]
    else:
        fields = []
    if not fields:
        proof = any(name == "dpop" for name, _ in request.headers)
        fields = [("authorization", f"{'DPoP' if proof else 'Bearer'} {token}")]
    return [msgspec.structs.replace(request, headers=(*request.headers, field)) for field in fields]


async def _identify(identifier: Identifier, request: Request, accept: tuple[str, ...]) -> Who:
    shown = request.presented()
    found = identifier.present(shown, accept)
    if not isinstance(found, Credential):
        return found
    deadline = time.monotonic() + PATIENCE_S
    who = await identifier.verify(found, accept, request.at)
    while isinstance(who, Refusal) and who.reason == "provider_unavailable" and time.monotonic() < deadline:
        await asyncio.sleep(_AGAIN_S)
        who = await identifier.verify(found, accept, request.at)
    if isinstance(who, Identity):
        return identifier.confirm(who, found, shown, request.at) or who
    return who
