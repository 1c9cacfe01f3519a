"""Requests per second and CPU per request of the guard alone, between stand-ins for nginx and the recorder.

    python -m bench.guard [--credential rs256|es256|key|introspection|session] [--cold] [--seconds 5] [...]

Kept connections send what nginx sends: its own fields, then a client's six with a credential, for changing
callers, paths and addresses. `--cold`: each credential comes once, so that each is verified, or asked about at an
endpoint on loopback. The recorder's twin acknowledges each batch after --sync-us, as a disk would. CPU is user and
system time of the guard's process from /proc, divided by the requests of the round.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import secrets
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop
from bench.endpoint import Endpoint
from joserfc import jwt
from joserfc.jwk import ECKey
from tests.e2e.issuer import Issuer
from tests.guard.place import Place, Process, route
from tests.guard.twin import Twin, until

from gatebook import kept, wire
from gatebook.config.model import SESSION_COOKIE, OIDCProvider
from gatebook.identity import own, session
from gatebook.portal.signing import new_key
from gatebook.wire import TO_GUARD, UPSTREAMS_FIELD, upstreams_mark

TICKS = os.sysconf("SC_CLK_TCK")
CALLERS = 32
# What a client on OpenSSL's defaults offers, in nginx's spelling.
CIPHERS = "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:" + ":".join(
    f"ECDHE-{key}-{cipher}"
    for cipher in ("AES256-GCM-SHA384", "CHACHA20-POLY1305", "AES128-GCM-SHA256", "AES256-SHA384", "AES128-SHA256")
    for key in ("ECDSA", "RSA")
)
REQUESTS = 4096  # prepared, and sent over and over
COLD_REQUESTS = 3000  # of a round, each with a credential of its own


class SlowTwin(Twin):
    """Acknowledges all that has come in `sync_s` at once, and keeps nothing but the count."""

    def __init__(self, path: Path, sync_s: float) -> None:
        super().__init__(path)
        self._sync_s = sync_s
        self._size = 0
        self.batches = 0
        self._due: list[Any] = []

    def honestly(self, message: wire.Message) -> wire.Reply:
        if isinstance(message, wire.Append):
            first = self._size
            self._size += len(message.items)
            self.batches += 1
            return wire.Appended(first)
        return super().honestly(message)

    def heard(self, connection: Any, message: wire.Message) -> None:
        if not self._due:
            asyncio.get_running_loop().call_later(self._sync_s, self._sync)
        self._due.append((connection, message))

    def _sync(self) -> None:
        due, self._due = self._due, []
        for connection, message in due:
            self._answer(connection, message)


class Caller(asyncio.Protocol):
    """One connection of nginx's: a request, its answer, the next."""

    def __init__(self, requests: Iterator[bytes], counts: dict[bytes, int]) -> None:
        self._requests = requests
        self._counts = counts
        self.going = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        status = data[9:12]
        self._counts[status] = self._counts.get(status, 0) + 1
        self._ask()

    def _ask(self) -> None:
        request = next(self._requests, None) if self.going else None
        if request is not None:
            self._transport.write(request)


# What curl with OpenSSL 3 offers.
CIPHERS = (
    "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:DHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:"
    "ECDHE-RSA-CHACHA20-POLY1305:DHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256:"
    "ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-SHA384:ECDHE-RSA-AES256-SHA384:"
    "DHE-RSA-AES256-SHA256:ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256:DHE-RSA-AES128-SHA256"
)


def requests(credentials: list[bytes], cold: bool) -> Iterator[bytes]:
    """Endless, unless each credential may come once only."""
    chosen = random.Random(7)
    if cold:
        return iter([_request(chosen, credential, number) for number, credential in enumerate(credentials)])
    prepared = [_request(chosen, credentials[number % len(credentials)], number) for number in range(REQUESTS)]
    return itertools.cycle(prepared)


def _request(chosen: random.Random, credential: bytes, number: int) -> bytes:
    told = {
        "Gatebook-Request-Id": f"{chosen.getrandbits(128):032x}",
        "Gatebook-Method": "GET",
        "Gatebook-Uri": f"/orders/{chosen.randrange(100000)}?page=2",
        "Gatebook-Host": "api.acme.example:8443",
        "Gatebook-Protocol": "HTTP/1.1",
        "Gatebook-Address": f"192.0.{chosen.randrange(4)}.{chosen.randrange(256)}",
        "Gatebook-Port": str(chosen.randrange(1024, 65536)),
        "Gatebook-Tls": "TLSv1.3",
        "Gatebook-Cipher": "TLS_AES_256_GCM_SHA384",
        "Gatebook-Group": "X25519MLKEM768",
        "Gatebook-Ciphers": CIPHERS,
        "Gatebook-Sni": "api.acme.example",
        "Gatebook-Certificate": "",  # nginx sends no empty field
        "Gatebook-Connection": str(chosen.randrange(1, 500)),
        "Gatebook-Connection-Request": str(number + 1),
        "Gatebook-Worker": "4711",
    }
    assert told.keys() == TO_GUARD.keys()
    forwarded = {
        "X-Forwarded-For": told["Gatebook-Address"],
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": told["Gatebook-Host"],
        "X-Forwarded-Port": "8443",
    }
    client = {
        "User-Agent": "orders-client/2.4 (python 3.12; linux)",
        "Accept": "application/json",
        "Accept-Encoding": "gzip, deflate, br",
        "X-Tenant": "acme",
        "traceparent": f"00-{chosen.getrandbits(128):032x}-{chosen.getrandbits(64):016x}-01",
    }
    upstreams = {UPSTREAMS_FIELD: upstreams_mark(["orders"])}
    fields = {"Host": "guard", **forwarded, **told, **upstreams, **client}
    lines = [f"{name}: {value}" for name, value in fields.items() if value]
    return "\r\n".join(["GET /decide HTTP/1.1", *lines]).encode() + b"\r\n" + credential + b"\r\n\r\n"


def cpu_s(pid: int) -> tuple[float, float]:
    """User and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / TICKS, int(fields[12]) / TICKS


async def one_round(
    guard: Process, twin: SlowTwin, source: Iterator[bytes], arguments: argparse.Namespace
) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    counts: dict[bytes, int] = {}
    if arguments.cold:
        source = itertools.islice(source, COLD_REQUESTS)
        batches, before, began = twin.batches, cpu_s(guard.pid), loop.time()
    made = [
        await loop.create_unix_connection(lambda: Caller(source, counts), str(guard.path))
        for _ in range(arguments.connections)
    ]
    if arguments.cold:
        while sum(counts.values()) < COLD_REQUESTS:
            await asyncio.sleep(0.002)
    else:
        await asyncio.sleep(0.3)
        counts.clear()
        batches, before, began = twin.batches, cpu_s(guard.pid), loop.time()
        await asyncio.sleep(arguments.seconds)
    took, after, done = loop.time() - began, cpu_s(guard.pid), dict(counts)
    for transport, caller in made:
        caller.going = False
        transport.close()
    total = sum(done.values())
    assert set(done) == {b"204"}, f"{done}; the guard said:\n{guard.said()[-2000:]}"
    user, system = (b - a for a, b in zip(before, after, strict=True))
    return {
        "requests_per_s": total / took,
        "user_us": user / total * 1e6,
        "system_us": system / total * 1e6,
        "per_batch": total / max(1, twin.batches - batches),
    }


async def measure(arguments: argparse.Namespace, folder: Path) -> list[dict[str, float]]:
    server, url = await Endpoint.serve()
    place, credentials, issuer = deployed(folder, url, arguments)
    twin = SlowTwin(place.paths.recorder_socket, arguments.sync_us / 1e6)
    await twin.start()
    guard = Process(place)
    loop = asyncio.get_running_loop()
    profiler: subprocess.Popen[bytes] | None = None
    try:
        await until(lambda: guard.path.exists(), "the guard's socket")
        while not await loop.run_in_executor(None, guard.is_ready):
            await asyncio.sleep(0.01)
        if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(guard.pid, cores[:1])
            os.sched_setaffinity(0, cores[1:])
        source = requests(credentials, arguments.cold)
        await one_round(guard, twin, source, argparse.Namespace(**{**vars(arguments), "seconds": 1}))
        if arguments.perf:
            command = ["perf", "record", "-q", "-g", "-o", arguments.perf, "-p", str(guard.pid)]
            profiler = subprocess.Popen(command)
        found = [await one_round(guard, twin, source, arguments) for _ in range(arguments.rounds)]
    finally:
        if profiler is not None:
            profiler.terminate()
            profiler.wait()
        guard.close()
        twin.die()
        server.close()
        place.close()
        issuer.stop()
    return found


def deployed(folder: Path, url: str, arguments: argparse.Namespace) -> tuple[Place, list[bytes], Issuer]:
    """A deployment, and header fields with credentials for it."""
    algorithm = arguments.credential.upper() if arguments.credential.endswith("256") else "RS256"
    issuer = Issuer(algorithm)
    (folder / "client.secret").write_text("a-secret")
    providers: dict[str, Any] = {
        "staff": {"type": "oidc", "issuer": issuer.url, "audience": ["orders-api"]},
        "opaque": {
            "type": "introspection",
            "url": url,
            "audience": ["orders-api"],
            "client": {"id": "gateway", "secret": {"file": str(folder / "client.secret")}},
            "cache": "1h",
        },
        "partners": {"type": "api_key"},
    }
    if arguments.credential == "session":
        client = providers["opaque"]["client"]
        providers["staff"] = {**providers["staff"], "login": {"client": client}}
    accepted = ["opaque"] if arguments.credential == "introspection" else ["staff", "partners"]
    limit = {"name": "per-caller", "per": "identity", "rate": "1000000/second"}
    routes = [route("read-order", "/orders/{order_id}", identity=accepted, limits=[limit])]
    patient = {"acknowledgement_timeout": "10s"}  # the machine may be busy with other things
    portal = {"url": "https://api.acme.example"}
    place = Place(folder, identity=providers, routes=routes, guard=patient, portal=portal)
    count = COLD_REQUESTS * (arguments.rounds + 1) if arguments.cold else CALLERS
    if arguments.credential == "key":
        return place, [b"X-API-Key: " + place.api_key("reader").encode() for _ in range(count)], issuer
    if arguments.credential == "session":
        return place, [b"Cookie: theme=dark; " + pair for pair in sessions(place, count)], issuer
    if arguments.credential == "introspection":
        tokens = [secrets.token_urlsafe(32) for _ in range(count)]
    else:
        tokens = [issuer.token(f"user-{number % CALLERS}", roles=["reader"]) for number in range(count)]
    return place, [b"Authorization: Bearer " + token.encode() for token in tokens], issuer


def sessions(place: Place, count: int) -> list[bytes]:
    """Of as many people who logged in, signed by a key that guards know."""
    now, provider = int(time.time()), place.configuration.identity["staff"]
    key = new_key(now)
    with kept.change(place.paths.portal_jwks, own.KIND) as change:
        change.become(own.Published(version=1, keys=(key.public,)), lambda: None)
    numbers: dict[str, str | list[str]] = {
        "kty": "EC",
        "crv": "P-256",
        "x": key.public.x,
        "y": key.public.y,
        "d": key.d,
    }
    signer = ECKey.import_key(numbers)
    assert isinstance(provider, OIDCProvider)
    wanted = session.as_oidc(place.configuration, "staff", provider)
    found = []
    for number in range(count):
        name = secrets.token_urlsafe(16)
        claims: dict[str, Any] = {
            "iss": wanted.issuer,
            "aud": wanted.audience[0],
            "sub": f"user-{number % CALLERS}",
            "iat": now,
        }
        claims |= {"exp": now + 3600, "jti": name, "sid": name, "idp": provider.issuer, "roles": ["reader"]}
        header = {"alg": "ES256", "kid": key.public.kid, "typ": session.TYPE}
        found.append(f"{SESSION_COOKIE}={jwt.encode(header, claims, signer)}".encode())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--sync-us", type=float, default=300, help="how long the twin's disk takes")
    parser.add_argument(
        "--credential", choices=["rs256", "es256", "key", "introspection", "session"], default="rs256"
    )
    parser.add_argument("--cold", action="store_true", help="each credential comes once")
    parser.add_argument("--perf", default="", help="a file for `perf record`")
    arguments = parser.parse_args()
    if arguments.cold and arguments.credential == "key":
        parser.error("keys are not cached: there is no cold")
    with tempfile.TemporaryDirectory(prefix="gatebook-bench-") as folder:
        Path(folder).chmod(0o700)
        found = uvloop.run(measure(arguments, Path(folder)))
    median = {key: statistics.median(each[key] for each in found) for key in found[0]}
    cpu = [each["user_us"] + each["system_us"] for each in found]
    print(f"{median['requests_per_s']:.0f} requests/s, {median['per_batch']:.1f} to a batch")
    print(
        f"guard: {statistics.median(cpu):.1f} us a request ({median['user_us']:.1f} user, "
        f"{median['system_us']:.1f} system); rounds {', '.join(f'{each:.1f}' for each in cpu)}"
    )


if __name__ == "__main__":
    main()
