"""Signed notes: what was signed is read, what was not is refused, in one spelling only."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatebook.errors import Damaged, LedgerError, Tampered
from gatebook.ledger.note import (
    MAX_NOTE_BYTES,
    Checkpoint,
    Signer,
    Verifier,
    encode_note,
    open_note,
    parse_checkpoint,
    parse_note,
    sign_note,
)

VECTORS: Any = json.loads((Path(__file__).parent / "vectors/ledger-v1.json").read_text("utf-8"))
CHECKPOINT: bytes = VECTORS["checkpoint"].encode()
LOG = Verifier.from_vkey(VECTORS["log_vkey"])
WITNESS = Verifier.from_vkey(VECTORS["witness_vkey"])
SIGNER = Signer.from_skey(VECTORS["log_skey"])
TEXT = Checkpoint(VECTORS["origin"], 3, bytes.fromhex(VECTORS["root_hex"])).text()


def test_vector_of_a_checkpoint_both_ways() -> None:
    assert sign_note(TEXT, SIGNER) == CHECKPOINT
    opened = open_note(CHECKPOINT, [LOG])
    assert dict(opened.by) == {VECTORS["origin"]: None}
    assert opened.unknown == ()
    checkpoint = parse_checkpoint(opened.text)
    assert (checkpoint.origin, checkpoint.size) == (VECTORS["origin"], 3)
    assert checkpoint.root.hex() == VECTORS["root_hex"]
    assert checkpoint.text() == opened.text


def test_vector_of_keys_both_ways() -> None:
    assert SIGNER.skey == VECTORS["log_skey"]
    assert SIGNER.vkey == LOG.vkey == VECTORS["log_vkey"]
    assert WITNESS.vkey == VECTORS["witness_vkey"]
    assert SIGNER.key_id == LOG.key_id
    again = Signer.generate(SIGNER.name, base64.b64decode(VECTORS["log_skey"].split("+", 4)[4])[1:])
    assert again.vkey == SIGNER.vkey


def test_vector_of_a_cosignature_counts_with_its_time() -> None:
    opened = open_note(CHECKPOINT + VECTORS["cosignature_line"].encode(), [LOG, WITNESS])
    assert dict(opened.by) == {LOG.name: None, WITNESS.name: VECTORS["witness_time"]}


def test_signers_secret_is_not_in_its_repr() -> None:
    secret = VECTORS["log_skey"].rpartition("+")[2]
    assert secret not in repr(SIGNER)
    assert not hasattr(SIGNER, "__dict__")


def test_unknown_signature_is_reported_and_never_counts() -> None:
    data = CHECKPOINT + VECTORS["cosignature_line"].encode()
    opened = open_note(data, [LOG])
    assert list(opened.by) == [LOG.name]
    assert [line.name for line in opened.unknown] == [WITNESS.name]
    with pytest.raises(Tampered, match="not signed by any key"):
        open_note(CHECKPOINT, [WITNESS])
    with pytest.raises(Tampered, match="not signed by any key"):
        open_note(CHECKPOINT, [])


def test_one_bad_signature_of_a_known_key_rejects_the_whole_note() -> None:
    for at in range(8, 72):
        line = bytearray(base64.b64decode(VECTORS["cosignature_line"].split(" ")[2]))
        line[at] ^= 1
        forged = CHECKPOINT + f"— {WITNESS.name} {base64.b64encode(line).decode()}\n".encode()
        with pytest.raises(Tampered, match="is not for this text"):
            open_note(forged, [LOG, WITNESS])
        assert LOG.name in open_note(forged, [LOG]).by


def test_cosignature_cut_short_is_refused() -> None:
    whole = base64.b64decode(VECTORS["cosignature_line"].split(" ")[2])
    for length in (8, 12, 75):
        line = f"— {WITNESS.name} {base64.b64encode(whole[:length]).decode()}\n"
        with pytest.raises(Tampered):
            open_note(CHECKPOINT + line.encode(), [LOG, WITNESS])


def test_same_name_with_another_key_signs_nothing() -> None:
    impostor = Signer.generate(SIGNER.name, b"\7" * 32)
    with pytest.raises(Tampered, match="not signed by any key"):
        open_note(sign_note(TEXT, impostor), [LOG])


def test_every_flipped_bit_is_refused() -> None:
    for at in range(len(CHECKPOINT)):
        for bit in (0x01, 0x20, 0x80):
            changed = bytearray(CHECKPOINT)
            changed[at] ^= bit
            with pytest.raises(LedgerError):
                open_note(bytes(changed), [LOG])


def test_every_truncation_is_refused() -> None:
    for end in range(len(CHECKPOINT)):
        with pytest.raises(LedgerError):
            open_note(CHECKPOINT[:end], [LOG])


@given(st.binary(max_size=400))
@example(b"a\n\n")
@example(b"\n\n\xe2\x80\x94 a AAAAAAA=\n")
@example("a\n\n\u2014 a AAAAAAA=\n".encode())
@example("a\n\n\u2014 a AAAAAAA=\r\n".encode())
@example("a\n\n\u2014  AAAAAAA=\n".encode())
@example("a\n\n\u2014 a+b AAAAAAA=\n".encode())
@example("a\n\n\u2014 a AAAAAAB=\n".encode())
@example("a\tb\n\n\u2014 a AAAAAAA=\n".encode())
def test_any_bytes_are_exactly_a_note_or_damaged(data: bytes) -> None:
    try:
        note = parse_note(data)
    except Damaged:
        return
    assert encode_note(note) == data


def test_huge_note_is_not_read() -> None:
    with pytest.raises(Damaged, match="at most"):
        parse_note(b"a" * MAX_NOTE_BYTES + CHECKPOINT)
    many = CHECKPOINT + b"".join([VECTORS["cosignature_line"].encode()] * 100)
    with pytest.raises(Damaged):
        parse_note(many)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\n1\n",
        TEXT + "extension\n",
        TEXT.removesuffix("\n"),
        TEXT.replace("\n3\n", "\n03\n"),
        TEXT.replace("\n3\n", "\n+3\n"),
        TEXT.replace("\n3\n", "\n-3\n"),
        TEXT.replace("\n3\n", "\n3 \n"),
        TEXT.replace("\n3\n", "\n٣\n"),
        TEXT.replace("\n3\n", "\n3.0\n"),
        TEXT.replace("\n3\n", f"\n{1 << 63}\n"),
        TEXT.replace("\n3\n", "\n" + "9" * 5000 + "\n"),
        TEXT.replace("=", ""),
        TEXT.replace("Mhg=", "Mhh="),
        TEXT.replace(VECTORS["origin"], ""),
        TEXT.replace(VECTORS["origin"], "two words"),
        f"a\n1\n{base64.b64encode(b'x' * 31).decode()}\n",
    ],
)
def test_checkpoint_in_another_spelling_is_refused(text: str) -> None:
    with pytest.raises(Damaged):
        parse_checkpoint(text)


def test_text_that_cannot_be_signed_is_refused() -> None:
    for text in ("", "no newline", "tab\tin it\n", "nul\0\n"):
        with pytest.raises(Damaged):
            sign_note(text, SIGNER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PRIVATE+KEY+",
        "a+b",
        VECTORS["log_vkey"],
        VECTORS["log_skey"].replace("55460b99", "55460b98"),
        VECTORS["log_skey"].replace("55460b99", "55460B99"),
        VECTORS["log_skey"].replace("node-1", "node-2"),
        VECTORS["log_skey"].replace("+AQEC", "+BAEC"),
        VECTORS["log_skey"] + "AAAA",
        VECTORS["log_skey"].replace("gatebook.example", "gatebook example"),
    ],
)
def test_anything_but_a_signing_key_is_refused(text: str) -> None:
    with pytest.raises(Damaged):
        Signer.from_skey(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a+b",
        VECTORS["log_skey"],
        VECTORS["log_vkey"].replace("55460b99", "55460b98"),
        VECTORS["log_vkey"].replace("+AXm1", "+AXm2"),
        VECTORS["log_vkey"].replace("+AXm1", "+AnM1"),
        VECTORS["log_vkey"][:-4],
    ],
)
def test_anything_but_a_verification_key_is_refused(text: str) -> None:
    with pytest.raises(Damaged):
        Verifier.from_vkey(text)


def test_key_file_may_end_in_a_newline() -> None:
    assert Verifier.from_vkey(VECTORS["log_vkey"] + "\n") == LOG
    assert Signer.from_skey(VECTORS["log_skey"] + "\n").vkey == LOG.vkey
