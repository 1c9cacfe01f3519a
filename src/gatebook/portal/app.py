"""Path -> page: the portal's application. Starlette carries; what a page does is the page's.

In: ASGI requests from the gateway alone. Out: the page's answer, with the fields that name its record. Refused
here, and on record: a path that is spelt in another way than ours, a method that a page does not have. Without
the recorder, or after a fault of ours, it is 503. Never answers for a page that has not recorded what it
decided.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gatebook import record
from gatebook.config.model import Configuration
from gatebook.errors import RecorderUnavailable
from gatebook.guard.asked import OWN_FIELDS, PREFIX, Asked, parse
from gatebook.guard.client import RecorderClient
from gatebook.portal.call import Call, Scribe
from gatebook.portal.signing import Signing
from gatebook.wire import PORTAL_MAX_BODY

log = structlog.get_logger("portal")


@dataclass(frozen=True)
class Page:
    """`name` stands in records as the route; it cannot be a configured route's."""

    name: str
    methods: tuple[str, ...]
    answer: Callable[[Call], Awaitable[Response]]


class TooLarge(Exception):
    """A body beyond what any page takes."""


@dataclass(frozen=True)
class Portal:
    """All pages under one configuration, replaced as a whole on reload."""

    configuration: Configuration
    scribe: Scribe
    pages: Mapping[str, Page]


class Application:
    """`portal` may be replaced at any time; a request keeps the one it began with."""

    def __init__(self, recorder: RecorderClient, signing: Signing, portal: Portal) -> None:
        self.recorder = recorder
        self.signing = signing
        self.portal = portal
        self.draining = False
        routes = [Route("/status", self._status), Route("/{path:path}", _Served(self))]
        self.asgi = Starlette(routes=routes)

    async def _status(self, _request: Request) -> Response:
        """For the supervisor; the gateway serves no such path."""
        ready = self.recorder.up and self.signing.ready and not self.draining
        return JSONResponse({"ready": ready, "configuration": self.portal.scribe.digest, "pid": os.getpid()})

    async def answer(self, request: Request) -> Response:
        portal = self.portal
        try:
            asked = _asked(request)
        except ValueError as error:
            log.error("not what the gateway sends", why=str(error))
            return problem(503, "")
        page = portal.pages.get(asked.uri.partition("?")[0])
        call = Call(asked, b"", page.name if page else "gatebook:none", portal.scribe)
        try:
            call.body = await _body(request)
            answer = await self._of_page(call, page)
        except TooLarge:
            answer = await _refuse(call, "request_malformed")
        except RecorderUnavailable as error:
            log.error("not recorded, so not answered", request=asked.id, why=str(error))
            return problem(503, asked.id)
        except Exception:
            log.exception("error in a page", request=asked.id)
            return problem(503, asked.id)
        if call.index is None:
            log.error("a page has answered without a record", request=asked.id, page=call.page)
            return problem(503, asked.id)
        answer.headers["Gatebook-Decision"] = str(call.index)
        answer.headers["Gatebook-Receipt"] = f"{portal.scribe.origin}/{call.index}"
        answer.headers["Gatebook-Reason"] = call.reason
        return answer

    async def _of_page(self, call: Call, page: Page | None) -> Response:
        if page is None:
            return await _refuse(call, "no_route")
        if call.asked.method not in page.methods:
            answer = await _refuse(call, "method_not_allowed")
            answer.headers["Allow"] = ", ".join(page.methods)
            return answer
        return await page.answer(call)


class _Served:
    """Any path, any method: what is no page, or not taken by it, is refused by us, on record."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: object, receive: object, send: object) -> None:
        request = Request(scope, receive, send)  # type: ignore[arg-type]
        response = await self._application.answer(request)
        await response(scope, receive, send)  # type: ignore[arg-type]


async def _refuse(call: Call, reason: str) -> Response:
    await call.record(reason)
    return problem(record.REASONS[reason].status, call.asked.id, record.REASONS[reason].title)


def problem(status: int, request_id: str, title: str = "") -> Response:
    told = {"type": "about:blank", "title": title or HTTPStatus(status).phrase, "status": status}
    if request_id:
        told["request_id"] = request_id
    again = {"Retry-After": "1"} if status == 503 else {}
    return Response(json.dumps(told), status, again, "application/problem+json")


def _asked(request: Request) -> Asked:
    """Raises ValueError for anything that our gateway would not send."""
    own: dict[bytes, bytes] = {}
    headers: list[tuple[bytes, bytes]] = []
    for name, value in request.scope["headers"]:
        if name.startswith(PREFIX):
            if name not in OWN_FIELDS or name in own:
                raise ValueError("a field that the gateway does not send, or sends once")
            own[name] = value
        else:
            headers.append((name, value))
    return parse(own, headers)


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > PORTAL_MAX_BODY:
            raise TooLarge
    return body
