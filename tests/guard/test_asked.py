"""What the gateway asks, read as our gateway writes it and in no other way."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.pki import Pair, openssl, self_signed

from gatebook.guard import asked
from gatebook.guard.asked import (
    OWN_FIELDS,
    TOO_LARGE,
    Fields,
    certificate_sha256,
    parse,
    presented,
    text,
    trace_id,
)
from gatebook.policy import joined
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


# -- anything else -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            b"gatebook-request-id",
            [b"", b"0" * 31, b"0" * 33, b"A" * 32, b"g" * 32, b"0" * 32 + b"\n", b"\xff" * 32],
        ),
        (b"gatebook-method", [b""]),
        (b"gatebook-uri", [b""]),
        (b"gatebook-address", [b"\xff"]),
        (b"gatebook-protocol", [b"HTTP/\xb2"]),
        *(
            (
                f"gatebook-{name}".encode(),
                [b"", b"x", b"-1", b"+1", b" 1", b"1_0", b"0x1", b"1e3", b"\xb2", b"1" * 19],
            )
            for name in ("connection", "connection-request", "port", "worker")
        ),
        (b"gatebook-worker", [b"0", b"00"]),
    ],
)
def test_field_in_another_form_than_the_gateways_is_no_request(name: bytes, values: list[bytes]) -> None:
    for value in values:
        with pytest.raises(ValueError):  # noqa: PT011 - Python's or ours
            parse({**OWN, name: value}, [])


@pytest.mark.parametrize("name", sorted(OWN))
def test_field_that_is_missing_is_no_request(name: bytes) -> None:
    with pytest.raises(ValueError, match="no field"):
        parse({key: value for key, value in OWN.items() if key != name}, [])


@given(own=st.dictionaries(st.sampled_from(sorted(OWN_FIELDS)), st.binary(max_size=40)))
def test_no_field_brings_down_the_reading(own: dict[bytes, bytes]) -> None:
    """Numbers fit into the recorder's messages, and texts give their bytes back."""
    try:
        found = parse({**OWN, **own}, [])
    except ValueError:
        return
    for number in (found.connection, found.connection_request, found.worker, found.port):
        assert 0 <= number < 2**63
    texts = {b"gatebook-uri": found.uri, b"gatebook-host": found.host, b"gatebook-sni": found.sni}
    for name, value in texts.items():
        assert value.encode("utf-8", "surrogateescape") == {**OWN, **own}.get(name, b"")


# -- the client's own fields -------------------------------------------------------------------------------
names = st.sampled_from([b"accept", b"x-tenant", b"traceparent", b"x-request-id", b"cookie"])
fields = st.lists(st.tuples(names, st.binary(max_size=12)), max_size=8)


@given(sent=fields, asked_first=names)
def test_fields_read_late_are_those_read_at_once(sent: list[tuple[bytes, bytes]], asked_first: bytes) -> None:
    at_once = joined([(text(name), text(value)) for name, value in sent])
    late = Fields(sent)
    assert late.get(asked_first.decode()) == at_once.get(asked_first.decode())
    assert bool(late) == bool(at_once)
    assert dict(late) == at_once
    assert (len(late), list(late)) == (len(at_once), list(at_once))
    assert late.get("absent") is None
    assert late.get("absent", "other") == "other"
    with pytest.raises(KeyError):
        late["absent"]


@given(value=st.text(st.characters(codec="ascii"), max_size=60))
def test_trace_is_taken_in_its_one_form_only(value: str) -> None:
    found = trace_id({"traceparent": value})
    assert found is None or value.startswith(f"00-{found}-")


@pytest.mark.parametrize(
    ("value", "trace"),
    [
        (f"00-{'a' * 32}-{'b' * 16}-01", "a" * 32),
        (f"00-{'A' * 32}-{'b' * 16}-01", None),
        (f"00-{'0' * 32}-{'b' * 16}-01", None),
        (f"01-{'a' * 32}-{'b' * 16}-01", None),
        (f"00-{'a' * 32}-{'b' * 16}-01\n", None),
        (f"00-{'a' * 32}-{'b' * 16}-01, 00-{'c' * 32}-{'d' * 16}-01", None),
        ("", None),
    ],
)
def test_trace_of_a_client_is_a_claim_in_canonical_form(value: str, trace: str | None) -> None:
    assert trace_id({"traceparent": value}) == trace


def test_no_trace_is_none() -> None:
    assert trace_id({}) is None
