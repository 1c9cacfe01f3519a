"""The demo's API: a few orders, an answer that takes its time, a stream of events, a WebSocket.

It stands for the service that a user of gatebook has already, and knows nothing of credentials: who the
caller is, it reads from the headers that the gateway sets. Run as `python -m gatebook.demo.api --port
9001`. Never believes a caller that does not come by the gateway, for it listens on loopback alone.
The WebSocket wants one of the libraries that uvicorn knows; without one it is refused, and nothing else.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from gatebook.demo.serve import main

MAX_ORDERS = 100
MAX_BODY_BYTES = 16 << 10
MAX_SLOW_S = 30.0
MAX_EVENTS = 100
EVENT_EVERY_S = 0.1

Order = dict[str, Any]


def application(address: str) -> Starlette:  # noqa: ARG001 - an API does not need to know where it lives
    orders = {
        "1001": {"id": "1001", "tenant": "acme", "item": "anvil", "count": 1},
        "1002": {"id": "1002", "tenant": "acme", "item": "rope", "count": 20},
        "2001": {"id": "2001", "tenant": "globex", "item": "lamp", "count": 3},
    }
    app = Starlette(
        routes=[
            Route("/healthz", _health),
            Route("/orders", _list, methods=["GET"]),
            Route("/orders", _create, methods=["POST"]),
            Route("/orders/{order_id}", _read),
            Route("/slow", _slow),
            Route("/events", _events),
            WebSocketRoute("/echo", _echo),
        ]
    )
    app.state.orders = orders
    return app


async def _health(request: Request) -> Response:  # noqa: ARG001 - one shape for all endpoints
    return JSONResponse({"status": "ok"})


async def _list(request: Request) -> Response:
    tenant = request.headers.get("x-tenant")
    orders: dict[str, Order] = request.app.state.orders
    found = [order for order in orders.values() if tenant in (None, order["tenant"])]
    return JSONResponse({"orders": found, "caller": _caller(request)})


async def _read(request: Request) -> Response:
    order: Order | None = request.app.state.orders.get(request.path_params["order_id"])
    if order is None or request.headers.get("x-tenant") not in (None, order["tenant"]):
        return JSONResponse({"error": "no such order"}, 404)
    return JSONResponse(order | {"caller": _caller(request)})


async def _create(request: Request) -> Response:
    wanted = await _body(request)
    orders: dict[str, Order] = request.app.state.orders
    if wanted is None or not isinstance(wanted.get("item"), str):
        return JSONResponse({"error": 'expected {"item": "...", "count": 1}'}, 400)
    if len(orders) >= MAX_ORDERS:
        return JSONResponse({"error": "no more orders are taken"}, 409)
    number = str(max(map(int, orders)) + 1)
    tenant = request.headers.get("x-tenant", "acme")
    orders[number] = {"id": number, "tenant": tenant, "item": wanted["item"], "count": wanted.get("count", 1)}
    return JSONResponse(orders[number] | {"caller": _caller(request)}, 201, {"Location": f"/orders/{number}"})


async def _body(request: Request) -> dict[str, Any] | None:
    """A JSON object of at most MAX_BODY_BYTES, or None."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY_BYTES:
            return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _caller(request: Request) -> dict[str, str]:
    """Who the gateway says is calling; it lets nobody else set these headers."""
    names = {"subject": "gatebook-subject", "roles": "gatebook-roles", "provider": "gatebook-provider"}
    return {name: request.headers[header] for name, header in names.items() if header in request.headers}


def _number(request: Request, name: str, default: float, most: float) -> float:
    try:
        number = float(request.query_params.get(name, default))
    except ValueError:
        return default
    return min(max(0.0, number), most)  # max in this order makes 0 of "nan"


async def _slow(request: Request) -> Response:
    seconds = _number(request, "seconds", 1.0, MAX_SLOW_S)
    await asyncio.sleep(seconds)
    return JSONResponse({"waited_s": seconds})


async def _events(request: Request) -> Response:
    count = int(_number(request, "count", 3, MAX_EVENTS))

    async def stream() -> AsyncIterator[bytes]:
        for number in range(1, count + 1):
            if number > 1:
                await asyncio.sleep(EVENT_EVERY_S)
            yield f"id: {number}\nevent: order\ndata: {json.dumps({'number': number, 'of': count})}\n\n".encode()

    return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _echo(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except (WebSocketDisconnect, KeyError):  # KeyError: a message of bytes, which is not answered
        return


if __name__ == "__main__":
    main(application, "The API of gatebook's demo, on loopback.")
