"""X.509 certificates: makes those for development, and says what is wrong with those in use.

In: PEM bytes, key objects, the time. Out: PEM bytes, or sentences about what is wrong. The development
CA's private key is never written anywhere: it signs one certificate and is forgotten, so that trusting
`ca.pem` trusts nothing else. Pure; randomness comes from the system.
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DEVELOPMENT_DAYS = 90
WARN_DAYS = 14


class Development(NamedTuple):
    """PEM: the CA's certificate for clients to trust, the server's certificate, the server's private key."""

    ca: bytes
    certificate: bytes
    key: bytes


class Finding(NamedTuple):
    """What is wrong with a certificate file. `fatal`: a server cannot run with it."""

    message: str
    expected: str
    fatal: bool = True


def development(now: datetime.datetime) -> Development:
    """A certificate for localhost, 127.0.0.1 and ::1, from a CA of its own, for DEVELOPMENT_DAYS."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = _name(f"gatebook development CA {secrets.token_hex(4)}")
    ca = (
        _builder(ca_name, ca_name, ca_key.public_key(), ca_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    names += [x509.IPAddress(ipaddress.ip_address(a)) for a in ("127.0.0.1", "::1")]
    certificate = (
        _builder(_name("localhost"), ca_name, key.public_key(), ca_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Development(ca.public_bytes(pem), certificate.public_bytes(pem), private)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))  # a client's clock may be behind
        .not_valid_after(now + datetime.timedelta(days=DEVELOPMENT_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def check_chain(pem: bytes, now: datetime.datetime) -> list[Finding]:
    """What is wrong with a server's certificate file; the first certificate is the server's."""
    try:
        leaf = x509.load_pem_x509_certificates(pem)[0]
    except (ValueError, UnsupportedAlgorithm):
        return [Finding("holds no certificate that can be read", "certificates in PEM, the server's first")]
    found: list[Finding] = []
    key = leaf.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048:
        found.append(Finding(f"its RSA key has {key.key_size} bits", "at least 2048"))
    until, since = leaf.not_valid_after_utc, leaf.not_valid_before_utc
    if until <= now:
        found.append(Finding(f"expired on {until:%Y-%m-%d %H:%M} UTC", "a certificate in force"))
    elif until - now < datetime.timedelta(days=WARN_DAYS):
        days = (until - now).days
        when = f"expires on {until:%Y-%m-%d %H:%M} UTC, in {days} day{'' if days == 1 else 's'}"
        found.append(Finding(when, "a new one soon", fatal=False))
    if since > now:
        found.append(Finding(f"not valid before {since:%Y-%m-%d %H:%M} UTC", "a certificate in force"))
    return found


def check_key(pem: bytes, certificates: bytes | None) -> list[Finding]:
    """What is wrong with a private key file; `certificates` is the file that it should match."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        return [Finding("is encrypted", "a key without a passphrase: nobody is there to type it at start")]
    except (ValueError, UnsupportedAlgorithm):
        return [Finding("holds no private key that can be read", "a private key in PEM")]
    try:
        leaf = x509.load_pem_x509_certificates(certificates or b"")[0]
    except (ValueError, UnsupportedAlgorithm):
        return []  # check_chain's to say
    if _public(leaf.public_key()) != _public(key.public_key()):
        return [
            Finding("is not the key of the certificate beside it", "the key that the certificate was made for")
        ]
    return []


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def check_ca(pem: bytes) -> list[Finding]:
    """What is wrong with a file of CA certificates."""
    try:
        x509.load_pem_x509_certificates(pem)
    except (ValueError, UnsupportedAlgorithm):
        return [Finding("holds no certificate that can be read", "CA certificates in PEM")]
    return []
