"""Our witness never cosigns a fork: not for a lie, not for two at once, not after a crash at any write."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.witness.logs import NOW, Log

from gatebook.errors import Damaged, EnvironmentFault, LedgerBusy, Tampered
from gatebook.ledger.files import Files
from gatebook.ledger.note import Checkpoint, Cosigner, check_note, sign_note
from gatebook.witness.protocol import SIZE_TYPE, Request, encode_request, parse_cosignatures
from gatebook.witness.state import Reply, State, add_log, create, load_key, origin_hash, watched

LOG = Log()
OTHER = bytes(32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create(tmp_path / "witness", "witness.example/w1")
    add_log(tmp_path / "witness", LOG.signer.vkey)
    return tmp_path / "witness"


@pytest.fixture
def state(folder: Path) -> Iterator[State]:
    made = State(folder, lambda: NOW)
    yield made
    made.close()


def cosigned(reply: Reply, log: Log, size: int, folder: Path) -> int:
    """The time of a cosignature that is what it should be, and on disk."""
    assert reply.status == 200, reply
    own = load_key(folder).verifier
    text = log.checkpoint(size).text()
    kept = (folder / "logs" / f"{origin_hash(log.signer.name)}.checkpoint").read_bytes()
    assert kept.endswith(reply.body.encode())
    assert len(check_note(kept, [own, log.signer.verifier]).signatures) == 2
    return parse_cosignatures(reply.body.encode(), text, own, NOW).time_s


def test_honest_log_is_cosigned_as_it_grows(state: State, folder: Path) -> None:
    for old, new in ((0, 1), (1, 1), (1, 7), (7, 256), (256, 300)):
        assert cosigned(state.add(LOG.ask(old, new)), LOG, new, folder) == NOW


def test_log_without_an_entry_is_cosigned_if_its_root_is_the_empty_tree_s(state: State) -> None:
    wrong = sign_note(Checkpoint(LOG.signer.name, 0, OTHER).text(), LOG.signer)
    assert state.add(encode_request(Request(0, (), wrong))).status == 422
    assert state.add(LOG.ask(0, 0)).status == 200
    assert state.add(LOG.ask(0, 3)).status == 200


def test_conflict_says_the_size_that_was_cosigned(state: State) -> None:
    assert state.add(LOG.ask(3, 5)) == Reply(409, "0\n", SIZE_TYPE)
    state.add(LOG.ask(0, 5))
    for old, new in ((0, 9), (4, 9), (6, 9), (0, 5), (0, 3)):
        assert state.add(LOG.ask(old, new)) == Reply(409, "5\n", SIZE_TYPE)


def test_smaller_tree_is_never_cosigned(state: State, folder: Path) -> None:
    state.add(LOG.ask(0, 9))
    smaller = encode_request(Request(9, (), LOG.note(5)))
    assert state.add(smaller).status == 400
    assert state.add(LOG.ask(5, 5)).status == 409
    cosigned(state.add(LOG.ask(9, 9)), LOG, 9, folder)


def test_fork_is_never_cosigned_and_kept_as_evidence(state: State, folder: Path) -> None:
    fork = Log(fork_at=4)
    state.add(LOG.ask(0, 6))
    for asked in (fork.ask(6, 6), fork.ask(6, 9), encode_request(Request(6, LOG.proof(6, 9), fork.note(9)))):
        assert state.add(asked).status == 422
    kept = sorted(path.read_bytes() for path in (folder / "evidence").iterdir())
    assert kept == sorted([fork.note(6), fork.note(9)])
    cosigned(state.add(LOG.ask(6, 9)), LOG, 9, folder)


def test_proof_that_is_none_or_too_much_is_refused(state: State) -> None:
    assert state.add(encode_request(Request(0, (OTHER,), LOG.note(5)))).status == 422
    state.add(LOG.ask(0, 5))
    for proof in ((), LOG.proof(5, 9)[1:], (*LOG.proof(5, 9), OTHER), (OTHER, *LOG.proof(5, 9)[1:])):
        assert state.add(encode_request(Request(5, proof, LOG.note(9)))).status == 422
    assert state.add(encode_request(Request(5, (OTHER,), LOG.note(5)))).status == 422


def test_unknown_log_is_not_found_whatever_it_signs(state: State) -> None:
    assert state.add(Log("acme/node-2").ask(0, 1)).status == 404


def test_origin_is_no_path(state: State) -> None:
    for origin in ("../../etc/passwd", "..", "a/../../b", "/"):
        assert state.add(Log(origin).ask(0, 1)).status == 404
        assert state.cosigned(origin) is None
    assert state.cosigned("../witness.key") is None


def test_other_key_of_the_same_name_is_forbidden(state: State) -> None:
    assert state.add(Log(seed=2).ask(0, 1)).status == 403


def test_signature_of_the_log_that_is_wrong_is_forbidden_beside_a_right_one(state: State) -> None:
    wrong = LOG.note(5) + LOG.note(6).splitlines(keepends=True)[-1]
    assert state.add(encode_request(Request(0, (), wrong))).status == 403


def test_lines_of_others_on_a_checkpoint_are_ignored_and_not_kept(state: State, folder: Path) -> None:
    text = LOG.checkpoint(5).text()
    stranger = str(Cosigner("stranger", OTHER).cosign(text, NOW)).encode()
    cosigned(state.add(encode_request(Request(0, (), LOG.note(5) + stranger))), LOG, 5, folder)


def test_extension_lines_of_other_logs_are_cosigned_with_the_rest(state: State, folder: Path) -> None:
    text = LOG.checkpoint(5).text() + "timestamp 5\n"
    reply = state.add(encode_request(Request(0, (), sign_note(text, LOG.signer))))
    assert parse_cosignatures(reply.body.encode(), text, load_key(folder).verifier, NOW).time_s == NOW
    assert state.add(LOG.ask(5, 6)).status == 200


@pytest.mark.parametrize("data", [b"", b"old 0\n\n", b"\xff" * 50, b"old 0\n\nhello\n\n\xe2\x80\x94 a AAAAAAAA\n"])
def test_nonsense_is_a_bad_request(state: State, data: bytes) -> None:
    assert state.add(data).status == 400


def test_two_requests_at_once_cannot_roll_back(state: State, folder: Path) -> None:
    state.add(LOG.ask(0, 5))
    replies: list[tuple[int, int]] = []
    begin = threading.Barrier(16)

    def ask(size: int) -> None:
        body = LOG.ask(5, size)
        begin.wait()
        replies.append((state.add(body).status, size))

    threads = [threading.Thread(target=ask, args=(6 + number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [size for status, size in replies if status == 200]
    assert len(won) == 1, replies
    assert {status for status, _ in replies} == {200, 409}
    assert state.add(LOG.ask(0, 30)).body == f"{won[0]}\n"


def test_second_process_is_turned_away(state: State, folder: Path) -> None:
    with pytest.raises(EnvironmentFault, match="another process"):
        State(folder, lambda: NOW)


@pytest.mark.parametrize("replaced", [False, True])
def test_lock_that_is_removed_does_not_let_two_processes_cosign_two_histories(
    folder: Path, replaced: bool
) -> None:
    first = State(folder, lambda: NOW)
    assert first.add(LOG.ask(0, 5)).status == 200
    (folder / "lock").unlink()
    second = State(folder, lambda: NOW) if replaced else None
    if second is not None:
        assert second.add(LOG.ask(5, 9)).status == 200
    with pytest.raises(LedgerBusy, match="another process may be this witness"):
        first.add(Log(fork_at=7).ask(5, 9))
    first.close()
    if second is not None:
        cosigned(second.add(LOG.ask(9, 12)), LOG, 12, folder)
        second.close()


def test_clock_that_stands_at_nothing_cosigns_nothing(folder: Path) -> None:
    state = State(folder, lambda: 0.0)
    assert state.add(LOG.ask(0, 5)).status == 500
    state.close()


class _Stopped(Exception):
    pass


class _Stopping(Files):
    """Stops at the n-th step, before or after it was done."""

    def __init__(self, steps: int, *, done: bool) -> None:
        self.steps, self.done = steps, done

    def _step(self, name: str, *arguments: object) -> object:
        self.steps -= 1
        if self.steps < 0 and not self.done:
            raise _Stopped
        result = getattr(super(), name)(*arguments)
        if self.steps < 0:
            raise _Stopped
        return result

    def create(self, path: Path) -> int:
        return self._step("create", path)  # type: ignore[return-value]

    def write(self, descriptor: int, data: bytes) -> None:
        self._step("write", descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._step("sync", descriptor)

    def rename(self, old: Path, new: Path) -> None:
        self._step("rename", old, new)

    def sync_folder(self, path: Path) -> None:
        self._step("sync_folder", path)


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("steps", range(5))
def test_crash_at_any_write_forgets_nothing_that_was_told(folder: Path, steps: int, done: bool) -> None:
    first = State(folder, lambda: NOW)
    assert first.add(LOG.ask(0, 5)).status == 200
    first.close()
    dying = State(folder, lambda: NOW, _Stopping(steps, done=done))
    with pytest.raises(_Stopped):
        dying.add(LOG.ask(5, 9))
    dying.close()
    again = State(folder, lambda: NOW)
    known = int(again.add(LOG.ask(2, 9)).body)
    assert known in (5, 9)
    assert again.add(Log(fork_at=4).ask(known, 12)).status == 422
    cosigned(again.add(LOG.ask(known, 12)), LOG, 12, folder)
    again.close()


def test_checkpoint_that_somebody_changed_stops_the_witness(folder: Path) -> None:
    state = State(folder, lambda: NOW)
    state.add(LOG.ask(0, 5))
    state.close()
    path = folder / "logs" / f"{origin_hash(LOG.signer.name)}.checkpoint"
    path.write_bytes(LOG.note(3))
    with pytest.raises(Tampered, match="not signed by any key"):
        State(folder, lambda: NOW)
    path.write_bytes(b"")
    with pytest.raises(Damaged):
        State(folder, lambda: NOW)


def test_checkpoint_of_another_log_in_its_place_is_noticed(folder: Path) -> None:
    other = Log("acme/node-2")
    add_log(folder, other.signer.vkey)
    state = State(folder, lambda: NOW)
    state.add(other.ask(0, 5))
    state.close()
    names = [folder / "logs" / f"{origin_hash(log.signer.name)}.checkpoint" for log in (other, LOG)]
    names[0].rename(names[1])
    with pytest.raises(Tampered, match="acme/node-2"):
        State(folder, lambda: NOW)


def test_log_is_added_while_the_witness_runs_and_its_key_is_not_changed_unasked(
    state: State, folder: Path
) -> None:
    other = Log("acme/node-2")
    add_log(folder, other.signer.vkey)
    assert state.add(other.ask(0, 3)).status == 200
    stolen = Log("acme/node-2", seed=9)
    with pytest.raises(EnvironmentFault, match="--new-key"):
        add_log(folder, stolen.signer.vkey)
    add_log(folder, stolen.signer.vkey, new_key=True)
    assert state.add(other.ask(3, 4)).status == 403
    assert state.add(stolen.ask(0, 4)).body == "3\n"
    assert state.add(stolen.ask(3, 4)).status == 200
    assert [
        (each.log.name, each.checkpoint and each.checkpoint.size, each.time_s) for each in watched(folder)
    ] == [
        ("acme/node-1", None, None),
        ("acme/node-2", 4, NOW),
    ]


def test_key_of_a_witness_is_never_written_over(folder: Path) -> None:
    before = load_key(folder).skey
    with pytest.raises(EnvironmentFault, match="is a witness already"):
        create(folder, "witness.example/w2")
    assert load_key(folder).skey == before
    assert (folder / "witness.key").stat().st_mode & 0o777 == 0o600


def test_witness_s_own_key_is_no_log(folder: Path) -> None:
    with pytest.raises(Damaged, match="that of a log"):
        add_log(folder, load_key(folder).vkey)


def test_evidence_cannot_fill_the_disk(state: State, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatebook.witness.state.MAX_EVIDENCE", 3)
    state.add(LOG.ask(0, 6))
    for number in range(6):
        assert state.add(Log(fork_at=number).ask(6, 6)).status == 422
    assert len(list((folder / "evidence").iterdir())) == 3


_KILLED = """
import os, sys
from pathlib import Path
from gatebook.witness.state import State
from tests.witness.logs import Log
state = State(Path(sys.argv[1]), lambda: 1_800_000_000)
old = int(state.add(Log().ask(1 << 10, 1 << 10)).body)
for new in range(old + 1, 1 << 10):
    assert state.add(Log().ask(old, new)).status == 200
    os.write(1, b"%d\\n" % new)
    old = new
"""


def test_kill_9_forgets_no_cosignature_that_was_given(folder: Path) -> None:
    told = 0
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", _KILLED, str(folder)], stdout=subprocess.PIPE, env={**os.environ}
        ) as process:
            assert process.stdout is not None
            for _ in range(5):
                told = int(process.stdout.readline())
            process.kill()
            told = max([told, *map(int, process.stdout.read().split())])
        state = State(folder, lambda: NOW)
        assert int(state.add(LOG.ask(1 << 10, 1 << 10)).body) >= told
        state.close()
