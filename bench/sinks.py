"""What sending costs: items and CPU for each of the sinks, against a receiver that swallows; and a dead one.

    python -m bench.sinks [--records 20480] [--rounds 3]
    python -m bench.sinks --dead [--seconds 2] [--rounds 8]

A ledger as bench.ledger makes it is read, joined, put into each sink's words and sent by the loop that the
follower runs, in one process; the receiver is another. CPU is user and system time of the sender for each item, an
access, which is two records. Rounds alternate between sinks; medians are shown. With --dead: latency and CPU of a
whole gatebook, asked over one connection, with a sink that nobody listens at and without, in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

from bench.ledger import GROUP, Clock, Load, opened
from pydantic import TypeAdapter
from tests.ledger.caller import READER

from gatebook.config.sinks import Sink
from gatebook.ledger.read import Reader
from gatebook.sinks.cursor import Book
from gatebook.sinks.delivery import Delivery, begin
from gatebook.sinks.make import make
from gatebook.sinks.stream import Stream
from gatebook.sinks.wanted import wanted

ORIGIN = "acme/node-1"


class Swallow(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer: dict[str, Any] = {"code": 0}
        if "_bulk" in self.path:
            count = gzip.decompress(body).count(b"\n") // 2
            answer = {"items": [{"create": {"status": 201}}] * count}
        data = b"" if self.path.endswith("/v1/logs") else json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


class SwallowLines(StreamRequestHandler):
    def handle(self) -> None:
        while self.connection.recv(1 << 20):
            pass


def receive(told: Connection) -> None:
    """Of a process of its own: HTTP and plain TCP."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), Swallow)
    lines = ThreadingTCPServer(("127.0.0.1", 0), SwallowLines)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    told.send((http.server_address[1], lines.server_address[1]))
    lines.serve_forever()


@contextlib.contextmanager
def receiver() -> Iterator[tuple[int, int]]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=receive, args=(theirs,), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.kill()
        process.join()


def fill(root: Path, records: int) -> None:
    load, clock = Load(), Clock()
    writer = opened(root, clock)
    for _ in range(records // GROUP // 2):
        first = writer.append(load.decisions())
        writer.append(load.outcomes(first))
        writer.sync()
        clock.passes(2 * GROUP)
    writer.close()


def sinks(folder: Path, http: int, lines: int) -> dict[str, Sink]:
    secret = folder / "secret"
    secret.touch(0o600)
    secret.write_text("a secret that is long enough")
    given = {"file": str(secret)}
    url = f"http://127.0.0.1:{http}"
    file = {"type": "file", "path": str(folder / "items.jsonl")}
    made = {
        f"file, {form}": {**file, "format": form} for form in ("gatebook", "ecs", "ocsf", "otel", "datadog", "cim")
    }
    made |= {
        "webhook": {"type": "webhook", "url": url, "secret": given},
        "elasticsearch": {"type": "elasticsearch", "url": url, "api_key": given},
        "splunk_hec": {"type": "splunk_hec", "url": url, "token": given},
        "datadog": {"type": "datadog", "url": url, "api_key": given},
        "otlp": {"type": "otlp", "url": url},
        "syslog": {"type": "syslog", "address": f"tcp://127.0.0.1:{lines}"},
    }
    read: TypeAdapter[Sink] = TypeAdapter(Sink)
    return {name: read.validate_python(settings) for name, settings in made.items()}


def deliver(root: Path, folder: Path, settings: Sink) -> tuple[int, float]:
    """All of it, to one sink: items and CPU."""
    (folder / "items.jsonl").unlink(missing_ok=True)
    (folder / "bench.cursor").unlink(missing_ok=True)
    cpu = time.process_time()
    source = Reader(root / "ledger", ORIGIN, root / "deks", READER)
    destination, book = make(settings), Book(folder, "bench")
    made = Delivery(
        "bench",
        destination,
        lambda place: Stream(source, place),
        book,
        begin(book, ORIGIN, source.size, "beginning"),
        wants=wanted(settings),
        stop=threading.Event(),
    )
    while made.cursor.place.next < source.size:
        made.step()
    destination.close()
    return made.cursor.sent, time.process_time() - cpu


def throughput(records: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="gatebook-bench-") as name, receiver() as ports:
        root, folder = Path(name) / "state", Path(name) / "sinks"
        root.mkdir()
        folder.mkdir()
        fill(root, records)
        asked = sinks(folder, *ports)
        found: dict[str, list[tuple[int, float]]] = {each: [] for each in asked}
        for _ in range(rounds):
            for each, settings in asked.items():
                found[each].append(deliver(root, folder, settings))
    for each, measured in found.items():
        cpu = statistics.median(cpu / items for items, cpu in measured)
        print(f"{each:16} {cpu * 1e6:6.0f} us of CPU an item: {1 / cpu:7.0f} items/s a core")


def dead(seconds: float, rounds: int) -> None:
    from bench.throughput import cpu_s, worker_of
    from tests.e2e.deployment import Deployment

    with tempfile.TemporaryDirectory(prefix="gatebook-bench-") as name:
        running = Deployment(Path(name))
        try:
            secret = running.folder / "hook.key"
            secret.touch(0o600)
            secret.write_text("a secret that is long enough")
            url = f"http://127.0.0.1:{running._unused.getsockname()[1]}"
            hook = {"dead": {"type": "webhook", "url": url, "secret": {"file": str(secret)}}}
            running.configuration["routes"][1]["limits"] = []
            running.start()
            token = running.reader(lifetime_s=3000)
            took: dict[str, list[float]] = {"without": [], "with": []}
            cpu: dict[str, list[float]] = {"without": [], "with": []}
            for number in range(2 * rounds + 2):
                side = ("without", "with")[number % 2]
                running.configuration["sinks"] = hook if side == "with" else {}
                running.write()
                assert running.reload().returncode == 0
                time.sleep(1)  # so that workers that end, and a follower that begins, have done so
                pids = [*worker_of(running.pid("gateway")), running.pid("guard 0"), running.pid("recorder")]
                before, until, here = cpu_s(pids), time.monotonic() + seconds, []
                with running.client(headers={"Authorization": f"Bearer {token}"}) as client:
                    while time.monotonic() < until:
                        began = time.perf_counter()
                        assert client.get("/orders/7").status_code == 200
                        here.append(time.perf_counter() - began)
                if number > 1:  # the first two warm up
                    took[side].append(statistics.median(here) * 1e6)
                    cpu[side].append((cpu_s(pids) - before) / len(here) * 1e6)
            for side in took:
                latency, spent = statistics.median(took[side]), statistics.median(cpu[side])
                print(f"{side:8} a dead sink: median latency {latency:.0f} us, CPU {spent:.0f} us a request")
            pairs = [b - a for a, b in zip(took["without"], took["with"], strict=True)]
            print(f"difference of each pair's medians, us: {', '.join(f'{pair:+.0f}' for pair in sorted(pairs))}")
        finally:
            running.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=20 * GROUP)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dead", action="store_true")
    parser.add_argument("--seconds", type=float, default=2)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if arguments.dead:
        dead(arguments.seconds, arguments.rounds)
    else:
        throughput(arguments.records, arguments.rounds)


if __name__ == "__main__":
    main()
