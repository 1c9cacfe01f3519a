"""A configuration with providers, and nothing else of interest."""

from __future__ import annotations

from gatebook.config.model import Configuration, Listener, Provider, Route, Upstream


def configuration(**identity: Provider) -> Configuration:
    return Configuration(
        version=1,
        name="acme",
        listen=[Listener(address="127.0.0.1:8443")],
        identity=identity,
        upstreams={"orders": Upstream(url="http://127.0.0.1:9001")},
        routes=[Route(name="health", path="/healthz", methods=["GET"], upstream="orders", identity="none")],
    )
