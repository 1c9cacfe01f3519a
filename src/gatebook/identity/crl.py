"""Lists of revoked certificates: signed by the authorities that they are of, of this time, and complete.

In: a PEM file of lists, anybody's; the authorities. Out: `RevocationLists`, or ValueError in words for who wrote
the file. There has to be one list of each authority: where one is missing, too old, somebody else's or only a part
of the whole, nobody knows who is revoked, so nobody passes. RFC 5280, 5. Pure.
"""

from __future__ import annotations

import itertools
import re
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gatebook.identity.chain import Authorities

SKEW_S: Final = 300.0  # how far a list may lie ahead: its authority's clock may
_BLOCK: Final = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


class RevocationLists:
    """`begins` and `ends`: when all of them are of this time, in seconds since 1970."""

    def __init__(self, pem: bytes, authorities: Authorities) -> None:
        self.begins, self.ends = 0.0, float("inf")
        self._revoked: dict[x509.Certificate, frozenset[int]] = {}
        blocks = _BLOCK.findall(pem)
        if not blocks:
            raise ValueError("holds no revocation list in PEM")
        for number, block in enumerate(blocks, 1):
            try:
                self._add(x509.load_pem_x509_crl(block), authorities)
            except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
                why = str(error) if isinstance(error, _Unusable) else "it cannot be read"
                raise ValueError(f"list {number} is of no use: {why}") from None
        for authority in authorities.all:
            if authority not in self._revoked:
                raise ValueError(f"no list of {authority.subject.rfc4514_string()!r}")

    def current(self, now: float) -> bool:
        return self.begins <= now < self.ends

    def revokes(self, chain: list[x509.Certificate]) -> bool:
        """Whether one of the chain, up to its anchor, is on the list of who issued it."""
        return any(one.serial_number in self._revoked[by] for one, by in itertools.pairwise(chain))

    def _add(self, found: x509.CertificateRevocationList, authorities: Authorities) -> None:
        name = found.issuer.rfc4514_string()
        signers = [one for one in authorities.all if one.subject == found.issuer and _signed(found, one)]
        if not signers:
            raise _Unusable(f"no authority of the provider signed it; it says {name!r}")
        if any(extension.critical for extension in found.extensions):
            raise _Unusable(f"that of {name!r} is only a part, or of another kind: it has a critical extension")
        if found.next_update_utc is None:
            raise _Unusable(f"that of {name!r} does not say until when it holds")
        serials = set()
        for entry in found:
            if any(extension.critical for extension in entry.extensions):
                raise _Unusable(f"an entry in that of {name!r} is of another kind: it has a critical extension")
            serials.add(entry.serial_number)
        for signer in signers:
            if signer in self._revoked:
                raise _Unusable(f"it is a second one of {name!r}")
            self._revoked[signer] = frozenset(serials)
        self.begins = max(self.begins, found.last_update_utc.timestamp() - SKEW_S)
        self.ends = min(self.ends, found.next_update_utc.timestamp())


class _Unusable(ValueError):
    """Why a list is of no use, in our own words."""


def _signed(found: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    if not authority.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign:
        return False
    key = authority.public_key()
    return isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)) and found.is_signature_valid(key)
