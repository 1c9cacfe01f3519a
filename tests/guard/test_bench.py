"""The measurement of the guard asks it what the gateway would."""

from __future__ import annotations

from bench.guard import requests

from gatebook.wire import TO_GUARD


def test_measurement_sends_all_that_the_gateway_sends() -> None:
    (request,) = requests([b"X-API-Key: x"], cold=True)
    sent = {line.partition(b":")[0].decode() for line in request.split(b"\r\n")}
    # nginx sends no empty field, and most requests come without a certificate
    assert sent >= TO_GUARD.keys() - {"Gatebook-Certificate"}
