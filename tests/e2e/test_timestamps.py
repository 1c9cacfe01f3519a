"""Time stamps in a whole deployment, as docs/timestamps.md has them: taken, shown, verified, not waited for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.deployment import Deployment, until
from tests.tsa import Server, Stamper, serving, verified_by_openssl


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(Stamper(tmp_path / "authority")) as server:
        yield server


def stamps(deployment: Deployment) -> list[Path]:
    return sorted((deployment.paths.ledger / "log" / "anchors").glob("*.tsr"))


def test_authority_is_named_while_it_runs_and_its_stamps_are_shown_and_verified(
    fresh: Deployment, server: Server
) -> None:
    fresh.configuration["timestamps"] = {"url": server.url, "certificates": str(server.stamper.roots)}
    fresh.write()
    assert fresh.reload().returncode == 0
    until(lambda: stamps(fresh), "a stamp")
    until(lambda: fresh.status()["outside"]["timestamps"]["last"], "its mention")
    assert "by CN=stamps" in fresh.cli("status", "-c", str(fresh.config)).stdout
    (reply,) = stamps(fresh)
    assert verified_by_openssl(reply.with_suffix(".checkpoint"), reply, server.stamper.roots)
    said = fresh.cli("verify", "-c", str(fresh.config)).stdout
    assert "level 3  passed" in said
    assert "time-stamped by CN=stamps" in said


def test_hanging_authority_holds_up_no_request(stopped: Deployment, server: Server) -> None:
    server.hang.clear()
    stopped.configuration["timestamps"] = {"url": server.url, "certificates": str(server.stamper.roots)}
    stopped.write()
    stopped.start()
    until(lambda: server.asked, "the question")
    assert stopped.status()["ready"]
    with stopped.client() as client:
        assert client.get("/healthz").status_code == 200
    assert stopped.stop() == 0
    assert stamps(stopped) == []
