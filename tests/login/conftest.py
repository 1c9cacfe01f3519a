"""One deployment at whose provider people log in, for all tests of this folder; each has a browser of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.e2e.deployment import Deployment
from tests.login.idp import CLIENT, SECRET, Browser, IdP

from gatebook import record
from gatebook.cli.opened import open_log
from gatebook.ledger.read import Reader

RULES = [{"name": "readers", "roles": ["reader"]}]


@dataclass
class Place:
    deployment: Deployment
    idp: IdP
    other: IdP

    @cached_property
    def reader(self) -> Reader:
        return open_log(self.deployment.config, None)[0]

    def reason(self, answer: httpx2.Response) -> str:
        """On record: of the entry that the answer names, which is there before it."""
        index = int(answer.headers["Gatebook-Receipt"].rpartition("/")[2])
        self.reader.refresh()
        data = self.reader.record(index)
        assert data is not None
        found = record.decode(data)
        assert isinstance(found, record.Decision)
        assert found.id == answer.headers["X-Request-ID"]
        return found.decision.reason


def provider(issuer: str, folder: Path, method: str = "post", **login: Any) -> dict[str, Any]:
    secret = folder / "login.secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    client = {"id": CLIENT, "method": method, "secret": {"file": str(secret)}}
    return {"type": "oidc", "issuer": issuer, "audience": ["orders-api"], "login": {"client": client, **login}}


def with_login(deployment: Deployment, idp: IdP, other: IdP) -> None:
    told = deployment.configuration
    told["portal"] = {"url": deployment.url, "requests_per_second": 1000}
    told["identity"]["people"] = provider(idp.url, deployment.folder, claims=["tenant"])
    told["identity"]["others"] = provider(other.url, deployment.folder)
    told["identity"]["own"] = {"type": "gatebook", "audience": ["orders-api"]}
    told["gateway"] = {"flood": {"requests_per_second": 10000, "burst": 10000}}
    for name, path, identity in (
        ("people", "/people/{rest...}", ["people", "own"]),
        ("others", "/others", ["others"]),
        ("open", "/open", "none"),
    ):
        route = {
            "name": name,
            "path": path,
            "upstream": "orders",
            "methods": ["GET", "POST"],
            "identity": identity,
        }
        told["routes"].append({**route, **({} if identity == "none" else {"allow": RULES})})
    for route in told["routes"]:
        if route["name"] in ("read-order", "write-order", "scarce"):
            route["identity"] = [*route["identity"], "people", "others"]
        if route["name"] == "tenant":
            route["identity"] = ["people"]
    deployment.write()


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    idp, other = IdP(), IdP()
    deployment = Deployment(tmp_path_factory.mktemp("login"))
    try:
        with_login(deployment, idp, other)
        deployment.start()
        yield Place(deployment, idp, other)
        deployment.verify()
    finally:
        deployment.close()
        idp.stop()
        other.stop()


@pytest.fixture
def stopped_place(tmp_path: Path) -> Iterator[Place]:
    """Not yet started, so that a test may change its configuration."""
    idp = IdP()
    deployment = Deployment(tmp_path)
    try:
        with_login(deployment, idp, idp)
        yield Place(deployment, idp, idp)
    finally:
        deployment.close()
        idp.stop()


@pytest.fixture
def browser(place: Place) -> Browser:
    return Browser(place.deployment)
