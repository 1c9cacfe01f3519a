"""A policy file is understood whole or not at all, and its quorum counts what it says, whatever a note claims."""

from __future__ import annotations

import base64
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.errors import ConfigError, Damaged, Tampered
from gatebook.ledger.note import Checkpoint, Cosigner, Signer, sign_note
from gatebook.ledger.quorum import MAX_EACH, Trust, parse_trust

LOG = Signer("example.com/log", bytes(31) + b"\1")
OTHER_LOG = Signer("example.com/log", bytes(31) + b"\2")
W = [Cosigner(f"witness.example/{n}", bytes([n + 1]) * 32) for n in range(5)]
TEXT = Checkpoint(LOG.name, 7, bytes(32)).text()
NOTE = sign_note(TEXT, LOG)
TIME = 1_700_000_000

EXAMPLE = f"""\
# who vouches for us
log {LOG.vkey} https://log.example/

witness X1 {W[0].vkey}
\twitness  X2\t{W[1].vkey}   https://x2.example/w
witness X3 {W[2].vkey}
group X 2 X1 X2 X3
  # another organisation
witness Y1 {W[3].vkey}
witness Y2 {W[4].vkey}
group Y any Y1 Y2
group X-and-Y all X Y
quorum X-and-Y
"""


def cosigned(*witnesses: Cosigner, time_s: int = TIME) -> bytes:
    return NOTE + "".join(str(witness.cosign(TEXT, time_s)) for witness in witnesses).encode()


def trust(text: str) -> Trust:
    return parse_trust(text.encode(), "policy")


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_trust(text if isinstance(text, bytes) else text.encode(), "policy")
    return [str(problem) for problem in caught.value.problems]


def test_two_levels_of_groups_count_as_they_are_written() -> None:
    policy = trust(EXAMPLE)
    assert [log.url for log in policy.logs] == ["https://log.example/"]
    assert [witness.url for witness in policy.witnesses] == [None, "https://x2.example/w", None, None, None]
    for chosen in itertools.product([False, True], repeat=5):
        signing = [witness for witness, wanted in zip(W, chosen, strict=True) if wanted]
        found = policy.judge(cosigned(*signing))
        assert found.met is (sum(chosen[:3]) >= 2 and any(chosen[3:]))
        assert set(found.signed.values()) <= {TIME}
        assert len(found.signed) + len(found.missing) == 5


def test_quorum_of_nobody_asks_for_the_log_alone() -> None:
    policy = trust(f"log {LOG.vkey}\nquorum none\n")
    assert policy.judge(NOTE).met
    with pytest.raises(Tampered):
        policy.judge(sign_note(TEXT, OTHER_LOG))


def test_policy_without_logs_takes_the_expected_one_and_never_just_any() -> None:
    policy = trust(f"witness w {W[0].vkey}\nquorum w\n")
    assert policy.judge(cosigned(W[0]), LOG.verifier).met
    with pytest.raises(Tampered):
        policy.judge(cosigned(W[0]), OTHER_LOG.verifier)
    with pytest.raises(Tampered, match="lists no log"):
        policy.judge(cosigned(W[0]))


def test_log_that_the_policy_does_not_list_is_not_accepted_since_it_is_ours() -> None:
    with pytest.raises(Tampered, match="lists no log"):
        trust(EXAMPLE).judge(sign_note(TEXT, OTHER_LOG), OTHER_LOG.verifier)


def test_witness_cannot_stand_in_for_the_log() -> None:
    alone = (TEXT + "\n" + str(W[0].cosign(TEXT, TIME))).encode()
    with pytest.raises(Tampered, match="not signed by its log"):
        trust(EXAMPLE).judge(alone)


def test_checkpoint_of_another_origin_is_refused_though_a_listed_log_signed_it() -> None:
    text = Checkpoint("example.com/other", 7, bytes(32)).text()
    with pytest.raises(Tampered, match="not signed by its log"):
        trust(EXAMPLE).judge(sign_note(text, LOG))


def test_one_witness_that_signs_often_counts_once_and_from_its_first_time() -> None:
    policy = trust(f"witness a {W[0].vkey}\nwitness b {W[1].vkey}\ngroup g 2 a b\nquorum g\n")
    twice = cosigned(W[0]) + str(W[0].cosign(TEXT, TIME + 5)).encode()
    found = policy.judge(twice, LOG.verifier)
    assert (found.met, dict(found.signed), found.missing) == (False, {"a": TIME}, ("b",))


def test_witness_of_the_same_name_and_another_key_never_counts() -> None:
    impostor = Cosigner(W[0].name, bytes([99]) * 32)
    policy = trust(f"witness a {W[0].vkey}\nquorum a\n")
    assert not policy.judge(cosigned(impostor), LOG.verifier).met


def test_cosignature_moved_onto_another_checkpoint_rejects_it() -> None:
    other = Checkpoint(LOG.name, 8, bytes(32)).text()
    moved = sign_note(other, LOG) + str(W[0].cosign(TEXT, TIME)).encode()
    with pytest.raises(Tampered):
        trust(EXAMPLE).judge(moved)


def test_cosignature_whose_time_was_changed_rejects_the_note() -> None:
    line = W[0].cosign(TEXT, TIME)
    later = line._replace(signature=(TIME + 1).to_bytes(8, "big") + line.signature[8:])
    with pytest.raises(Tampered):
        trust(EXAMPLE).judge(NOTE + str(later).encode())


def test_cosignature_is_never_made_for_no_time() -> None:
    with pytest.raises(ValueError, match="time"):
        W[0].cosign(TEXT, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "policy: there is no quorum line"),
        ("quorum none\nquorum none\n", "policy:2:1: a second quorum; the first is on line 1"),
        ("quorum a\n", "policy:1:8: 'a' is no witness or group of a line above"),
        (f"quorum a\nwitness a {W[0].vkey}\n", "policy:1:8: 'a' is no witness or group of a line above"),
        ("quorum\n", "policy:1:1: quorum with 0 words after it"),
        ("quorum none none\n", "policy:1:1: quorum with 2 words after it"),
        ("Quorum none\n", "policy:1:1: 'Quorum' is no line of a policy"),
        ("log\nquorum none\n", "policy:1:1: log with 0 words after it"),
        (f"log {LOG.vkey} u v\nquorum none\n", "policy:1:1: log with 3 words after it"),
        (f"log {W[0].vkey}\nquorum none\n", "policy:1:5: a key of algorithm 04"),
        (f"witness a {LOG.vkey}\nquorum a\n", "policy:1:11: a key of algorithm 01"),
        (f"witness none {W[0].vkey}\nquorum none\n", "policy:1:9: the name none is taken"),
        (f"witness a {W[0].vkey[:-4]}\nquorum a\n", "policy:1:11: verification key of"),
        (f"witness a {W[0].vkey}\nwitness a {W[1].vkey}\nquorum a\n", "policy:2:9: 'a' is defined on line 1"),
        (f"witness a {W[0].vkey}\nwitness b {W[0].vkey}\nquorum a\n", "policy:2:11: the same key as that of"),
        (f"log {LOG.vkey}\nlog {LOG.vkey}\nquorum none\n", "policy:2:5: the same key as that of"),
        (f"witness a {W[0].vkey}\ngroup g 0 a\nquorum g\n", "policy:2:9: '0' of 1 members"),
        (f"witness a {W[0].vkey}\ngroup g 2 a\nquorum g\n", "policy:2:9: '2' of 1 members"),
        (f"witness a {W[0].vkey}\ngroup g 01 a\nquorum g\n", "policy:2:9: '01' of 1 members"),
        (f"witness a {W[0].vkey}\ngroup g -1 a\nquorum g\n", "policy:2:9: '-1' of 1 members"),
        (f"witness a {W[0].vkey}\ngroup g ALL a\nquorum g\n", "policy:2:9: 'ALL' of 1 members"),
        ("group g any\nquorum g\n", "policy:1:1: group with 2 words after it"),
        ("group g any g\nquorum g\n", "policy:1:13: 'g' is no witness or group of a line above"),
        ("group g any none\nquorum g\n", "policy:1:13: 'none' is no witness or group of a line above"),
        (f"witness a {W[0].vkey}\ngroup g any a a\nquorum g\n", "policy:2:15: 'a' is a member of 'g' already"),
        (
            f"witness a {W[0].vkey}\ngroup g any a\ngroup h any a\nquorum g\n",
            "policy:3:13: 'a' is a member of 'g' already",
        ),
        ("quorum none\r\n", "policy:1:12: the control character 0x0d"),
        ("# a\0b\nquorum none\n", "policy:1:4: the control character 0x00"),
        ("quorum none", "policy:1:1: the last line has no newline"),
    ],
)
def test_policy_that_is_not_understood_is_refused_with_its_place(text: str, expected: str) -> None:
    assert problems(text)[0].startswith(expected)


def test_all_problems_are_told_at_once_and_none_twice() -> None:
    found = problems(f"witness a {W[0].vkey[:-4]}\nnonsense\ngroup g 3 a\nquorum g\n")
    assert [problem.split(":")[1] for problem in found] == ["1", "2", "3"]


def test_witness_with_a_key_that_cannot_be_checked_here_is_refused_not_passed_over() -> None:
    encoded = base64.b64encode(b"\6" + bytes(1312)).decode()  # ML-DSA-44
    found = problems(f"witness a example.com/w+01234567+{encoded}\nquorum a\n")
    assert found[0].startswith("policy:1:11: ")
    assert len(found) == 1


def test_names_are_bytes_and_never_made_alike() -> None:
    kelvin = b"witness \xe2\x84\xaa %s\nwitness K %s\nwitness \xff %s\nquorum K\n"
    policy = parse_trust(kelvin % tuple(witness.vkey.encode() for witness in W[:3]), "policy")
    assert policy.met_by({"K": 1})
    assert not policy.met_by({"\u212a": 1})
    assert len({witness.name for witness in policy.witnesses}) == 3


def test_no_break_space_parts_no_words() -> None:
    assert problems("quorum\u00a0none\n")[0].startswith("policy:1:1: 'quorum\\xa0none' is no line")


def test_thirty_two_of_each_are_taken_and_a_flood_is_not() -> None:
    def lines(count: int) -> str:
        made = [Cosigner(f"w/{n}", n.to_bytes(32, "big")) for n in range(count)]
        return "".join(f"witness w{n} {each.vkey}\n" for n, each in enumerate(made)) + "quorum none\n"

    assert len(trust(lines(MAX_EACH)).witnesses) == MAX_EACH >= 32
    assert "more than" in problems(lines(MAX_EACH + 1))[0]
    assert "at most" in problems(b"#" * (1 << 20) + b"\n")[0]


@given(st.binary(max_size=300) | st.just(b"quorum none\n"))
def test_any_bytes_are_a_policy_or_problems_with_places(data: bytes) -> None:
    try:
        policy = parse_trust(data, "policy")
    except ConfigError:
        return
    assert policy.quorum == "none"  # nothing drawn at random names a key


def test_note_that_is_no_checkpoint_is_damaged() -> None:
    with pytest.raises(Damaged):
        trust(EXAMPLE).judge(sign_note("hello\n", LOG))


def test_log_cannot_be_its_own_witness() -> None:
    own = Cosigner(LOG.name, bytes(31) + b"\1")
    assert own.public == LOG.public
    found = problems(f"log {LOG.vkey}\nwitness a {own.vkey}\nquorum a\n")
    assert found[0].startswith("policy:2:11: the same key as that of example.com/log")
