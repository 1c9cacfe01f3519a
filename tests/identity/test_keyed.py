"""Keyed hashes: names apart, keys apart, and a credential that is dressed up differently."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from tests.identity.deployment import KEYS, place
from tests.identity.mint import P256_ORDER, claims, ec_key, mint, other_signature

from gatebook.errors import EnvironmentFault
from gatebook.identity.keyed import Keys, read_keys, signed_sha256
from gatebook.identity.types import Credential
from gatebook.recorder.vault import Vault

ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
WORDS = st.text("ab:", max_size=4)
NAMES = st.tuples(st.sampled_from(["subject", "token", "client"]), st.text("ab", min_size=1, max_size=3), WORDS)


@given(NAMES, NAMES)
def test_no_two_names_are_spelt_alike(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (KEYS.name(*one) == KEYS.name(*other)) == (one == other)


def test_name_says_nothing_without_the_key() -> None:
    other = Keys(names=bytes([1] * 32), fingerprints=KEYS.fingerprints)
    assert KEYS.name("subject", "staff", "alice") != other.name("subject", "staff", "alice")
    assert KEYS.fingerprint(bytes(32)) == other.fingerprint(bytes(32))
    assert KEYS.fingerprint(bytes(32)) != Keys(names=KEYS.names, fingerprints=bytes(32)).fingerprint(bytes(32))


def test_subject_is_named_as_in_the_vault(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "vault.sqlite", KEYS.names)
    pseudonym = vault.pseudonym("subject:staff:alice")
    row = vault._db.execute("SELECT lookup FROM person WHERE pseudonym = ?", (pseudonym,)).fetchone()
    assert row[0].hex() == KEYS.name("subject", "staff", "alice")
    vault.close()


@pytest.mark.parametrize("content", [None, b"", bytes(31), bytes(33)])
@pytest.mark.parametrize("name", ["pseudonym.key", "fingerprint.key"])
def test_key_that_is_no_key_is_refused(tmp_path: Path, name: str, content: bytes | None) -> None:
    paths = place(tmp_path)
    assert read_keys(paths) == KEYS
    (paths.keys / name).unlink()
    if content is not None:
        (paths.keys / name).write_bytes(content)
    with pytest.raises(EnvironmentFault, match=name):
        read_keys(paths)


def test_token_with_another_signature_of_the_same_key_has_the_same_fingerprint() -> None:
    token = mint(claims(), {"alg": "ES256"}, ec_key("first").sign)
    twin = other_signature(token)
    assert twin != token
    assert signed_sha256(Credential("bearer", twin)) == signed_sha256(Credential("bearer", token))
    other = mint(claims(jti="other"), {"alg": "ES256"}, ec_key("first").sign)
    assert signed_sha256(Credential("bearer", other)) != signed_sha256(Credential("bearer", token))


@pytest.mark.parametrize("value", [b"opaque.token.one", b"eyJ.two", b"eyJ.a.b.c", b""])
def test_every_letter_of_what_is_no_signed_token_counts(value: bytes) -> None:
    credential = Credential("bearer", value)
    assert signed_sha256(credential) == credential.sha256()


def test_certificate_with_another_signature_of_the_same_ca_has_the_same_fingerprint() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "machine")])
    now = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(1))
    made = builder.sign(key, hashes.SHA256())
    r, s = decode_dss_signature(made.signature)
    signature = der(0x03, b"\0" + encode_dss_signature(r, P256_ORDER - s))
    twin = der(0x30, made.tbs_certificate_bytes + ECDSA_WITH_SHA256 + signature)
    x509.load_der_x509_certificate(twin).verify_directly_issued_by(made)
    one, other = (Credential("certificate", each) for each in (made.public_bytes(Encoding.DER), twin))
    assert one.sha256() != other.sha256()
    assert signed_sha256(one) == signed_sha256(other)


def der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 128:
        return bytes([tag, length]) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def test_certificate_that_cannot_be_read_is_named_as_a_whole() -> None:
    credential = Credential("certificate", b"\x30\x00")
    assert signed_sha256(credential) == credential.sha256()
