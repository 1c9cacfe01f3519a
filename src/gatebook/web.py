"""How our own pages are served: one set of uvicorn's settings for all, and a socket that says why it has none.

Never trusts a proxy's headers, never names its software, writes no access log: what happened is in the ledger.
"""

from __future__ import annotations

import socket
from typing import Literal

import uvicorn
from starlette.types import ASGIApp

from gatebook.errors import EnvironmentFault


def settings(
    application: ASGIApp,
    *,
    concurrent: int,
    backlog: int,
    keep_alive_s: int,
    drain_s: int,
    http: Literal["httptools", "h11"] = "httptools",
    date: bool = True,
) -> uvicorn.Config:
    """`concurrent`: connections at a time; `drain_s`: for what is under way at a stop."""
    return uvicorn.Config(
        application,
        http=http,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=date,
        limit_concurrency=concurrent,
        backlog=backlog,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=drain_s,
    )


def listen(host: str, port: int, backlog: int) -> socket.socket:
    """Raises EnvironmentFault."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=backlog)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise EnvironmentFault(f"{host}:{port}: cannot listen there: {why}; name another by --listen") from None
