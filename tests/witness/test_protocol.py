"""Requests are spelt in one way; answers are believed for nothing but a cosignature that verifies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.witness.logs import COSIGNER, NOW, Log

from gatebook.errors import Damaged
from gatebook.ledger.note import Cosigner
from gatebook.witness.protocol import (
    FUTURE_S,
    Request,
    encode_request,
    parse_cosignatures,
    parse_request,
    parse_size,
)

LOG = Log()
TEXT = LOG.checkpoint(5).text()
LINE = str(COSIGNER.cosign(TEXT, NOW))
WITNESS = COSIGNER.verifier


def answer(body: str) -> int:
    return parse_cosignatures(body.encode(), TEXT, WITNESS, NOW).time_s


@given(st.integers(0, (1 << 63) - 1), st.lists(st.binary(min_size=32, max_size=32), max_size=63), st.binary())
def test_request_both_ways(old: int, proof: list[bytes], note: bytes) -> None:
    request = Request(old, tuple(proof), note)
    assert parse_request(encode_request(request)) == request


@given(st.binary(max_size=300))
def test_bytes_are_a_request_in_its_one_spelling_or_refused(data: bytes) -> None:
    try:
        request = parse_request(data)
    except Damaged:
        return
    assert encode_request(request) == data


@pytest.mark.parametrize(
    "head",
    [
        "",
        "old",
        "old ",
        "old 01",
        "old -1",
        "old +1",
        "old 1 ",
        "Old 1",
        "old 1\r",
        "old 9223372036854775808",
        "old \u0661",
        "new 1",
        "old 1\nAAAA",
        "old 1\n" + "A" * 42 + "B=",  # bits beyond the hash
        "old 1\n" + ("A" * 43 + "=\n") * 63 + "A" * 43 + "=",
        "\nold 1",
    ],
)
def test_malformed_request_is_refused(head: str) -> None:
    with pytest.raises(Damaged):
        parse_request(f"{head}\n\n".encode() + LOG.note(5))


def test_honest_answer_counts_with_its_time() -> None:
    assert answer(LINE) == NOW


@pytest.mark.parametrize(
    "body",
    [
        LINE.rstrip("\n"),
        LINE + "\n\n",
        "\n" + LINE,
        LINE.replace("\n", "\r\n"),
        str(Cosigner("witness.example/other", bytes(32)).cosign(TEXT, NOW)) + LINE,
        LINE + "— witness.example/w1 " + "AAAA" * 900 + "\n",  # of an algorithm that is not known here
        "hello\n" + LINE,
        str(COSIGNER.cosign(TEXT, NOW - 50)) + LINE,
    ],
)
def test_harmless_deviations_of_real_witnesses_are_borne(body: str) -> None:
    assert answer(body) == NOW


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "no cosignature of its key"),
        ("\n", "no cosignature of its key"),
        ("ok\n", "no cosignature of its key"),
        (str(Cosigner(COSIGNER.name, bytes(32)).cosign(TEXT, NOW)), "no cosignature of its key"),
        (str(COSIGNER.cosign(LOG.checkpoint(6).text(), NOW)), "not for this checkpoint"),
        (str(COSIGNER.cosign(TEXT, NOW + FUTURE_S + 1)), "ahead of this machine's clock"),
        (LINE[:-30] + LINE[-10:], "not for this checkpoint"),
    ],
)
def test_answer_without_a_cosignature_that_counts_is_none(body: str, why: str) -> None:
    with pytest.raises(Damaged, match=why):
        answer(body)


@given(st.binary(max_size=300))
def test_nothing_that_a_witness_sends_ends_in_another_error(data: bytes) -> None:
    with pytest.raises(Damaged):
        parse_cosignatures(data, TEXT, WITNESS, NOW)


@pytest.mark.parametrize(("body", "size"), [(b"17\n", 17), (b"17", 17), (b"17\r\n", 17), (b"0\n", 0)])
def test_size_in_a_conflict_is_read(body: bytes, size: int) -> None:
    assert parse_size(body) == size


@pytest.mark.parametrize(
    "body", [b"", b"\n", b"017\n", b"-1\n", b"17 \n", b"17\n18\n", b"1e3", b"9223372036854775808\n"]
)
def test_conflict_that_says_no_size_says_nothing(body: bytes) -> None:
    assert parse_size(body) is None
