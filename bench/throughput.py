"""Requests per second and CPU per request, gatebook beside bare nginx, in the same run on the same machine.

    python -m bench.throughput [--seconds 5] [--rounds 3] [--connections 64]

Everything is on: TLS, an RS256 token of an OpenID provider (verified once, then known), roles, a limit, the
decision durable before it is forwarded, outcomes joined. Bare nginx proxies the same request over TLS to the
same upstream. `wrk` (Debian) makes the load; rounds alternate; medians are shown. CPU is user and system time
of each process, from /proc, divided by the requests of the round.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.e2e.deployment import Deployment, until
from tests.ports import free_port

TICKS = os.sysconf("SC_CLK_TCK")
ANSWER = '{"order":7,"state":"paid"}'

BARE = """
worker_processes 1;
daemon off;
pid {folder}/{name}.pid;
error_log {folder}/{name}.error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    keepalive_requests 1000000;
    upstream service {{ server 127.0.0.1:{upstream}; keepalive 128; }}
    server {{
        listen 127.0.0.1:{port} {tls};
        {certificate}
        location / {{ {action} }}
    }}
}}
"""
PROXY = 'proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection "";'


class Nginx:
    """A bare nginx: an upstream that answers at once, or a proxy to it."""

    def __init__(self, binary: str, folder: Path, name: str, upstream: int, tls: Path | None = None) -> None:
        self.port = free_port()
        certificate = (
            "" if tls is None else f"ssl_certificate {tls}/server.pem; ssl_certificate_key {tls}/server.key;"
        )
        action = PROXY if tls is not None else f"default_type application/json; return 200 '{ANSWER}';"
        text = BARE.format(
            folder=folder,
            name=name,
            upstream=upstream or self.port,
            port=self.port,
            tls="" if tls is None else "ssl",
            certificate=certificate,
            action=action,
        )
        conf = folder / f"{name}.conf"
        conf.write_text(text)
        self.process = subprocess.Popen([binary, "-p", str(folder), "-c", str(conf), "-e", "stderr"])
        until(lambda: (folder / f"{name}.pid").exists() and worker_of(self.process.pid))

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def worker_of(pid: int) -> list[int]:
    return children(pid)


def cpu_s(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def wrk(url: str, token: str, seconds: int, connections: int) -> tuple[int, float, str]:
    """Requests that succeeded, requests per second, and what went wrong."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    command += ["-H", f"Authorization: Bearer {token}", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    requests = re.search(r"(\d+) requests in", said)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert requests is not None, said
    assert rate is not None, said
    wrong = re.findall(r"(Non-2xx.*|Socket errors.*)", said)
    return int(requests[1]), float(rate[1]), "; ".join(wrong)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="gatebook-bench-"))
    folder.chmod(0o700)
    deployment = Deployment(folder / "deployment")
    started: list[Nginx] = []
    try:
        from gatebook.config.load import load
        from gatebook.gateway import nginx

        binary = str(nginx.find(load(deployment.config)).binary)
        upstream = Nginx(binary, folder, "upstream", 0)
        bare = Nginx(binary, folder, "bare", upstream.port, folder / "deployment" / "tls")
        started += [upstream, bare]
        wide = {"requests_per_second": 1_000_000, "burst": 1_000_000, "connections": 60_000}
        deployment.configuration["gateway"] = {"flood": wide}
        deployment.configuration["upstreams"]["orders"] = {"url": f"http://127.0.0.1:{upstream.port}"}
        limit = {"name": "per-caller", "per": "identity", "rate": "1000000/second"}
        deployment.configuration["routes"][1]["limits"] = [limit]
        deployment.write()
        deployment.start()
        token = deployment.reader(lifetime_s=3000)
        pids = {"nginx": worker_of(deployment.pid("gateway"))}
        pids |= {role: [deployment.pid(role)] for role in ("guard 0", "recorder")}
        sides = {
            "gatebook": (f"{deployment.url}/orders/7", pids),
            "bare nginx": (f"https://localhost:{bare.port}/orders/7", {"nginx": worker_of(bare.process.pid)}),
        }
        rounds: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        wrongs: list[str] = []
        for number in range(arguments.rounds + 1):
            for side, (url, processes) in sides.items():
                before = {role: cpu_s(of) for role, of in processes.items()}
                seconds = arguments.seconds if number else 1  # the first round warms up and does not count
                count, rate, wrong = wrk(url, token, seconds, arguments.connections)
                if number:
                    cpu = {role: (cpu_s(of) - before[role]) / count * 1e6 for role, of in processes.items()}
                    rounds[side].append({"requests_per_s": rate, **cpu})
                    wrongs += [f"{side}: {wrong}"] if wrong else []
        until(lambda: deployment.status()["open_decisions"] == 0, "the outcomes")
        entries = deployment.status()["entries"]
        medians = {
            side: {key: statistics.median(each[key] for each in found) for key in found[0]}
            for side, found in rounds.items()
        }
        return {"medians": medians, "rounds": rounds, "errors": wrongs, "entries": entries}
    finally:
        deployment.close()
        for each in started:
            each.stop()
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments)
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    for side, figures in found["medians"].items():
        cpu = {role: each for role, each in figures.items() if role != "requests_per_s"}
        parts = " + ".join(f"{role} {each:.1f}" for role, each in cpu.items())
        rate = figures["requests_per_s"]
        print(f"{side:12} {rate:8.0f} requests/s   CPU us/request: {parts} = {sum(cpu.values()):.1f}")
    ratio = found["medians"]["gatebook"]["requests_per_s"] / found["medians"]["bare nginx"]["requests_per_s"]
    print(f"ratio        {ratio:.2f} of bare nginx; {found['entries']} entries")
    for wrong in found["errors"]:
        print(wrong)


if __name__ == "__main__":
    main()
