"""Time stamps, by attack; `openssl ts` is the authority that makes them, and the judge that checks them too."""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from tests.pki import DAY
from tests.tsa import STAMPING, Stamper, query, verified_by_openssl

from gatebook.errors import EnvironmentFault
from gatebook.ledger.timestamp import MAX_REPLY_BYTES, Unusable, ask_for, check, load_authorities

DATA = b"acme/node-1\n3\nroot\n\n"


@pytest.fixture(scope="module")
def stamper(tmp_path_factory: pytest.TempPathFactory) -> Stamper:
    return Stamper(tmp_path_factory.mktemp("tsa") / "authority")


@pytest.fixture(scope="module")
def trusted(stamper: Stamper) -> list[x509.Certificate]:
    return load_authorities(stamper.roots)


@pytest.fixture(scope="module")
def good(stamper: Stamper) -> bytes:
    return stamper.reply(query(DATA))


def why(reply: bytes, trusted: list[x509.Certificate], nonce: int | None = None, data: bytes = DATA) -> str:
    with pytest.raises(Unusable) as raised:
        check(reply, data, trusted, nonce)
    return f"{raised.value.kind}: {raised.value}"


def test_authoritys_reply_says_when_and_who_and_openssl_agrees(
    stamper: Stamper, trusted: list[x509.Certificate], tmp_path: Path
) -> None:
    request = ask_for(DATA)
    reply = stamper.reply(request.body)
    stamp = check(reply, DATA, trusted, request.nonce)
    assert stamp.authority == "CN=stamps,O=Clocks Ltd"
    assert abs(stamp.time_us / 1e6 - time.time()) < 3600
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "reply").write_bytes(reply)
    assert verified_by_openssl(tmp_path / "data", tmp_path / "reply", stamper.roots)
    (tmp_path / "data").write_bytes(DATA + b"x")
    assert not verified_by_openssl(tmp_path / "data", tmp_path / "reply", stamper.roots)


def test_requests_have_nonces_of_their_own() -> None:
    assert len({ask_for(DATA).nonce for _ in range(20)}) == 20


def test_stamp_of_other_bytes_is_wrong(trusted: list[x509.Certificate], good: bytes) -> None:
    assert why(good, trusted, data=DATA + b"x").startswith("wrong: is of other bytes")


def test_reply_of_yesterday_is_no_answer(stamper: Stamper, trusted: list[x509.Certificate], good: bytes) -> None:
    assert "nonce" in why(good, trusted, ask_for(DATA).nonce)
    without = stamper.reply(query(DATA, "-no_nonce"))
    assert "nonce" in why(without, trusted, 7)
    check(without, DATA, trusted)


def test_weaker_hash_than_was_asked_for_is_wrong(stamper: Stamper, trusted: list[x509.Certificate]) -> None:
    reply = stamper.reply(query(DATA, "-sha384"))
    assert "SHA-256" in why(reply, trusted)


def test_authority_of_somebody_else_is_not_trusted_whatever_it_brings_along(
    trusted: list[x509.Certificate], tmp_path: Path
) -> None:
    stranger = Stamper(tmp_path / "stranger")
    assert why(stranger.reply(query(DATA)), trusted).startswith("untrusted: does not lead")


def test_chain_that_does_not_reach_the_root_is_not_trusted(
    stamper: Stamper, trusted: list[x509.Certificate]
) -> None:
    reply = stamper.reply(query(DATA), chain=False)
    assert "local issuer" in why(reply, trusted)
    middle = load_authorities(stamper.middle.pair.certificate)
    check(reply, DATA, [*trusted, *middle])


def test_expired_certificate_stamps_nothing_any_more(stamper: Stamper, trusted: list[x509.Certificate]) -> None:
    old = stamper.middle.issue("/CN=old", STAMPING, key="rsa", start=-10 * DAY, end=-DAY)
    assert "expired" in why(stamper.reply(query(DATA), pair=old), trusted)
    young = stamper.middle.issue("/CN=young", STAMPING, key="rsa", start=DAY, end=2 * DAY)
    assert "not yet valid" in why(stamper.reply(query(DATA), pair=young), trusted)


@pytest.mark.parametrize(
    "purposes", ["critical, timeStamping, codeSigning", "critical, codeSigning", "timeStamping", ""]
)
def test_certificate_for_other_things_stamps_nothing(tmp_path: Path, purposes: str) -> None:
    """Of the same name, number and key as the one that has signed."""
    stamper = Stamper(tmp_path / "authority")
    reply = stamper.reply(query(DATA))
    der = stamper.pair.der()
    folder, request = stamper.middle.folder, stamper.pair.key.with_suffix(".csr")
    (folder / "index").write_text("")
    (folder / "serial").write_text(f"{x509.load_der_x509_certificate(der).serial_number:x}\n")
    extensions = f"keyUsage = digitalSignature\n{f'extendedKeyUsage = {purposes}' if purposes else ''}\n"
    stamper.middle._sign(request, folder / "twin.pem", extensions, -3600, DAY)
    twin = load_authorities(folder / "twin.pem")[0].public_bytes(Encoding.DER)
    at = reply.index(der)
    swapped = _longer(reply[:at] + twin + reply[at + len(der) :], at, len(twin) - len(der))
    said = why(swapped, load_authorities(stamper.roots))
    assert said.startswith("untrusted: ")
    assert "purpose" in said


def test_certificate_of_a_client_cannot_pass_for_the_authoritys(
    stamper: Stamper, trusted: list[x509.Certificate], good: bytes
) -> None:
    """A second certificate of the same issuer and number, made by anybody, with any purpose."""
    der = stamper.pair.der()
    at = good.index(der)
    twin = bytearray(der)
    twin[-1] ^= 1  # its signature: nobody has made it
    grown = good[:at] + der + bytes(twin) + good[at + len(der) :]
    assert "two certificates" in why(_longer(grown, at, len(twin)), trusted)


def _longer(data: bytes, at: int, more: int) -> bytes:
    """Each element around `at` made longer, all their lengths being of two bytes."""
    made, start = bytearray(data), 0
    while start < at:
        first = made[start + 1]
        digits = first & 0x7F if first & 0x80 else 0
        length = int.from_bytes(made[start + 2 : start + 2 + digits], "big") if digits else first
        inside = start + 2 + digits
        if inside + length > at:
            made[start + 2 : inside] = (length + more).to_bytes(digits, "big")
            start = inside
        else:
            start = inside + length
    return bytes(made)


@pytest.mark.parametrize(
    ("garbage", "words"),
    [
        (b"", "is no reply"),
        (b"<html>busy</html>", "is no reply"),
        (b"\x30\x80\x00\x00", "is no reply"),
        (bytes.fromhex("30053003020102"), "status 2, rejection"),
        (bytes.fromhex("30053003020107"), "status 7, unknown"),
        (bytes(MAX_REPLY_BYTES + 1), "more than"),
    ],
)
def test_what_is_no_stamp_is_unreadable(trusted: list[x509.Certificate], garbage: bytes, words: str) -> None:
    said = why(garbage, trusted)
    assert said.startswith("unreadable: ")
    assert words in said


def test_query_is_no_reply(trusted: list[x509.Certificate]) -> None:
    assert why(ask_for(DATA).body, trusted).startswith("unreadable: ")


def test_grant_with_changes_is_no_grant(trusted: list[x509.Certificate], good: bytes) -> None:
    status = good.index(bytes.fromhex("3003020100"))
    assert "granted with mods" in why(good[: status + 4] + b"\x01" + good[status + 5 :], trusted)


def test_changed_bit_is_refused_wherever_openssl_refuses_it(
    stamper: Stamper, trusted: list[x509.Certificate], good: bytes, tmp_path: Path
) -> None:
    (tmp_path / "data").write_bytes(DATA)
    chosen = random.Random(1)
    for _ in range(400):
        at = chosen.randrange(len(good))
        changed = bytearray(good)
        changed[at] ^= 1 << chosen.randrange(8)
        try:
            check(bytes(changed), DATA, trusted)
        except Unusable:
            continue
        # A field that no signature covers, such as the name of the signature's algorithm.
        (tmp_path / "reply").write_bytes(changed)
        assert verified_by_openssl(tmp_path / "data", tmp_path / "reply", stamper.roots), at


@given(st.binary(max_size=300))
def test_bytes_of_any_kind_raise_nothing_else(garbage: bytes) -> None:
    for reply in (garbage, b"\x30\x82" + len(garbage).to_bytes(2, "big") + garbage):
        with pytest.raises(Unusable):
            check(reply, DATA, [])


@given(st.data())
def test_reply_cut_or_mixed_up_raises_nothing_else(
    stamper: Stamper, trusted: list[x509.Certificate], good: bytes, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, len(good)))
    middle = data.draw(st.binary(max_size=20))
    mixed = good[:start] + middle + good[end:]
    if mixed != good:
        with contextlib.suppress(Unusable):
            check(mixed, DATA, trusted)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "no such file"), (b"nonsense", "no certificate"), (b"", "no certificate")]
)
def test_file_without_certificates_is_said(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "roots.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EnvironmentFault, match=words):
        load_authorities(path)
