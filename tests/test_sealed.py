"""What is sealed opens with the one key that sealed it, for the one request, and with nothing else."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from gatebook.errors import Damaged, Tampered
from gatebook.record import SealedPart
from gatebook.sealed import seal, unseal

KEY, OTHER = b"k" * 32, b"o" * 32
ROW = "ab" * 16
ID = "0" * 31 + "1"
VALUES = {"subject": "alice", "address": "192.0.2.7"}


def box(part: SealedPart) -> bytes:
    return base64.b64decode(part.box)


def put(data: bytes) -> SealedPart:
    return SealedPart(under=ROW, box=base64.b64encode(data).decode())


@given(
    st.dictionaries(st.text(max_size=20), st.text(max_size=80), max_size=3), st.binary(min_size=32, max_size=32)
)
def test_what_is_sealed_comes_back_exactly(values: dict[str, str], key: bytes) -> None:
    assert unseal(seal(values, ROW, key, ID), key, ID) == values


def test_bytes_are_those_that_are_documented() -> None:
    """docs/format.md, read with nothing of ours but its words."""
    part = seal(VALUES, ROW, KEY, ID, random=lambda n: b"s" * n)
    info = b"gatebook/sealed/v1" + bytes.fromhex(ROW) + ID.encode() + b"s" * 16
    both = HKDFExpand(SHA256(), 64, info).derive(KEY)
    data = box(part)
    assert data[:48] == b"s" * 16 + both[32:]
    plain = AESGCM(both[:32]).decrypt(bytes(12), data[48:], data[:48])
    assert json.loads(plain) == VALUES
    assert len(plain) == 64


def test_two_of_the_same_are_not_seen_to_be_the_same() -> None:
    assert box(seal(VALUES, ROW, KEY, ID))[16:] != box(seal(VALUES, ROW, KEY, ID))[16:]


def test_length_of_a_name_does_not_show() -> None:
    """After an erasure the length would be all that is left, and tell one of two names that are guessed."""
    lengths = {len(box(seal({"subject": "a" * n, "address": "192.0.2.7"}, ROW, KEY, ID))) for n in range(1, 20)}
    assert len(lengths) == 1


def test_another_persons_key_opens_nothing() -> None:
    with pytest.raises(Tampered, match="not sealed under the key"):
        unseal(seal(VALUES, ROW, KEY, ID), OTHER, ID)


def test_sealed_value_moved_to_another_request_is_refused() -> None:
    with pytest.raises(Tampered):
        unseal(seal(VALUES, ROW, KEY, ID), KEY, "0" * 32)


def test_sealed_value_moved_under_another_persons_row_is_refused() -> None:
    part = seal(VALUES, ROW, KEY, ID)
    with pytest.raises(Tampered):
        unseal(SealedPart(under="cd" * 16, box=part.box), KEY, ID)


@pytest.mark.parametrize("at", [0, 15, 16, 47, 48, 60, -1])
def test_each_changed_byte_is_seen(at: int) -> None:
    data = bytearray(box(seal(VALUES, ROW, KEY, ID)))
    data[at] ^= 1
    with pytest.raises(Tampered):
        unseal(put(bytes(data)), KEY, ID)


@pytest.mark.parametrize("data", ["", "AAAA", "no base64!", base64.b64encode(bytes(63)).decode()])
def test_what_is_no_sealed_value_is_damage(data: str) -> None:
    with pytest.raises(Damaged):
        unseal(SealedPart(under=ROW, box=data), KEY, ID)


@pytest.mark.parametrize("under", ["", "ab", "zz" * 16])
def test_row_that_is_none_is_damage(under: str) -> None:
    with pytest.raises(Damaged):
        unseal(SealedPart(under=under, box=seal(VALUES, ROW, KEY, ID).box), KEY, ID)


def test_one_ciphertext_for_two_keys_is_refused() -> None:
    """A partitioning oracle: whoever knows two persons' keys can make one GCM ciphertext that opens under both, so
    that the same record names one of them to one reader and the other to another. The commitment fits one at most.
    """
    salt = b"s" * 16
    secrets = []
    for key in (KEY, OTHER):
        info = b"gatebook/sealed/v1" + bytes.fromhex(ROW) + ID.encode() + salt
        both = HKDFExpand(SHA256(), 64, info).derive(key)
        secrets.append((both[:32], both[32:]))
    for _, commitment in secrets:
        head = salt + commitment
        forged = _opens_under_both(secrets[0][0], secrets[1][0], head)
        for secret, _ in secrets:
            AESGCM(secret).decrypt(bytes(12), forged, head)  # GCM alone takes it, both times
        refused = 0
        for key in (KEY, OTHER):
            try:
                unseal(put(head + forged), key, ID)
            except Tampered as error:
                refused += "not sealed under" in str(error)
        assert refused == 1


def _opens_under_both(one: bytes, two: bytes, aad: bytes) -> bytes:
    """A ciphertext and tag that AES-GCM accepts under both keys (Dodis and others, 2018): one free block makes
    the two tags equal, a linear equation over GF(2^128).
    """
    blocks = [bytes(16), b"\x11" * 16]  # of ciphertext; the first is solved for
    parts = []
    for key in (one, two):
        h = _to_field(_aes(key, bytes(16)))
        mask = _to_field(_aes(key, bytes(12) + b"\0\0\0\1"))
        parts.append((h, mask))
    lengths = (len(aad) * 8).to_bytes(8, "big") + (len(blocks) * 128).to_bytes(8, "big")
    aad_blocks = [aad[at : at + 16].ljust(16, b"\0") for at in range(0, len(aad), 16)]
    rest = [*aad_blocks, bytes(16), *blocks[1:], lengths]
    free = len(rest) - 1 - len(aad_blocks)  # how many blocks follow the free one
    total, factor = 0, 0
    for h, mask in parts:
        power, value = h, 0
        for block in reversed(rest):
            value ^= _times(_to_field(block), power)
            power = _times(power, h)
        total ^= value ^ mask
        weight = h
        for _ in range(free):
            weight = _times(weight, h)
        factor ^= weight
    blocks[0] = _to_bytes(_times(total, _inverse(factor)))
    ciphertext = b"".join(blocks)
    h, mask = parts[0]
    value = 0
    for block in [*aad_blocks, *blocks, lengths]:
        value = _times(value ^ _to_field(block), h)
    return ciphertext + _to_bytes(value ^ mask)


def _aes(key: bytes, block: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(block)


def _to_field(block: bytes) -> int:
    return int(f"{int.from_bytes(block, 'big'):0128b}"[::-1], 2)


def _to_bytes(value: int) -> bytes:
    return int(f"{value:0128b}"[::-1], 2).to_bytes(16, "big")


def _times(a: int, b: int) -> int:
    """In GF(2^128), modulo x^128 + x^7 + x^2 + x + 1."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        b >>= 1
        a <<= 1
        if a >> 128:
            a ^= (1 << 128) | 0x87
    return product


def _inverse(a: int) -> int:
    result, power = 1, a
    for _ in range(127):
        power = _times(power, power)
        result = _times(result, power)
    return result
