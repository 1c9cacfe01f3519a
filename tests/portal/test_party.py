"""A provider at which people log in and that hangs: it must not take the portal with it."""

from __future__ import annotations

import asyncio
import time

import pytest

from gatebook.config.base import Secret
from gatebook.config.model import Login, OIDCProvider, ProviderClient
from gatebook.identity import discovery
from gatebook.identity.discovery import Endpoints, Published
from gatebook.identity.fetch import Unusable
from gatebook.identity.jwk import NONE
from gatebook.portal import transaction
from gatebook.portal.party import MAX_WAITING, Party


def test_provider_that_hangs_holds_up_few_logins_all_together_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one after the other: a queue of logins would take every place that the token service needs too."""
    asyncio.run(_logins_at_one_that_hangs(monkeypatch))


async def _logins_at_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "TOTAL_TIMEOUT_S", 0.3)
    monkeypatch.setattr("gatebook.portal.party.RETRY_S", 0.2)
    monkeypatch.setenv("LOGIN_SECRET", "a-secret-of-tests")
    asked = 0

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = ProviderClient(id="gatebook", method="post", secret=Secret(env="LOGIN_SECRET"))
    provider = OIDCProvider(
        type="oidc", issuer=f"http://127.0.0.1:{port}", audience=["orders-api"], login=Login(client=client)
    )
    party = Party("people", provider, "https://api.acme.example")
    answers = await asyncio.gather(*(party.published() for _ in range(MAX_WAITING + 8)), return_exceptions=True)
    assert all(isinstance(answer, Unusable) for answer in answers)
    assert asked == 1
    assert [str(answer) for answer in answers[MAX_WAITING:]] == ["too many wait for it"] * 8
    again = transaction.begin("people", "/", time.time())
    party._known = Published(Endpoints(provider.issuer, provider.issuer, None, False), NONE)
    party._known_since_s = time.monotonic()
    monkeypatch.setattr("gatebook.portal.party.TOTAL_TIMEOUT_S", 0.3)
    redeemed = await asyncio.gather(
        *(party.redeem("code", again) for _ in range(MAX_WAITING + 8)), return_exceptions=True
    )
    assert [str(answer) for answer in redeemed].count("too many wait for it") == 8
    assert asked == 1 + MAX_WAITING
    server.close()
    await server.wait_closed()
