"""A client's certificate: what it says of its holder, and whether a client may use it. Not whether it is true.

In: DER, hostile; the names of fields. Out: an x509.Certificate, its names, or `Unfit` with a reason of
record.REASONS. A name counts only if it can stand in a header and a record as it is: so one with a NUL, a line
break or a letter that cannot be seen names nobody. Never picks one of several subjects. RFC 5280. Pure.
"""

from __future__ import annotations

from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gatebook.identity.claims import MAX_NAME_LENGTH
from gatebook.identity.jws import Unfit

MIN_RSA_BITS = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_OF_SUBJECT = {
    "common_name": NameOID.COMMON_NAME,
    "organization": NameOID.ORGANIZATION_NAME,
    "organizational_unit": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "user_id": NameOID.USER_ID,
}
_OF_ALTERNATIVES: dict[str, type[x509.UniformResourceIdentifier | x509.DNSName | x509.RFC822Name]] = {
    "san_uri": x509.UniformResourceIdentifier,
    "san_dns": x509.DNSName,
    "san_email": x509.RFC822Name,
}

Names = dict[str, list[str]]
_Kind = TypeVar("_Kind", bound=x509.ExtensionType)


def read(der: bytes) -> x509.Certificate:
    """All of it parsed: cryptography would find some faults only later. Raises Unfit."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key()
    except Exception:
        # Not only ValueError: the library has a class of its own for each thing that it does not know.
        raise Unfit("certificate_malformed") from None
    return certificate


def check_usage(certificate: x509.Certificate) -> None:
    """It is of a client, and its key is one of those that hold. Raises Unfit.

    The purpose, where it names any, is the chain's to check as well; here it gets a reason of its own.
    """
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    if purposes is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        raise Unfit("certificate_usage")
    usage = _extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        raise Unfit("certificate_usage")
    if not is_strong(certificate.public_key()):
        raise Unfit("certificate_usage")


def is_strong(key: CertificatePublicKeyTypes) -> bool:
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= MIN_RSA_BITS
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, _CURVES)
    return isinstance(key, (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey))


def names(certificate: x509.Certificate) -> Names:
    """Every name in it, by field; a field that is not there has none."""
    subject = certificate.subject
    found = {
        field: [str(attribute.value) for attribute in subject.get_attributes_for_oid(oid)]
        for field, oid in _OF_SUBJECT.items()
    }
    found["distinguished_name"] = [subject.rfc4514_string()] if len(subject) else []
    alternatives = _extension(certificate, x509.SubjectAlternativeName)
    for field, kind in _OF_ALTERNATIVES.items():
        found[field] = [] if alternatives is None else list(alternatives.get_values_for_type(kind))
    return found


def claims(certificate: x509.Certificate, known: Names) -> dict[str, Any]:
    """For conditions: the names, and which certificate it is."""
    return {**known, "issuer": certificate.issuer.rfc4514_string(), "serial": f"{certificate.serial_number:x}"}


def one(known: Names, field: str) -> str:
    """The one name in a field. Raises Unfit."""
    found = several(known, field)
    if len(found) != 1:
        raise Unfit("certificate_subject")
    return found[0]


def several(known: Names, field: str | None) -> tuple[str, ...]:
    """The names in a field, all of them fit; none without a field. Raises Unfit."""
    found = () if field is None else tuple(known[field])
    if not all(map(_is_fit, found)):
        raise Unfit("certificate_subject")
    return found


def _is_fit(name: str) -> bool:
    return 0 < len(name) <= MAX_NAME_LENGTH and name.isprintable() and name == name.strip()


def _extension(certificate: x509.Certificate, kind: type[_Kind]) -> _Kind | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
