"""One deployment at whose provider people log in, for all tests of this folder; each has a browser of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.e2e.deployment import Deployment
from tests.login.idp import CLIENT, SECRET, Browser, IdP

RULES = [{"name": "readers", "roles": ["reader"]}]


class Place(NamedTuple):
    deployment: Deployment
    idp: IdP
    other: IdP


def provider(idp: IdP, folder: Path, **login: Any) -> dict[str, Any]:
    secret = folder / "login.secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    client = {"id": CLIENT, "method": "post", "secret": {"file": str(secret)}}
    return {"type": "oidc", "issuer": idp.url, "audience": ["orders-api"], "login": {"client": client, **login}}


def with_login(deployment: Deployment, idp: IdP, other: IdP) -> None:
    told = deployment.configuration
    told["portal"] = {"url": deployment.url, "requests_per_second": 1000}
    told["identity"]["people"] = provider(idp, deployment.folder, claims=["tenant"])
    told["identity"]["others"] = provider(other, deployment.folder)
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
def browser(place: Place) -> Browser:
    return Browser(place.deployment)
