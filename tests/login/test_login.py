"""Login, session and logout through a whole gatebook, with a provider that does as it should."""

from __future__ import annotations

import base64
import json
from urllib.parse import parse_qs, urlsplit

from tests.e2e.deployment import until
from tests.login.conftest import Place
from tests.login.idp import Browser

from gatebook.page import SECURITY_POLICY

SESSION = "__Host-gatebook-session"


def test_person_is_sent_to_log_in_and_comes_back_to_where_it_began(place: Place, browser: Browser) -> None:
    answer = browser.ask("/orders/7?page=2")
    assert answer.status_code == 303
    assert answer.headers["Location"] == (
        f"{place.deployment.url}/.gatebook/login?provider=people&return_to=%2Forders%2F7%3Fpage%3D2"
    )
    assert place.reason(answer) == "login_required"
    back = browser.log_in(place.idp, "/orders/7?page=2")
    assert (back.status_code, back.headers["Location"]) == (303, f"{place.deployment.url}/orders/7?page=2")
    page = browser.ask(back.headers["Location"])
    assert page.status_code == 200
    found = place.deployment.access(page.headers["X-Request-ID"])
    assert (found["identity"]["provider"], found["identity"]["method"]) == ("people", "session")
    issued = place.deployment.access(back.headers["X-Request-ID"])
    assert issued["decision"]["reason"] == "session_issued"
    assert issued["issued"]["credential"] == found["identity"]["credential"]


def test_cookies_are_kept_to_this_host_over_tls_from_scripts_and_from_other_sites(
    place: Place, browser: Browser
) -> None:
    browser.log_in(place.idp)
    kept = [field for field in browser.set if "Max-Age=0" not in field]
    assert [field.partition("=")[0] for field in kept] == ["__Host-gatebook-login", SESSION]
    assert all(field.endswith("; Path=/; Secure; HttpOnly; SameSite=Lax") for field in kept)
    assert "domain" not in "".join(kept).lower()
    assert list(browser.cookies) == [SESSION]  # the other one was dropped


def test_session_holds_no_token_of_the_provider_and_only_what_was_asked_for(
    place: Place, browser: Browser
) -> None:
    browser.log_in(place.idp, tenant="acme", email="alice@acme.example")
    part = browser.cookies[SESSION].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert claims.keys() == {
        "iss",
        "aud",
        "sub",
        "iat",
        "exp",
        "jti",
        "sid",
        "idp",
        "roles",
        "auth_time",
        "tenant",
    }


def test_condition_may_use_a_claim_that_is_kept(place: Place, browser: Browser) -> None:
    browser.log_in(place.idp, tenant="acme")
    assert browser.ask("/tenants/1", headers={"X-Tenant": "acme"}).status_code == 200
    assert browser.ask("/tenants/1", headers={"X-Tenant": "other"}).status_code == 403


def test_upstream_sees_every_cookie_but_ours(place: Place, browser: Browser) -> None:
    browser.log_in(place.idp)
    ours = f"{SESSION}={browser.cookies[SESSION]}"
    for sent, seen in (
        (ours, None),
        (f"a=1; {ours}; b=2", "a=1; b=2"),
        (f"{ours}; b=2", "b=2"),
        (f"a=1; {ours}", "a=1"),
        (f"a=1;{ours};b=2", "a=1;b=2"),
        (f"__Host-gatebook-login=x; {ours}; b=2", "b=2"),
        (f"b=2; {ours}; __Host-gatebook-login=x", "b=2"),
    ):
        answer = browser.ask("/orders/7", headers={"Cookie": sent})
        assert answer.status_code == 200, sent
        (found,) = [
            each
            for each in place.deployment.upstream.seen
            if each.one("Gatebook-Request-Id") == answer.headers["X-Request-ID"]
        ]
        assert found.one("Cookie") == seen, sent


def test_no_spelling_of_our_cookies_reaches_an_open_route(place: Place, browser: Browser) -> None:
    browser.log_in(place.idp)
    ours = f"{SESSION}={browser.cookies[SESSION]}"
    for sent in (
        ours,
        f"{ours}; {ours}",
        f"a=1; {SESSION} =x",
        f"a=1;\t{ours}",
        f"{SESSION.lower()}=x; a=1",
        f'"{ours}"',
    ):
        answer = browser.ask("/open", headers={"Cookie": sent})
        assert answer.status_code == 200, sent
        (found,) = [
            each
            for each in place.deployment.upstream.seen
            if each.one("Gatebook-Request-Id") == answer.headers["X-Request-ID"]
        ]
        assert "gatebook" not in (found.one("Cookie") or "").lower(), sent
    assert browser.ask("/open", headers={"Cookie": "a=1; b=2"}).status_code == 200
    assert place.deployment.upstream.seen[-1].one("Cookie") == "a=1; b=2"


def test_api_client_is_told_401_and_never_redirected(place: Place) -> None:
    for headers in ({}, {"Accept": "application/json"}, {"Accept": "*/*"}):
        answer = place.deployment.ask("/orders/7", headers=headers)
        assert answer.status_code == 401, headers
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="acme"'
    fetched = {"Accept": "text/html", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}
    assert place.deployment.ask("/orders/7", headers=fetched).status_code == 401
    navigates = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}
    assert place.deployment.ask("/orders", method="POST", headers=navigates).status_code == 401
    assert place.deployment.ask("/orders/7", token="x.y.z", headers=navigates).status_code == 401


def test_logout_ends_the_session_everywhere_and_goes_on_to_the_provider(place: Place, browser: Browser) -> None:
    browser.log_in(place.idp)
    stolen = {"Cookie": f"{SESSION}={browser.cookies[SESSION]}"}
    assert browser.ask("/orders/7").status_code == 200
    assert "Log out" in browser.ask("/.gatebook/logout").text
    answer = browser.post("/.gatebook/logout")
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith(
        f"{place.idp.url}/logout?client_id=gatebook&post_logout_redirect_uri="
    )
    assert browser.cookies == {}
    assert place.reason(answer) == "session_ended"
    until(lambda: browser.ask("/orders/7", headers=stolen).status_code == 401, "the end of the session")
    answer = browser.ask("/orders/7", headers=stolen)
    assert place.reason(answer) == "credential_revoked"
    assert answer.headers["Content-Type"] == "text/html"
    assert answer.headers["Content-Security-Policy"] == SECURITY_POLICY
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert (
        f'<a href="{place.deployment.url}/.gatebook/login?provider=people&amp;return_to=%2Forders%2F7">'
        in answer.text
    )
    fetched = browser.ask("/orders/7", headers={**stolen, "Sec-Fetch-Mode": "cors"})
    assert (fetched.status_code, fetched.headers["Content-Type"]) == (401, "application/problem+json")
    revoked = [each for each in place.deployment.log("--all") if each.get("action") == "revoke"]
    assert revoked[-1]["actor"] == "portal"


def test_logout_without_a_session_ends_at_home(place: Place, browser: Browser) -> None:
    answer = browser.post("/.gatebook/logout")
    assert (answer.status_code, answer.headers["Location"]) == (303, f"{place.deployment.url}/")
    assert place.reason(answer) == "session_missing"


def test_login_that_the_provider_refuses_is_said_and_on_record(place: Place, browser: Browser) -> None:
    state = parse_qs(urlsplit(browser.go()).query)["state"][0]
    said = f"error=access_denied&error_description=%3Cscript%3E&state={state}&iss={place.idp.url}"
    answer = browser.ask(f"/.gatebook/callback/people?{said}")
    assert answer.status_code == 403
    assert "text/html" in answer.headers["Content-Type"]
    assert "script" not in answer.text
    assert place.reason(answer) == "login_denied"
    assert SESSION not in browser.cookies


def test_back_channel_logout_ends_that_session_alone(place: Place, browser: Browser) -> None:
    browser.log_in(place.idp, sid="first")
    second = Browser(place.deployment)
    second.log_in(place.idp, sid="second")
    answer = told(place, place.idp.logout_token(sid="first", sub="alice"))
    assert answer == 200
    until(lambda: browser.ask("/orders/7").status_code == 401, "the end of the session")
    assert second.ask("/orders/7").status_code == 200


def test_back_channel_logout_of_a_person_ends_all_of_its_sessions(place: Place, browser: Browser) -> None:
    second, somebody = Browser(place.deployment), Browser(place.deployment)
    for each, subject in ((browser, "bob"), (second, "bob"), (somebody, "carol")):
        each.log_in(place.idp, subject=subject)
    assert told(place, place.idp.logout_token(sub="bob")) == 200
    until(lambda: browser.ask("/orders/7").status_code == 401, "the end of the session")
    until(lambda: second.ask("/orders/7").status_code == 401, "the end of the session")
    assert somebody.ask("/orders/7").status_code == 200


def told(place: Place, token: str, provider: str = "people") -> int:
    """The status that the provider is told."""
    answer = place.deployment.ask(
        f"/.gatebook/backchannel-logout/{provider}", method="POST", data={"logout_token": token}
    )
    return answer.status_code


def test_operator_revokes_a_session_by_its_id_its_fingerprint_or_its_cookie(place: Place) -> None:
    browsers = [Browser(place.deployment) for _ in range(4)]
    back = [each.log_in(place.idp, subject="ivan", sid=f"of ivan {n}") for n, each in enumerate(browsers)]
    issued = [place.deployment.access(answer.headers["X-Request-ID"])["issued"] for answer in back]
    people = ("--identity", "people")
    for named in (
        ("--token-id", issued[0]["token_id"], *people),
        ("--session", issued[1]["family"], *people),
        ("--credential", issued[2]["credential"]),
        ("--credential", browsers[3].cookies[SESSION]),
    ):
        place.deployment.cli("revoke", *named, "--reason", "a test", "-c", str(place.deployment.config))
    until(lambda: all(each.ask("/orders/7").status_code == 401 for each in browsers), "the end of the sessions")
