"""A configuration with providers, and a state folder with the keys that identification reads."""

from __future__ import annotations

from pathlib import Path

from gatebook.config.model import Configuration, Listener, Provider, Route, Upstream
from gatebook.identity.keyed import Keys
from gatebook.paths import Paths

KEYS = Keys(names=bytes(32), fingerprints=bytes(range(32)))


def place(folder: Path) -> Paths:
    paths = Paths(folder)
    paths.keys.mkdir(parents=True, exist_ok=True)
    (paths.keys / "pseudonym.key").write_bytes(KEYS.names)
    (paths.keys / "fingerprint.key").write_bytes(KEYS.fingerprints)
    return paths


def configuration(**identity: Provider) -> Configuration:
    return Configuration(
        version=1,
        name="acme",
        listen=[Listener(address="127.0.0.1:8443")],
        identity=identity,
        upstreams={"orders": Upstream(url="http://127.0.0.1:9001")},
        routes=[Route(name="health", path="/healthz", methods=["GET"], upstream="orders", identity="none")],
    )
