"""Login of people: the page that a browser is sent to, and the one that the provider sends it back to.

    /.gatebook/login                 -> the provider, with a transaction in a cookie
    /.gatebook/callback/<provider>   <- the provider, with a code; a session in a cookie; -> where it began

A login ends in the browser that began it, once, by the provider that it began with. Each has a session of its own,
and ends the one that its browser had. Never sends a browser to another origin but the provider's.
"""

from __future__ import annotations

import hmac
import time
from functools import partial
from typing import Final
from urllib.parse import quote

import structlog
from starlette.responses import Response

from gatebook.config.model import LOGIN_COOKIE, SESSION_COOKIE, Configuration
from gatebook.config.value import is_local_path
from gatebook.identity import session
from gatebook.identity.fetch import Unusable
from gatebook.identity.id_token import Person
from gatebook.identity.jws import Unfit
from gatebook.identity.keyed import Keys
from gatebook.identity.once import key_of
from gatebook.paths import Paths
from gatebook.portal import transaction
from gatebook.portal.app import Page
from gatebook.portal.call import Call
from gatebook.portal.form import read_query
from gatebook.portal.logout import Logouts
from gatebook.portal.no import No, of, told, unavailable
from gatebook.portal.party import Party
from gatebook.portal.person_page import drop_cookie, send_to, set_cookie
from gatebook.portal.sessions import Sessions
from gatebook.portal.signing import Signing
from gatebook.portal.throttle import Throttle
from gatebook.portal.transaction import Transaction
from gatebook.wire import CALLBACK

LOGIN: Final = "/.gatebook/login"
BURST: Final = 100  # logins of one person at once; and in each life of a session, but at least one an hour
INTERVAL_S: Final = 60.0
_LONGEST_INTERVAL_S: Final = 3600.0
_HOME: Final = "/"
_MAX_CODE: Final = 2048

log = structlog.get_logger("portal")


def pages(configuration: Configuration, paths: Paths, signing: Signing, keys: Keys) -> dict[str, Page]:
    """Of login and logout, under one configuration. Reads clients' secrets: raises EnvironmentFault."""
    url = configuration.portal.url or ""
    parties = {name: Party(name, provider, url) for name, provider in configuration.logins.items()}
    sessions = Sessions(configuration, paths, signing, keys)
    logins = Logins(url, parties, sessions, transaction.key_of(keys.fingerprints))
    return logins.pages() | Logouts(url, paths.revocations, parties, sessions).pages()


class Logins:
    """One configuration's. `url` is the portal's, `key` seals what is under way."""

    def __init__(self, url: str, parties: dict[str, Party], sessions: Sessions, key: bytes) -> None:
        self._url = url
        self._parties = parties
        self._sessions = sessions
        self._key = key
        # What a session costs lasts as long as itself.
        self._begun_by = {
            name: Throttle(BURST, min(max(INTERVAL_S, party.login.session_ttl / BURST), _LONGEST_INTERVAL_S))
            for name, party in parties.items()
        }

    def pages(self) -> dict[str, Page]:
        found = {LOGIN: Page("gatebook:login", ("GET",), partial(told, self._login))}
        for name, party in self._parties.items():
            work = partial(told, partial(self._callback, party))
            found[CALLBACK + name] = Page("gatebook:callback", ("GET",), work)
        return found

    # -- to the provider --------------------------------------------------------------------------------
    async def _login(self, call: Call) -> Response:
        # Nothing but a person's own way here begins a login: not a picture, a frame or a script of some page.
        if call.header(b"sec-fetch-dest") not in ([], [b"document"]):
            raise No("cross_site")
        asked = read_query(call)
        party = self._parties.get(asked.get("provider", next(iter(self._parties))))
        return_to = asked.get("return_to", _HOME)
        if party is None or not is_local_path(return_to):
            raise No("request_malformed")
        began = transaction.begin(party.name, return_to, time.time())
        try:
            url = await party.authorization_url(began)
        except Unusable as error:
            raise unavailable(party, error) from None
        await call.record("login_begun", of(party))
        answer = send_to(url)
        set_cookie(answer, LOGIN_COOKIE, transaction.seal(began, self._key), transaction.LIFETIME_S)
        return answer

    # -- from the provider ------------------------------------------------------------------------------
    async def _callback(self, party: Party, call: Call) -> Response:
        asked = read_query(call)
        began = await self._begun(party, call, asked)
        again = f"{LOGIN}?provider={party.name}&return_to={quote(began.return_to, safe='')}"
        try:
            person = await self._person(party, asked, began)
            made = self._sessions.begin(party, person)
        except Unusable as error:
            # A refusal is an answer to this code; anything else is the provider's trouble, or ours with it.
            if 400 <= error.status < 500:
                log.warning("a provider has refused a code", provider=party.name, why=str(error))
                raise No("login_code", of(party), again) from None
            raise unavailable(party, error, again) from None
        except Unfit as error:
            raise No(error.reason, of(party), again) from None
        if not made.fits:
            raise No("session_too_large", made.who)
        # What ends is revoked one by one, so nobody may begin so many that the file of revocations fills up.
        now = time.monotonic()
        begun_by = self._begun_by[party.name]
        if begun_by.wait_s(made.who.subject, now):
            raise No("attempts_exceeded", made.who)
        begun_by.count(made.who.subject, now)
        before = self._sessions.current(call, self._parties.values())
        await call.record("session_issued", made.who, made.issued)
        # A crash here leaves on record what nobody was given.
        if before is not None:
            await self._sessions.end(call, before, "another login in the same browser")
        answer = send_to(self._url + began.return_to)
        drop_cookie(answer, LOGIN_COOKIE)
        set_cookie(answer, SESSION_COOKIE, made.token, int(party.login.session_ttl))
        return answer

    async def _begun(self, party: Party, call: Call, asked: dict[str, str]) -> Transaction:
        """The login that this ends: begun in this browser, with this provider, a while ago, and never ended."""
        cookie = session.find(call.asked.headers, LOGIN_COOKIE)
        began = transaction.unseal(cookie, self._key, time.time()) if isinstance(cookie, bytes) else None
        unknown = No("login_unknown", of(party), f"{LOGIN}?provider={party.name}")
        if began is None or began.provider != party.name:
            raise unknown
        if not hmac.compare_digest(asked.get("state", "").encode(), began.state.encode()):
            raise unknown
        if not await call.scribe.first_use(
            key_of("login", party.provider.issuer, began.state), began.expires * 1_000_000
        ):
            raise unknown
        return began

    async def _person(self, party: Party, asked: dict[str, str], began: Transaction) -> Person:
        """Raises No, Unusable, Unfit."""
        published = await party.published()
        if (
            asked.get("iss", None if published.endpoints.says_issuer else party.provider.issuer)
            != party.provider.issuer
        ):
            raise No("login_issuer", of(party))
        code = asked.get("code")
        if "error" in asked or code is None or len(code) > _MAX_CODE:
            raise No("login_denied" if "error" in asked else "request_malformed", of(party))
        return await party.redeem(code, began)
