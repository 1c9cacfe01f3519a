"""The end of sessions: a person's own way out, and the provider's word that a person is gone.

    /.gatebook/logout                          the session ends here, then at the provider
    /.gatebook/backchannel-logout/<provider>   the provider ends sessions (OpenID Connect Back-Channel Logout 1.0)

What ends opens nothing within a second, in every guard, and that is on record before. Never ends a session because
another site wanted it, and never takes a provider's word for another's people.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Final

from starlette.responses import Response

from gatebook import record
from gatebook.config.model import SESSION_COOKIE
from gatebook.guard.asked import presented
from gatebook.identity import session
from gatebook.identity.fetch import Unusable
from gatebook.identity.id_token import MAX_AGE_S
from gatebook.identity.jws import Unfit
from gatebook.identity.once import key_of
from gatebook.identity.types import Identity
from gatebook.page import button
from gatebook.portal.app import Page
from gatebook.portal.call import Call
from gatebook.portal.form import Malformed, read_form
from gatebook.portal.no import No, of, told, unavailable
from gatebook.portal.party import Party
from gatebook.portal.person_page import drop_cookie, page, send_to
from gatebook.portal.sessions import Sessions
from gatebook.portal.withdraw import withdraw
from gatebook.wire import BACKCHANNEL_LOGOUT

LOGOUT: Final = "/.gatebook/logout"


class Logouts:
    """One configuration's. `url` is the portal's."""

    def __init__(self, url: str, revocations: Path, parties: dict[str, Party], sessions: Sessions) -> None:
        self._url = url
        self._revocations = revocations
        self._parties = parties
        self._sessions = sessions

    def pages(self) -> dict[str, Page]:
        found = {LOGOUT: Page("gatebook:logout", ("GET", "POST"), partial(told, self._logout))}
        for name, party in self._parties.items():
            work = partial(self._backchannel, party)
            found[BACKCHANNEL_LOGOUT + name] = Page("gatebook:backchannel-logout", ("POST",), work)
        return found

    async def _logout(self, call: Call) -> Response:
        if call.asked.method == "GET":
            await call.record("public")
            return page(
                200, "Log out", "This ends your session here and at your provider.", button(LOGOUT, "Log out")
            )
        if session.is_cross_site(presented(call.asked), self._url):
            raise No("cross_site")
        who = self._sessions.current(call, self._parties.values())
        await call.record("session_missing" if who is None else "session_ended", who)
        if who is not None:
            # A crash here leaves on record what did not take effect: its person has no answer, and asks again.
            await self._sessions.end(call, who, "logged out")
        answer = send_to(await self._after(who))
        drop_cookie(answer, SESSION_COOKIE)
        return answer

    async def _after(self, who: Identity | None) -> str:
        party = self._parties[who.provider] if who is not None else next(iter(self._parties.values()))
        here = self._url + party.login.after_logout
        return (await party.end_session_url(here) if who is not None else None) or here

    async def _backchannel(self, party: Party, call: Call) -> Response:
        """Back-Channel Logout 1.0. What is revoked is on record before; doing it again does nothing."""
        try:
            text = read_form(call).get("logout_token")
            if text is None:
                raise Malformed("no logout_token")
            found = await party.logout(text)
        except Malformed:
            return await self._answer(call, "request_malformed", party)
        except Unfit as error:
            return await self._answer(call, error.reason, party)
        except Unusable as error:
            return await self._answer(call, unavailable(party, error).reason, party)
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
            shown="a person" if sid is None else sid,
            why="ended by the provider",
        )
        # Only now, so that a provider that was not answered may try the same token again.
        key = key_of("logout token", provider.issuer, found.token_id)
        if not await call.scribe.first_use(key, int(found.expires * 1e6) + 60_000_000):
            return await self._answer(call, "logout_replayed", party)
        return await self._answer(call, "sessions_withdrawn", party)

    async def _answer(self, call: Call, reason: str, party: Party) -> Response:
        await call.record(reason, of(party))
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
