"""The measurement of the guard asks it what the gateway would."""

from __future__ import annotations

import argparse

from bench.guard import Shown, requests

from gatebook.wire import TO_GUARD


def test_measurement_sends_all_that_the_gateway_sends() -> None:
    shown = [Shown("X-API-Key: x", certificate="-")]
    request = next(requests(shown, argparse.Namespace(credential="key", cold=False, rounds=1)))
    sent = {line.partition(b":")[0].decode() for line in request.split(b"\r\n")}
    assert sent >= TO_GUARD.keys()
