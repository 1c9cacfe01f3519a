"""Time stamps (RFC 3161): that certain bytes were there at a time which somebody outside vouches for.

In: bytes; an authority's reply, stored beside them; certificates that the caller trusts. Out: a request, or the
time and who says so. Checked are status, signature, chain, purpose, imprint and nonce, and the certificates' own
times against the time in the stamp: a stamp stays good when its certificates have expired since. Never trusts a
certificate because the reply brought it along. What is stored is what the authority sent: `openssl ts -verify
-data DATA -in REPLY -CAfile ROOTS` judges the same files. Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal, NamedTuple

from cryptography import x509
from rfc3161_client import (
    PKIStatus,
    TimestampRequestBuilder,
    TimeStampResponse,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)
from rfc3161_client.base import HashAlgorithm
from rfc3161_client.verify import SHA256_OID

from gatebook.errors import EnvironmentFault

QUERY_TYPE: Final = "application/timestamp-query"
REPLY_TYPE: Final = "application/timestamp-reply"
MAX_REPLY_BYTES: Final = 64 << 10
MAX_CERTIFICATES_BYTES: Final = 1 << 20

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATUSES = {status.value: status.name.lower() for status in PKIStatus}
_VERIFY_ERROR = re.compile(r"Verify error: ?([A-Za-z0-9 ,()/-]{1,100})")


class Unusable(Exception):
    """A reply that proves nothing.

    "unreadable": it is no reply, or one that refuses; "untrusted": nobody whom the caller trusts vouches for
    it; "wrong": it is signed for something else, or not by whom it says.
    """

    def __init__(self, kind: Literal["unreadable", "untrusted", "wrong"], why: str) -> None:
        super().__init__(why)
        self.kind = kind


class Request(NamedTuple):
    body: bytes
    nonce: int


class Stamp(NamedTuple):
    """`authority` says, as of `time_us`, that the bytes were there."""

    time_us: int
    authority: str


def load_authorities(path: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file. Raises EnvironmentFault."""
    try:
        with path.open("rb") as stream:
            found = x509.load_pem_x509_certificates(stream.read(MAX_CERTIFICATES_BYTES))
    except OSError as error:
        raise EnvironmentFault(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except ValueError:
        raise EnvironmentFault(f"{path}: holds no certificate that can be read; expected PEM") from None
    return found


def ask_for(data: bytes) -> Request:
    """A request for a stamp over SHA-256 of `data`, with a random nonce; the certificate is to come along."""
    builder = TimestampRequestBuilder(data, HashAlgorithm.SHA256, nonce=True, cert_req=True)
    request = builder.build()
    assert request.nonce is not None  # noqa: S101 - it was asked for
    return Request(request.as_bytes(), request.nonce)


def check(reply: bytes, data: bytes, trusted: Sequence[x509.Certificate], nonce: int | None = None) -> Stamp:
    """`nonce`: of the request, where the reply is to be an answer to it. Raises Unusable."""
    response = _parse(reply)
    try:
        signer = _signer(response)
        token = response.tst_info
        if token.message_imprint.hash_algorithm.dotted_string != SHA256_OID:
            raise Unusable("wrong", "is not over SHA-256")
        if token.message_imprint.message != hashlib.sha256(data).digest():
            raise Unusable("wrong", "is of other bytes than these")
        # `verify` checks the chain as of the time in the stamp, the purpose, the imprint and the nonce.
        VerifierBuilder(roots=list(trusted), nonce=nonce).build().verify(response, token.message_imprint.message)
        return Stamp((token.gen_time - _EPOCH) // timedelta(microseconds=1), signer.subject.rfc4514_string())
    except VerificationError as error:
        raise _refused(str(error)) from None
    except Unusable:
        raise
    except Exception:
        # The libraries have an error of its own for each thing that can be wrong with a certificate.
        raise Unusable("unreadable", "holds no time stamp that can be read") from None


def claimed(reply: bytes) -> Stamp:
    """What a stored reply says of itself; nobody's signature is checked. Raises Unusable."""
    response = _parse(reply)
    try:
        signer, token = _signer(response), response.tst_info
        return Stamp((token.gen_time - _EPOCH) // timedelta(microseconds=1), signer.subject.rfc4514_string())
    except Unusable:
        raise
    except Exception:
        raise Unusable("unreadable", "holds no time stamp that can be read") from None


def _parse(reply: bytes) -> TimeStampResponse:
    if len(reply) > MAX_REPLY_BYTES:
        raise Unusable("unreadable", f"has more than {MAX_REPLY_BYTES} bytes")
    try:
        response = decode_timestamp_response(_in_order(reply))
    except ValueError:
        raise Unusable("unreadable", "is no reply of a time stamp authority") from None
    if response.status != PKIStatus.GRANTED:
        said = _STATUSES.get(response.status, "unknown").replace("_", " ")
        raise Unusable("unreadable", f"is a refusal of the authority: status {response.status}, {said}")
    return response


def _signer(response: TimeStampResponse) -> x509.Certificate:
    """Whose signature it is. Two certificates of one name and number would let one pass for the other."""
    certificates = [x509.load_der_x509_certificate(each) for each in response.signed_data.certificates]
    named = {(each.issuer.public_bytes(), each.serial_number): each for each in certificates}
    if len(named) != len(certificates):
        raise Unusable("wrong", "brings two certificates of one issuer and number")
    signers = list(response.signed_data.signer_infos)
    if len(signers) != 1:
        raise Unusable("wrong", f"has {len(signers)} signatures; expected one")
    found = named.get((signers[0].issuer.public_bytes(), signers[0].serial_number))
    if found is None:
        raise Unusable("unreadable", "does not bring its signer's certificate")
    return found


def _refused(said: str) -> Unusable:
    """In our words: the library's hold parts of its source."""
    if "certificate verify error" in said:
        why = _VERIFY_ERROR.search(said)
        detail = f": {why[1].strip()}" if why else ""
        return Unusable("untrusted", f"does not lead to a certificate that is trusted here{detail}")
    if "EKU" in said:
        return Unusable("untrusted", "is by a certificate that is not for time stamps alone")
    if "Nonce" in said:
        return Unusable("wrong", "is no answer to this request: its nonce is another")
    return Unusable("wrong", "has a signature that is not good")


# -- certificates in order ------------------------------------------------------------------------------------
def _in_order(reply: bytes) -> bytes:
    """The same reply, with its certificates sorted: the library wants DER's order, OpenSSL does not keep to it.

    They are outside what is signed. What is no such reply comes back as it is.
    """
    try:
        first, end = _certificates(reply)
        parts = [reply[start:stop] for start, _, stop in _elements(reply, first, end)]
    except (ValueError, IndexError):
        return reply
    return reply[:first] + b"".join(sorted(parts)) + reply[end:]


def _certificates(reply: bytes) -> tuple[int, int]:
    """Where the certificates lie. Raises ValueError."""
    _, at, end = _element(reply, 0, len(reply))
    _status, (_, at, end) = _elements(reply, at, end)
    _kind, (_, at, end) = _elements(reply, at, end)
    _, at, end = _element(reply, at, end)
    _version, _digests, _content, (start, at, end), *_ = _elements(reply, at, end)
    if reply[start] != 0xA0:
        raise ValueError("there are none")
    return at, end


def _elements(data: bytes, at: int, end: int) -> Iterable[tuple[int, int, int]]:
    found = []
    while at < end:
        found.append(_element(data, at, end))
        at = found[-1][2]
    return found


def _element(data: bytes, start: int, end: int) -> tuple[int, int, int]:
    """One DER element: where it starts, its content starts, and it ends. Raises ValueError or IndexError."""
    length, at = data[start + 1], start + 2
    if length & 0x80:
        digits = length & 0x7F
        if not 1 <= digits <= 4:
            raise ValueError("a length that DER does not have")
        length, at = int.from_bytes(data[at : at + digits], "big"), at + digits
    if at + length > end:
        raise ValueError("an element ends beyond what holds it")
    return start, at, at + length
