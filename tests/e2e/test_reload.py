"""`gatebook reload` and SIGHUP: the new configuration as a whole, or the old one and why."""

from __future__ import annotations

import signal

from tests.e2e.deployment import Deployment, until
from tests.e2e.load import Load


def test_new_rules_are_in_force_and_on_record_when_reload_returns(fresh: Deployment) -> None:
    token = fresh.issuer.token("eve", roles=["visitor"])
    assert fresh.ask("/orders/1", token).status_code == 403
    before = fresh.status()["configuration"]
    fresh.configuration["routes"][1]["allow"].append({"name": "visitors", "roles": ["visitor"]})
    fresh.write()
    done = fresh.reload()
    assert done.returncode == 0, done.stderr
    answer = fresh.ask("/orders/1", token)
    assert answer.status_code == 200
    after = fresh.status()["configuration"]
    assert after != before
    found = fresh.access(answer.headers["X-Request-ID"])
    assert found["decision"]["configuration"] == after
    (applied,) = [r for r in fresh.log("--all") if r.get("action") == "configuration.apply"]
    assert applied["detail"] == {"from": before, "to": after}
    fresh.verify()


def test_invalid_configuration_changes_nothing_and_says_why(fresh: Deployment) -> None:
    before = fresh.status()["configuration"]
    fresh.configuration["routes"][1]["upstream"] = "ordesr"
    fresh.configuration["listn"] = []
    fresh.write()
    done = fresh.reload()
    assert done.returncode == 2
    assert "ordesr" in done.stderr
    assert "listn" in done.stderr
    assert fresh.status()["configuration"] == before
    assert fresh.ask("/orders/1", fresh.reader()).status_code == 200


def test_name_of_the_ledger_cannot_change_under_way(fresh: Deployment) -> None:
    fresh.configuration["name"] = "other"
    fresh.write()
    done = fresh.reload()
    assert done.returncode == 2
    assert "restart" in done.stderr


def test_sighup_reloads(fresh: Deployment) -> None:
    before = fresh.status()["configuration"]
    fresh.configuration["audit"] = {"address": "drop"}
    fresh.write()
    assert fresh.process is not None
    fresh.process.send_signal(signal.SIGHUP)
    until(lambda: fresh.status()["configuration"] != before, "the new configuration")
    answer = fresh.ask("/orders/1", fresh.reader())
    found = fresh.access(answer.headers["X-Request-ID"])
    assert "client" not in found


def test_reload_under_load_fails_no_request(fresh: Deployment) -> None:
    load = Load(fresh)
    with load.running():
        until(lambda: load.passed() > 50, "load")
        for number in range(4):
            name = f"extra-{number}"
            fresh.configuration["upstreams"][name] = {"url": fresh.upstream.url}
            fresh.configuration["routes"][1]["upstream"] = name
            fresh.write()
            done = fresh.reload()
            assert done.returncode == 0, done.stderr
            load.goes_on(30)
    assert set(load.statuses) == {200}, load.statuses
    fresh.verify()


def test_revoked_route_is_refused_at_once(fresh: Deployment) -> None:
    token = fresh.reader()
    with fresh.client() as client:
        headers = {"Authorization": f"Bearer {token}"}
        assert client.get("/orders/1", headers=headers).status_code == 200
        del fresh.configuration["routes"][1]
        fresh.write()
        assert fresh.reload().returncode == 0
        assert client.get("/orders/1", headers=headers).status_code == 404
