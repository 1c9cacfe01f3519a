"""YAML from somebody who means harm, or whose editor does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.config.source import MAX_BYTES, Source, dotted, read
from gatebook.errors import ConfigError, Problem


def refused(data: bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(data, "f")
    return [str(problem) for problem in caught.value.problems]


def problems(data: bytes) -> list[Problem] | None:
    try:
        read(data, "f")
    except ConfigError as error:
        return error.problems
    return None


def test_alias_bomb_goes_not_off() -> None:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]  # 9 to the 12th values
    (said,) = refused("\n".join(lines).encode())
    assert "aliases that expand too far" in said


def test_merge_bomb_goes_not_off() -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 12)]
    (said,) = refused("\n".join(lines).encode())
    assert "aliases that expand too far" in said


@pytest.mark.parametrize("unit", [b"[", b"{a: ", b"- ", b"? ", b"[{a: "])
def test_deep_nesting_ends_early(unit: bytes) -> None:
    assert "nested too deeply" in refused(b"x: " * (unit == b"[") + unit * 100_000)[0]


def test_aliases_do_not_nest_deeper_than_text() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 40)]
    assert "levels deep" in refused("\n".join(lines).encode())[0]


def test_more_than_the_size_limit_is_not_parsed() -> None:
    assert refused(b"a: " + b"x" * MAX_BYTES) == ["f: more than 4 MiB; expected a configuration of at most 4 MiB"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a: 1\nb: \x00", "f:2:4: control character U+0000; expected plain text"),
        (b"a: \x1b[2J", "f:1:4: control character U+001B; expected plain text"),
        (b"a: 1\nb: \xff", "f:2:4: byte 0xff is not UTF-8; expected a file in UTF-8"),
        (b"\xff\xfea\x00:\x00 \x001\x00", "f:1:1: byte 0xff is not UTF-8; expected a file in UTF-8"),
        ("a: \ud800".encode("utf-8", "surrogatepass"), "f:1:4: byte 0xed is not UTF-8; expected a file in UTF-8"),
        ("a: \ufeffb".encode(), "f:1:4: control character U+FEFF; expected plain text"),
    ],
)
def test_bytes_that_are_no_text_are_named_with_their_place(data: bytes, said: str) -> None:
    assert refused(data) == [said]


def test_byte_order_mark_at_the_start_is_passed_over() -> None:
    source = read(b"\xef\xbb\xbfa: 1", "f")
    assert source.data == {"a": 1}
    assert source.keys[("a",)] == (1, 1)


def test_carriage_returns_do_not_shift_lines() -> None:
    assert read(b"a: 1\r\nb: 2\r\n", "f").keys[("b",)] == (2, 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("2026-01-01", "2026-01-01"),
        ("12:30:00", "12:30:00"),
        ("1_000", "1_000"),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("1e3", 1000.0),
        ("~", None),
        ("True", True),
        ("'1'", "1"),
        ('"true"', "true"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = read(f"a: {text}".encode(), "f").data["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["9" * 5000, "1e999", ".inf", "-.INF", ".nan"])
def test_numbers_without_end_are_refused(text: str) -> None:
    assert "is not a finite number" in refused(f"a: {text}".encode())[0]


def test_a_tag_builds_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    made = tmp_path_factory.mktemp("tag") / "made"
    refused(f"a: !!python/object/apply:pathlib.Path.touch ['{made}']".encode())
    assert not made.exists()


def test_all_refused_constructs_are_reported_together() -> None:
    assert [line.partition(": ")[0] for line in refused(b"a: 1\na: 2\nb: !x 1\nc: .nan\n")] == [
        "f:2:1",
        "f:3:4",
        "f:4:4",
    ]


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ((), ""),
        (("routes", 0, "allow", 1, "when"), "routes[0].allow[1].when"),
        (("identity", "a.b"), "identity.'a.b'"),
        (("\x1b[2J",), "'\\x1b[2J'"),
    ],
)
def test_dotted_keys_cannot_move_a_cursor(location: tuple[str | int, ...], text: str) -> None:
    assert dotted(location) == text


def test_place_of_what_is_not_there_is_that_of_what_is_around_it() -> None:
    source = read(b"a:\n  b: [x, {c: 1}]\n", "f")
    assert source.value_at(("a", "b", 1, "c")) == (2, 14)
    assert source.value_at(("a", "b", 1, "d")) == (2, 10)
    assert source.key_at(("a", "b", 9)) == (2, 3)
    assert source.key_at(("z",)) == (1, 1)
    assert Source("f").value_at(("z",)) == (1, 1)


WORDS = [
    "- ",
    ": ",
    "<<: ",
    "*a",
    "&a ",
    "!!",
    "\\x",
    "\\U",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "|2\n",
    ">-\n",
    "? ",
]
CHARACTERS = "\n \t:-?,[]{}#&*!|>'\"%@`~<0aA.\u2028\x85\U0001f600"
YAMLISH = st.lists(st.sampled_from([*CHARACTERS, *WORDS]), max_size=60)


@settings(deadline=None)
@given(YAMLISH)
def test_any_text_is_data_or_a_config_error(parts: list[str]) -> None:
    found = problems("".join(parts).encode())
    assert found is None or (found and all(problem.message for problem in found))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_data_or_a_config_error(data: bytes) -> None:
    assert problems(data) != []
