"""Requests per second and CPU per request of the guard alone, between stand-ins for nginx and the recorder.

    python -m bench.guard [--credential KIND] [--cold] [--seconds 5] [--rounds 3] [...]

Kept connections send what nginx sends: its own fields, then a client's six with a credential, for changing
callers, paths and addresses. `--cold`: each credential comes once, so that each is verified, or asked about at an
endpoint on loopback. `bound` is a token with its certificate, `dpop` one with a proof; a proof is made for its
request and comes once, cold or not. The recorder's twin acknowledges each batch after --sync-us, as a disk would.
CPU is user and system time of the guard's process from /proc, divided by the requests of the round.
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
from typing import Any, NamedTuple

import uvloop
from bench.certified import Certifier, as_field
from bench.endpoint import Endpoint
from joserfc import jwt
from joserfc.jwk import ECKey
from tests.e2e.issuer import Issuer
from tests.guard.place import Place, Process, route
from tests.guard.twin import Twin, until
from tests.identity.mint import EC
from tests.identity.prove import ath, jkt, prove

from gatebook import kept, wire
from gatebook.config.model import SESSION_COOKIE, OIDCProvider
from gatebook.identity import own, session
from gatebook.identity.binding import thumbprint
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
COLD_REQUESTS = 3000  # of a round, each with a credential, or a proof, of its own
HOST = "api.acme.example:8443"
KINDS = ("rs256", "es256", "key", "introspection", "session", "mtls", "bound", "dpop")


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


class Shown(NamedTuple):
    """What a caller shows: a header field, a certificate as nginx tells of it, a key to make proofs by."""

    field: str = ""
    certificate: str = ""
    key: EC | None = None


def requests(shown: list[Shown], arguments: argparse.Namespace) -> Iterator[bytes]:
    """Endless, unless each may come once only."""
    chosen = random.Random(7)
    if once(arguments):
        total = COLD_REQUESTS * (arguments.rounds + 1)
        return iter([_request(chosen, shown[number % len(shown)], number) for number in range(total)])
    prepared = [_request(chosen, shown[number % len(shown)], number) for number in range(REQUESTS)]
    return itertools.cycle(prepared)


def once(arguments: argparse.Namespace) -> bool:
    return bool(arguments.cold or arguments.credential == "dpop")


def _proof(uri: str, shown: Shown) -> dict[str, str]:
    if shown.key is None:
        return {}
    token = shown.field.rpartition(" ")[2].encode()
    said = {"htu": f"https://{HOST}{uri.partition('?')[0]}", "iat": int(time.time()), "ath": ath(token)}
    return {"DPoP": prove(said, key=shown.key).decode()}


def _request(chosen: random.Random, shown: Shown, number: int) -> bytes:
    told = {
        "Gatebook-Request-Id": f"{chosen.getrandbits(128):032x}",
        "Gatebook-Method": "GET",
        "Gatebook-Uri": f"/orders/{chosen.randrange(100000)}?page=2",
        "Gatebook-Host": HOST,
        "Gatebook-Protocol": "HTTP/1.1",
        "Gatebook-Address": f"192.0.{chosen.randrange(4)}.{chosen.randrange(256)}",
        "Gatebook-Port": str(chosen.randrange(1024, 65536)),
        "Gatebook-Tls": "TLSv1.3",
        "Gatebook-Cipher": "TLS_AES_256_GCM_SHA384",
        "Gatebook-Group": "X25519MLKEM768",
        "Gatebook-Ciphers": CIPHERS,
        "Gatebook-Sni": "api.acme.example",
        "Gatebook-Certificate": shown.certificate,
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
    proof = _proof(told["Gatebook-Uri"], shown)
    fields = {"Host": "guard", **forwarded, **told, **upstreams, **client, **proof}
    lines = [f"{name}: {value}" for name, value in fields.items() if value]  # nginx sends no empty field
    own = [shown.field] if shown.field else []
    return "\r\n".join(["GET /decide HTTP/1.1", *lines, *own, "", ""]).encode()


def cpu_s(pid: int) -> tuple[float, float]:
    """User and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / TICKS, int(fields[12]) / TICKS


async def one_round(
    guard: Process, twin: SlowTwin, source: Iterator[bytes], arguments: argparse.Namespace
) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    counts: dict[bytes, int] = {}
    if once(arguments):
        source = itertools.islice(source, COLD_REQUESTS)
        batches, before, began = twin.batches, cpu_s(guard.pid), loop.time()
    made = [
        await loop.create_unix_connection(lambda: Caller(source, counts), str(guard.path))
        for _ in range(arguments.connections)
    ]
    if once(arguments):
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
    place, shown, issuer = deployed(folder, url, arguments)
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
        source = requests(shown, arguments)
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


def deployed(folder: Path, url: str, arguments: argparse.Namespace) -> tuple[Place, list[Shown], Issuer]:
    """A deployment, and what callers of it show."""
    kind = arguments.credential
    algorithm = kind.upper() if kind.endswith("256") else "ES256" if kind == "dpop" else "RS256"
    issuer, certifier = Issuer(algorithm), Certifier()
    (folder / "ca.pem").write_bytes(certifier.pem())
    (folder / "crl.pem").write_bytes(certifier.crl())
    (folder / "client.secret").write_text("a-secret")
    providers: dict[str, Any] = {
        "staff": {
            "type": "oidc",
            "issuer": issuer.url,
            "audience": ["orders-api"],
            "dpop": "allow",
            "certificate_bound": "allow",
        },
        "hosts": {
            "type": "mtls",
            "ca": str(folder / "ca.pem"),
            "crl": str(folder / "crl.pem"),
            "subject": "san_uri",
            "roles_field": "common_name",
        },
        "opaque": {
            "type": "introspection",
            "url": url,
            "audience": ["orders-api"],
            "client": {"id": "gateway", "secret": {"file": str(folder / "client.secret")}},
            "cache": "1h",
        },
        "partners": {"type": "api_key"},
    }
    if kind == "session":
        providers["staff"]["login"] = {"client": providers["opaque"]["client"]}
    accepted = {"introspection": ["opaque"], "mtls": ["hosts"]}.get(kind, ["staff", "partners"])
    limit = {"name": "per-caller", "per": "identity", "rate": "1000000/second"}
    routes = [route("read-order", "/orders/{order_id}", identity=accepted, limits=[limit])]
    patient = {"acknowledgement_timeout": "10s"}  # the machine may be busy with other things
    known: dict[str, Any] = {"identity": providers, "gateway": {"origins": [f"https://{HOST}"]}, "guard": patient}
    known["portal"] = {"url": "https://api.acme.example"}
    place = Place(folder, routes=routes, **known)
    count = COLD_REQUESTS * (arguments.rounds + 1) if arguments.cold else CALLERS

    if kind == "session":
        return place, [Shown(f"Cookie: theme=dark; {pair.decode()}") for pair in sessions(place, count)], issuer

    def shown(number: int) -> Shown:
        name = f"user-{number % CALLERS}"
        if kind == "key":
            return Shown(f"X-API-Key: {place.api_key('reader')}")
        if kind == "introspection":
            return Shown(f"Authorization: Bearer {secrets.token_urlsafe(32)}")
        if kind == "mtls":
            return Shown(certificate=as_field(certifier.issue("reader")))
        if kind == "bound":
            der = certifier.issue(name)
            token = issuer.token(name, roles=["reader"], cnf={"x5t#S256": thumbprint(der)})
            return Shown(f"Authorization: Bearer {token}", as_field(der))
        if kind == "dpop":
            key = EC()
            token = issuer.token(name, roles=["reader"], cnf={"jkt": jkt(key)})
            return Shown(f"Authorization: DPoP {token}", key=key)
        return Shown(f"Authorization: Bearer {issuer.token(name, roles=['reader'])}")

    return place, [shown(number) for number in range(count)], issuer


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
    parser.add_argument("--credential", choices=KINDS, default="rs256")
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
