"""Tokens of a real Keycloak through all of gatebook: its own claims, its introspection, its DPoP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from peers.keycloak import AUDIENCE, Keycloak, serve
from tests.e2e.deployment import Deployment, until

READERS = [{"name": "readers", "roles": ["reader"]}]
CLIENTS = {"reports": ["reader"], "visitor": ["guest"]}


@pytest.fixture(scope="module")
def keycloak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keycloak]:
    with serve(tmp_path_factory.mktemp("keycloak"), CLIENTS) as running:
        yield running


@pytest.fixture(scope="module")
def behind(keycloak: Keycloak, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("behind")
    made = Deployment(folder)
    secret = folder / "introspection.secret"
    secret.write_text(keycloak.secrets["gatebook"])
    secret.chmod(0o600)
    names = {"roles_claim": "realm_access.roles", "client_claim": "azp", "audience": [AUDIENCE]}
    try:
        made.configuration["identity"] |= {
            "staff": {"type": "oidc", "issuer": keycloak.issuer, **names},
            "asked": {
                "type": "introspection",
                "url": f"{keycloak.issuer}/protocol/openid-connect/token/introspect",
                "issuer": keycloak.issuer,
                "client": {"id": "gatebook", "secret": {"file": str(secret)}},
                "cache": "1s",
                **names,
            },
        }
        route = {"methods": ["GET"], "upstream": "orders", "allow": READERS}
        made.configuration["routes"].append(
            {"name": "asked", "path": "/asked/{id}", "identity": ["asked"], **route}
        )
        made.write()
        made.start()
        yield made
    finally:
        made.close()


def test_its_realm_roles_open_and_are_on_record(behind: Deployment, keycloak: Keycloak) -> None:
    answer = behind.ask("/orders/1", keycloak.token("reports"))
    assert answer.status_code == 200
    found = behind.access(answer.headers["X-Request-ID"])
    assert found["identity"]["client"] == "reports"
    assert found["identity"]["roles"] == ["reader"]


def test_another_role_opens_nothing(behind: Deployment, keycloak: Keycloak) -> None:
    answer = behind.ask("/orders/1", keycloak.token("visitor"))
    assert answer.status_code == 403
    assert behind.access(answer.headers["X-Request-ID"])["decision"]["reason"] == "no_rule"


def test_token_that_was_changed_opens_nothing(behind: Deployment, keycloak: Keycloak) -> None:
    head, body, signature = keycloak.token("reports").split(".")
    swapped = signature[:-4] + ("AAAA" if signature[-4:] != "AAAA" else "BBBB")
    answer = behind.ask("/orders/1", f"{head}.{body}.{swapped}")
    assert answer.status_code == 401


def test_it_is_asked_about_a_token_and_its_revocation_counts(behind: Deployment, keycloak: Keycloak) -> None:
    token = keycloak.token("reports")
    assert behind.ask("/asked/1", token).status_code == 200
    keycloak.revoke("reports", token)
    until(lambda: behind.ask("/asked/1", token).status_code == 401, "the answer from before to be forgotten", 10)


def test_ledger_holds(behind: Deployment) -> None:
    behind.verify()
