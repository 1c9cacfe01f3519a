"""`gatebook status`, what it says of those who vouch for the ledger; the rest is tests/supervisor's and e2e's."""

from __future__ import annotations

import pytest

from gatebook.cli.run import _show_retention, _stamps

LAST = {"time_us": 1_700_000_000_000_000, "size": 900, "authority": "CN=stamps"}
FAILING = {"since_us": 1_700_000_000_000_000, "why": "no connection: \x1b[2Jgone"}


def test_last_stamp_and_a_failure_are_both_said() -> None:
    assert _stamps({"last": None, "failing": None}) == "time stamps: none yet"
    said = _stamps({"last": LAST, "failing": None})
    assert said == "time stamps: the last one 2023-11-14 22:13:20.000, over 900 entries by CN=stamps"
    said = _stamps({"last": LAST, "failing": FAILING})
    assert "over 900 entries" in said
    assert "failing since 2023-11-14 22:13:20.000: no connection" in said


def test_words_from_outside_cannot_move_the_cursor() -> None:
    assert "\x1b" not in _stamps({"last": LAST | {"authority": "CN=\x1b[2J"}, "failing": FAILING})


def test_status_names_the_hold_that_keeps_what_retention_would_destroy(capsys: pytest.CaptureFixture[str]) -> None:
    told = {
        "records_s": 400 * 86400,
        "destroyed": 3,
        "held": {"k7m2qzyx": 12},
        "clock_ahead_s": 0,
        "trouble": None,
    }
    _show_retention(told)
    shown = capsys.readouterr().out
    assert "kept for 400 days" in shown
    assert "12 segments that are older stay: hold k7m2qzyx" in shown
    _show_retention(told | {"clock_ahead_s": 86400, "trouble": "holds.json: is gone"})
    shown = capsys.readouterr().out
    assert "86400 s ahead of what is trusted" in shown
    assert "gatebook retention resume" in shown
    assert "holds.json: is gone" in shown
