"""The order `redact` in a recorder that runs: others are answered, and a kill leaves all or nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.recorder.deployed import ORIGIN, State
from tests.recorder.place import item

from gatebook import record, wire
from gatebook.ledger import keys
from gatebook.ledger.entry import Erase, parse
from gatebook.ledger.read import Reader
from gatebook.recorder.submit import order


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = State(tmp_path)
    try:
        yield made
    finally:
        made.close()


def reader(state: State) -> Reader:
    return Reader(state.paths.ledger, ORIGIN, state.paths.deks, keys.load_reader(state.paths.keys))


def asked(state: State, *indices: int) -> dict[str, Any]:
    found = [reader(state).dek(index) for index in indices]
    given = {dek_id.hex(): dek.hex() for dek_id, dek in filter(None, found)}
    return {"indices": list(indices), "keys": given, "because": "secret", "reason": "a card", "actor": "os:7"}


def decided(of: Reader) -> list[str]:
    made = (record.decode(data) for _, data in of.forwards())
    return [each.request.path for each in made if isinstance(each, record.Decision)]


def test_record_goes_while_the_recorder_runs_and_everything_else_goes_on(state: State) -> None:
    recorder = state.start()
    first = recorder.append(*(item(number, path=f"/cards/{number}") for number in range(1, 200)))
    following = reader(state)
    assert len(list(following.forwards(first))) == 199
    told = order(state.configuration, "redact", asked(state, first + 3))
    assert told["erased"][0]["indices"] == [first + 3]
    assert recorder.append(item(500, path="/later")) > first + 200
    following.refresh()
    paths = decided(following)
    assert "/cards/4" not in paths
    assert {"/cards/3", "/cards/5", "/later"} <= set(paths)
    erased = [parse(entry) for at in range(following.size) if (entry := following.entry(at)) is not None]
    assert sum(isinstance(one, Erase) for one in erased) == 1
    assert recorder.end() == 0
    state.verified()
    private = reader(state)
    assert private.record(first + 3) is None
    assert [gap.erased for gap in private.gaps] == [True]


def test_order_about_several_segments_erases_one_and_leaves_the_others_to_the_next(state: State) -> None:
    """Guards are answered between two orders; what is asked of holds is asked for all of it each time."""
    recorder = state.start()
    first = recorder.append(item(1))
    order(state.configuration, "redact", asked(state, first) | {"indices": [recorder.append(item(2))]})
    last = recorder.append(item(3))
    parameters = asked(state, first, last)
    told = order(state.configuration, "redact", parameters)
    assert [each["indices"] for each in told["erased"]] == [[last]]
    assert told["left"] == [first]
    assert decided(reader(state)) == ["/orders/1"]
    told = order(state.configuration, "redact", parameters | {"indices": told["left"]})
    assert told["left"] == []
    assert decided(reader(state)) == []
    assert recorder.end() == 0
    state.verified()


def test_what_is_refused_leaves_the_recorder_running_and_the_log_as_it_was(state: State) -> None:
    recorder = state.start()
    first = recorder.append(item(1))
    wrongs: list[dict[str, Any]] = [{"keys": {}}, {"indices": [first + 50]}, {"indices": [0]}, {"actor": "root"}]
    for wrong in wrongs:
        with pytest.raises(Exception, match="nothing was erased"):
            order(state.configuration, "redact", asked(state, first) | wrong)
    assert recorder.is_ready()
    assert decided(reader(state)) == ["/orders/1"]
    assert recorder.end() == 0
    state.verified()


def test_key_of_another_segment_opens_nothing(state: State) -> None:
    recorder = state.start()
    first = recorder.append(item(1))
    wrong = asked(state, first)
    ((dek_id, _),) = wrong["keys"].items()
    with pytest.raises(Exception, match="its key does not open it"):
        order(state.configuration, "redact", wrong | {"keys": {dek_id: "00" * 32}})
    assert recorder.is_ready()
    assert decided(reader(state)) == ["/orders/1"]


def test_recorder_that_is_killed_within_a_redaction_leaves_all_or_nothing(state: State) -> None:
    done: list[dict[str, Any]] = []  # before the kill
    refused: list[str] = []
    for number in range(6):
        recorder = state.start()
        first = recorder.append(*(item(100 * number + n, path="/x" * 400) for n in range(1, 99)))
        parameters = asked(state, first)

        def go(parameters: dict[str, Any] = parameters) -> None:
            try:
                done.append(order(state.configuration, "redact", parameters, patience_s=1))
            except Exception as error:
                refused.append(str(error))

        ordering = threading.Thread(target=go)
        ordering.start()
        threading.Event().wait(0.004 * number)
        recorder.kill()
        ordering.join()
    recorder = state.start()
    assert recorder.end() == 0
    state_reader = reader(state)
    there = sum(1 for _ in state_reader.forwards())
    assert there
    erased = sum(
        isinstance(parse(entry), Erase)
        for at in range(state_reader.size)
        if (entry := state_reader.entry(at)) is not None
    )
    assert len(done) + len(refused) == 6
    assert all("recorder" in why for why in refused)
    assert erased >= len(done)
    assert len([gap for gap in state_reader.gaps if gap.erased]) == erased
    assert all(gap.erased for gap in state_reader.gaps)
    state.verified()
    assert not (state.paths.state / "erasing").exists()


def test_retention_stands_in_the_status(tmp_path: Path) -> None:
    state = State(tmp_path, retention={"records": "90d"})
    try:
        recorder = state.start()
        stands = recorder.ask(wire.Status())
        assert isinstance(stands, wire.Stands)
        assert stands.outside["retention"]["records_s"] == 90 * 86400
        assert recorder.end() == 0
        state.verified()
    finally:
        state.close()
