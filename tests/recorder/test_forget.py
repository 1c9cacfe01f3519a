"""Forgetting a person: all of their rows and every byte of them, said in the ledger, both or neither, once."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.guard.place import configured
from tests.recorder.deployed import State
from tests.recorder.place import item

from gatebook import holds, record, wire
from gatebook.config.model import Configuration
from gatebook.errors import EnvironmentFault, RecorderUnavailable
from gatebook.ledger.entry import Erase, encode, parse
from gatebook.ledger.read import entries_since
from gatebook.ledger.writer import Writer
from gatebook.paths import Paths
from gatebook.recorder.submit import order, submit
from gatebook.recorder.vault import Row, Vault, rows_of

KEY = bytes(range(32))  # tests.recorder.deployed's pseudonym.key
DAY_S = 86_400.0
ALICE, BOB = "subject:partners:alice", "subject:partners:bob"
PERIODS = 3


def lookup(name: str) -> bytes:
    return hmac.digest(KEY, name.encode(), "sha256")


def asked(name: str = ALICE, **more: Any) -> dict[str, Any]:
    return {
        "lookup": lookup(name).hex(),
        "provider": "partners",
        "reason": "request 17",
        "actor": "os:1000",
    } | more


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = State(tmp_path)
    _people(made.paths.vault)
    try:
        yield made
    finally:
        made.close()


def _people(path: Path) -> None:
    """Alice and Bob, known in three periods each; the file's log is not yet part of the file."""
    for number in range(PERIODS):
        opened = Vault(path, KEY, period_s=90 * DAY_S, now_s=lambda number=number: number * 90 * DAY_S)  # type: ignore[misc]
        for name in (ALICE, BOB):
            opened.pseudonym(name)
        opened.sync()
        opened.close()


def admins(state: State, action: str = "erase.subject") -> list[tuple[int, record.Admin]]:
    return [(at, each) for at, each in state.records() if isinstance(each, record.Admin) and each.action == action]


def erasures(paths: Paths) -> list[tuple[int, Erase]]:
    found = [(index, parse(data)) for index, data in entries_since(paths.ledger / "segments", 0)]
    return [(index, entry) for index, entry in found if isinstance(entry, Erase)]


def remains(path: Path, rows: list[Row]) -> list[str]:
    """What of these rows can be found in the vault's files."""
    data = {each.name: each.read_bytes() for each in path.parent.glob(path.name + "*")}
    return [
        f"{what} in {name}"
        for row in rows
        for what, part in (("lookup", row.lookup), ("key", row.key))
        for name, content in data.items()
        if part in content
    ]


# -- what it does ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("running", [False, True])
def test_all_periods_of_a_person_go_and_nobody_elses(state: State, running: bool) -> None:
    recorder = state.start() if running else None
    alice, bob = rows_of(state.paths.vault, lookup(ALICE)), rows_of(state.paths.vault, lookup(BOB))
    told = order(state.configuration, "forget", asked())
    assert [each["pseudonym"] for each in told["erased"]] == [row.pseudonym.hex() for row in alice]
    assert rows_of(state.paths.vault, lookup(ALICE)) == []
    assert rows_of(state.paths.vault, lookup(BOB)) == bob
    assert remains(state.paths.vault, alice) == []
    assert len(remains(state.paths.vault, bob)) == 2 * PERIODS  # the search would find them
    if recorder is not None:
        assert recorder.end() == 0
    state.verified()


def test_ledger_says_who_and_why_and_then_that_it_is_done(state: State) -> None:
    alice = rows_of(state.paths.vault, lookup(ALICE))
    told = order(state.configuration, "forget", asked())
    ((at, made),) = admins(state)
    assert (at, made.actor, made.detail["reason"]) == (told["record"], "os:1000", "request 17")
    digest = hashlib.sha256(record.encode(msgspec.structs.replace(made, v=None))).digest()
    erased = erasures(state.paths)
    assert [index for index, _ in erased] == [each["index"] for each in told["erased"]] == [at + 1, at + 2, at + 3]
    assert [entry for _, entry in erased] == [
        Erase(1, row.pseudonym, bytes(32), bytes(32), 1, digest) for row in alice
    ]
    assert [encode(entry).hex() for _, entry in erased] == [each["entry"] for each in told["erased"]]


def test_nothing_that_is_written_names_the_person(state: State) -> None:
    order(state.configuration, "forget", asked())
    assert b"alice" not in b"".join(record.encode(each) for _, each in state.records())


def test_lost_vault_is_not_made_anew_in_silence_by_a_command(state: State) -> None:
    """The recorder says so in the log: from then on the same people have other pseudonyms."""
    for path in state.paths.state.glob("vault.sqlite*"):
        path.unlink()
    submit(state.configuration, [record.Admin(time_us=1, action="key.create", actor="os:0")])
    recorder = state.start()
    assert [detail["vault"] for event, detail in state.events() if event == "recorder.start"] == ["made anew"]
    assert recorder.end() == 0


def test_address_is_forgotten_however_it_is_spelt(state: State) -> None:
    opened = Vault(state.paths.vault, KEY)
    opened.pseudonym("address:192.0.2.7")
    opened.sync()
    opened.close()
    rows = rows_of(state.paths.vault, lookup("address:192.0.2.7"))
    order(state.configuration, "forget", asked(lookup=None, address="::ffff:192.0.2.7"))
    assert remains(state.paths.vault, rows) == []
    assert b"192.0.2.7" not in b"".join(record.encode(each) for _, each in state.records())
    state.verified()


def test_person_of_many_periods_is_forgotten_in_all_of_them(state: State) -> None:
    """More of them than a record lists, or a verifier looks back."""
    opened = Vault(state.paths.vault, KEY)
    hours = 300
    for hour in range(1, hours + 1):
        opened.period_s, opened._now_s = 3600.0, lambda hour=hour: hour * 3600.0  # type: ignore[misc]
        opened.pseudonym(ALICE)
    opened.sync()
    opened.close()
    told = order(state.configuration, "forget", asked())
    assert len(told["erased"]) == hours + PERIODS
    ((_, made),) = admins(state)
    assert (made.detail["rows"], len(made.detail["pseudonyms"])) == (hours + PERIODS, 256)
    state.verified()


def test_who_comes_back_is_somebody_else(state: State) -> None:
    recorder = state.start()
    before = recorder.ask(wire.Pseudonym(ALICE, sealing=True))
    order(state.configuration, "forget", asked())
    after = recorder.ask(wire.Pseudonym(ALICE, sealing=True))
    assert isinstance(before, wire.Pseudonymous)
    assert isinstance(after, wire.Pseudonymous)
    assert after.pseudonym != before.pseudonym
    assert after.key != before.key
    assert after.erasures == before.erasures + 1  # so guards drop what they remember
    stands = recorder.stands()
    assert stands is not None
    assert stands.erasures == after.erasures


def test_number_of_erasures_outlives_the_process(state: State) -> None:
    """A guard that was connected before has to see that somebody was forgotten while no recorder ran."""
    recorder = state.start()
    before = recorder.stands()
    recorder.kill()
    order(state.configuration, "forget", asked())
    after = state.start().stands()
    assert before is not None
    assert after is not None
    assert after.erasures == before.erasures + 1


# -- what is refused ----------------------------------------------------------------------------------------
def test_nobody_to_forget_is_said_and_nothing_written(state: State) -> None:
    with pytest.raises(EnvironmentFault, match="no row of that person"):
        order(state.configuration, "forget", asked("subject:partners:eve"))
    assert admins(state) == []
    assert erasures(state.paths) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "192.0.2.7"},
        {"lookup": None, "address": "somewhere"},
        {"lookup": "ab"},
        {"lookup": "*"},
        {"reason": ""},
        {"actor": "alice"},
        {"more": 1},
        {"lookup": None},
    ],
)
def test_order_that_is_not_understood_is_refused(state: State, wrong: dict[str, Any]) -> None:
    recorder = state.start()
    with pytest.raises(EnvironmentFault, match="nothing was erased"):
        order(state.configuration, "forget", asked(**wrong))
    assert rows_of(state.paths.vault, lookup(ALICE))
    assert recorder.end() == 0


@pytest.mark.parametrize("person", [True, False])
def test_held_person_is_not_forgotten(state: State, person: bool) -> None:
    """By the hold on them, whichever of their pseudonyms it knows, or by one on everything."""
    held = holds.Person(provider="partners", key=lookup(ALICE).hex(), pseudonym=None) if person else None
    holds.add(
        state.paths.holds,
        person=held,
        since_us=None,
        until_us=None,
        reason="case 24-117",
        by="os:1000",
        now=1e9,
        random=lambda n: bytes(range(n)),
        announce=lambda _: None,
    )
    recorder = state.start()
    with pytest.raises(EnvironmentFault, match="case 24-117"):
        order(state.configuration, "forget", asked())
    assert len(rows_of(state.paths.vault, lookup(ALICE))) == PERIODS
    if person:
        order(state.configuration, "forget", asked(BOB))
    assert recorder.end() == 0


def test_broken_list_of_holds_forbids_it(state: State) -> None:
    state.paths.holds.write_bytes(b"{}")
    with pytest.raises(EnvironmentFault):
        order(state.configuration, "forget", asked())
    assert len(rows_of(state.paths.vault, lookup(ALICE))) == PERIODS


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Somebody reads the vault, as a backup does."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT * FROM person").fetchone()
    try:
        yield
    finally:
        other.close()


def test_reader_that_never_ends_cannot_make_it_lie(state: State) -> None:
    """While somebody reads the vault its log cannot be emptied: no ERASE says then that the bytes are gone."""
    alice = rows_of(state.paths.vault, lookup(ALICE))
    create = record.Admin(time_us=1, action="key.create", actor="os:0")
    with _reading(state.paths.vault):
        told = order(state.configuration, "forget", asked())
        assert told["begun"].startswith("begun, and goes on by itself: somebody reads the vault")
        submit(state.configuration, [create])
        assert remains(state.paths.vault, alice)
        assert erasures(state.paths) == []
    submit(state.configuration, [create])
    assert remains(state.paths.vault, alice) == []
    assert len(erasures(state.paths)) == PERIODS
    assert len(admins(state)) == 1
    state.verified()


@pytest.mark.parametrize("killed", [False, True])
def test_reader_of_the_vault_stops_neither_the_recorder_nor_a_start(state: State, killed: bool) -> None:
    recorder = state.start()
    alice = rows_of(state.paths.vault, lookup(ALICE))
    with _reading(state.paths.vault):
        assert "begun" in order(state.configuration, "forget", asked())
        assert "begun" in order(state.configuration, "forget", asked(BOB))
        if killed:
            recorder.kill()
            recorder = state.start()
        known = recorder.ask(wire.Pseudonym(ALICE))
        assert isinstance(known, wire.Pseudonymous)  # she comes back, as somebody else
        assert known.pseudonym not in [row.pseudonym for row in alice]
        recorder.append(item(1))
        assert erasures(state.paths) == []
    until = time.monotonic() + 60
    while len(erasures(state.paths)) < 2 * PERIODS and time.monotonic() < until:
        time.sleep(0.1)
    assert recorder.end() == 0
    assert {entry.object_id for _, entry in erasures(state.paths)} >= {row.pseudonym for row in alice}
    assert len(erasures(state.paths)) == 2 * PERIODS
    assert [each for each in remains(state.paths.vault, alice) if each.startswith("key")] == []
    assert len(admins(state)) == 2
    opened = Vault(state.paths.vault, KEY)
    assert opened.unfinished() == []
    opened.close()
    state.verified()


def test_bytes_that_were_moved_about_before_are_gone_too(tmp_path: Path) -> None:
    """A B-tree copies rows as it grows and shrinks; what it leaves behind is not the row, but its bytes."""
    path = tmp_path / "vault.sqlite"
    opened = Vault(path, KEY)
    names = [f"subject:partners:{number}" for number in range(3000)]
    for number, name in enumerate(names):
        opened.pseudonym(name)
        if number % 20 == 0:
            opened.sync()
    opened.sync()
    gone = []
    for start in (0, 1000, 2900):
        rows = [row for name in names[start : start + 50] for row in opened.rows(lookup(name))]
        opened.destroy([row.pseudonym for row in rows])
        gone += rows
        assert remains(path, gone) == []
    assert len(gone) == 150
    assert len(remains(path, opened.rows(lookup(names[999])))) == 2
    opened.close()


def _leave_copy(path: Path, row: Row) -> None:
    """As another program does that deletes without overwriting."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA secure_delete = OFF")
    other.execute("CREATE TABLE copy (key BLOB)")
    other.execute("INSERT INTO copy VALUES (?)", (row.key,))
    other.execute("DELETE FROM copy")
    other.close()


def test_bytes_that_somebody_has_left_in_a_free_page_are_gone_too(tmp_path: Path) -> None:
    """The file is written anew."""
    path = tmp_path / "vault.sqlite"
    opened = Vault(path, KEY)
    opened.pseudonym(ALICE)
    opened.pseudonym(BOB)
    opened.sync()
    (row,) = opened.rows(lookup(ALICE))
    _leave_copy(path, row)
    assert remains(path, [row._replace(lookup=row.key)])
    statements: list[str] = []
    opened._db.set_trace_callback(statements.append)
    opened.destroy([row.pseudonym])
    assert "VACUUM" in statements
    assert remains(path, [row]) == []
    assert len(opened.rows(lookup(BOB))) == 1
    opened.close()


def test_crash_after_the_rows_are_gone_leaves_none_of_their_bytes_in_a_free_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next process cannot look for what it does not know any more."""
    path = tmp_path / "vault.sqlite"
    opened = Vault(path, KEY)
    opened.pseudonym(ALICE)
    opened.sync()
    (row,) = opened.rows(lookup(ALICE))
    _leave_copy(path, row)

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Vault, "_wipe", die)
        with pytest.raises(Killed):
            opened.destroy([row.pseudonym])
    opened.close()
    opened = Vault(path, KEY)
    assert opened.rows(lookup(ALICE)) == []
    opened.destroy([row.pseudonym])
    opened.close()
    assert remains(path, [row]) == []


# -- where it is interrupted --------------------------------------------------------------------------------
class Killed(BaseException):
    pass


class Killer:
    """Counts steps from the first look into the vault on; before step `stop` the machine ends, its folder copied.

    With `lost`, what was written to the ledger and not synced is gone, as when the power fails.
    """

    def __init__(self, state: Path, copy: Path, stop: int, *, lost: bool) -> None:
        self.state, self.copy, self.stop, self.lost = state, copy, stop, lost
        self.armed = False
        self.steps: list[str] = []
        self.synced: dict[Path, int] = {}

    def __call__(self, step: str) -> None:
        if not self.armed:
            return
        if len(self.steps) == self.stop:
            shutil.copytree(self.state, self.copy)
            for path in (self.copy / "ledger" / "segments").iterdir():
                if self.lost:
                    with path.open("r+b") as stream:
                        stream.truncate(self.synced[path.relative_to(self.copy)])
            self.armed = False
            raise Killed
        self.steps.append(step)

    def see(self) -> None:
        segments = self.state / "ledger" / "segments"
        self.synced = {path.relative_to(self.state): path.stat().st_size for path in segments.iterdir()}


class Stopping(sqlite3.Connection):
    killer: Killer

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        if not sql.startswith("SELECT"):
            self.killer(" ".join(sql.split()[:2]))
        return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any) -> sqlite3.Cursor:
        self.killer(" ".join(sql.split()[:2]))
        return super().executemany(sql, parameters)


def run_killed(state: State, killer: Killer, patch: pytest.MonkeyPatch) -> bool:
    """Whether it came to the end."""
    Stopping.killer = killer
    real_rows, real_sync = Vault.rows, Writer.sync

    def rows(self: Vault, key: bytes) -> list[Row]:
        killer.armed = True
        killer.see()  # an order finds all that came before it durable
        return real_rows(self, key)

    def sync(self: Writer) -> None:
        killer("sync")
        real_sync(self)
        killer.see()

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Writer, *given: Any) -> Any:
            killer(name)
            return real(self, *given)

        return call

    with patch.context() as patched:
        connect = sqlite3.connect
        patched.setattr(sqlite3, "connect", lambda *given, **more: connect(*given, factory=Stopping, **more))
        patched.setattr(Vault, "rows", rows)
        patched.setattr(Writer, "sync", sync)
        for name in ("append", "append_entry"):
            patched.setattr(Writer, name, wrapped(name, getattr(Writer, name)))
        try:
            order(state.configuration, "forget", asked())
        except Killed:
            return False
        finally:
            killer.armed = False
    return True


@pytest.mark.parametrize("lost", [False, True])
def test_whatever_ends_it_half_way_it_is_done_once_and_in_full_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    seen: list[str] = []
    outcomes: set[int] = set()
    for stop in range(100):
        folder = tmp_path / str(stop)
        folder.mkdir()
        state = State(folder)
        try:
            _people(state.paths.vault)
            alice = rows_of(state.paths.vault, lookup(ALICE))
            copy = tmp_path / f"{stop}-killed" / "state"
            killer = Killer(state.paths.state, copy, stop, lost=lost)
            ended = run_killed(state, killer, monkeypatch)
        finally:
            state.close()
        if ended:
            break
        seen = killer.steps
        outcomes.add(_check_finished(copy, alice, begun="INSERT INTO" in seen))
    assert seen[-1] == "DELETE FROM"  # the last step: nothing is left to be done
    assert {"INSERT INTO", "append", "sync", "append_entry", "PRAGMA wal_checkpoint(TRUNCATE)"} <= set(seen)
    assert outcomes == {0, PERIODS}


def _check_finished(folder: Path, alice: list[Row], *, begun: bool) -> int:
    """The next process, and what it leaves; how many ERASE entries there are in the end."""
    after = Reopened(folder, configured(folder))
    submit(after.configuration, [record.Admin(time_us=1, action="key.create", actor="os:0")])
    records = [each for _, each in after.records() if isinstance(each, record.Admin)]
    erased = erasures(after.paths)
    if not begun:
        assert [each.action for each in records] == ["key.create"]
        assert rows_of(after.paths.vault, lookup(ALICE)) == alice
        assert erased == []
    else:
        assert [each.action for each in records] == ["erase.subject", "key.create"]
        assert rows_of(after.paths.vault, lookup(ALICE)) == []
        assert remains(after.paths.vault, alice) == []
        assert [entry.object_id for _, entry in erased] == [row.pseudonym for row in alice]
        (digest,) = {entry.authorisation_sha256 for _, entry in erased}
        assert digest == hashlib.sha256(record.encode(msgspec.structs.replace(records[0], v=None))).digest()
        opened = Vault(after.paths.vault, KEY)
        assert opened.unfinished() == []
        opened.close()
    assert len(rows_of(after.paths.vault, lookup(BOB))) == PERIODS
    after.verified()
    shutil.rmtree(after.paths.runtime, ignore_errors=True)
    return len(erased)


class Reopened(State):
    """A state folder that is there already."""

    def __init__(self, folder: Path, configuration: Configuration) -> None:
        self.paths = Paths(folder)
        self.configuration = configuration
        self.started = []


def test_recorder_that_is_killed_in_it_finishes_it_when_it_starts_again(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real process, after the rows are gone and before the ledger says so."""
    copy = tmp_path / "killed" / "state"
    steps = ["INSERT INTO", "append", "sync", "BEGIN IMMEDIATE", "DELETE FROM", "COMMIT"]
    assert not run_killed(state, Killer(state.paths.state, copy, len(steps), lost=False), monkeypatch)
    after = Reopened(copy, configured(copy))
    for private in (after.paths.runtime, after.paths.logs):
        private.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(state.paths.effective, after.paths.effective)
    try:
        recorder = after.start()
        assert len(erasures(after.paths)) == PERIODS
        assert recorder.end() == 0
    finally:
        after.close()


def test_caller_that_heard_nothing_is_told_that_it_may_be_done(state: State) -> None:
    """Never sent twice: the second one would find nobody, and tell so to whoever needs the receipt."""
    recorder = state.start()
    os.kill(recorder.popen.pid, signal.SIGSTOP)
    with pytest.raises(RecorderUnavailable):
        order(state.configuration, "forget", asked(), patience_s=0.3)
