"""What the gateway asks, read as our gateway writes it and in no other way."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

import pytest
from tests.pki import Pair, openssl, self_signed

from gatebook.guard import asked
from gatebook.guard.asked import TOO_LARGE, certificate_sha256, parse, presented
from gatebook.wire import CERTIFICATE_TOO_LARGE

OWN = {
    b"gatebook-request-id": b"0" * 32,
    b"gatebook-method": b"GET",
    b"gatebook-uri": b"/orders/7?a=1",
    b"gatebook-address": b"192.0.2.1",
    b"gatebook-protocol": b"HTTP/1.1",
    b"gatebook-connection": b"1",
    b"gatebook-connection-request": b"1",
    b"gatebook-worker": b"1",
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return self_signed(tmp_path_factory.mktemp("asked"))


def with_certificate(field: bytes) -> asked.Asked:
    return parse({**OWN, b"gatebook-certificate": field}, [])


def test_certificate_is_read_and_named_by_its_sha256(pair: Pair) -> None:
    found = with_certificate(quote(pair.certificate.read_text(), safe="").encode())
    assert found.certificate == pair.der()
    assert certificate_sha256(found) == hashlib.sha256(pair.der()).hexdigest()
    said = openssl("x509", "-in", pair.certificate, "-noout", "-fingerprint", "-sha256").decode()
    assert certificate_sha256(found) == said.strip().partition("=")[2].replace(":", "").lower()
    assert presented(found).certificate == pair.der()


def test_no_certificate_is_no_certificate() -> None:
    found = parse(OWN, [])
    assert found.certificate == b""
    assert certificate_sha256(found) is None


def test_certificate_that_was_too_large_is_neither_none_nor_any() -> None:
    found = with_certificate(CERTIFICATE_TOO_LARGE.encode())
    assert found.certificate is TOO_LARGE
    assert certificate_sha256(found) is None


@pytest.mark.parametrize(
    "field",
    [
        b"",
        b"x",
        b"--",
        b"-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n====\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\nMIIB",
        b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n",
        b"\xff%ff%zz",
    ],
)
def test_certificate_in_another_form_than_the_gateways_is_no_request(field: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - binascii's or ours
        with_certificate(field)


def test_url_is_what_the_gateway_says_and_without_its_query() -> None:
    headers = [(b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"api.example:8443"), (b"host", b"other")]
    assert presented(parse(OWN, headers)).url == "https://api.example:8443/orders/7"
