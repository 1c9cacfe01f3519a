"""The form and the signature of tokens, by vectors that others made: Project Wycheproof (C2SP, Apache-2.0)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.identity.mint import b64, mint

from gatebook.identity.jwk import parse_jwks
from gatebook.identity.jws import MAX_TOKEN_BYTES, Unfit, parse, signed_by

VECTORS = Path(__file__).parent / "vectors" / "wycheproof-jws.json"

# Valid by the letter, and refused here. No provider makes such tokens.
REFUSED_THOUGH_VALID = {
    # an empty payload is no JSON object, so no JWT
    259: "token_malformed",
    264: "token_malformed",
    268: "token_malformed",
    272: "token_malformed",
    320: "token_malformed",
    325: "token_malformed",
    # the key says `alg: PS256`, the token PS384
    346: "no fitting key",
    350: "no fitting key",
    # the key says `alg: ES521`, which does not exist
    347: "no fitting key",
    351: "no fitting key",
    # letters inside that are none of base64url
    372: "token_malformed",
    373: "token_malformed",
}
# These are called invalid for padding in header and payload, but the file has them without it: byte for byte
# the valid vector 357. What they mean is tested below.
SAME_AS_VALID = {367: 357, 370: 357}


def cases() -> Iterator[tuple[dict[str, Any] | None, dict[str, Any]]]:
    assert VECTORS.is_file(), f"{VECTORS} is missing: Wycheproof's vectors for JSON Web Signature belong there"
    for group in json.loads(VECTORS.read_text())["testGroups"]:
        for case in group["tests"]:
            yield group.get("public"), case


CASES = list(cases())


def judged(public: dict[str, Any], token: bytes) -> str:
    try:
        compact = parse(token)
    except Unfit as error:
        return error.reason
    keys = parse_jwks(json.dumps({"keys": [public]}).encode())
    fitting = [key for key in keys.named(compact.kid) if compact.alg in key.algorithms]
    if not fitting:
        return "no fitting key"
    return "good" if any(signed_by(compact, key.public, compact.alg) for key in fitting) else "token_signature"


def text(case: dict[str, Any]) -> bytes:
    """The JSON serialisations are objects in the file."""
    jws = case["jws"]
    return (jws if isinstance(jws, str) else json.dumps(jws)).encode("utf-8", "surrogatepass")


def test_all_vectors_are_there() -> None:
    assert len(CASES) == 401
    assert {case["tcId"] for _, case in CASES} >= REFUSED_THOUGH_VALID.keys()


@pytest.mark.parametrize(
    ("public", "case"),
    [pytest.param(public, case, id=f"{case['tcId']}-{case['comment']}") for public, case in CASES if public],
)
def test_vector_with_a_public_key(public: dict[str, Any], case: dict[str, Any]) -> None:
    said = judged(public, text(case))
    if case["result"] == "valid":
        assert said == REFUSED_THOUGH_VALID.get(case["tcId"], "good")
    else:
        assert said != "good"


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{case['tcId']}-{case['comment']}") for public, case in CASES if not public]
)
def test_vector_with_a_shared_secret_is_judged_by_its_form(case: dict[str, Any]) -> None:
    """HS256 itself can be in no configuration."""
    try:
        alg = parse(text(case)).alg
    except Unfit as error:
        assert case["result"] != "valid" or REFUSED_THOUGH_VALID[case["tcId"]] == error.reason  # noqa: PT017
    else:
        assert alg in ("HS256", "HS384", "HS512", "none", "None", "NONE", "nOnE") or case["result"] != "valid"
        assert case["tcId"] not in REFUSED_THOUGH_VALID


@pytest.mark.parametrize("number", SAME_AS_VALID)
def test_vector_that_lost_its_padding(number: int) -> None:
    by_id = {case["tcId"]: case["jws"] for _, case in CASES}
    assert by_id[number] == by_id[SAME_AS_VALID[number]]
    head, payload, signature = by_id[number].split(".")
    parse(".".join([head, payload, signature]).encode())
    for padded in (
        [head + "=", payload, signature],
        [head, payload + "=", signature],
        [head, payload + "==", signature],
    ):
        with pytest.raises(Unfit, match="token_malformed"):
            parse(".".join(padded).encode())


def test_longest_token() -> None:
    head = b64(b'{"alg":"RS256"}')
    room = MAX_TOKEN_BYTES - len(head) - 6
    room -= (room % 4) == 1
    token = f"{head}.{'A' * room}.AAAA".encode()
    assert parse(token).alg == "RS256"
    with pytest.raises(Unfit, match="token_malformed"):
        parse(f"{head}.{'A' * (room + 4)}.AAAA".encode())


@given(st.binary(max_size=200))
def test_noise_is_malformed_and_nothing_else(noise: bytes) -> None:
    with pytest.raises(Unfit, match="token_malformed"):
        parse(noise)


@given(st.data())
def test_any_byte_changed_makes_another_token_or_none(data: st.DataObject) -> None:
    """No two spellings: what still parses has other bytes in it."""
    token = mint()
    at = data.draw(st.integers(0, len(token) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != token[at]))
    changed = token[:at] + bytes([byte]) + token[at + 1 :]
    before = parse(token)
    try:
        after = parse(changed)
    except Unfit:
        return
    assert (after.header, after.payload, changed.split(b".")[2]) != (
        before.header,
        before.payload,
        token.split(b".")[2],
    )
