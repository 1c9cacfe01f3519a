"""What a client's certificate says of its holder, where it says nothing that can be used, and where it lies."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from tests.pki import CLIENT, Authority, self_signed

from gatebook.identity.certificate import Names, check_usage, claims, names, one, read, several
from gatebook.identity.jws import Unfit

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def der(
    *subject: tuple[x509.ObjectIdentifier, str],
    alternatives: tuple[x509.GeneralName, ...] = (),
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
) -> bytes:
    """What no authority in its right mind would issue, but one that was misled might."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in subject])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(255).not_valid_before(NOW).not_valid_after(NOW + datetime.timedelta(days=1))
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def common_name(value: str) -> Names:
    return names(read(der((NameOID.COMMON_NAME, value))))


def reason(found: Names, field: str) -> str:
    with pytest.raises(Unfit) as caught:
        one(found, field)
    return caught.value.reason


def test_each_field_names_what_it_should(tmp_path: Path) -> None:
    alternatives = "subjectAltName = URI:spiffe://acme/billing, DNS:billing.example, email:billing@acme.example\n"
    subject = "/O=acme/OU=billing/OU=invoices/CN=billing-1/UID=b1"
    pair = Authority("root", tmp_path).issue(subject, CLIENT + alternatives)
    found = names(read(pair.der()))
    assert found == {
        "san_uri": ["spiffe://acme/billing"],
        "san_dns": ["billing.example"],
        "san_email": ["billing@acme.example"],
        "common_name": ["billing-1"],
        "organization": ["acme"],
        "organizational_unit": ["billing", "invoices"],
        "user_id": ["b1"],
        "distinguished_name": ["UID=b1,CN=billing-1,OU=invoices,OU=billing,O=acme"],
    }
    assert one(found, "san_uri") == "spiffe://acme/billing"
    assert several(found, "organizational_unit") == ("billing", "invoices")
    assert several(found, None) == ()
    said = claims(read(pair.der()), found)
    assert (said["issuer"], said["serial"]) == ("CN=root", "1001")


def test_several_subjects_are_none() -> None:
    alternatives = (x509.DNSName("a.example"), x509.DNSName("b.example"))
    found = names(read(der((NameOID.COMMON_NAME, "a"), (NameOID.COMMON_NAME, "admin"), alternatives=alternatives)))
    assert reason(found, "common_name") == reason(found, "san_dns") == "certificate_subject"


@pytest.mark.parametrize("field", ["san_uri", "san_dns", "san_email", "organization", "user_id"])
def test_subject_that_is_not_there_is_not_taken_from_elsewhere(field: str) -> None:
    assert reason(common_name("admin"), field) == "certificate_subject"


@pytest.mark.parametrize(
    "name",
    [
        "admin\0.example",
        "\0",
        "admin\n",
        "a\r\nGatebook-Roles: admin",
        " admin",
        "admin ",
        "ad\u202emin",
        "ad\u200bmin",
        "admin\u2028",
        "\u00a0admin",
        "x" * 65 * 8,
    ],
    ids=ascii,
)
def test_certificate_with_nul_or_deceptive_letters_in_its_subject_names_nobody(name: str) -> None:
    organization = names(read(der((NameOID.USER_ID, name))))
    assert reason(organization, "user_id") == "certificate_subject"
    with pytest.raises(Unfit):
        several(organization, "user_id")


@pytest.mark.parametrize("name", ["admin", "\u0430dmin", "\uff41dmin", "Günther", "Gu\u0308nther", "管理者"])
def test_certificate_with_unicode_in_its_subject_is_only_ever_itself(name: str) -> None:
    """Letters that look alike are not made alike: a look-alike has no roles of the other's."""
    assert one(common_name(name), "common_name") == name


@pytest.mark.parametrize("kind", [x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier])
def test_certificate_with_nul_in_an_alternative_name_names_nobody(
    kind: type[x509.DNSName | x509.RFC822Name | x509.UniformResourceIdentifier],
) -> None:
    field = {"DNSName": "san_dns", "RFC822Name": "san_email", "UniformResourceIdentifier": "san_uri"}[
        kind.__name__
    ]
    found = names(read(der(alternatives=(kind("admin\0.evil"),))))
    assert reason(found, field) == "certificate_subject"


def test_distinguished_name_cannot_be_imitated_by_a_value_in_it() -> None:
    true = names(read(der((NameOID.ORGANIZATION_NAME, "acme"), (NameOID.COMMON_NAME, "admin"))))
    forged = names(read(der((NameOID.COMMON_NAME, "admin,O=acme"))))
    assert one(true, "distinguished_name") != one(forged, "distinguished_name")
    assert (
        reason(names(read(der(alternatives=(x509.DNSName("a"),)))), "distinguished_name") == "certificate_subject"
    )


@pytest.mark.parametrize("data", [b"", b"-", b"\x30\x00", b"\x30\x82\xff\xff", b"x" * 100])
def test_what_is_no_certificate_is_malformed(data: bytes) -> None:
    with pytest.raises(Unfit, match="certificate_malformed"):
        read(data)


GOOD = der((NameOID.COMMON_NAME, "a"), alternatives=(x509.DNSName("a.example"),))


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_certificate_with_a_wrong_byte_is_read_or_malformed_and_nothing_else(at: int, byte: int) -> None:
    data = GOOD[:at] + bytes([byte]) + GOOD[at + 1 :]
    try:
        found = names(read(data))
        check_usage(read(data))
        one(found, "common_name")
        said = ""
    except Unfit as error:
        said = error.reason
    assert said in ("", "certificate_malformed", "certificate_usage", "certificate_subject")


@pytest.mark.parametrize(
    ("extensions", "fits"),
    [
        ("", True),
        (CLIENT, True),
        ("extendedKeyUsage = serverAuth, clientAuth\n", True),
        ("extendedKeyUsage = serverAuth\n", False),
        ("extendedKeyUsage = codeSigning\n", False),
        ("extendedKeyUsage = anyExtendedKeyUsage\n", False),
        ("keyUsage = critical, digitalSignature\n", True),
        ("keyUsage = critical, keyEncipherment\n", False),
        ("keyUsage = critical, keyCertSign\n", False),
    ],
)
def test_certificate_for_another_use_is_refused(tmp_path: Path, extensions: str, fits: bool) -> None:
    certificate = read(self_signed(tmp_path, extensions=extensions).der())
    if fits:
        check_usage(certificate)
        return
    with pytest.raises(Unfit, match="certificate_usage"):
        check_usage(certificate)


@pytest.mark.parametrize(
    ("key", "fits"),
    [
        (rsa.generate_private_key(65537, 1024), False),
        (rsa.generate_private_key(65537, 2048), True),
        (ec.generate_private_key(ec.SECP256R1()), True),
        (ec.generate_private_key(ec.SECP521R1()), True),
        (ec.generate_private_key(ec.SECP192R1()), False),
        (ec.generate_private_key(ec.SECP256K1()), False),
    ],
    ids=lambda value: getattr(getattr(value, "curve", None), "name", str(getattr(value, "key_size", value))),
)
def test_weak_key_is_refused(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, fits: bool) -> None:
    certificate = read(der((NameOID.COMMON_NAME, "a"), key=key))
    if fits:
        check_usage(certificate)
        return
    with pytest.raises(Unfit, match="certificate_usage"):
        check_usage(certificate)
