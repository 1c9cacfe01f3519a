"""What came out of a sink is held against the ledger: changes in it show, whoever made them, in every format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.ledger.caller import VERIFIER
from tests.recorder.deployed import ORIGIN, State
from tests.recorder.place import item
from tests.sinks.test_process import outcome

from gatebook.access.found import Placed, access, read
from gatebook.errors import Tampered
from gatebook.ledger import keys
from gatebook.ledger.prove import Tree
from gatebook.ledger.read import Reader
from gatebook.sinks.exported import MAX_LINE_BYTES, Line, check, lines_of
from gatebook.sinks.fields import Schema, document
from gatebook.sinks.item import Item
from gatebook.sinks.stream import Place, Stream
from gatebook.sinks.trial import marked

SCHEMAS: tuple[Schema, ...] = ("gatebook", "ecs", "ocsf", "datadog", "cim")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[State]:
    made = State(tmp_path_factory.mktemp("deployment"))
    recorder = made.start()
    for number in range(5):
        recorder.append(outcome(number, recorder.append(item(number))))
    assert recorder.end() == 0
    yield made
    made.close()


@pytest.fixture(scope="module")
def items(state: State) -> list[Item]:
    reader = Reader(state.paths.ledger, ORIGIN, state.paths.deks, keys.load_reader(state.paths.keys))
    found = Stream(reader, Place()).read(1000)
    assert {one.kind for one in found} == {"access", "system"}
    return found


@pytest.fixture
def tree(state: State) -> Tree:
    return Tree(state.paths.ledger, keys.load_verifier(state.paths.keys))


def verdicts(tree: Tree, *documents: Any) -> list[Line]:
    return list(check([json.dumps(one).encode() for one in documents], tree, ORIGIN))


@pytest.mark.parametrize("schema", SCHEMAS)
def test_what_was_sent_is_verified(tree: Tree, items: list[Item], schema: Schema) -> None:
    found = verdicts(tree, *(document(one, schema) for one in items))
    assert {line.verdict for line in found} == {"verified"}
    assert [line.id for line in found] == [one.id for one in items]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_field_that_was_changed_or_taken_away_is_found(
    tree: Tree, items: list[Item], schema: Schema
) -> None:
    one = next(each for each in items if each.kind == "access")
    for path in _leaves(document(one, schema)):
        if path[-1] == "version" and path[0] in ("observer", "metadata", "ecs"):
            continue  # who made it, not what is in it
        changed, taken = document(one, schema), document(one, schema)
        _at(changed, path[:-1])[path[-1]] = "forged"
        del _at(taken, path[:-1])[path[-1]]
        for bad in (changed, taken):
            (line,) = verdicts(tree, bad)
            assert line.verdict in ("altered", "unreadable"), path


def _leaves(value: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, below in value.items():
        if isinstance(below, dict):
            yield from _leaves(below, (*before, name))
        else:
            yield (*before, name)


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value[name]
    return value


def test_record_that_was_forged_together_with_its_fields_is_not_in_the_log(tree: Tree, items: list[Item]) -> None:
    made = document(items[1], "gatebook")
    text = json.dumps(made).replace("/orders/1", "/orders/9")
    assert text != json.dumps(made)
    (line,) = check([text.encode()], tree, ORIGIN)
    assert line.verdict == "not in the log"


def test_record_that_was_moved_to_another_index_is_not_in_the_log(tree: Tree, items: list[Item]) -> None:
    made = document(items[1], "gatebook")
    made["ledger"][0]["index"] += 2
    assert verdicts(tree, made)[0].verdict in ("not in the log", "altered")


@pytest.mark.parametrize("schema", SCHEMAS)
def test_access_made_of_two_requests_is_none_though_its_fields_are_made_anew(
    tree: Tree, items: list[Item], schema: Schema
) -> None:
    one, other = [each for each in items if each.kind == "access"][:2]
    decision, outcome = read(0, one.parts[0].record), read(0, other.parts[1].record)
    mixed = access(ORIGIN, Placed(one.parts[0].index, decision), Placed(other.parts[1].index, outcome))
    forged = Item(one.id, "access", one.index, one.time_us, mixed, (one.parts[0], other.parts[1]))
    assert verdicts(tree, document(forged, schema))[0].verdict == "altered"


def test_outcome_without_the_decision_that_says_who_it_was_proves_nothing(tree: Tree, items: list[Item]) -> None:
    one = next(each for each in items if each.kind == "access")
    alone = access(ORIGIN, None, Placed(one.parts[1].index, read(0, one.parts[1].record)))
    forged = Item(one.id, "access", one.index, one.time_us, alone, one.parts[1:])
    assert verdicts(tree, document(forged, "gatebook"))[0].verdict == "not proven"


def test_name_that_stands_twice_is_refused_since_programs_differ_in_which_they_believe(
    tree: Tree, items: list[Item]
) -> None:
    text = json.dumps(document(next(each for each in items if each.kind == "access"), "gatebook"))
    doubled = '{"request":{"path":"/mallory"},' + text[1:]
    splunk = json.dumps({"result": {"_raw": doubled}})
    for each in (doubled, splunk):
        (line,) = check([each.encode()], tree, ORIGIN)
        assert line.verdict == "unreadable"


def test_line_without_an_end_takes_no_memory(tmp_path: Path, tree: Tree) -> None:
    path = tmp_path / "export"
    with path.open("wb") as stream:
        stream.truncate(40 << 20)
        stream.seek(0, 2)
        stream.write(b"\n{}\n")
    with path.open("rb") as stream:
        lines = list(lines_of(stream))
    assert [len(each) for each in lines] == [MAX_LINE_BYTES + 1, 3]
    assert [each.verdict for each in check(lines, tree, ORIGIN)] == ["unreadable", "unreadable"]


def test_outcome_of_another_request_does_not_fit(tree: Tree, items: list[Item]) -> None:
    one, other = [document(each, "gatebook") for each in items if each.kind == "access"][:2]
    one["ledger"][1] = other["ledger"][1]
    assert verdicts(tree, one)[0].verdict == "altered"


def test_what_a_sink_adds_is_passed_over(tree: Tree, items: list[Item]) -> None:
    made = {"_index": "x", "_source": document(items[1], "ecs") | {"agent": {"name": "filebeat"}}}
    splunk = {"result": {"_raw": json.dumps(document(items[1], "cim")), "_time": "now"}}
    assert [line.verdict for line in verdicts(tree, made, splunk)] == ["verified", "verified"]


def test_record_of_a_trial_is_passed_over(tree: Tree) -> None:
    made = [document(marked(ORIGIN, 1), schema) for schema in SCHEMAS]
    assert {line.verdict for line in verdicts(tree, *made)} == {"a trial"}


def test_without_salts_nothing_is_proven(tree: Tree, items: list[Item]) -> None:
    made = document(items[1], "gatebook")
    for part in made["ledger"]:
        del part["salt"]
    assert verdicts(tree, made)[0].verdict == "not proven"


@pytest.mark.parametrize(
    "data",
    [
        b"not json",
        b"[]",
        b'"text"',
        b'{"ledger": 7}',
        b'{"ledger": [7]}',
        b'{"ledger": [{"index": -1, "record": "x"}]}',
        b'{"ledger": [{"index": 1, "record": "x", "salt": "AA=="}]}',
        b'{"ledger": [{"index": 1, "record": 7}]}',
        b"[" * 100_000,
        b'{"a": "' + b"x" * (5 << 20) + b'"}',
    ],
    ids=range(10),
)
def test_garbage_is_told_from_records(tree: Tree, data: bytes) -> None:
    (line,) = check([data], tree, ORIGIN)
    assert line.verdict == "unreadable"


def test_tree_of_another_key_verifies_nothing(state: State, items: list[Item], tmp_path: Path) -> None:
    other = Tree(state.paths.ledger, VERIFIER)
    with pytest.raises(Tampered):
        verdicts(other, document(items[1], "gatebook"))
