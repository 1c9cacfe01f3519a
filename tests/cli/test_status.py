"""`gatebook status`, what it says of those who vouch for the ledger; the rest is tests/supervisor's and e2e's."""

from __future__ import annotations

from gatebook.cli.run import _stamps

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
