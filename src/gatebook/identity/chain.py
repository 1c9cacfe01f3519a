"""Authorities, and whether a client's certificate is of theirs: RFC 5280's path validation, by cryptography.

In: a PEM file of authorities, the operator's; a parsed certificate; the time. Out: the chain up to an anchor, or
`Unfit` with a reason of record.REASONS. An anchor is an authority that no other in the file has issued; the others
lead to one. TLS hands on the client's own certificate alone, so every authority between has to be in the file.
Never believes nginx's or the client's word on any of it. Pure.
"""

from __future__ import annotations

import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from gatebook.identity.certificate import check_usage, is_strong
from gatebook.identity.jws import Unfit

MAX_AUTHORITIES: Final = 256
_MAX_BETWEEN: Final = 4


class Authorities:
    def __init__(self, pem: bytes) -> None:
        """Raises ValueError, in words for who wrote the file."""
        self.all = _read(pem)
        self.anchors = [
            one for one in self.all if not any(_issued(other, one) for other in self.all if other != one)
        ]
        self._between = [one for one in self.all if one not in self.anchors]
        self._store = Store(self.anchors) if self.anchors else None

    def chain(self, certificate: x509.Certificate, now: float) -> list[x509.Certificate]:
        """From the certificate to an anchor. Raises Unfit; says when and what for only of its own certificates."""
        moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
        try:
            chain = self._verify(certificate, moment)
        except VerificationError:
            chain = []
        if not chain and not any(_issued(authority, certificate) for authority in self.all):
            raise Unfit("certificate_untrusted")
        # Not one moment longer than it says; cryptography grants the last second.
        if certificate.not_valid_after_utc <= moment:
            raise Unfit("certificate_expired")
        if certificate.not_valid_before_utc > moment:
            raise Unfit("certificate_not_yet_valid")
        check_usage(certificate)
        if not chain:
            raise Unfit("certificate_untrusted")
        return chain

    def _verify(self, certificate: x509.Certificate, moment: datetime.datetime) -> list[x509.Certificate]:
        """Raises VerificationError."""
        if self._store is None:
            raise VerificationError("no anchor")
        policies = {"ca_policy": _AUTHORITY, "ee_policy": _CLIENT}
        builder = PolicyBuilder().store(self._store).time(moment).max_chain_depth(_MAX_BETWEEN)
        verifier = builder.extension_policies(**policies).build_client_verifier()
        return verifier.verify(certificate, self._between).chain


def constrains_names(chain: list[x509.Certificate]) -> bool:
    """Whether an authority in it may only vouch for certain names: of a subject, nobody has checked those."""
    return any(
        extension.oid == x509.NameConstraints.oid for authority in chain[1:] for extension in authority.extensions
    )


def expires_at(chain: list[x509.Certificate]) -> float:
    return min(one.not_valid_after_utc for one in chain).timestamp()


# What the public web's rules ask for beyond RFC 5280, and private authorities often leave out: a subject's
# alternative names, and a pointer to the authority's key. All else stays: basic constraints and path lengths,
# uses, name constraints (of kinds that are not understood: refused), critical extensions, algorithms.
_CLIENT: Final = (
    ExtensionPolicy.webpki_defaults_ee()
    .may_be_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    .may_be_present(x509.AuthorityKeyIdentifier, Criticality.AGNOSTIC, None)
)
_AUTHORITY: Final = ExtensionPolicy.webpki_defaults_ca().may_be_present(
    x509.AuthorityKeyIdentifier, Criticality.AGNOSTIC, None
)


def _read(pem: bytes) -> list[x509.Certificate]:
    try:
        found = list(dict.fromkeys(x509.load_pem_x509_certificates(pem)))
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("holds no certificate that can be read") from None
    if len(found) > MAX_AUTHORITIES:
        raise ValueError(f"holds {len(found)} certificates; at most {MAX_AUTHORITIES} are read")
    for number, certificate in enumerate(found, 1):
        try:
            _check_authority(certificate)
        except (ValueError, x509.DuplicateExtension, UnsupportedAlgorithm, x509.ExtensionNotFound) as error:
            why = str(error) if isinstance(error, _Unusable) else "it is no authority's, by what it says of itself"
            raise ValueError(f"certificate {number} cannot vouch for others: {why}") from None
    return found


class _Unusable(ValueError):
    """Why a certificate is no authority's, in our own words."""


def _check_authority(certificate: x509.Certificate) -> None:
    key = certificate.public_key()
    if not isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)):
        raise _Unusable("its key is neither RSA nor EC")
    if not is_strong(key):
        raise _Unusable("its key is an RSA key of less than 2048 bits, or an EC key of an unusual curve")
    if not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise _Unusable("its basic constraints say that it is no authority")
    if not certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign:
        raise _Unusable("its key usage has no keyCertSign")


def _issued(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    if authority.subject != certificate.issuer:
        return False
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
