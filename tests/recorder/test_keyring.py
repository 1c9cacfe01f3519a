"""Orders about keys, carried out by the recorder that runs, or in its place; and readers that come and go."""

from __future__ import annotations

import base64
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.ledger.caller import MINUTE, T0
from tests.ledger.disk import Quick
from tests.recorder.deployed import State
from tests.recorder.place import item

from gatebook import record
from gatebook.errors import EnvironmentFault, GatebookError
from gatebook.ledger import keys, logkeys
from gatebook.ledger.deks import Deks
from gatebook.ledger.files import Files
from gatebook.ledger.note import check_note
from gatebook.ledger.verify import verify
from gatebook.ledger.writer import Writer
from gatebook.recorder.keyring import Readers, end_overlap
from gatebook.recorder.submit import order

BY = {"actor": "os:7", "reason": "once a year"}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = State(tmp_path)
    try:
        yield made
    finally:
        made.close()


def acts(state: State) -> list[tuple[str, dict[str, Any]]]:
    return [(each.action, each.detail) for _, each in state.records() if isinstance(each, record.Admin)]


def add_reader(folder: Path, name: str) -> keys.Reader:
    private = X25519PrivateKey.generate()
    public = private.public_key()
    (folder / keys.recipient_file(name)).write_bytes(
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return keys.Reader(keys.key_id(public), private)


def signers(state: State) -> list[str]:
    held = logkeys.load_log_keys(state.paths.keys)
    known = [keys.load_verifier(state.paths.keys), *held.former]
    note = (state.paths.ledger / "log" / "checkpoint").read_bytes()
    return [key.key_id.hex() for key, _ in check_note(note, known).signatures]


def test_rotation_while_the_recorder_runs_is_on_record_before_it_is_in_force(state: State) -> None:
    kept = keys.load_verifier(state.paths.keys)
    recorder = state.start()
    told = order(state.configuration, "keys.rotate", BY)
    in_force = keys.load_verifier(state.paths.keys)
    assert told["new"] == in_force.vkey != kept.vkey == told["old"]
    assert signers(state) == [in_force.key_id.hex(), kept.key_id.hex()]
    recorder.append(item(1, os.getpid()))
    assert recorder.end() == 0
    ((action, detail),) = acts(state)
    assert (action, detail["reason"], detail["old"]) == ("keys.rotate", "once a year", kept.vkey)
    at = next(index for index, each in state.records() if isinstance(each, record.Admin))
    assert at < told["index"]
    state.verified()
    report = verify(state.paths.ledger, kept, lock=state.paths.lock)
    assert report.worst is None
    restarted = state.start()
    assert restarted.end() == 0
    state.verified()


def test_rotation_without_a_recorder_is_done_here_and_retiring_ends_the_old_key(state: State) -> None:
    kept = keys.load_verifier(state.paths.keys)
    order(state.configuration, "keys.rotate", BY)
    told = order(state.configuration, "keys.retire", BY)
    assert told["retired"] == [kept.key_id.hex()]
    assert not list(state.paths.keys.glob("log-*.key"))
    assert signers(state) == [keys.load_verifier(state.paths.keys).key_id.hex()]
    with pytest.raises(EnvironmentFault, match="nothing to retire"):
        order(state.configuration, "keys.retire", BY)
    assert [action for action, _ in acts(state)] == ["keys.rotate", "keys.retire"]
    assert verify(state.paths.ledger, kept, lock=state.paths.lock).worst is None


@pytest.mark.parametrize("parameters", [{}, {"actor": 7}, {"actor": "os:7", "reason": "x" * 1001}])
def test_rotation_by_nobody_is_refused_and_changes_nothing(parameters: dict[str, Any], state: State) -> None:
    before = sorted(path.name for path in state.paths.keys.iterdir())
    with pytest.raises(GatebookError, match="actor"):
        order(state.configuration, "keys.rotate", parameters)
    assert sorted(path.name for path in state.paths.keys.iterdir()) == before


def test_overlap_that_is_over_ends_by_itself(tmp_path: Path) -> None:
    keys.create_keys(tmp_path, "acme/node-1")
    from gatebook.ledger.note import Signer

    logkeys.install(Files(), tmp_path, Signer.generate("acme/node-1", os.urandom(32)))
    (path,) = logkeys.private_halves(tmp_path)
    retired: list[bytes] = []
    now = time.time()
    assert end_overlap(tmp_path, retired.extend, before=now) == []
    assert (end_overlap(tmp_path, retired.extend, before=now + logkeys.OVERLAP_S + 60), path.exists()) == (
        [path.name[4:12]],
        False,
    )
    assert [one.hex() for one in retired] == [path.name[4:12]]


def test_former_key_whose_log_pub_was_not_replaced_yet_is_mended_at_the_start(state: State) -> None:
    """What a crash between the two halves leaves."""
    before = (state.paths.keys / "log.pub").read_bytes()
    order(state.configuration, "keys.rotate", BY)
    after = (state.paths.keys / "log.pub").read_bytes()
    (state.paths.keys / "log.pub").write_bytes(before)
    recorder = state.start()
    assert recorder.end() == 0
    assert (state.paths.keys / "log.pub").read_bytes() == after


# -- readers ------------------------------------------------------------------------------------------------


def test_reader_that_is_added_gets_new_segments_only_until_it_is_wrapped_for(state: State) -> None:
    order(state.configuration, "keys.rotate", BY)
    new = add_reader(state.paths.keys, "auditor")
    order(state.configuration, "keys.rotate", BY)
    deks = Deks(state.paths.deks)
    old, young = ([ids for ids in deks.ids() if len(deks.get(ids) or []) == n] for n in (1, 2))
    assert len(old) == len(young) == 1
    host = keys.load_reader(state.paths.keys)
    (row,) = deks.get(old[0]) or []
    made = keys.wrap(keys.unwrap(row, old[0], host), old[0], keys.Recipient(new.id, new.key.public_key()))
    wrapped = {old[0].hex(): base64.b64encode(made.recipient + made.data).decode()}
    assert order(state.configuration, "keys.wrap", wrapped) == {"changed": 1, "unreadable": 0}
    assert order(state.configuration, "keys.wrap", wrapped) == {"changed": 0, "unreadable": 0}
    there = {one.recipient: one for one in deks.get(old[0]) or []}
    assert keys.unwrap(there[new.id], old[0], new) == keys.unwrap(there[host.id], old[0], host)
    state.verified()


def test_reader_is_taken_from_old_keys_but_never_the_last_one(state: State) -> None:
    order(state.configuration, "keys.rotate", BY)
    new = add_reader(state.paths.keys, "auditor")
    order(state.configuration, "keys.rotate", BY)
    host = keys.load_reader(state.paths.keys)
    deks = Deks(state.paths.deks)
    names = [one.hex() for one in deks.ids()]
    told = order(state.configuration, "keys.unwrap", {"reader": host.id.hex(), "deks": names})
    assert told["only_reader"] >= 1
    assert told["changed"] >= 1
    readers = [{one.recipient for one in deks.get(dek_id) or []} for dek_id in deks.ids()]
    assert {frozenset(each) for each in readers} >= {frozenset({new.id}), frozenset({host.id})}
    assert all(readers)


def test_torn_dek_neither_stops_the_recorder_nor_the_order_for_others(state: State) -> None:
    order(state.configuration, "keys.rotate", BY)
    new = add_reader(state.paths.keys, "auditor")
    order(state.configuration, "keys.rotate", BY)
    deks = Deks(state.paths.deks)
    (state.paths.deks / f"{'00' * 16}.dek").write_bytes(b"GBDEK")  # sorts before all others
    names = [one.hex() for one in deks.ids()]
    told = order(state.configuration, "keys.unwrap", {"reader": new.id.hex(), "deks": names})
    assert (told["changed"], told["unreadable"]) == (1, 1)
    row = base64.b64encode(bytes(112)).decode()
    assert order(state.configuration, "keys.wrap", {"00" * 16: row}) == {"changed": 0, "unreadable": 1}


@pytest.mark.parametrize(
    ("verb", "parameters"),
    [
        ("keys.wrap", {}),
        ("keys.wrap", {"../../etc": "AA=="}),
        ("keys.wrap", {"00" * 16: "AA=="}),
        ("keys.wrap", {"00" * 16: 7}),
        ("keys.wrap", {f"{n:032x}": base64.b64encode(bytes(112)).decode() for n in range(51)}),
        ("keys.unwrap", {"reader": "00" * 32, "deks": []}),
        ("keys.unwrap", {"reader": "00" * 32, "deks": ["../log.key"]}),
        ("keys.unwrap", {"reader": "zz" * 32, "deks": ["00" * 16]}),
    ],
)
def test_order_that_names_no_dek_is_refused(verb: str, parameters: dict[str, Any], state: State) -> None:
    with pytest.raises(GatebookError):
        order(state.configuration, verb, parameters)


def test_dek_that_was_erased_does_not_come_back_by_wrapping_it(state: State) -> None:
    row = base64.b64encode(bytes(112)).decode()
    assert order(state.configuration, "keys.wrap", {"ab" * 16: row}) == {"changed": 0, "unreadable": 0}
    assert Deks(state.paths.deks).get(bytes.fromhex("ab" * 16)) is None


def test_reader_that_comes_while_it_writes_is_sealed_for_from_the_next_segment_on(tmp_path: Path) -> None:
    keys.create_keys(tmp_path, "acme/node-1")
    (host,) = keys.load_recipients(tmp_path)
    told: list[str] = []
    clock = [T0]
    writer = Writer.open(
        ledger=tmp_path / "ledger",
        lock=tmp_path / "lock",
        deks=tmp_path / "deks",
        signer=keys.load_signer(tmp_path),
        recipients=Readers(tmp_path, lambda event, _detail: told.append(event)),
        boot_digest=bytes(32),
        restore=lambda _: None,
        snapshot=bytes,
        now_us=lambda: clock[0],
        reserve_bytes=0,
        files=Quick(),
    )
    new = add_reader(tmp_path, "auditor")
    writer.append([b"for the host alone"])
    clock[0] += 5 * MINUTE
    writer.append([b"for both"])
    (tmp_path / "reader-auditor.pub").write_bytes(b"rubbish")
    clock[0] += 5 * MINUTE
    writer.append([b"for both still"])
    (tmp_path / "reader-auditor.pub").unlink()
    clock[0] += 5 * MINUTE
    writer.append([b"for the host alone again"])
    writer.close()
    deks = Deks(tmp_path / "deks")
    names = sorted(path.name for path in (tmp_path / "ledger" / "segments").iterdir())[:4]
    heads = [(tmp_path / "ledger" / "segments" / name).read_bytes()[24:40] for name in names]
    sealed_for = [{one.recipient for one in deks.get(dek_id) or []} for dek_id in heads]
    assert sealed_for == [{host.id}, {host.id, new.id}, {host.id, new.id}, {host.id}]
    assert told == ["recorder.readers", "recorder.readers_kept", "recorder.readers"]


def test_broken_file_of_a_reader_keeps_the_last_good_ones_and_says_so_once(tmp_path: Path) -> None:
    keys.create_keys(tmp_path, "acme/node-1")
    told: list[tuple[str, dict[str, Any]]] = []
    readers = Readers(tmp_path, lambda event, detail: told.append((event, detail)))
    first = readers()
    assert told == []
    new = add_reader(tmp_path, "auditor")
    assert {one.id for one in readers()} == {first[0].id, new.id}
    (tmp_path / "reader-auditor.pub").write_bytes(b"no key")
    assert {one.id for one in readers()} == {first[0].id, new.id}
    assert {one.id for one in readers()} == {first[0].id, new.id}
    (tmp_path / "reader-auditor.pub").unlink()
    assert [one.id for one in readers()] == [first[0].id]
    assert [event for event, _ in told] == ["recorder.readers", "recorder.readers_kept", "recorder.readers"]
    assert "not an X25519 public key" in told[1][1]["why"]


def test_no_reader_at_all_refuses_the_start_but_does_not_stop_what_runs(tmp_path: Path) -> None:
    keys.create_keys(tmp_path, "acme/node-1")
    running = Readers(tmp_path, lambda _event, _detail: None)
    before = running()
    (tmp_path / "reader.pub").unlink()
    assert list(running()) == list(before)
    with pytest.raises(EnvironmentFault, match="nobody could read"):
        Readers(tmp_path, lambda _event, _detail: None)()


def test_too_many_readers_are_refused_like_a_broken_file(tmp_path: Path) -> None:
    keys.create_keys(tmp_path, "acme/node-1")
    for number in range(64):
        add_reader(tmp_path, f"r{number}")
    with pytest.raises(EnvironmentFault, match="65 readers"):
        Readers(tmp_path, lambda _event, _detail: None)()


def test_rotations_that_are_killed_at_any_moment_leave_one_chain_of_keys(state: State) -> None:
    """kill -9 while the order runs; whatever came of it, the next process goes on, and the first key leads."""
    kept = keys.load_verifier(state.paths.keys)
    done = 0
    for delay_ms in (2, 6, 15):
        recorder = state.start()
        recorder.append(item(delay_ms, os.getpid()))

        def rotate() -> None:
            nonlocal done
            with contextlib.suppress(GatebookError):
                order(state.configuration, "keys.rotate", BY, patience_s=5)
                done += 1

        asking = threading.Thread(target=rotate)
        asking.start()
        threading.Event().wait(delay_ms / 1000)
        recorder.kill()
        asking.join()
    recorder = state.start()
    recorder.append(item(99, os.getpid()))
    assert recorder.end() == 0
    report = verify(state.paths.ledger, kept, lock=state.paths.lock)
    assert [each for each in report.findings if each.kind != "incomplete"] == []
    held = logkeys.load_log_keys(state.paths.keys)
    listed = (state.paths.ledger / "log" / "keys").read_text().splitlines() if held.former else [kept.vkey]
    assert listed[0] == kept.vkey
    assert listed[-1] == held.signer.vkey == keys.load_verifier(state.paths.keys).vkey
    assert len(listed) >= 1 + done, "a rotation that was told as done was undone"
