"""The provider that the tests here share: starting it takes longer than asking it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.oidc.provider import Client, Provider, serve


@pytest.fixture(scope="session")
def provider() -> Iterator[Provider]:
    clients = {
        "reader": Client(claims={"roles": ["reader"], "tenant": "acme"}),
        "brief": Client(lifetime_s=7),
    }
    with serve(clients) as running:
        yield running
