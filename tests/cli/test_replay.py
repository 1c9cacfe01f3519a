"""`gatebook replay` on a real ledger: what is listed and counted, exit codes, and that nothing is written."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.access.ledger import decision
from tests.cli.conftest import Run
from tests.cli.logged import Logged

from gatebook import record


def other(logged: Logged, folder: Path, old: str = "", new: str = "") -> Path:
    """The same deployment with another policy."""
    text = logged.config.read_text("utf-8")
    assert old in text
    path = folder / "new.yaml"
    path.write_text(text.replace(old, new).replace("./state", str(logged.paths.state)), "utf-8")
    return path


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """Requests 11 to 13 of a reader, on the starter's route, beside those of a provider that is gone."""
    made = Logged(tmp_path_factory.mktemp("replayed"))
    who = record.IdentityPart(provider="partners", method="api_key", subject="ab" * 16, roles=("reader",))
    for number in (11, 12, 13):
        made.add(decision(number, identity=msgspec.structs.replace(who, groups=(), scopes=())))
    return made


def test_same_policy_makes_no_difference_and_the_exit_code_is_0(run: Run, logged: Logged) -> None:
    ran = run("replay", "-c", str(logged.config), "--json")
    found = ran.json()
    assert ran.code == 0
    assert (found["decisions"], found["same"], found["different"], found["unknown"]["decisions"]) == (6, 3, 0, 3)
    (why,) = found["unknown"]["why"]
    assert why.startswith("who asked: staff")
    assert found["configuration_not_at_hand"] == 6


def test_differences_are_listed_newest_first_and_counted_and_the_exit_code_is_1(
    run: Run, logged: Logged, tmp_path: Path
) -> None:
    new = other(logged, tmp_path, "roles: [reader, admin]", "roles: [admin]")
    ran = run("replay", "-c", str(logged.config), "--with", str(new), "--limit", "2", "--json")
    found = ran.json()
    assert ran.code == 1
    assert found["kinds"]["allow->deny"] == found["different"] == 3
    assert [each["id"][-1] for each in found["differences"]] == ["d", "c"]
    assert found["differences"][0]["was"]["rule"] == "readers"
    assert found["differences"][0]["now"]["reason"] == "no_rule"
    assert found["routes"] == {"read-order": 3}
    assert found["rules"] == {"read-order/readers -> no_rule": 3}
    assert found["identities"] == {f"partners:{'ab' * 16}": 3}
    told = run("replay", "-c", str(logged.config), "--with", str(new), "--limit", "1").out
    assert "allow 200: read-order/readers -> deny 403: no_rule" in told
    assert "and 2 older ones" in told
    assert "3 different: 6 decisions, 3 judged, 3 unknown" in told


def test_new_policy_alone_serves_where_its_state_folder_is_the_same(
    run: Run, logged: Logged, tmp_path: Path
) -> None:
    new = other(logged, tmp_path, "roles: [reader, admin]", "roles: [admin]")
    assert run("replay", "--config", str(new), "--json").json()["different"] == 3


def test_times_bound_what_is_judged(run: Run, logged: Logged) -> None:
    span = ("--since", "2023-11-14T22:13:32Z", "--until", "2023-11-14T22:13:33Z")
    found = run("replay", "-c", str(logged.config), *span, "--json").json()
    assert (found["decisions"], found["same"]) == (1, 1)


def test_replay_writes_nothing(run: Run, logged: Logged, tmp_path: Path) -> None:
    new = other(logged, tmp_path, "roles: [reader, admin]", "roles: [admin]")
    before = files(logged.config.parent)
    assert run("replay", "-c", str(logged.config), "--with", str(new)).code == 1
    assert files(logged.config.parent) == before


def test_policy_that_is_wrong_is_refused_before_anything_is_read(run: Run, logged: Logged, tmp_path: Path) -> None:
    new = other(logged, tmp_path, "roles: [reader, admin]", "when: 'identity.nonsense'")
    ran = run("replay", "-c", str(logged.config), "--with", str(new))
    assert ran.code == 2
    assert "new.yaml" in ran.err


def test_decision_that_this_version_cannot_read_is_counted_and_not_passed_over(run: Run, tmp_path: Path) -> None:
    logged = Logged(tmp_path / "newer")
    path = tmp_path / "newer" / "gatebook.yaml"
    made = decision(20)
    strange = msgspec.structs.replace(made, decision=msgspec.structs.replace(made.decision, reason="of_tomorrow"))
    logged.add(strange)
    found = run("replay", "-c", str(path), "--json").json()
    assert found["decisions"] == 4
    assert found["outside"]["why"] == {"a reason that this version does not know": 1}
