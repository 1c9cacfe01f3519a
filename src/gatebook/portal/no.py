"""A refusal that a person is told by a page, on record first.

In: a page's work, and what it raises. Out: its answer, or a page that says why not, with a way to begin again.
Never says what a provider or a client has sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from starlette.responses import Response

from gatebook import record
from gatebook.identity import session
from gatebook.identity.fetch import Unusable
from gatebook.page import link, no_entry
from gatebook.portal.call import Call, Who
from gatebook.portal.form import Malformed
from gatebook.portal.party import Party
from gatebook.portal.person_page import page

log = structlog.get_logger("portal")


class No(Exception):
    """`reason` is a key of record.REASONS; `again`: where the person may try once more."""

    def __init__(self, reason: str, who: Who = None, again: str = "") -> None:
        super().__init__(reason)
        self.reason, self.who, self.again = reason, who, again


async def told(work: Callable[[Call], Awaitable[Response]], call: Call) -> Response:
    try:
        return await work(call)
    except Malformed:
        no = No("request_malformed")
    except No as error:
        no = error
    await call.record(no.reason, no.who)
    status, _, title = record.REASONS[no.reason]
    more = link(no.again, "Log in") if no.again else ""
    return page(status, title, no_entry(status), more, call.asked.id)


def unavailable(party: Party, error: Unusable, again: str = "") -> No:
    log.warning("a provider cannot be asked about a login", provider=party.name, why=str(error))
    return No("provider_unavailable", of(party), again)


def of(party: Party) -> record.IdentityPart:
    """Where nobody was identified: with which provider it was tried."""
    return record.IdentityPart(provider=party.name, method=session.METHOD)
