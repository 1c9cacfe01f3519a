"""What TLS clients offer, as the guard is told of it: each client its own, however much, and no client's word."""

from __future__ import annotations

import socket
import ssl

import pytest
from tests.gateway.message import read_answer
from tests.gateway.rig import Rig

from gatebook.gateway import render
from gatebook.wire import OFFER_TOO_LARGE

NAME = "Gatebook-Ciphers"


def offered(rig: Rig) -> str:
    return rig.guarded[-1].one(NAME) or ""


def offering(rig: Rig, ciphers: str, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> ssl.SSLContext:
    context = rig.client_tls()
    context.maximum_version = version
    context.set_ciphers(ciphers)
    return context


def test_guard_is_told_what_each_client_offers(rig: Rig) -> None:
    one = offering(rig, "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384")
    other = offering(rig, "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES256-GCM-SHA384")
    assert rig.ask(tls=one).status == 200
    assert offered(rig).startswith("ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384")
    assert rig.ask(tls=other).status == 200
    assert offered(rig).startswith("ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES256-GCM-SHA384")
    assert NAME.lower() not in rig.forwarded[-1].names


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_resumed_session_offers_the_same(rig: Rig, version: ssl.TLSVersion) -> None:
    context = rig.client_tls()
    context.maximum_version = version
    session, found = None, []
    for _ in range(2):
        with (
            socket.create_connection(rig.address(), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as connection,
        ):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: api.example:8443\r\nConnection: close\r\n\r\n")
            assert read_answer(connection).status == 200
            session = connection.session
            found.append((connection.session_reused, offered(rig)))
    assert [reused for reused, _ in found] == [False, True]
    assert found[0][1] == found[1][1]


def test_connection_without_tls_offers_nothing_and_no_client_can_say_otherwise(rig: Rig) -> None:
    forged = f"{NAME}: TLS_AES_128_GCM_SHA256"
    assert rig.ask("/", forged, listener=1).status == 200
    assert offered(rig) == ""
    assert rig.ask("/", forged).status == 200
    assert offered(rig) != "TLS_AES_128_GCM_SHA256"


def test_offer_beyond_all_measure_is_told_as_that(fresh: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """No client at hand offers that much, so little is much here."""
    monkeypatch.setattr(render, "MAX_OFFER_BYTES", 40)
    fresh.start()
    assert fresh.ask().status == 200
    assert offered(fresh) == OFFER_TOO_LARGE
    assert fresh.ask(listener=1).status == 200
    assert offered(fresh) == ""
