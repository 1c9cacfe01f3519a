"""Configurations made of nothing but routes, for the tests of policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gatebook.config.model import Configuration
from gatebook.identity.types import Identity
from gatebook.policy import Facts

Configure = Callable[..., Configuration]


def configuration_of(*routes: dict[str, Any] | str, **sections: Any) -> Configuration:
    """Routes as in YAML; a text alone is a path. Names, method and upstream are filled in."""
    filled = []
    for number, route in enumerate(routes):
        own = {"path": route} if isinstance(route, str) else route
        filled.append({"name": f"r{number}", "methods": ["GET"], "upstream": "orders", "identity": "none", **own})
    return Configuration.model_validate(
        {
            "version": 1,
            "name": "acme",
            "listen": [{"address": "127.0.0.1:8080"}],
            "identity": {"partners": {"type": "api_key"}, "others": {"type": "api_key", "header": "X-Other"}},
            "upstreams": {"orders": {"url": "http://127.0.0.1:9001"}},
            "routes": filled,
            **sections,
        }
    )


def identity_of(**fields: Any) -> Identity:
    own = {"provider": "partners", "method": "api_key", "subject": "ann", "credential_sha256": b"x" * 32}
    return Identity(**{**own, "expires_at": 2e9, **fields})


def facts_of(**fields: Any) -> Facts:
    own = {"id": "0" * 32, "method": "GET", "host": "api.example", "protocol": "2", "headers": {}}
    return Facts(**{**own, "address": "192.0.2.7", "port": 4711, **fields})


@pytest.fixture
def configure() -> Configure:
    return configuration_of
