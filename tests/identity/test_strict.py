"""JSON and base64url with one meaning and one spelling."""

from __future__ import annotations

import base64
import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.identity.strict import MAX_DEPTH, decode_base64url, parse_object, weight

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.binary())
def test_base64url_both_ways(data: bytes) -> None:
    assert decode_base64url(base64.urlsafe_b64encode(data).rstrip(b"=")) == data


@given(st.text(string.ascii_letters + string.digits + "-_", max_size=12))
def test_text_that_is_taken_is_the_only_spelling(text: str) -> None:
    try:
        data = decode_base64url(text.encode())
    except ValueError:
        return
    assert base64.urlsafe_b64encode(data).rstrip(b"=").decode() == text


@pytest.mark.parametrize(
    "text", [b"A", b"AB", b"QUJ=", b"QUI=", b"QU JD", b"QUJD\n", b"+/+/", b"QUJD====", b"\xff\xff\xff\xff"]
)
def test_other_spelling_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any of binascii's
        decode_base64url(text)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_json_is_taken_as_it_is(value: dict[str, object]) -> None:
    assert parse_object(json.dumps(value).encode()) == value
    assert weight(value) > 0


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":1}',
        '{"a":1,"\\u0061":2}',
        '{"x":[{"a":1,"a":2}]}',
        "[]",
        "1",
        "null",
        '"a"',
        "",
        "{",
        "{}{}",
        "{} x",
        '{"a":NaN}',
        '{"a":Infinity}',
        '{"a":-Infinity}',
        '{"a":1e400}',
        '{"a":9223372036854775808}',
        '{"a":-9223372036854775808}',
        '{"a":' + "1" * 5000 + "}",
        '{"a":"\\ud800"}',
        '{"\\udfff":1}',
        '{"a":01}',
        "{'a':1}",
        '{"a":"\t"}',
        '{"a":1,}',
        "\ufeff{}",
        '{"a":' * 40 + "1" + "}" * 40,
        '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
def test_json_that_others_might_read_otherwise_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any of json's
        parse_object(text.encode())


def test_depth_is_bounded_exactly() -> None:
    parse_object(b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH)
    with pytest.raises(ValueError, match="deep"):
        parse_object(b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1))


def test_text_that_is_no_utf8_is_refused() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        parse_object(b'{"a":"\xc3"}')


def test_weight_grows_with_what_memory_holds() -> None:
    assert weight({"a": ["x"] * 100}) > 100 * weight("x")
    assert weight({"a": "x" * 5000}) > 5000
    assert weight([[]] * 1000) > 50_000
