"""Client certificates as the gateway hands them on: whose key TLS has proved, and nothing that a client says."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.gateway.message import allow, deny
from tests.gateway.rig import Rig
from tests.gateway.test_tls import PLAIN, Two
from tests.pki import CLIENT, HOUR, Authority, Pair, self_signed

from gatebook.guard import asked

ASKING = {
    "staff": {
        "type": "oidc",
        "issuer": "https://login.example",
        "audience": ["orders"],
        "certificate_bound": "allow",
    }
}
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def _asking(binary: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("asking"), binary)
    try:
        rig.start(identity=ASKING)
        yield rig
    finally:
        rig.stop()
        rig.unused.close()


@pytest.fixture
def asking(_asking: Rig) -> Iterator[Rig]:
    _asking.reset()
    yield _asking
    assert "[alert]" not in _asking.error_log


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority("root", tmp_path_factory.mktemp("pki"))


def with_certificate(rig: Rig, pair: Pair, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = rig.client_tls()
    context.load_cert_chain(*pair)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def told(rig: Rig) -> bytes:
    """The certificate that the guard was told of last, as the guard reads it."""
    field = rig.guarded[-1].one("Gatebook-Certificate")
    return asked._certificate(field.encode()) if field is not None else b""


@pytest.mark.parametrize("version", VERSIONS)
def test_certificate_reaches_the_guard_and_nobody_else(
    asking: Rig, authority: Authority, version: ssl.TLSVersion
) -> None:
    pair = authority.issue()
    assert asking.ask(tls=with_certificate(asking, pair, version)).status == 200
    assert told(asking) == pair.der()
    assert "gatebook-certificate" not in asking.forwarded[0].names


def test_client_without_a_certificate_is_served_and_told_from_one_with(asking: Rig) -> None:
    assert asking.ask().status == 200
    assert "gatebook-certificate" not in asking.guarded[0].names
    assert asking.ask(listener=1).status == 200  # without TLS
    assert "gatebook-certificate" not in asking.guarded[1].names


@pytest.mark.parametrize("forged", ["-", "-----BEGIN%20CERTIFICATE-----%0AMIIB%0A-----END%20CERTIFICATE-----%0A"])
@pytest.mark.parametrize("name", ["Gatebook-Certificate", "gatebook-certificate", "Gatebook_Certificate"])
def test_forged_certificate_field_reaches_nobody(
    asking: Rig, authority: Authority, name: str, forged: str
) -> None:
    pair = authority.issue()
    for tls in (None, with_certificate(asking, pair)):
        asking.ask("/", f"{name}: {forged}", "X: 1", f"{name}: {forged}", tls=tls)
        assert told(asking) == (b"" if tls is None else pair.der())
        assert forged not in [value for _, value in asking.forwarded[-1].headers]


@pytest.mark.parametrize(
    "name", ["Client-Cert", "Client-Cert-Chain", "X-SSL-Client-Cert", "X-SSL-Client-Verify", "SSL-Client-Cert"]
)
def test_forged_certificate_field_of_other_proxies_reaches_no_upstream(asking: Rig, name: str) -> None:
    asking.ask("/", f"{name}: forged")
    assert name.lower() not in asking.forwarded[0].names


@pytest.mark.parametrize("version", VERSIONS)
def test_resumed_session_still_holds_its_certificate(
    asking: Rig, authority: Authority, version: ssl.TLSVersion
) -> None:
    pair = authority.issue()
    context = with_certificate(asking, pair, version)
    session: ssl.SSLSession | None = None
    for _ in range(3):
        with (
            socket.create_connection(asking.address(), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as connection,
        ):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            while connection.recv(4096):
                pass
            assert connection.session_reused == (session is not None)
            session = connection.session
        assert told(asking) == pair.der()


def test_certificate_of_one_connection_is_not_anothers(asking: Rig, authority: Authority) -> None:
    one, two = authority.issue("/CN=one"), authority.issue("/CN=two")
    for pair in (one, two, one):
        asking.ask(tls=with_certificate(asking, pair))
        assert told(asking) == pair.der()
    asking.ask()
    assert told(asking) == b""


def test_http_2_certificate_reaches_the_guard(asking: Rig, authority: Authority) -> None:
    pair = authority.issue()
    two = Two(asking)
    two.context.load_cert_chain(*pair)
    headers, _ = two.ask(*PLAIN)
    assert headers[":status"] == "200"
    assert told(asking) == pair.der()


def unfit(authority: Authority, folder: Path) -> dict[str, Pair]:
    """What nginx itself would turn away with 400, by its own reading of certificates."""
    server = "extendedKeyUsage = serverAuth\n"
    chained = authority.issue(extensions=server)
    both = Pair(folder / "both.pem", chained.key)
    both.certificate.write_bytes(chained.certificate.read_bytes() + authority.pem)
    return {
        "expired": authority.issue(start=-2 * HOUR, end=-HOUR),
        "not yet valid": authority.issue(start=HOUR, end=2 * HOUR),
        "for servers, with its chain": both,
        "for servers, self-signed": self_signed(folder, extensions=server),
    }


def test_certificate_that_nginx_finds_unfit_is_the_guards_to_judge(
    asking: Rig, authority: Authority, tmp_path: Path
) -> None:
    for what, pair in unfit(authority, tmp_path).items():
        tls = with_certificate(asking, pair)
        answer = asking.ask("/orders?a=%41", "X-Own: 1", method="PUT", body=b"hello", tls=tls)
        assert (answer.status, answer.body) == (200, b"ok"), what
        assert told(asking) == pair.der()
        (forwarded,) = asking.forwarded
        assert (forwarded.line, forwarded.body) == ("PUT /orders?a=%41 HTTP/1.1", b"hello")
        assert forwarded.one("X-Forwarded-Proto") == "https"
        assert asking.line()["d"] == "41"
        asking.reset()


def test_certificate_that_nginx_finds_unfit_gets_the_guards_denial(
    asking: Rig, authority: Authority, tmp_path: Path
) -> None:
    for what, pair in unfit(authority, tmp_path).items():
        asking.decide = lambda seen: deny(401, Gatebook_Authenticate="Bearer")
        answer = asking.ask("/orders", "Gatebook-Subject: admin", tls=with_certificate(asking, pair))
        assert (answer.problem()["status"], answer.one("WWW-Authenticate")) == (401, "Bearer"), what
        line = asking.line()
        assert (line["d"], line["s"]) == ("42", "401")
        assert not asking.forwarded
        assert "gatebook-subject" not in asking.guarded[0].names
        asking.reset()


def test_unfit_certificate_and_a_guard_that_is_gone_is_503(fresh: Rig, authority: Authority) -> None:
    fresh.start(identity=ASKING)
    fresh.stop_guard()
    pair = authority.issue(start=-2 * HOUR, end=-HOUR)
    answer = fresh.ask(tls=with_certificate(fresh, pair))
    assert answer.problem()["status"] == 503
    assert not fresh.forwarded


def test_unfit_certificate_and_an_upstream_that_is_gone_is_502(asking: Rig, authority: Authority) -> None:
    asking.decide = lambda seen: allow("gone")
    pair = authority.issue(start=-2 * HOUR, end=-HOUR)
    assert asking.ask(tls=with_certificate(asking, pair)).problem()["status"] == 502


def test_oversized_certificate_is_not_passed_on_and_not_forgotten(asking: Rig, authority: Authority) -> None:
    names = ", ".join(f"DNS:{number:0>60}.example" for number in range(150))
    pair = authority.issue(extensions=f"{CLIENT}subjectAltName = {names}\n")
    assert asking.ask(tls=with_certificate(asking, pair)).status == 200
    assert told(asking) is asked.TOO_LARGE


def test_nobody_is_asked_for_a_certificate_that_could_open_nothing(rig: Rig, authority: Authority) -> None:
    rig.ask(tls=with_certificate(rig, authority.issue(start=-2 * HOUR, end=-HOUR)))
    assert "gatebook-certificate" not in rig.guarded[0].names
