"""Serves one of the demo's applications on loopback, as a process of its own.

In: an application, or what makes one of its own address. Out: one line on stdout, `listening on
http://127.0.0.1:<port>`, once connections are accepted; then requests are served until SIGTERM.
Never listens on any address but 127.0.0.1: nothing here is meant for others.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette

HOST = "127.0.0.1"
SAID = "listening on "  # what the line begins with


def main(make: Callable[[str], Starlette], about: str) -> None:
    """`make` is called with the address, such as `http://127.0.0.1:9001`."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0, the default, takes a free one")
    port = parser.parse_args().port
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(128)
        address = f"http://{HOST}:{listener.getsockname()[1]}"
        server = uvicorn.Server(_config(make(address)))
        sys.stdout.write(f"{SAID}{address}\n")
        sys.stdout.flush()
        server.run(sockets=[listener])


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        loop="uvloop",
        lifespan="off",
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,  # a stream of events would otherwise hold the end up
    )
