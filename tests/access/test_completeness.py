"""The account of a whole ledger: forged without the writer, so that it can lack whatever a liar leaves out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.access.ledger import decision, encoded, outcome, refused, unknown
from tests.ledger.forge import MINUTE, T0, Forge

from gatebook.access.pairing import Pairing
from gatebook.access.totals import Kind, Totals
from gatebook.ledger.entry import Loss, LossReason, Policy
from gatebook.ledger.verify import Private, Report, verify
from gatebook.ledger.verify.account import Account, LossKind

Act = Callable[[Forge], None]


def put(forge: Forge, *records: Any) -> int:
    return forge.records(*encoded(records))


def hour(forge: Forge) -> None:
    """A run of two minutes: three decisions, one open at its end; two requests that the gateway refused."""
    forge.boot()
    forge.clear([Policy(bytes(32), 1)])
    first = put(forge, decision(1), decision(2, verdict="deny"))
    put(forge, outcome(1, first), outcome(2, first + 1, 403), refused(3))
    forge.now_us += MINUTE
    forge.heartbeat(decisions=2, outcomes=3, requests=3)
    put(forge, decision(4), refused(5))
    forge.now_us += MINUTE
    forge.heartbeat(1, decisions=1, outcomes=1, requests=1)


def account(folder: Path, *acts: Act) -> tuple[Report, Totals]:
    forge = Forge(folder)
    for act in acts:
        act(forge)
    forge.publish()
    return of(forge)


def of(forge: Forge) -> tuple[Report, Totals]:
    pairing = Pairing()
    report = verify(
        forge.ledger, forge.verifier, lock=forge.lock, private=Private(forge.deks, forge.reader, pairing)
    )
    return report, pairing.totals


def test_account_of_a_complete_ledger(tmp_path: Path) -> None:
    report, totals = account(tmp_path, hour)
    assert report.findings == []
    assert report.account == Account(clean=1, policies=1, heartbeats=2, silence_us=MINUTE, last_us=T0 + 2 * MINUTE)
    assert totals.allowed == Kind(total=2, outcome=1, open=1)
    assert totals.denied == Kind(total=1, outcome=1)
    assert (totals.alone.total(), totals.checked, totals.contradicted) == (2, 2, 0)
    assert totals.decisions + totals.outcomes + totals.others == report.records


def test_unclean_start_is_counted_and_what_it_buried_is_unknown(tmp_path: Path) -> None:
    def again(forge: Forge) -> None:
        forge.now_us += 90 * MINUTE  # nobody was there: no silence
        forge.boot(clean=False)
        put(forge, unknown(8))
        forge.heartbeat(outcomes=1)

    report, totals = account(tmp_path, hour, again)
    assert report.findings == []
    assert (report.account.clean, report.account.unclean, report.account.silence_us) == (1, 1, MINUTE)
    assert totals.allowed == Kind(total=2, outcome=1, unknown=1)


def test_silence_is_measured_whether_it_is_too_long_or_not(tmp_path: Path) -> None:
    for minutes, worst in ((2, None), (7, "incomplete")):

        def quiet(forge: Forge, minutes: int = minutes) -> None:
            forge.now_us += minutes * MINUTE
            forge.heartbeat(1)

        report, _ = account(tmp_path / str(minutes), hour, quiet)
        assert (report.account.silence_us, report.worst) == (minutes * MINUTE, worst)


def test_losses_are_added_up_by_whose_they_are_and_why(tmp_path: Path) -> None:
    def lose(forge: Forge) -> None:
        forge.clear([Loss(b"ledger\0\0", 3, 5, LossReason.TORN), Loss(b"workerAB", 7, 7, LossReason.NO_LINE)])
        forge.clear([Loss(b"workerCD", 1, 4, LossReason.NO_LINE), Loss(b"workerCD", 1, 1, 77)])

    report, _ = account(tmp_path, hour, lose)
    by_kind = {
        LossKind("ledger", "torn"): (1, 3),
        LossKind("gateway", "no_line"): (2, 5),
        LossKind("gateway", "reason 77"): (1, 1),
    }
    found = report.account
    assert {kind: (found.losses[kind], found.missing[kind]) for kind in found.losses} == by_kind
    assert report.counts == {"incomplete": 3}


@pytest.mark.parametrize("gone", range(7))
def test_record_that_was_left_out_of_the_ledger_is_found_by_the_heartbeats(tmp_path: Path, gone: int) -> None:
    """Its whole tree is signed anew, as only the key's holder can."""
    everything = [
        decision(1),
        decision(2, verdict="deny"),
        outcome(1, None),
        outcome(2, None, 403),
        refused(3),
        decision(4),
        outcome(4, None),
    ]
    left = [each for at, each in enumerate(everything) if at != gone]

    def lack(forge: Forge) -> None:
        forge.boot()
        put(forge, *left)
        forge.heartbeat(decisions=3, outcomes=4, requests=4)

    report, totals = account(tmp_path, lack)
    assert report.worst == "incomplete"
    assert totals.contradicted == 1
    assert any("HEARTBEAT counts" in finding.what for finding in report.findings)


def test_hole_is_damage_and_no_contradiction(tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    hour(forge)
    forge.begin()
    put(forge, decision(6), outcome(6, len(forge.entries)))
    forge.begin()
    put(forge, outcome(4, 8))
    forge.heartbeat(0, decisions=1, outcomes=2, requests=2)
    forge.publish()
    forge.segments[1].unlink()
    report, totals = of(forge)
    assert report.counts == {"damaged": 1}
    assert (totals.checked, totals.unchecked, totals.contradicted) == (2, 1, 0)
    assert totals.allowed == Kind(total=2, outcome=1, untold=1)
    assert totals.repeated == 1


def test_entries_are_counted_from_the_public_files_alone(tmp_path: Path) -> None:
    forge = Forge(tmp_path)
    hour(forge)
    forge.publish()
    for path in forge.segments:
        path.unlink()
    (forge.ledger / "segments").rmdir()
    found = verify(forge.ledger, forge.verifier).account
    assert (found.clean, found.policies, found.heartbeats, found.silence_us) == (1, 1, 2, MINUTE)
