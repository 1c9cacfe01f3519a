"""CPU of the recorder for each access: its decision through the socket, its line through the gateway's log.

    python -m bench.recorder [--seconds 5] [--rounds 3] [--batch 64] [--connections 1] [--without-lines]

Each connection sends batches as a guard does, two on the way; when one is acknowledged, the lines of its requests
are written to the access log in one piece. CPU is user and system time of the recorder's process from /proc,
divided by the accesses of the round; what waits to be read is read before the round ends.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path

from tests.recorder.deployed import Process, State
from tests.recorder.place import Gateway

from gatebook import record, wire

TICKS = os.sysconf("SC_CLK_TCK")
SELF = os.getpid()


def decision(number: int) -> record.Decision:
    """As full as a guard makes it."""
    return record.Decision(
        id=f"{number * 0x9E3779B97F4A7C15 % (1 << 128):032x}",
        time_us=1_700_000_000_000_000 + number,
        identity=record.IdentityPart(
            provider="staff", method="oidc", subject=f"{number % 97:032x}", credential="cd" * 16, roles=("reader",)
        ),
        request=record.RequestPart(
            method="GET",
            path=f"/orders/{number}",
            route="read-order",
            host="api.acme.example",
            protocol="1.1",
        ),
        client=record.ClientPart(address="192.0.2.0/24"),
        tls=record.TLSPart(version="1.3", cipher="TLS_AES_256_GCM_SHA384", group="X25519", sni="api.acme.example"),
        decision=record.DecisionPart(
            verdict="allow",
            status=200,
            reason="rule",
            configuration="ef" * 32,
            durability="before-access",
            rule="readers",
        ),
        upstream="orders",
        connection=number % 64,
        connection_request=number // 64,
    )


class Guard(threading.Thread):
    """One connection: sends prepared batches over and over, and has their lines written."""

    def __init__(self, path: Path, gateway: Gateway, batch: int, first: int, *, lines: bool) -> None:
        super().__init__(daemon=True)
        self.ending = threading.Event()
        self.appended = 0
        self._gateway = gateway
        self._lines = lines
        self._batch = batch
        made = [decision(first + number) for number in range(8 * batch)]
        self._messages = [
            wire.pack(
                wire.Append([wire.Item(record.encode(each), SELF, each.id) for each in made[at : at + batch]])
            )
            for at in range(0, len(made), batch)
        ]
        # The index is the only thing that changes; it stands in for `@@@@@@@@@@` in each line.
        template = gateway.text(1, 1, worker=SELF, n="0", c=str(first)).replace(b'"d":"1"', b'"d":"@@"')
        self._template = template
        self._ids = [each.id.encode() for each in made]
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))

    def run(self) -> None:
        framer = wire.Framer()
        sent = [0, 1]
        for number in sent:
            self._socket.sendall(self._messages[number])
        at = 2
        while sent:
            for body in framer.feed(self._socket.recv(65536)):
                reply = wire.unpack_reply(body)
                assert isinstance(reply, wire.Appended), reply
                number = sent.pop(0)
                self.appended += self._batch
                if self._lines:
                    self._write(reply.first_index, number)
                if not self.ending.is_set():
                    self._socket.sendall(self._messages[at % len(self._messages)])
                    sent.append(at % len(self._messages))
                    at += 1
        self._socket.close()

    def _write(self, first: int, number: int) -> None:
        own = self._template.partition(b'"i":"')
        parts = []
        for position in range(self._batch):
            request = self._ids[number * self._batch + position]
            line = own[0] + own[1] + request + own[2][32:]
            parts.append(line.replace(b"@@", b"%d" % (first + position)))
        self._gateway.write(b"".join(parts), SELF)


def cpu_s(pid: int) -> tuple[float, float]:
    """User and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / TICKS, int(fields[12]) / TICKS


def one_round(
    state: State, recorder: Process, gateway: Gateway, arguments: argparse.Namespace
) -> dict[str, float]:
    guards = [
        Guard(
            state.paths.recorder_socket,
            gateway,
            arguments.batch,
            1_000_000 * number,
            lines=not arguments.without_lines,
        )
        for number in range(arguments.connections)
    ]
    before, began = cpu_s(recorder.popen.pid), time.monotonic()
    for guard in guards:
        guard.start()
    time.sleep(arguments.seconds)
    for guard in guards:
        guard.ending.set()
    for guard in guards:
        guard.join()
    took = time.monotonic() - began
    while not arguments.without_lines and recorder.stands().open:  # type: ignore[union-attr]
        time.sleep(0.02)
    total = sum(guard.appended for guard in guards)
    user, system = (b - a for a, b in zip(before, cpu_s(recorder.popen.pid), strict=True))
    return {"per_s": total / took, "user_us": user / total * 1e6, "system_us": system / total * 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--without-lines", action="store_true", help="decisions alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gatebook-bench-") as folder:
        state = State(Path(folder))
        try:
            recorder = state.start()
            gateway = Gateway(state.paths.logs, SELF)
            found = [one_round(state, recorder, gateway, arguments) for _ in range(arguments.rounds)]
            assert recorder.end() == 0
        finally:
            state.close()
    median = {key: statistics.median(each[key] for each in found) for key in found[0]}
    cpu = [each["user_us"] + each["system_us"] for each in found]
    what = "decision" if arguments.without_lines else "decision with its line"
    print(f"{median['per_s']:.0f} decisions/s acknowledged, {arguments.batch} to a batch")
    print(
        f"recorder: {statistics.median(cpu):.1f} us a {what} ({median['user_us']:.1f} user, "
        f"{median['system_us']:.1f} system); rounds {', '.join(f'{each:.1f}' for each in cpu)}"
    )


if __name__ == "__main__":
    main()
