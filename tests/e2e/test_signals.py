"""A stolen token used elsewhere: judged like any other, and marked in the log. No address is kept for it."""

from __future__ import annotations

import ssl
from typing import Any

import httpx2
import pytest
from tests.e2e.deployment import Deployment


@pytest.fixture
def proxied(stopped: Deployment) -> Deployment:
    """Behind a proxy on loopback, whose word on addresses counts."""
    stopped.configuration["gateway"] = {"trusted_proxies": ["127.0.0.1/32"]}
    stopped.configuration["audit"] = {"address": "drop"}
    stopped.write()
    stopped.start()
    return stopped


def signals(deployment: Deployment, token: str, address: str, ciphers: str | None = None) -> list[str]:
    """Those on record of one request from there; it is allowed."""
    tls = ssl.create_default_context(cafile=str(deployment.folder / "tls" / "ca.pem"))
    if ciphers is not None:
        tls.maximum_version = ssl.TLSVersion.TLSv1_2
        tls.set_ciphers(ciphers)
    with httpx2.Client(base_url=deployment.url, verify=tls, timeout=30, trust_env=False) as client:
        answer = client.get("/orders/7", headers={"Authorization": f"Bearer {token}", "X-Forwarded-For": address})
    assert answer.status_code == 200
    found: dict[str, Any] = deployment.access(answer.headers["X-Request-ID"])
    assert address not in str(found)
    told: list[str] = found.get("signals", [])
    return told


def test_stolen_token_used_from_elsewhere_is_marked_in_the_log(proxied: Deployment) -> None:
    token, other = proxied.reader("alice"), proxied.reader("bob")
    assert signals(proxied, token, "192.0.2.1") == []
    assert signals(proxied, token, "192.0.2.99") == []
    assert signals(proxied, token, "203.0.113.5", "ECDHE+AESGCM") == ["new_network", "new_tls_client"]
    assert signals(proxied, token, "203.0.113.6") == []
    assert signals(proxied, other, "203.0.113.5") == []
    (marked,) = proxied.log("--signals")
    assert marked["signals"] == ["new_network", "new_tls_client"]
    shown = proxied.cli("show", marked["id"], "-c", str(proxied.config)).stdout
    assert "new_network: the credential came from a network that it had not come from before" in shown
    assert "new_network, new_tls_client" in proxied.cli("log", "--signals", "-c", str(proxied.config)).stdout


def test_after_a_restart_the_first_use_is_no_signal_and_the_second_is(proxied: Deployment) -> None:
    token = proxied.reader("alice")
    assert signals(proxied, token, "192.0.2.1") == []
    proxied.stop()
    proxied.start()
    assert signals(proxied, token, "203.0.113.5") == []
    assert signals(proxied, token, "192.0.2.1") == ["new_network"]
