"""A port for a server of a test, which nobody else is given meanwhile.

Not one that the kernel chooses: those are also what outgoing connections get, and then it is in use just when
the server wants it.
"""

from __future__ import annotations

import random
import socket

FIRST, LAST = 10_240, 32_000  # below Linux's range for outgoing connections
_given: set[int] = set()
_chosen = random.SystemRandom()


def free_port() -> int:
    while True:
        port = _chosen.randrange(FIRST, LAST)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
