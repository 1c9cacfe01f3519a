"""From the gateway's two logs to outcomes: each request has one, however it failed and whoever was killed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.guard.place import configured
from tests.recorder.place import BOOT, Book, Desk, Gateway, Processes, request_id

from gatebook import record
from gatebook.errors import LedgerFull
from gatebook.ledger.entry import Loss
from gatebook.recorder import gatewaylog, memo
from gatebook.recorder.gatewaylog import UNDECIDED_S, merged
from gatebook.recorder.numbering import PATIENCE_S


class Place:
    """A gateway whose workers 7 and 8 are alive, and the recorder at its side."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.folder = folder
        self.processes = Processes(7, 8)
        self.gateway = Gateway(folder / "logs", 7, 8)
        self.gateway.starts()
        self.book = Book(folder / "1", self.processes.workers())
        self.desk = Desk(self.book, self.gateway, **more)
        self._lives = 1

    def dies_and_starts_again(self, boot: str = BOOT, root: Path | None = None) -> None:
        """kill -9 of the recorder, and its successor."""
        self._lives += 1
        root = self.book.killed(root or self.folder / str(self._lives))
        self.desk.close()
        self.book.close()
        self.book = Book(root, self.processes.workers(boot))
        self.desk = Desk(self.book, self.gateway)

    def told(self) -> list[tuple[int | None, str | None]]:
        """Decision and cause of every outcome."""
        found = self.book.outcomes()
        return [(each.decision_index, each.error.detail if each.error else None) for each in found]

    def close(self) -> None:
        self.desk.close()
        self.book.close()
        self.gateway.close()


@pytest.fixture
def placed(tmp_path: Path) -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def call(**more: Any) -> Place:
        made.append(Place(tmp_path, **more))
        return made[-1]

    yield call
    for place in made:
        place.close()


@pytest.fixture
def place(placed: Callable[..., Place]) -> Place:
    return placed()


# -- joining ----------------------------------------------------------------------------------------------
def test_line_closes_its_decision(place: Place) -> None:
    first, second = place.book.decide(1, 2)
    place.gateway.line(2, second)
    place.desk.read()
    assert list(place.book.journal.open) == [first]
    (found,) = place.book.outcomes()
    assert (found.decision_index, found.id, found.request, found.client) == (second, request_id(2), None, None)


def test_line_without_a_decision_says_what_was_asked(place: Place) -> None:
    place.gateway.line(1, s="400", r="", us="", ua="")
    place.desk.read()
    (found,) = place.book.outcomes()
    assert found.decision_index is None
    assert found.request == record.RequestPart(method="GET", path="/orders/1", host="x", protocol="1.1")
    assert found.client == record.ClientPart(address="192.0.2.0/24")


def test_line_that_lost_its_decision_finds_it_by_the_requests_id(place: Place) -> None:
    (index,) = place.book.decide(1)
    place.gateway.line(1, s="503", r="recorder_unavailable", us="", ua="")
    place.desk.read()
    (found,) = place.book.outcomes()
    assert (found.decision_index, found.request) == (index, None)
    assert place.book.journal.open == {}


def test_line_that_lost_its_decision_finds_it_after_the_recorder_was_killed(place: Place) -> None:
    """The common case of it: what was on its way when the recorder died is durable, and was never acknowledged."""
    (index,) = place.book.decide(1)
    place.dies_and_starts_again()
    place.gateway.line(1, s="503", r="recorder_unavailable", us="", ua="")
    place.desk.read()
    assert place.told() == [(index, "recorder_unavailable")]
    assert place.book.journal.open == {}


def test_line_that_is_read_before_its_decision_keeps_it_from_staying_open(place: Place) -> None:
    place.gateway.line(1)
    place.desk.read()
    place.book.decide(1)
    assert place.book.journal.open == {}
    assert [each.id for each in place.book.outcomes()] == [request_id(1)]


def test_load_balancers_question_makes_no_record(place: Place) -> None:
    place.gateway.write(b'{"i":"","p":"7","c":"3","n":"1","pr":"HTTP/1.1"}\n')
    place.desk.read()
    assert place.book.outcomes() == []
    assert place.desk.log.requests == 0


def test_configuration_says_what_is_kept_of_whom_nobody_decided_on(placed: Callable[..., Place]) -> None:
    asked: list[str] = []

    def pseudonym(name: str) -> bytes:
        asked.append(name)
        return b"p" * 16

    place = placed(configuration=configured(audit={"address": "pseudonym"}), pseudonym=pseudonym)
    place.gateway.line(1)
    place.desk.read()
    place.desk.log.configure(configured(audit={"address": "drop"}))
    place.gateway.line(2)
    place.desk.read()
    first, second = place.book.outcomes()
    assert first.client == record.ClientPart(address=(b"p" * 16).hex())
    assert asked == ["address:192.0.2.7"]
    assert second.client is None


def test_address_that_is_to_be_sealed_is_cut_where_no_decision_can_seal_it(placed: Callable[..., Place]) -> None:
    """And costs no row of the vault: a flood of what nginx refuses would fill it for nothing."""
    asked: list[str] = []

    def pseudonym(name: str) -> bytes:
        asked.append(name)
        return b"p" * 16

    place = placed(configuration=configured(audit={"address": "seal", "subject": "seal"}), pseudonym=pseudonym)
    place.gateway.line(1)
    place.desk.read()
    (found,) = place.book.outcomes()
    assert found.client == record.ClientPart(address="192.0.2.0/24")
    assert asked == []


# -- lines that are none ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "data",
    [b"nonsense\n", b"\n", b"{}\n", b'{"i":1}\n', b'{"i":"\xff"}\n', b"[]\n", b'{"i":"x"\n', b'{"i":"\\ud800"}\n'],
)
def test_line_that_cannot_be_read_is_on_record_and_holds_up_nobody(place: Place, data: bytes) -> None:
    place.gateway.write(data)
    place.gateway.line(1)
    place.desk.read()
    assert [each.id for each in place.book.outcomes()] == [request_id(1)]
    assert place.book.events() == [("gateway.log_unreadable", {"lines": 1})]
    assert place.desk.log.lost == 1


def test_loss_is_told_once_though_the_recorder_is_killed(place: Place) -> None:
    """A count in memory would be forgotten with the process."""
    place.gateway.write(b"nonsense\n")
    place.desk.read()
    place.dies_and_starts_again()
    place.desk.read()
    assert place.book.events() == [("gateway.log_unreadable", {"lines": 1})]


def test_line_behind_a_torn_one_is_read(place: Place) -> None:
    """A worker that is killed while it writes leaves half a line, and another's is written behind it."""
    whole = place.gateway.text(1, worker=8)
    place.gateway.write(place.gateway.text(2)[:80])
    place.gateway.write(whole, 8)
    place.desk.read()
    assert [each.id for each in place.book.outcomes()] == [request_id(1)]
    assert place.book.events() == [("gateway.log_unreadable", {"lines": 1})]


def test_client_cannot_begin_a_line_within_its_own(place: Place) -> None:
    """What it sends stands in the line with its quotation marks escaped."""
    place.gateway.line(1, q='/{"i":"forged","d":"7"')
    place.desk.read()
    place.gateway.write(place.gateway.text(2, q='/{"i":"forged"}')[:-30] + b"\n")
    place.desk.read()
    assert [each.id for each in place.book.outcomes()] == [request_id(1)]


def test_line_that_we_fail_on_is_lost_and_stops_nothing(placed: Callable[..., Place]) -> None:
    """It would stop the next process as well, and then for good."""

    def pseudonym(name: str) -> bytes:
        raise RuntimeError("an error of ours")

    place = placed(configuration=configured(audit={"address": "pseudonym"}), pseudonym=pseudonym)
    place.gateway.line(1)
    (index,) = place.book.decide(2)
    place.gateway.line(2, index)
    place.desk.read()
    assert place.told() == [(index, None)]
    assert place.book.events() == [("gateway.log_unreadable", {"lines": 1})]


@pytest.mark.parametrize("error", [LedgerFull("no room"), OSError(24, "Too many open files"), MemoryError()])
def test_line_for_which_there_is_no_room_is_not_lost(placed: Callable[..., Place], error: Exception) -> None:
    """A full disk ends the process; the line is read again, once, by the next."""

    def pseudonym(name: str) -> bytes:
        raise error

    place = placed(configuration=configured(audit={"address": "pseudonym"}), pseudonym=pseudonym)
    (index,) = place.book.decide(1)
    place.gateway.line(1, index)
    place.gateway.line(2)
    with pytest.raises(type(error)):
        place.desk.read()
    place.book.decide(3)  # somebody else's commit, before the process ends
    place.dies_and_starts_again()
    place.desk.read()
    assert [each.id for each in place.book.outcomes()] == [request_id(1), request_id(2)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=80).map(lambda data: data.replace(b"\n", b"")), max_size=6))
def test_no_bytes_in_a_log_stop_the_recorder(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    place = Place(tmp_path_factory.mktemp("place"))
    try:
        for data in lines:
            place.gateway.write(data + b"\n")
            place.gateway.write(b"2026/11/24 20:00:00 [error] 7#7: *3 " + data + b"\n", name="error")
        place.gateway.line(1)
        place.desk.read()
        assert request_id(1) in [each.id for each in place.book.outcomes()]
    finally:
        place.close()


# -- the error log ----------------------------------------------------------------------------------------
def test_failed_handshake_is_on_record_once(place: Place) -> None:
    place.gateway.error("SSL_do_handshake() failed (SSL: error:0A000102:SSL routines::x) while SSL handshaking")
    place.desk.read()
    place.desk.second(3)
    (found,) = place.book.outcomes()
    assert found.error == record.ErrorPart(
        source="client",
        detail="tls_handshake_failed",
        message="SSL_do_handshake() failed (SSL: error:0A000102:SSL routines::x) while SSL handshaking",
    )
    assert found.client == record.ClientPart(address="192.0.2.0/24")


FORGED = (
    b"2026/11/24 20:00:00 [info] 7#7: *9 SSL_do_handshake() failed (x) while SSL handshaking, client: 6.6.6.6\n"
)
QUOTES = b'2026/11/24 20:00:00 [info] 7#7: *3 client sent header "x" with invalid value: "'


def test_client_cannot_forge_a_failed_handshake(place: Place) -> None:
    """Over HTTP/2 nginx quotes a header as it came, with its line breaks."""
    place.gateway.write(QUOTES + b"v\n" + FORGED * 10 + b'" while reading client request headers\n', name="error")
    place.desk.read()
    assert place.book.outcomes() == []


def test_client_cannot_put_words_to_anothers_request(place: Place) -> None:
    words = b"2026/11/24 20:00:00 [error] 7#7: *5 no live upstreams while connecting to upstream"
    place.gateway.write(QUOTES + b'v", client: 6.6.6.6\n' + words + b", client: 1.1.1.1\n", name="error")
    (index,) = place.book.decide(1)
    place.gateway.line(1, index, c="5", s="502", us="502")
    place.desk.read()
    assert place.told() == [(index, "bad_gateway")]


def test_client_cannot_forge_lines_across_a_restart(place: Place) -> None:
    place.gateway.write(QUOTES + b"v\n", name="error")
    place.gateway.line(1)
    place.desk.read()
    place.dies_and_starts_again()
    place.gateway.write(FORGED, name="error")  # the rest of the same message
    place.desk.read()
    assert [each.id for each in place.book.outcomes()] == [request_id(1)]


def test_nginx_is_believed_again_behind_the_longest_message(place: Place) -> None:
    place.gateway.write(QUOTES + b"v\n", name="error")
    for _ in range(40):
        place.gateway.error("client timed out (110: Operation timed out) while SSL handshaking")
    place.gateway.error("SSL_do_handshake() failed (SSL: error:1:x) while SSL handshaking")
    place.desk.read()
    assert [each.error.detail for each in place.book.outcomes() if each.error] == ["tls_handshake_failed"]


# -- what will never come ---------------------------------------------------------------------------------
def test_decision_of_a_worker_that_died_is_unknown_and_anothers_is_not(place: Place) -> None:
    (dead,) = place.book.decide(1, worker=7)
    (alive,) = place.book.decide(2, worker=8)
    del place.processes.began[7]
    place.desk.second(2)
    assert place.told() == [(dead, "outcome_unknown")]
    assert list(place.book.journal.open) == [alive]


def test_line_that_a_worker_wrote_before_it_died_counts(place: Place) -> None:
    (index,) = place.book.decide(1)
    place.desk.log.bury()
    place.gateway.line(1, index)
    del place.processes.began[7]
    place.desk.log.bury()
    place.desk.log.bury()  # the line has not been looked at
    place.desk.commit()
    assert place.told() == []
    place.desk.second(3)
    assert place.told() == [(index, None)]


def test_torn_line_of_a_dead_worker_does_not_keep_its_decisions_open(place: Place) -> None:
    (index,) = place.book.decide(1)
    place.gateway.write(place.gateway.text(1, index)[:50])
    del place.processes.began[7]
    place.desk.second(3)
    assert place.told() == [(index, "outcome_unknown")]


def test_worker_that_shuts_down_slowly_keeps_its_decisions(place: Place) -> None:
    """After a reload the old workers finish what they have begun, for as long as it takes."""
    place.book.decide(1)
    place.desk.second(50)
    assert place.told() == []


def test_number_of_a_dead_worker_that_another_process_got_does_not_keep_it_alive(place: Place) -> None:
    (index,) = place.book.decide(1)
    place.processes.began[7] += 1
    place.desk.second(2)
    assert place.told() == [(index, "outcome_unknown")]


def test_after_a_reboot_nobody_waits_for_what_was_open(place: Place) -> None:
    """The same numbers are given again, as in a container, where the log folder may be on a disk."""
    (index,) = place.book.decide(1)
    place.dies_and_starts_again(boot="boot-2")
    place.desk.second(2)
    assert place.told() == [(index, "outcome_unknown")]


def test_restart_of_the_recorder_buries_nobody(place: Place) -> None:
    """Not even before its first heartbeat, when no line has moved the cursor yet."""
    (index,) = place.book.decide(1)
    place.dies_and_starts_again()
    place.desk.second(5)
    assert place.told() == []
    place.gateway.line(1, index)
    place.desk.read()
    assert place.told() == [(index, None)]


def test_many_dead_are_buried_in_turns(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """All in one would be more than a frame holds."""
    monkeypatch.setattr(gatewaylog, "MAX_BURIED", 10)
    indices = place.book.decide(*range(35))
    del place.processes.began[7]
    place.desk.second(2)
    assert len(place.told()) == 10
    place.desk.second(3)
    assert [index for index, _ in place.told()] == indices


def test_more_open_decisions_than_can_be_are_given_up_oldest_first(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their lines do not come, as on a full disk; the memory that they take has an end."""
    monkeypatch.setattr(gatewaylog, "MAX_OPEN", 5)
    indices = place.book.decide(*range(8))
    place.desk.second()
    assert place.told() == [(index, "outcome_unknown") for index in indices[:3]]
    assert list(place.book.journal.open) == indices[3:]


# -- missing lines ----------------------------------------------------------------------------------------
def losses(place: Place) -> list[tuple[bytes, int, int, int]]:
    return [
        (e.producer, e.first_seq, e.last_seq, e.reason) for e in place.book.entries(Loss) if isinstance(e, Loss)
    ]


def connection(worker: int, number: int) -> bytes:
    return worker.to_bytes(4, "big") + number.to_bytes(4, "big")


def test_missing_line_is_a_loss_and_a_record_says_which(place: Place) -> None:
    place.gateway.line(1, n="1")
    place.gateway.line(2, n="4")
    place.desk.second(int(PATIENCE_S) - 1)
    assert losses(place) == []
    place.desk.second(2)
    assert losses(place) == [(connection(7, 3), 2, 3, 16)]
    assert place.book.events() == [("gateway.log_incomplete", {"missing": [[7, 3, 2, 3]]})]
    place.desk.second(30)
    assert len(losses(place)) == 1


def test_hole_that_waits_when_the_recorder_is_killed_is_a_loss_all_the_same(place: Place) -> None:
    place.gateway.line(1, n="1")
    place.gateway.line(2, n="4")
    place.desk.read()
    place.dies_and_starts_again()
    place.gateway.line(3, n="5")
    place.desk.second(int(PATIENCE_S) + 1)
    place.dies_and_starts_again()
    place.desk.second(30)
    assert losses(place) == [(connection(7, 3), 2, 3, 16)]


def test_hole_is_a_loss_although_its_folder_is_gone_since(place: Place) -> None:
    """As a memory file system is, after the machine."""
    place.gateway.line(1, n="1")
    place.gateway.line(2, n="4")
    place.desk.read()
    for path in place.gateway.folder.iterdir():
        path.unlink()
    place.dies_and_starts_again(boot="boot-2")
    place.desk.second(30)
    assert losses(place) == [(connection(7, 3), 2, 3, 16)]
    assert ("gateway.log_gone", {"why": "restart"}) in place.book.events()


def test_hole_that_waits_at_the_end_is_a_loss_at_once(place: Place) -> None:
    place.gateway.line(1, n="1")
    place.gateway.line(2, n="4")
    place.desk.read()
    while place.desk.log.last_look():
        place.desk.commit()
    assert losses(place)[0] == (connection(7, 3), 2, 3, 16)


def test_line_that_nobody_can_read_is_a_loss(place: Place) -> None:
    place.gateway.write(b"nonsense\nand more\n")
    place.gateway.line(1)
    place.desk.read()
    assert losses(place) == [(b"gateway\0", 1, 2, 18)]


def test_log_that_somebody_empties_or_removes_is_told(place: Place) -> None:
    place.gateway.line(1, u="")
    place.desk.read()
    os.truncate(place.gateway.folder / "access.log", 0)
    place.desk.read()
    assert place.book.events() == [("gateway.log_gone", {"why": "removed"})]
    place.gateway.line(2, u="")
    place.desk.read()
    place.desk.second(61)  # rotated, but not retired
    place.gateway.line(3, u="")
    place.desk.read()
    for path in place.gateway.folder.iterdir():
        path.unlink()
    place.dies_and_starts_again()
    place.desk.second()
    assert place.book.events()[1:] == [("gateway.log_gone", {"why": "removed"})]


# -- let through without a decision ------------------------------------------------------------------------
def through(place: Place, *numbers: int) -> None:
    """`durability: after-response`: the guard did not wait for the receipt."""
    for number in numbers:
        place.gateway.line(number, None, n=str(number), u="orders")


def test_request_that_was_let_through_and_never_decided_on_is_a_loss(place: Place) -> None:
    through(place, 1, 2, 3)
    place.desk.second(int(UNDECIDED_S) - 1)
    assert losses(place) == []
    place.desk.second(2)
    assert losses(place) == [(connection(7, 3), 1, 3, 19)]
    lost = [request_id(number) for number in (1, 2, 3)]
    assert place.book.events() == [("guard.decisions_lost", {"requests": lost})]
    place.desk.second(100)
    assert len(losses(place)) == 1


def test_decision_that_comes_late_is_no_loss(place: Place) -> None:
    through(place, 1, 2)
    place.desk.second(5)
    place.book.decide(2)
    place.desk.second(100)
    assert losses(place) == [(connection(7, 3), 1, 1, 19)]


def test_request_that_was_refused_without_a_decision_is_no_loss(place: Place) -> None:
    place.gateway.line(1, None, n="1", u="", s="503")
    place.desk.second(100)
    assert losses(place) == []


def test_losses_that_continue_each_other_are_one() -> None:
    def owed(producer: bytes, first: int, last: int, reason: int = 18) -> memo.Owed:
        return memo.Owed(producer, first, last, reason)

    apart = [owed(b"a", 5, 6), owed(b"b", 1, 1), owed(b"a", 1, 2), owed(b"a", 3, 3), owed(b"b", 2, 2, 16)]
    assert merged(apart) == [owed(b"a", 1, 3), owed(b"a", 5, 6), owed(b"b", 1, 1), owed(b"b", 2, 2, 16)]


def test_http_2_is_not_judged(place: Place) -> None:
    """A stream that stays open leaves a hole for as long as it likes."""
    place.gateway.line(1, n="7", pr="HTTP/2.0")
    place.desk.second(30)
    assert losses(place) == []


def test_load_balancers_questions_are_no_hole(place: Place) -> None:
    place.gateway.line(1, n="1")
    place.gateway.write(b'{"i":"","p":"7","c":"3","n":"2","pr":"HTTP/1.1"}\n')
    place.gateway.line(2, n="3")
    place.desk.second(30)
    assert losses(place) == []


def test_restart_of_the_recorder_is_no_hole(place: Place) -> None:
    place.gateway.line(1, n="1", c="3")
    place.gateway.line(2, n="1", c="5")
    place.desk.read()
    place.dies_and_starts_again()
    place.gateway.line(3, n="2", c="3")
    place.gateway.line(4, n="1", c="6")
    place.desk.second(30)
    assert losses(place) == []


def test_missing_line_of_a_new_connection_is_found_after_a_restart_too(place: Place) -> None:
    place.gateway.line(1, n="1", c="3")
    place.desk.read()
    place.dies_and_starts_again()
    place.gateway.line(2, n="2", c="4")
    place.desk.second(30)
    assert losses(place) == [(connection(7, 4), 1, 1, 16)]


def test_worker_older_than_the_log_folder_is_no_hole(place: Place) -> None:
    """Somebody has removed the folder, and nginx has opened its files anew."""
    place.processes.began[7] = 1
    place.gateway.line(1, n="5")
    place.desk.second(30)
    assert losses(place) == []


def test_killed_gateway_is_no_hole(place: Place) -> None:
    place.gateway.line(1, n="1")
    place.desk.read()
    place.processes.began[7] += 1  # another nginx, whose connections begin with 1 again
    place.desk.second(2)
    place.gateway.line(2, n="1")
    place.gateway.line(3, n="2")
    place.desk.second(30)
    assert losses(place) == []


def test_rotation_is_no_hole(place: Place) -> None:
    """A worker may have written to the old file what is read after its first line in the new one."""
    place.gateway.line(1, n="1")
    place.desk.read()
    log = place.desk.log._access
    place.gateway.line(2, n="2")
    path = place.gateway.folder / "access.log"
    path.rename(place.gateway.folder / "aside")  # the line is out of sight for one look
    place.gateway.reopen(7)
    log._files.clear()
    log.offsets[1] = 0
    place.gateway.line(3, n="3")
    place.desk.read()
    late = (place.gateway.folder / "aside").read_bytes().splitlines(keepends=True)[1]
    place.gateway.write(late)
    place.desk.second(30)
    assert losses(place) == []


def test_line_that_was_deleted_before_it_was_read_is_a_loss(place: Place) -> None:
    place.gateway.line(1, n="1")
    place.desk.read()
    place.gateway.line(2, n="2")
    (place.gateway.folder / "access.log").unlink()
    place.dies_and_starts_again()
    place.desk.second()
    assert place.gateway.asked_to_reopen == 1
    place.gateway.line(3, n="3")
    place.gateway.line(4, n="5")
    place.desk.second(30)
    # Connection 3 was read of before, so what came before its first line now is not known to be missing.
    assert losses(place) == [(connection(7, 3), 4, 4, 16)]


# -- files ------------------------------------------------------------------------------------------------
def test_files_come_and_go_and_each_line_counts_once(place: Place) -> None:
    for minute in range(5):
        indices = place.book.decide(*range(10 * minute, 10 * minute + 10))
        for number, index in zip(range(10 * minute, 10 * minute + 10), indices, strict=True):
            place.gateway.line(number, index)
        place.desk.second(80)
    assert place.gateway.asked_to_reopen >= 5
    assert len(place.told()) == 50
    assert place.book.journal.open == {}
    assert not {f"access.{number}.log" for number in range(1, 5)} & set(place.gateway.files())


def test_at_the_end_no_line_stays_behind_in_clear(place: Place) -> None:
    place.gateway.line(1)
    place.gateway.error("client timed out (110: Operation timed out) while reading client request headers")
    place.desk.read()
    place.desk.log.put_away()
    place.desk.log._journal.tell([place.desk.log._event("recorder.stop")])
    place.desk.commit()
    assert place.gateway.files() == []
    assert place.book.journal.cursor_is_durable
