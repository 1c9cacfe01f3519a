"""Tokens of a certified OpenID provider, through all of gatebook: discovery, keys and claims are a stranger's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.e2e.deployment import Deployment
from tests.oidc.provider import Client, Provider, serve


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    clients = {
        "reports": Client(claims={"roles": ["reader"], "tenant": "blue"}),
        "visitor": Client(claims={"roles": ["visitor"]}),
        "mobile": Client(
            claims={"roles": ["reader"]},
            redirects=("https://app.example/back",),
            refreshes=True,
            people={"alice": {}},
        ),
    }
    with serve(clients) as running:
        yield running


@pytest.fixture(scope="module")
def behind(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = Deployment(tmp_path_factory.mktemp("certified"))
    try:
        made.configuration["identity"]["staff"]["issuer"] = provider.issuer
        made.write()
        made.start()
        yield made
    finally:
        made.close()


def test_its_tokens_open_what_its_claims_allow(behind: Deployment, provider: Provider) -> None:
    answer = behind.ask("/orders/1", provider.get_token("reports"))
    assert answer.status_code == 200
    found = behind.access(answer.headers["X-Request-ID"])
    assert found["identity"]["client"] == "reports"
    assert found["identity"]["roles"] == ["reader"]
    assert behind.ask("/tenants/1", provider.get_token("reports"), headers={"X-Tenant": "blue"}).status_code == 200
    assert behind.ask("/orders/1", provider.get_token("visitor")).status_code == 403


def test_tokens_of_a_person_open_before_and_after_they_are_refreshed(
    behind: Deployment, provider: Provider
) -> None:
    first = provider.log_in("mobile", "alice")
    later = provider.refresh("mobile", first["refresh_token"])
    assert later["access_token"] != first["access_token"]
    found = []
    for told in (first, later):
        answer = behind.ask("/orders/1", told["access_token"])
        assert answer.status_code == 200
        found.append(behind.access(answer.headers["X-Request-ID"])["identity"])
    assert found[0]["client"] == found[1]["client"] == "mobile"
    assert found[0]["subject"] == found[1]["subject"]  # one person, of two credentials
    assert found[0]["credential"] != found[1]["credential"]


def test_refresh_token_is_no_access_token(behind: Deployment, provider: Provider) -> None:
    token = provider.log_in("mobile", "alice")["refresh_token"]
    assert behind.ask("/orders/1", token).status_code == 401


def test_its_tokens_for_somebody_else_open_nothing(behind: Deployment, provider: Provider) -> None:
    answer = behind.ask("/orders/1", provider.get_token("reports", audience="payments-api"))
    assert answer.status_code == 401
    assert behind.access(answer.headers["X-Request-ID"])["decision"]["reason"] == "token_audience"


def test_tokens_that_only_look_like_its_own_open_nothing(behind: Deployment, provider: Provider) -> None:
    forged = behind.issuer.token(iss=provider.issuer, roles=["admin"])
    answer = behind.ask("/orders/1", forged)
    assert answer.status_code == 401
    reason = behind.access(answer.headers["X-Request-ID"])["decision"]["reason"]
    assert reason in ("token_key_unknown", "token_signature")


def test_ledger_holds(behind: Deployment) -> None:
    behind.verify()
