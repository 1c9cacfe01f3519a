"""Asks one guard of a running deployment, past nginx, which otherwise chooses the guard."""

from __future__ import annotations

import http.client
import secrets
import socket
from pathlib import Path

from gatebook.wire import UPSTREAMS_FIELD, upstreams_mark


def ask_guard(
    path: Path, target: str, token: str, method: str = "GET", upstreams: tuple[str, ...] = ("down", "orders")
) -> tuple[int, str | None]:
    """What the guard told nginx, and its reason."""
    fields = {
        "Gatebook-Request-Id": secrets.token_hex(16),
        "Gatebook-Method": method,
        "Gatebook-Uri": target,
        "Gatebook-Host": "localhost",
        "Gatebook-Protocol": "HTTP/1.1",
        "Gatebook-Address": "127.0.0.1",
        "Gatebook-Port": "40000",
        "Gatebook-Connection": "1",
        "Gatebook-Connection-Request": "1",
        "Gatebook-Worker": "1",
        UPSTREAMS_FIELD: upstreams_mark(upstreams),
        "Authorization": f"Bearer {token}",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        connection.sendall(f"GET /decide HTTP/1.1\r\nHost: guard\r\n{head}\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        answer.read()
        return answer.status, answer.headers.get("Gatebook-Reason")
