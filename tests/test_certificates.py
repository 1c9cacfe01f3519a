"""Certificates that a server must not be started with, and those made for development."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gatebook.certificates import DEVELOPMENT_DAYS, Finding, check_ca, check_chain, check_key, development

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
MADE = development(NOW)
OTHER = development(NOW)


def messages(found: list[Finding], fatal: bool = True) -> list[str]:
    return [message for message, _, is_fatal in found if is_fatal is fatal]


def test_certificate_made_for_development_is_in_order() -> None:
    assert check_chain(MADE.certificate, NOW) == []
    assert check_key(MADE.key, MADE.certificate) == []
    assert check_ca(MADE.ca) == []


def test_a_client_that_trusts_the_ca_accepts_localhost_and_nothing_else(tmp_path: Path) -> None:
    made = development(datetime.datetime.now(datetime.UTC))
    for name, data in (("ca.pem", made.ca), ("server.pem", made.certificate), ("server.key", made.key)):
        (tmp_path / name).write_bytes(data)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    for name in ("localhost", "127.0.0.1", "::1"):
        assert shake_hands(client, server, name) is None
    assert "not valid for 'acme.example'" in (shake_hands(client, server, "acme.example") or "")
    assert "verify failed" in (shake_hands(ssl.create_default_context(), server, "localhost") or "")


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> str | None:
    """What the client has against it, or None."""
    near, far = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(far, server_side=True).close()
        except OSError:
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(near, server_hostname=name).close()
    except ssl.SSLCertVerificationError as error:
        return str(error)
    finally:
        near.close()
        thread.join()
    return None


def test_ca_signs_nothing_else_its_key_is_gone() -> None:
    assert MADE.ca.count(b"-----BEGIN") == 1
    assert b"PRIVATE" not in MADE.ca + MADE.certificate
    key = serialization.load_pem_private_key(MADE.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() != x509.load_pem_x509_certificate(MADE.ca).public_key()


@pytest.mark.parametrize(
    ("days", "fatal", "said"),
    [
        (-1, True, "not valid before 2025-12-31 23:00 UTC"),
        (DEVELOPMENT_DAYS - 15, True, None),
        (DEVELOPMENT_DAYS - 13, False, "expires on 2026-04-01 00:00 UTC, in 13 days"),
        (DEVELOPMENT_DAYS - 1, False, "expires on 2026-04-01 00:00 UTC, in 1 day"),
        (DEVELOPMENT_DAYS, True, "expired on 2026-04-01 00:00 UTC"),
    ],
)
def test_certificate_out_of_time(days: int, fatal: bool, said: str | None) -> None:
    found = check_chain(MADE.certificate, NOW + days * DAY)
    assert messages(found, fatal) == ([said] if said else [])
    assert messages(found, not fatal) == []


def test_key_of_another_certificate() -> None:
    assert messages(check_key(OTHER.key, MADE.certificate)) == ["is not the key of the certificate beside it"]


def test_key_behind_a_passphrase() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"x"))
    assert messages(check_key(pem, None)) == ["is encrypted"]


@pytest.mark.parametrize(
    "pem", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_or_key(pem: bytes) -> None:
    assert messages(check_chain(pem, NOW)) == ["holds no certificate that can be read"]
    assert messages(check_ca(pem)) == ["holds no certificate that can be read"]
    assert messages(check_key(pem, MADE.certificate)) == ["holds no private key that can be read"]
    assert check_key(MADE.key, pem) == []  # the certificate's fault, said once


def test_key_and_certificate_in_each_others_place() -> None:
    assert messages(check_chain(MADE.key, NOW)) == ["holds no certificate that can be read"]
    assert messages(check_key(MADE.certificate, MADE.certificate)) == ["holds no private key that can be read"]


def self_signed(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW - DAY).not_valid_after(NOW + 100 * DAY)
    algorithm = hashes.SHA256() if isinstance(key, rsa.RSAPrivateKey) else None
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


def test_rsa_key_that_is_too_short() -> None:
    short = rsa.generate_private_key(65537, 1024)
    assert messages(check_chain(self_signed(short), NOW)) == ["its RSA key has 1024 bits"]


def test_other_kinds_of_keys_are_compared_too() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    assert check_key(pem, self_signed(key)) == []
    assert messages(check_key(pem, MADE.certificate)) == ["is not the key of the certificate beside it"]
