"""The control socket: what is not understood harms nobody, and who finds nobody is told so."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from gatebook.errors import EnvironmentFault
from gatebook.supervisor import control


async def answer(command: str) -> dict[str, Any]:
    return {"said": command}


def test_a_question_and_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    async def run() -> dict[str, Any]:
        server = await control.serve(path, answer)
        try:
            return await asyncio.to_thread(control.ask, path, "status")
        finally:
            server.close()

    assert asyncio.run(run()) == {"said": "status"}


def test_socket_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    async def run() -> int:
        server = await control.serve(path, answer)
        server.close()
        return path.stat().st_mode & 0o777

    assert asyncio.run(run()) == 0o600


@pytest.mark.parametrize("data", [b"nonsense\n", b"[]\n", b"\xff\n", b"a" * (1 << 17) + b"\n", b""])
def test_nonsense_ends_its_connection_and_nothing_else(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "control.sock"

    def attack() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(path))
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                return connection.recv(100)
            except ConnectionError:
                return b""

    async def run() -> dict[str, Any]:
        server = await control.serve(path, answer)
        try:
            assert await asyncio.to_thread(attack) in (b"", b'{"said": "None"}\n')
            return await asyncio.to_thread(control.ask, path, "still there")
        finally:
            server.close()

    assert asyncio.run(run()) == {"said": "still there"}


def test_nobody_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="no gatebook is running"):
        control.ask(tmp_path / "control.sock", "status")


def test_socket_left_by_a_dead_supervisor_is_nobody(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(EnvironmentFault, match="no gatebook is running"):
        control.ask(path, "status")
