"""A person with a real browser, at a certified provider: log in, look, log out, and what is left of the cookie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.e2e.deployment import Deployment, until
from tests.login.chromium import Chromium, chromium
from tests.login.conftest import RULES, provider
from tests.login.idp import SECRET
from tests.oidc.provider import Client, serve

SESSION = "__Host-gatebook-session"


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment(tmp_path)
    client = Client(
        secret=SECRET,
        redirects=(f"{made.url}/.gatebook/callback/people",),
        after_logout=(f"{made.url}/goodbye",),
        backchannel=f"{made.url}/.gatebook/backchannel-logout/people",
        people={"alice": {"roles": ["reader"]}, "mallory": {"roles": []}},
    )
    try:
        with serve({"gatebook": client}, made.folder / "tls" / "ca.pem") as idp:
            told = made.configuration
            told["portal"] = {"url": made.url}
            told["identity"]["people"] = provider(idp.issuer, made.folder, "basic", after_logout="/goodbye")
            page = {"upstream": "orders", "methods": ["GET", "POST"]}
            told["routes"] += [
                {"name": "page", "path": "/page", "identity": ["people"], "allow": RULES, **page},
                {"name": "goodbye", "path": "/goodbye", "identity": "none", **page},
            ]
            made.write()
            made.start()
            yield made
            made.verify()
    finally:
        made.close()


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Chromium]:
    with chromium(tmp_path) as made:
        yield made


def log_in(person: Chromium, deployment: Deployment, name: str = "alice") -> None:
    person.go(f"{deployment.url}/page")
    person.fill("login", name)
    person.fill("password", "any")
    person.press("Sign-in")
    person.press("Continue")
    person.until(lambda: person.url == f"{deployment.url}/page", "the page that it began with")


def opens(deployment: Deployment, cookie: str) -> bool:
    answer = deployment.ask("/page", headers={"Cookie": f"{SESSION}={cookie}"})
    return bool(answer.status_code == 200)


def test_person_logs_in_sees_the_page_logs_out_and_the_cookie_is_dead(
    deployment: Deployment, person: Chromium
) -> None:
    log_in(person, deployment)
    assert "bytes" in person.text
    cookie = person.cookies()[SESSION]
    assert list(person.cookies()) == [SESSION]
    assert SESSION not in str(person.run("return document.cookie"))
    assert opens(deployment, cookie)
    person.go(f"{deployment.url}/.gatebook/logout")
    assert person.run("return getComputedStyle(document.body).maxWidth") == "512px"  # the policy allows its style
    person.press("Log out")
    person.press("Yes")
    person.until(lambda: person.url == f"{deployment.url}/goodbye", "the end of the logout")
    assert person.cookies() == {}
    until(lambda: not opens(deployment, cookie), "the end of the session")
    person.go(f"{deployment.url}/page")
    assert "/interaction/" in person.url  # asked to log in again
    reasons = [each["decision"]["reason"] for each in deployment.log()]
    assert {"login_required", "login_begun", "session_issued", "rule", "session_ended"} <= set(reasons)


def test_logout_at_the_provider_ends_the_session_here(deployment: Deployment, person: Chromium) -> None:
    log_in(person, deployment)
    cookie = person.cookies()[SESSION]
    issuer = deployment.configuration["identity"]["people"]["issuer"]
    person.go(f"{issuer}/session/end")
    person.press("Yes")
    until(lambda: not opens(deployment, cookie), "the end of the session")
    withdrawn = [each for each in deployment.log() if each["decision"]["reason"] == "sessions_withdrawn"]
    assert len(withdrawn) == 1


def test_page_of_another_site_can_make_the_browser_post_nothing(deployment: Deployment, person: Chromium) -> None:
    log_in(person, deployment)
    assert person.run("return fetch('/page', {method: 'POST'}).then(a => a.status)") == 200
    forms = deployment.upstream.url  # another port of this machine, called by another name: another site
    assert httpx2.get(forms, trust_env=False).status_code == 200
    before = len([seen for seen in deployment.upstream.seen if seen.line.startswith("POST ")])
    person.go(f"{forms}/ok")
    person.run(
        f"const f = document.createElement('form'); f.method = 'post'; f.action = '{deployment.url}/page';"
        "document.body.append(f); f.submit()"
    )
    person.until(lambda: person.url == f"{deployment.url}/page", "the answer to the form")
    assert len([seen for seen in deployment.upstream.seen if seen.line.startswith("POST ")]) == before


def test_person_without_the_right_role_is_told_so(deployment: Deployment, person: Chromium) -> None:
    log_in(person, deployment, "mallory")
    assert person.text.startswith("Forbidden")
    assert person.driver.title == "Forbidden"
