"""Client certificates for measurements: an authority, and as many certificates of its as are wanted.

Made by cryptography alone, in the measuring process; the `openssl` program would take minutes for thousands.
"""

from __future__ import annotations

import datetime
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
_HOUR = datetime.timedelta(hours=1)


class Certifier:
    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = self._builder("clients", self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
        builder = builder.add_extension(usage, critical=True)
        self._own = builder.sign(self._key, hashes.SHA256())

    def pem(self) -> bytes:
        return self._own.public_bytes(serialization.Encoding.PEM)

    def crl(self) -> bytes:
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._own.subject)
        builder = builder.last_update(_NOW - _HOUR).next_update(_NOW + _HOUR)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str) -> bytes:
        """DER. All have one key: it is TLS that would prove it, and there is none here."""
        builder = self._builder(name, self._key.public_key())
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://acme.example/{name}")])
        builder = builder.add_extension(purpose, critical=False).add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    def _builder(self, name: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clients")])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(_NOW - _HOUR).not_valid_after(_NOW + _HOUR)


def as_field(der: bytes) -> str:
    """As nginx writes `$ssl_client_escaped_cert`."""
    return quote(x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM), safe="")
