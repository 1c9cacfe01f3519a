"""Attacks on people who log in with a browser, through a whole gatebook, as docs/attacks.md lists them."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx2
import pytest
from joserfc.jwk import RSAKey
from tests.e2e.deployment import until
from tests.login.conftest import Place
from tests.login.idp import CLIENT, EVENT, Browser

from gatebook import kept
from gatebook.identity import session
from gatebook.portal import signing
from gatebook.portal.signing import Schedule, Signing

SESSION, LOGIN = "__Host-gatebook-session", "__Host-gatebook-login"


def refused(place: Place, answer: httpx2.Response, status: int, why: str) -> None:
    assert (answer.status_code, place.reason(answer)) == (status, why)
    assert "Location" not in answer.headers
    assert SESSION not in "".join(answer.headers.get_list("set-cookie"))


def with_cookie(place: Place, *fields: bytes | str, method: str = "GET", **headers: str) -> httpx2.Response:
    """As a client that is no browser sends it: Cookie fields byte for byte."""
    sent: list[tuple[bytes, bytes]] = [
        (name.replace("_", "-").encode(), v.encode()) for name, v in headers.items()
    ]
    sent += [(b"Cookie", field.encode() if isinstance(field, str) else field) for field in fields]
    with place.deployment.client() as client:
        return client.request(method, "/orders/7" if method == "GET" else "/orders", headers=sent)


# -- open redirect --------------------------------------------------------------------------------------
ELSEWHERE = [
    "https://evil.example/",
    "https:evil.example",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\/evil.example",
    "/\t/evil.example",
    "/%09/evil.example\n",
    "/x\r\nLocation: https://evil.example",
    "/x\r\nSet-Cookie: a=b",
    "javascript:alert(1)",
    "data:text/html,x",
    "evil.example",
    "@evil.example",
    ".evil.example",
    "%2f%2fevil.example",
    "%5cevil.example",
    " /orders/7",
    "/orders//evil.example",
    "/orders/7#fragment",
    "/%zz",
    "/\u2044evil.example",
    "/\uff0fevil.example",
    "/.gatebook/logout",
    "/.gatebook/callback/people?code=x",
    "/" + "x" * 1024,
]


@pytest.mark.parametrize("return_to", ELSEWHERE)
def test_open_redirect_after_login_is_refused(place: Place, browser: Browser, return_to: str) -> None:
    answer = browser.ask(f"/.gatebook/login?provider=people&return_to={quote(return_to, safe='')}")
    refused(place, answer, 400, "request_malformed")
    assert browser.cookies == {}


def test_open_redirect_by_two_parameters_is_refused(place: Place, browser: Browser) -> None:
    answer = browser.ask("/.gatebook/login?provider=people&return_to=%2F&return_to=https%3A%2F%2Fevil.example")
    refused(place, answer, 400, "request_malformed")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:1", f"{'x' * 300}.example"])
def test_open_redirect_by_a_forged_host_ends_at_our_own(place: Place, host: str) -> None:
    headers = {"Host": host, "X-Forwarded-Host": host, "Sec-Fetch-Mode": "navigate"}
    answer = place.deployment.ask("/orders/7", headers=headers)
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith(f"{place.deployment.url}/.gatebook/login?")


# -- whose login it is ----------------------------------------------------------------------------------
def test_session_fixation_each_login_has_a_session_of_its_own_and_ends_the_one_before(
    place: Place, browser: Browser
) -> None:
    attacker = Browser(place.deployment)
    attacker.log_in(place.idp, subject="mallory")
    planted = attacker.cookies[SESSION]
    browser.cookies[SESSION] = planted
    browser.ask(place.idp.agree(begin(place, browser)))
    assert browser.cookies[SESSION] != planted
    until(lambda: attacker.ask("/orders/7").status_code == 401, "the planted session's end")
    refused(place, attacker.ask("/orders/7"), 401, "credential_revoked")
    assert browser.ask("/orders/7").status_code == 200


def begin(place: Place, browser: Browser, provider: str = "people") -> str:
    """To the provider, whatever session there is already."""
    location: str = browser.ask(f"/.gatebook/login?provider={provider}").headers["Location"]
    return location


def test_login_csrf_callback_of_the_attacker_s_login_begins_no_session(place: Place, browser: Browser) -> None:
    attacker = Browser(place.deployment)
    url = place.idp.agree(attacker.go(), "mallory")
    refused(place, browser.ask(url), 400, "login_unknown")  # a browser that has begun nothing
    browser.go()
    refused(place, browser.ask(url), 400, "login_unknown")  # and one that has begun something else
    assert SESSION not in browser.cookies


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin"])
@pytest.mark.parametrize("destination", ["iframe", "image", "empty", "script"])
def test_login_begun_by_a_page_in_the_background_is_refused(
    place: Place, browser: Browser, site: str, destination: str
) -> None:
    headers = {"Sec-Fetch-Dest": destination, "Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
    refused(place, browser.ask("/.gatebook/login?provider=people", headers=headers), 403, "cross_site")


def test_stolen_state_without_its_browser_is_worth_nothing(place: Place, browser: Browser) -> None:
    url = place.idp.agree(browser.go())
    attacker = Browser(place.deployment)
    refused(place, attacker.ask(url), 400, "login_unknown")
    sealed = browser.cookies[LOGIN]
    turned = sealed[:40] + ("B" if sealed[40] == "A" else "A") + sealed[41:]
    for changed in ("", "x", turned, sealed[:-4], sealed + "AAAA", "A" * 5000):
        attacker.cookies[LOGIN] = changed
        refused(place, attacker.ask(url), 400, "login_unknown")
    attacker.cookies = {LOGIN: f"{browser.cookies[LOGIN]}; {LOGIN}={browser.cookies[LOGIN]}"}
    refused(place, attacker.ask(url), 400, "login_unknown")
    assert browser.ask(url).status_code == 303  # whose it is can still use it


def test_state_that_is_not_the_one_or_missing_is_refused(place: Place, browser: Browser) -> None:
    url = place.idp.agree(browser.go())
    state = parse_qs(urlsplit(url).query)["state"][0]
    for changed in ("", "x", state[:-1], state + "x", state.swapcase()):
        refused(place, browser.ask(url.replace(f"state={state}", f"state={changed}")), 400, "login_unknown")
    refused(place, browser.ask(f"{url}&state={state}"), 400, "request_malformed")


def test_code_injection_fails_by_pkce(place: Place, browser: Browser) -> None:
    victim = Browser(place.deployment)
    stolen = parse_qs(urlsplit(place.idp.agree(victim.go(), "victim")).query)["code"][0]
    own = place.idp.agree(browser.go(), "mallory")
    refused(place, browser.ask(with_code(own, stolen)), 400, "login_code")


def test_code_injection_fails_by_nonce_where_the_provider_does_not_check_pkce(
    place: Place, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place.idp, "checks_pkce", False)
    victim = Browser(place.deployment)
    stolen = parse_qs(urlsplit(place.idp.agree(victim.go(), "victim")).query)["code"][0]
    own = place.idp.agree(browser.go(), "mallory")
    refused(place, browser.ask(with_code(own, stolen)), 401, "token_nonce")


def with_code(url: str, code: str) -> str:
    own = parse_qs(urlsplit(url).query)["code"][0]
    return url.replace(f"code={own}", f"code={code}")


def test_mix_up_answer_of_another_provider_is_refused(place: Place, browser: Browser) -> None:
    url = place.idp.agree(browser.go())
    theirs = url.replace(f"iss={place.idp.url}", f"iss={place.other.url}")
    refused(place, browser.ask(theirs), 400, "login_issuer")
    assert not [form for form in place.other.asked if form["code"] in url]


def test_mix_up_answer_without_an_issuer_is_refused_where_the_provider_names_itself(
    place: Place, browser: Browser
) -> None:
    url = place.idp.agree(browser.go()).partition("&iss=")[0]
    refused(place, browser.ask(url), 400, "login_issuer")


def test_mix_up_code_is_never_shown_to_the_provider_of_another_callback(place: Place, browser: Browser) -> None:
    url = place.idp.agree(browser.go())
    refused(place, browser.ask(url.replace("/callback/people", "/callback/others")), 400, "login_unknown")
    assert not place.other.asked
    assert browser.ask(url).status_code == 303


def test_replayed_callback_is_refused(place: Place, browser: Browser) -> None:
    url = place.idp.agree(browser.go())
    before = dict(browser.cookies)
    assert browser.ask(url).status_code == 303
    browser.cookies = before
    asked = len(place.idp.asked)
    refused(place, browser.ask(url), 400, "login_unknown")
    assert len(place.idp.asked) == asked


# -- ID tokens ------------------------------------------------------------------------------------------
NOW = int(time.time())
UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "nonce of another login": ({"nonce": "x"}, "token_nonce"),
    "no nonce": ({"nonce": None}, "token_nonce"),
    "nonce that is no text": ({"nonce": 7}, "token_nonce"),
    "for another client": ({"aud": "another"}, "token_audience"),
    "for the API": ({"aud": "orders-api"}, "token_audience"),
    "for several, made for nobody": ({"aud": [CLIENT, "another"]}, "token_audience"),
    "for several, made for another": ({"aud": [CLIENT, "another"], "azp": "another"}, "token_audience"),
    "made for another": ({"azp": "another"}, "token_audience"),
    "of another access token": ({"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}, "token_claims"),
    "at_hash that is no text": ({"at_hash": ["x"]}, "token_claims"),
    "of another issuer": ({"iss": "https://login.evil.example"}, "token_issuer"),
    "expired": ({"exp": NOW - 60}, "token_expired"),
    "without an end": ({"exp": None}, "token_claims"),
    "old": ({"iat": NOW - 3600}, "token_too_old"),
    "of no time": ({"iat": None}, "token_claims"),
    "of tomorrow": ({"iat": NOW + 86400, "exp": NOW + 90000}, "token_not_yet_valid"),
    "of nobody": ({"sub": ""}, "token_claims"),
    "a logout token": ({"events": {EVENT: {}}}, "token_type"),
    "Keycloak's access token": ({"typ": "Bearer"}, "token_type"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_id_token_that_is_not_the_one_asked_for_begins_no_session(
    place: Place, browser: Browser, name: str
) -> None:
    claims, why = UNFIT[name]
    refused(place, browser.log_in(place.idp, **claims), 401, why)
    assert SESSION not in browser.cookies


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ({"typ": "at+jwt"}, "token_type"),
        ({"typ": "logout+jwt"}, "token_type"),
        ({"typ": "gatebook-session+jwt"}, "token_type"),
        ({"kid": "two"}, "token_key_unknown"),
        ({"jku": "https://evil.example/jwks"}, None),
    ],
)
def test_id_token_of_another_kind_or_key_begins_no_session(
    place: Place, browser: Browser, monkeypatch: pytest.MonkeyPatch, header: dict[str, str], why: str | None
) -> None:
    monkeypatch.setattr(place.idp, "header", header)
    answer = browser.log_in(place.idp)
    if why is None:
        assert answer.status_code == 303  # what a header points to is not looked at
    else:
        refused(place, answer, 401, why)


def test_id_token_signed_by_somebody_else_begins_no_session(
    place: Place, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = place.idp.agree(browser.go())
    forger = RSAKey.generate_key(2048, {"alg": "RS256", "use": "sig", "kid": "one"})
    real = place.idp.sign
    monkeypatch.setattr(place.idp, "sign", lambda claims: real(claims, forger))
    refused(place, browser.ask(url), 401, "token_signature")


def test_person_of_whom_too_much_is_said_gets_no_session(place: Place, browser: Browser) -> None:
    roles = [f"role-{number}-{'x' * 40}" for number in range(100)]
    refused(place, browser.log_in(place.idp, roles=roles), 403, "session_too_large")


# -- the session's cookie -------------------------------------------------------------------------------
def test_tampered_session_is_refused(place: Place, browser: Browser) -> None:
    browser.log_in(place.idp)
    head, body, signature = browser.cookies[SESSION].split(".")
    other = Browser(place.deployment)
    other.log_in(place.idp, subject="mallory", roles=["admin"])
    theirs = other.cookies[SESSION].split(".")
    turned = signature[:-4] + ("AAAA" if signature[-4:] != "AAAA" else "BBBB")
    for text, why in (
        (f"{head}.{theirs[1]}.{signature}", "token_signature"),
        (f"{head}.{body}.{turned}", "token_signature"),
        (f"{head}.{body}.", "token_malformed"),
        (f"{head}.{body}", "token_malformed"),
        (f'"{head}.{body}.{signature}"', "token_malformed"),
        (f"{head}.{body}.{signature}=", "token_malformed"),
        (f"{head}.{body}.{signature} x", "token_malformed"),
        ("", "token_malformed"),
    ):
        refused(place, with_cookie(place, f"{SESSION}={text}"), 401, why)


def test_oversized_session_is_refused(place: Place) -> None:
    refused(place, with_cookie(place, f"{SESSION}={'a' * 3801}"), 401, "token_malformed")
    refused(place, with_cookie(place, f"{SESSION}={'a.' * 6000}"), 401, "token_malformed")


def test_duplicated_session_cookie_is_refused_even_if_both_are_the_same(place: Place, browser: Browser) -> None:
    browser.log_in(place.idp)
    ours = f"{SESSION}={browser.cookies[SESSION]}"
    assert with_cookie(place, ours).status_code == 200
    refused(place, with_cookie(place, f"{ours}; {ours}"), 401, "credential_ambiguous")
    refused(place, with_cookie(place, ours, ours), 401, "credential_ambiguous")
    refused(place, with_cookie(place, f"{SESSION}=; {ours}"), 401, "credential_ambiguous")


def test_cookie_tossing_from_a_subdomain_under_a_name_that_only_looks_like_ours_does_nothing(
    place: Place, browser: Browser
) -> None:
    attacker = Browser(place.deployment)
    attacker.log_in(place.idp, subject="mallory")
    tossed = attacker.cookies[SESSION].encode()
    name = SESSION.encode()
    for cookie in (
        b"gatebook-session=" + tossed,
        b"__host-gatebook-session=" + tossed,
        b"__Secure-gatebook-session=" + tossed,
        b"\xe2\x80\x80" + name + b"=" + tossed,  # a space to those that trim Unicode's
        b"\xc2\xa0" + name + b"=" + tossed,
        b'$Version=1, "' + name + b"=" + tossed,  # RFC 2109's commas
        b"a=1," + name + b"=" + tossed,
        b'a="; ' + name + b"=" + tossed + b'"',  # within quotes, but no browser sends it so: not a token either
        name + b" =" + tossed,
        b"x" + name + b"=" + tossed,
    ):
        answer = with_cookie(place, cookie)
        assert answer.status_code == 401, cookie
        assert place.reason(answer) in ("credential_missing", "token_malformed"), cookie
    browser.log_in(place.idp)
    both = f"{SESSION}={attacker.cookies[SESSION]}; {SESSION}={browser.cookies[SESSION]}"
    refused(place, with_cookie(place, both), 401, "credential_ambiguous")


def test_session_beside_another_credential_is_ambiguous(place: Place, browser: Browser) -> None:
    browser.log_in(place.idp)
    ours = f"{SESSION}={browser.cookies[SESSION]}"
    for headers in (
        {"Authorization": f"Bearer {place.deployment.reader()}"},
        {"Authorization": "Basic eDp4"},
        {"X_API_Key": "gbk_x"},
    ):
        refused(place, with_cookie(place, ours, **headers), 401, "credential_ambiguous")


def test_session_as_a_bearer_token_opens_nothing(place: Place, browser: Browser) -> None:
    browser.log_in(place.idp)
    for path in ("/people/x", "/orders/7"):
        answer = place.deployment.ask(path, token=browser.cookies[SESSION])
        refused(place, answer, 401, "token_issuer")


def test_bearer_token_as_a_session_opens_nothing(place: Place) -> None:
    theirs = place.idp.sign(
        {"iss": place.idp.url, "sub": "alice", "aud": "orders-api", "exp": NOW + 900, "iat": NOW}
    )
    for token in (theirs, place.deployment.reader(), forged(place, typ="at+jwt", iss="own")):
        refused(place, with_cookie(place, f"{SESSION}={token}"), 401, "token_issuer")
    for typ in ("at+jwt", "JWT", "gatebook-session", "GATEBOOK-SESSION+JWT"):
        refused(place, with_cookie(place, f"{SESSION}={forged(place, typ=typ)}"), 401, "token_type")


def forged(place: Place, typ: str = session.TYPE, iss: str = "sessions/people", **claims: Any) -> str:
    """What only somebody with the portal's key could make. A claim of None is left out."""
    now = time.time()
    url = place.deployment.url
    known: dict[str, Any] = {"iss": f"{url}/.gatebook/{iss}" if iss != "own" else f"{url}/.gatebook", "aud": url}
    known |= {
        "sub": "alice",
        "iat": int(now),
        "exp": int(now) + 900,
        "jti": "one",
        "sid": "one",
        "roles": ["reader"],
    }
    known["idp"] = place.idp.url
    told = {name: value for name, value in {**known, **claims}.items() if value is not None}
    keys = kept.read(place.deployment.paths.portal_keys, signing.KIND).document.keys

    async def announce(detail: dict[str, object]) -> None:
        raise AssertionError("no key is made")

    made = Signing(
        place.deployment.paths.portal_keys, place.deployment.paths.portal_jwks, Schedule(1e9, 1e9), announce
    )
    made._keys, made._jose = keys, {key.public.kid: signing._jose(key) for key in keys}
    return made.sign(told, typ, now)


def test_twin_of_a_session_opens_and_each_thing_changed_in_it_does_not(place: Place) -> None:
    now = int(time.time())
    assert with_cookie(place, f"{SESSION}={forged(place)}").status_code == 200
    for claims, why in (
        ({"exp": now - 60}, "token_expired"),
        ({"exp": None}, "token_claims"),
        ({"iat": now - 9 * 3600}, "token_too_old"),
        ({"iat": now + 600}, "token_not_yet_valid"),
        ({"aud": "orders-api"}, "token_audience"),
        ({"idp": place.other.url}, "token_issuer"),
        ({"idp": None}, "token_issuer"),
        ({"jti": None}, "token_claims"),
        ({"sid": None}, "token_claims"),
        ({"sub": ""}, "token_claims"),
    ):
        refused(place, with_cookie(place, f"{SESSION}={forged(place, **claims)}"), 401, why)


def test_expired_session_is_refused(place: Place) -> None:
    ended = forged(place, iat=int(time.time()) - 3600, exp=int(time.time()) - 6)
    refused(place, with_cookie(place, f"{SESSION}={ended}"), 401, "token_expired")


def test_session_of_one_provider_opens_no_route_of_another(place: Place, browser: Browser) -> None:
    browser.log_in(place.idp)
    answer = browser.ask("/others", headers={"Sec-Fetch-Mode": "cors"})
    refused(place, answer, 401, "token_issuer")


def test_flood_of_logins_by_one_person_is_stopped_and_hinders_nobody_else(place: Place) -> None:
    answers = []
    for _ in range(101):
        answers.append(Browser(place.deployment).log_in(place.idp, subject="frank"))
        if answers[-1].status_code != 303:
            break
    refused(place, answers[-1], 429, "attempts_exceeded")
    assert len(answers) == 101
    assert Browser(place.deployment).log_in(place.idp, subject="grace").status_code == 303


# -- requests of other sites ----------------------------------------------------------------------------
@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin, cross-site", "SAME-ORIGIN", ""])
def test_cross_site_request_that_may_change_something_is_refused(
    place: Place, browser: Browser, site: str
) -> None:
    browser.log_in(place.idp, roles=["admin"])
    answer = browser.post("/orders", site, Origin=place.deployment.url)
    refused(place, answer, 403, "cross_site")
    refused(place, browser.post("/.gatebook/logout", site, Origin=place.deployment.url), 403, "cross_site")
    assert browser.ask("/orders/7").status_code == 200


@pytest.mark.parametrize(
    "origin", [None, "null", "https://evil.example", "http://localhost", "https://localhost.evil.example"]
)
def test_cross_site_request_of_an_old_browser_is_told_by_its_origin(
    place: Place, browser: Browser, origin: str | None
) -> None:
    browser.log_in(place.idp, roles=["admin"])
    ours = f"{SESSION}={browser.cookies[SESSION]}"
    headers = {} if origin is None else {"Origin": origin}
    refused(place, with_cookie(place, ours, method="POST", **headers), 403, "cross_site")
    assert with_cookie(place, ours, method="POST", Origin=place.deployment.url).status_code == 200


def test_cross_site_websocket_is_refused(place: Place, browser: Browser) -> None:
    browser.log_in(place.idp)
    for site in ("cross-site", "same-site"):
        headers = {"Sec-Fetch-Site": site, "Sec-WebSocket-Key": "eDp4eDp4eDp4eDp4eDp4eA==", "Upgrade": "websocket"}
        answer = browser.ask("/orders/7", headers={**headers, "Connection": "upgrade"})
        refused(place, answer, 403, "cross_site")


# -- back-channel logout --------------------------------------------------------------------------------
def told(place: Place, token: str, provider: str = "people") -> httpx2.Response:
    path = f"/.gatebook/backchannel-logout/{provider}"
    return place.deployment.ask(path, method="POST", data={"logout_token": token})


def test_forged_back_channel_logout_ends_nothing(place: Place, browser: Browser) -> None:
    browser.log_in(place.idp, sid="mine", subject="dora")
    names: dict[str, Any] = {"sid": "mine", "sub": "dora"}
    now = int(time.time())
    forger = RSAKey.generate_key(2048, {"alg": "RS256", "use": "sig", "kid": "one"})
    make = place.idp.logout_token
    for token, why in (
        (make(key=forger, **names), "token_signature"),
        (make({"typ": "at+jwt"}, **names), "token_type"),
        (make(**names, events=None), "token_type"),
        (make(**names, events={}), "token_type"),
        (make(**names, events={EVENT: "yes"}), "token_type"),
        (make(**names, events=[EVENT]), "token_type"),
        (make(**names, nonce="x"), "token_type"),
        (make(**names, jti=None), "token_claims"),
        (make(**names, iat=None), "token_claims"),
        (make(**names, exp=None), "token_claims"),
        (make(**names, exp=now - 60), "token_expired"),
        (make(**names, iat=now - 3600), "token_too_old"),
        (make(**names, iat=now + 3600, exp=now + 7200), "token_not_yet_valid"),
        (make(**names, aud="another"), "token_audience"),
        (make(**names, aud=[CLIENT, "another"]), "token_audience"),
        (make(**names, iss=place.other.url), "token_issuer"),
        (make(), "token_claims"),
        (make(sid=7), "token_claims"),
        (make(sub=7), "token_claims"),
        ("x.y.z", "token_malformed"),
        ("x", "token_malformed"),
        ("", "request_malformed"),
    ):
        answer = told(place, token)
        assert (answer.status_code, place.reason(answer)) == (400, why)
    assert told(place, make(**names), "others").status_code == 400
    assert browser.ask("/orders/7").status_code == 200
    assert place.reason(told(place, browser.cookies[SESSION])) == "token_issuer"


def test_replayed_back_channel_logout_is_refused_and_ends_no_later_session(place: Place, browser: Browser) -> None:
    browser.log_in(place.idp, subject="emil")
    token = place.idp.logout_token(sub="emil")
    assert told(place, token).status_code == 200
    until(lambda: browser.ask("/orders/7").status_code == 401, "the end of the session")
    later = Browser(place.deployment)

    def is_in() -> bool:
        # One that began in the very second of the logout ended with it.
        later.cookies = {}
        return later.log_in(place.idp, subject="emil") is not None and later.ask("/orders/7").status_code == 200

    until(is_in, "a later session")
    answer = told(place, token)
    assert (answer.status_code, place.reason(answer)) == (400, "logout_replayed")
    assert later.ask("/orders/7").status_code == 200


def test_back_channel_logout_by_a_provider_whose_clock_is_behind_ends_the_session(
    place: Place, browser: Browser
) -> None:
    """Both of its tokens are of its own clock: what began before the logout is not saved by ours."""
    now = int(time.time())
    browser.log_in(place.idp, subject="gina", iat=now - 20)
    assert browser.ask("/orders/7").status_code == 200
    assert told(place, place.idp.logout_token(sub="gina", iat=now - 10)).status_code == 200
    until(lambda: browser.ask("/orders/7").status_code == 401, "the end of the session")
    assert place.reason(browser.ask("/orders/7")) == "credential_revoked"


# -- keys -----------------------------------------------------------------------------------------------
def test_session_outlives_the_key_that_signs_but_not_its_withdrawal(stopped_place: Place) -> None:
    place = stopped_place
    place.deployment.configuration["portal"]["key_rotation"] = "10s"
    place.deployment.write()
    place.deployment.start()
    old, new = Browser(place.deployment), Browser(place.deployment)
    old.log_in(place.idp)
    kid = old.cookies[SESSION].partition(".")[0]

    def has_a_new_key() -> bool:
        new.cookies = {}
        new.log_in(place.idp, subject=f"somebody at {time.time()}")
        return new.cookies[SESSION].partition(".")[0] != kid

    until(has_a_new_key, "another key")
    assert old.ask("/orders/7").status_code == 200
    assert new.ask("/orders/7").status_code == 200
    place.deployment.stop()
    for each in place.deployment.paths.portal_keys.parent.iterdir():
        each.unlink()
    place.deployment.paths.portal_keys.parent.rmdir()
    place.deployment.start()
    Browser(place.deployment).log_in(place.idp)
    until(lambda: old.ask("/orders/7").status_code == 401, "guards to know the new keys")
    refused(place, old.ask("/orders/7"), 401, "token_key_unknown")
