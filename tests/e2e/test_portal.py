"""The portal in a whole deployment: started when the configuration needs it, reached by its exact paths alone."""

from __future__ import annotations

import os
import signal
from typing import Any

import httpx2
import pytest
from tests.e2e.deployment import Deployment, until

PAGE = "/.gatebook/token"


def with_portal(deployment: Deployment) -> None:
    identity: dict[str, Any] = deployment.configuration["identity"]
    identity["own"] = {"type": "gatebook"}
    deployment.configuration["portal"] = {"url": f"https://localhost:{deployment.port}"}
    deployment.write()


@pytest.fixture
def served(stopped: Deployment) -> Deployment:
    with_portal(stopped)
    stopped.start()
    return stopped


def roles(deployment: Deployment) -> set[str]:
    return {process["role"] for process in deployment.status()["processes"]}


def test_it_runs_only_while_the_configuration_needs_it(fresh: Deployment) -> None:
    assert "portal" not in roles(fresh)
    assert fresh.ask(PAGE, method="POST").status_code == 404
    with_portal(fresh)
    assert fresh.reload().returncode == 0
    assert "portal" in roles(fresh)
    assert "Gatebook-Receipt" in fresh.ask(PAGE, method="POST").headers
    del fresh.configuration["identity"]["own"]
    fresh.write()
    assert fresh.reload().returncode == 0
    assert "portal" not in roles(fresh)
    assert fresh.ask(PAGE, method="POST").status_code == 404


def test_request_to_a_page_is_on_record_with_its_outcome(served: Deployment) -> None:
    answer = served.ask(f"{PAGE}?client_secret=hunter2", method="POST", headers={"Gatebook-Address": "10.0.0.1"})
    assert answer.status_code >= 400
    found = served.access(answer.headers["X-Request-ID"])
    assert found["request"]["path"] == PAGE
    assert found["decision"]["verdict"] == "deny"
    assert found["client"]["address"] == "127.0.0.0/24"
    assert found["response"]["status"] == answer.status_code
    assert "upstream" not in found
    assert "hunter2" not in str(served.log("--all"))
    served.verify()


@pytest.mark.parametrize("path", ["/.gatebook/tokens", "/.gatebook/token/", "/.gatebook/status", "/status"])
def test_path_beside_a_page_is_none(served: Deployment, path: str) -> None:
    assert served.ask(path, method="POST").status_code == 404


def test_killed_portal_is_503_and_comes_back(served: Deployment) -> None:
    pid = served.pid("portal")
    os.kill(pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in served.pids() and served.status().get("ready"), "another portal")
    assert served.ask(PAGE, method="POST").status_code < 500
    served.verify()


def test_huge_body_is_413(served: Deployment) -> None:
    answer = served.ask(PAGE, method="POST", content=bytes((16 << 10) + 1))
    assert answer.status_code == 413
    assert served.access(answer.headers["X-Request-ID"])["error"]["detail"] == "body_too_large"


def test_flood_of_one_address_is_429(served: Deployment) -> None:
    with served.client() as client:
        statuses = {client.post(PAGE).status_code for _ in range(80)}
    assert 429 in statuses
    served.verify()


def test_portal_that_cannot_start_keeps_nobody_else_from_being_served(stopped: Deployment) -> None:
    with_portal(stopped)
    stopped.paths.clients.with_name("refresh.sqlite").write_text("no database at all, by any means")
    stopped.start(ready=False)
    until(lambda: stopped.paths.control_socket.exists() and stopped.status().get("processes"), "the supervisor")

    def served() -> bool:
        try:
            return stopped.ask("/orders/1", stopped.reader()).status_code == 200
        except httpx2.ConnectError:
            return False

    until(served, "the gateway")
    assert stopped.ask(PAGE, method="POST").status_code == 503
    assert stopped.status()["ready"] is False
