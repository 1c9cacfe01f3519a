"""Login and logout of people: the pages that a browser is sent to, and the one that the provider calls.

    /.gatebook/login                       -> the provider, with a transaction in a cookie
    /.gatebook/callback/<provider>         <- the provider, with a code; a session in a cookie; -> where it began
    /.gatebook/logout                      the session ends here, then at the provider
    /.gatebook/backchannel-logout/<provider>   the provider ends sessions

A login ends in the browser that began it, once, by the provider that it began with. Each has a session of its own,
and ends the one that its browser had. Never sends a browser to another origin but the provider's.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import structlog
from msgspec import structs
from starlette.responses import Response

from gatebook import record
from gatebook.config.model import LOGIN_COOKIE, SESSION_COOKIE, Configuration
from gatebook.config.value import is_local_path
from gatebook.guard.asked import presented
from gatebook.identity import jwt, session
from gatebook.identity.fetch import Unusable
from gatebook.identity.id_token import MAX_AGE_S, Person
from gatebook.identity.jwk import parse_jwks
from gatebook.identity.jws import Unfit
from gatebook.identity.keyed import Keys, signed_sha256
from gatebook.identity.once import key_of
from gatebook.identity.types import Credential, Identity, Refusal
from gatebook.paths import Paths
from gatebook.portal import transaction
from gatebook.portal.app import Page
from gatebook.portal.call import Call, Who
from gatebook.portal.form import Malformed, read_form, read_query
from gatebook.portal.party import Party
from gatebook.portal.person_page import button, drop_cookie, link, page, send_to, set_cookie
from gatebook.portal.signing import Signing
from gatebook.portal.transaction import Transaction
from gatebook.portal.withdraw import withdraw
from gatebook.wire import BACKCHANNEL_LOGOUT, CALLBACK

LOGIN: Final = "/.gatebook/login"
LOGOUT: Final = "/.gatebook/logout"
_HOME: Final = "/"
_MAX_CODE: Final = 2048

log = structlog.get_logger("portal")


class _No(Exception):
    """`again`: where the person may try once more."""

    def __init__(self, reason: str, who: Who = None, again: str = "") -> None:
        super().__init__(reason)
        self.reason, self.who, self.again = reason, who, again


class Logins:
    """One configuration's. Making it reads clients' secrets: raises EnvironmentFault."""

    def __init__(self, configuration: Configuration, paths: Paths, signing: Signing, keys: Keys) -> None:
        self._configuration = configuration
        self._revocations = paths.revocations
        self._signing = signing
        self._fingerprint = keys.fingerprint
        self._key = transaction.key_of(keys.fingerprints)
        self._url = configuration.portal.url or ""
        self._parties = {name: Party(name, found, self._url) for name, found in configuration.logins.items()}

    def pages(self) -> dict[str, Page]:
        found = {
            LOGIN: Page("gatebook:login", ("GET",), partial(self._answer, self._login)),
            LOGOUT: Page("gatebook:logout", ("GET", "POST"), partial(self._answer, self._logout)),
        }
        for name, party in self._parties.items():
            callback, backchannel = partial(self._callback, party), partial(self._backchannel, party)
            found[CALLBACK + name] = Page("gatebook:callback", ("GET",), partial(self._answer, callback))
            found[BACKCHANNEL_LOGOUT + name] = Page("gatebook:backchannel-logout", ("POST",), backchannel)
        return found

    async def _answer(self, work: Callable[[Call], Awaitable[Response]], call: Call) -> Response:
        try:
            return await work(call)
        except Malformed:
            no = _No("request_malformed")
        except _No as error:
            no = error
        await call.record(no.reason, no.who)
        status, _, title = record.REASONS[no.reason]
        more = link(no.again, "Log in") if no.again else ""
        said = "gatebook has not let you in." if status != 503 else "Please try again in a moment."
        return page(status, title, said, more, call.asked.id)

    # -- to the provider --------------------------------------------------------------------------------
    async def _login(self, call: Call) -> Response:
        # Nothing but a person's own way here begins a login: not a picture, a frame or a script of some page.
        if call.header(b"sec-fetch-dest") not in ([], [b"document"]):
            raise _No("cross_site")
        asked = read_query(call)
        party = self._parties.get(asked.get("provider", next(iter(self._parties))))
        return_to = asked.get("return_to", _HOME)
        if party is None or not is_local_path(return_to):
            raise _No("request_malformed")
        began = transaction.begin(party.name, return_to, time.time())
        try:
            url = await party.authorization_url(began)
        except Unusable as error:
            raise self._unavailable(party, error) from None
        await call.record("login_begun", _of(party))
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
            token, who, issued = self._session(party, person)
        except Unusable as error:
            # A refusal is an answer to this code; anything else is the provider's trouble, or ours with it.
            if 400 <= error.status < 500:
                log.warning("a provider has refused a code", provider=party.name, why=str(error))
                raise _No("login_code", _of(party), again) from None
            raise self._unavailable(party, error, again) from None
        except Unfit as error:
            raise _No(error.reason, _of(party), again) from None
        before = self._current(call)
        await call.record("session_issued", who, issued)
        # A crash here leaves on record what nobody was given.
        if before is not None:
            await self._end(call, before, "another login in the same browser")
        answer = send_to(self._url + began.return_to)
        drop_cookie(answer, LOGIN_COOKIE)
        set_cookie(answer, SESSION_COOKIE, token, int(party.login.session_ttl))
        return answer

    async def _begun(self, party: Party, call: Call, asked: dict[str, str]) -> Transaction:
        """The login that this ends: begun in this browser, with this provider, a while ago, and never ended."""
        cookie = session.find(call.asked.headers, LOGIN_COOKIE)
        began = transaction.unseal(cookie, self._key, time.time()) if isinstance(cookie, bytes) else None
        unknown = _No("login_unknown", _of(party), f"{LOGIN}?provider={party.name}")
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
        """Raises _No, Unusable, Unfit."""
        published = await party.published()
        if (
            asked.get("iss", None if published.endpoints.says_issuer else party.provider.issuer)
            != party.provider.issuer
        ):
            raise _No("login_issuer", _of(party))
        code = asked.get("code")
        if "error" in asked or code is None or len(code) > _MAX_CODE:
            raise _No("login_denied" if "error" in asked else "request_malformed", _of(party))
        return await party.redeem(code, began)

    def _session(self, party: Party, person: Person) -> tuple[str, Identity, record.IssuedPart]:
        """Raises _No."""
        now, identity = time.time(), person.identity
        token_id, expires = secrets.token_urlsafe(16), int(now + party.login.session_ttl)
        claims: dict[str, Any] = {
            name: identity.claims[name] for name in party.login.claims if name in identity.claims
        }
        claims |= {
            "iss": session.issuer(self._configuration, party.name),
            "aud": session.audience(self._configuration),
            "sub": identity.subject,
            "iat": int(now),
            "exp": expires,
            "jti": token_id,
            "sid": person.sid or token_id,
            session.CLAIM_OF_ISSUER: party.provider.issuer,
        }
        told = {"roles": list(identity.roles), "groups": list(identity.groups), "scope": " ".join(identity.scopes)}
        claims |= {name: value for name, value in told.items() if value}
        if person.auth_time is not None:
            claims["auth_time"] = person.auth_time
        token = self._signing.sign(claims, session.TYPE, now)
        digest = signed_sha256(Credential(session.METHOD, token.encode()))
        who = structs.replace(identity, method=session.METHOD, credential_sha256=digest, token_id=token_id)
        if len(token) > session.MAX_BYTES:
            raise _No("session_too_large", who)
        issued = record.IssuedPart(
            token_id=token_id,
            credential=self._fingerprint(digest),
            expires_us=expires * 1_000_000,
            family=claims["sid"],
        )
        return token, who, issued

    # -- the end ----------------------------------------------------------------------------------------
    async def _logout(self, call: Call) -> Response:
        if call.asked.method == "GET":
            await call.record("public")
            return page(
                200, "Log out", "This ends your session here and at your provider.", button(LOGOUT, "Log out")
            )
        if session.is_cross_site(presented(call.asked), self._url):
            raise _No("cross_site")
        who = self._current(call)
        await call.record("session_missing" if who is None else "session_ended", who)
        if who is not None:
            # A crash here leaves on record what did not take effect: its person has no answer, and asks again.
            await self._end(call, who, "logged out")
        answer = send_to(await self._after(who))
        drop_cookie(answer, SESSION_COOKIE)
        return answer

    async def _after(self, who: Identity | None) -> str:
        party = self._parties[who.provider] if who is not None else next(iter(self._parties.values()))
        here = self._url + party.login.after_logout
        return (await party.end_session_url(here) if who is not None else None) or here

    def _current(self, call: Call) -> Identity | None:
        """Whose session came with this request, if it is good."""
        cookie = session.find(call.asked.headers)
        if cookie is None or isinstance(cookie, Refusal):
            return None
        try:
            token = jwt.read(cookie)
            keys = parse_jwks(self._signing.jwks())
            for name, party in self._parties.items():
                wanted = session.as_oidc(self._configuration, name, party.provider)
                if token.issuer == wanted.issuer:
                    digest = signed_sha256(Credential(session.METHOD, cookie))
                    kind = session.Kind(party.provider)
                    verified = jwt.verify(token, name, wanted, keys, digest, time.time(), kind)
                    return structs.replace(verified.identity, method=session.METHOD)
        except Unfit:
            pass
        return None

    async def _end(self, call: Call, who: Identity, why: str) -> None:
        """Raises GatebookError."""
        assert who.token_id is not None  # noqa: S101 - session.Kind has looked
        await withdraw(
            self._revocations,
            call.scribe,
            who.provider,
            "token",
            who.token_id,
            until=who.expires_at + session.SKEW_S,
            shown=who.token_id,
            why=why,
        )

    async def _backchannel(self, party: Party, call: Call) -> Response:
        """Back-Channel Logout 1.0. What is revoked is on record before; doing it again does nothing."""
        try:
            text = read_form(call).get("logout_token")
            if text is None:
                raise Malformed("no logout_token")
            found = await party.logout(text)
        except Malformed:
            return await self._told(call, "request_malformed", party)
        except Unfit as error:
            return await self._told(call, error.reason, party)
        except Unusable as error:
            return await self._told(call, self._unavailable(party, error).reason, party)
        provider = party.provider
        # Counted from what the token says, so that a second one like it changes nothing.
        longest_s = max(party.login.session_ttl, provider.max_ttl) + 2 * provider.clock_skew + MAX_AGE_S
        sid, subject = found.sid, found.subject
        await withdraw(
            self._revocations,
            call.scribe,
            party.name,
            "subject" if sid is None else "session",
            (subject or "") if sid is None else sid,
            before=int(found.issued) + 1 if sid is None else None,
            until=found.issued + longest_s,
            shown="all sessions of a person" if sid is None else "a session",
            why="ended by the provider",
        )
        # Only now, so that a provider that was not answered may try the same token again.
        key = key_of("logout token", provider.issuer, found.token_id)
        if not await call.scribe.first_use(key, int(found.expires * 1e6) + 60_000_000):
            return await self._told(call, "logout_replayed", party)
        return await self._told(call, "sessions_withdrawn", party)

    async def _told(self, call: Call, reason: str, party: Party) -> Response:
        await call.record(reason, _of(party))
        status = record.REASONS[reason].status
        if status == 200:
            return Response(b"", 200, {"Cache-Control": "no-store"})
        # 2.8: whatever is wrong with the token is 400.
        code = "temporarily_unavailable" if status == 503 else "invalid_request"
        return Response(
            json.dumps({"error": code}),
            503 if status == 503 else 400,
            {"Cache-Control": "no-store"},
            "application/json",
        )

    def _unavailable(self, party: Party, error: Unusable, again: str = "") -> _No:
        log.warning("a provider cannot be asked about a login", provider=party.name, why=str(error))
        return _No("provider_unavailable", _of(party), again)


def _of(party: Party) -> record.IdentityPart:
    """Where nobody was identified: with which provider it was tried."""
    return record.IdentityPart(provider=party.name, method=session.METHOD)
