"""Our own witness over HTTP: two calls of C2SP tlog-witness, and nothing else.

    POST /add-checkpoint                cosign
    GET  /<origin hash>/checkpoint      what was cosigned last, for monitors

In: what anybody sends; a request is bounded in bytes and in time before it is looked at. Out: the answers of
`state.State`. Never answers 200 before the state is on disk.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gatebook.errors import LedgerError
from gatebook.witness.protocol import MAX_REQUEST_BYTES
from gatebook.witness.state import PLAIN, Reply, State

BODY_S: Final = 10.0

log = structlog.get_logger("witness")


def make_app(state: State) -> Starlette:
    async def add_checkpoint(request: Request) -> Response:
        try:
            async with asyncio.timeout(BODY_S):
                data = await _body(request)
        except TimeoutError:
            return _closing(Reply(408, f"no whole request within {BODY_S:g} s\n"))
        except ClientDisconnect:
            return _closing(Reply(400, "the request broke off\n"))
        if data is None:
            return _closing(Reply(413, f"a request has at most {MAX_REQUEST_BYTES} bytes\n"))
        try:
            reply = await run_in_threadpool(state.add, data)
        except (LedgerError, OSError) as error:
            log.error("nothing was cosigned", error=str(error))
            reply = Reply(500, "this witness cannot cosign now; its operator knows why\n")
        return _response(reply)

    async def checkpoint(request: Request) -> Response:
        data = await run_in_threadpool(state.cosigned, request.path_params["origin"])
        if data is None:
            return _response(Reply(404, "nothing was cosigned for such a log\n"))
        return Response(data, headers={"Content-Type": PLAIN, "Cache-Control": "no-cache"})

    return Starlette(
        routes=[
            Route("/add-checkpoint", add_checkpoint, methods=["POST"]),
            Route("/{origin}/checkpoint", checkpoint, methods=["GET"]),
        ]
    )


async def _body(request: Request) -> bytes | None:
    """All of it; None when there is too much."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > MAX_REQUEST_BYTES:
            return None
    return bytes(data)


def _response(reply: Reply) -> Response:
    return PlainTextResponse(reply.body, reply.status, {"Content-Type": reply.content_type})


def _closing(reply: Reply) -> Response:
    """To who has not said all: what may still come is not read."""
    response = _response(reply)
    response.headers["Connection"] = "close"
    return response
