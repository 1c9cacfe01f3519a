"""`gatebook grant …`: what is asked for, what is on record first, and what whoever asked cannot do."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.cli.test_revoke import Deployment

from gatebook.cli.actor import whoever
from gatebook.identity import grant_file

ASKED = ("--role", "admin", "--for", "1h", "--reason", "incident", "--identity", "staff")


@pytest.fixture
def deployment(tmp_path: Path, run: Run) -> Deployment:
    made = Deployment(tmp_path / "acme", run)
    me = pwd.getpwuid(os.getuid()).pw_name
    made.configuration["grants"] = [{"role": "admin", "max": "4h", "approve": [me, "ops"]}]
    made.write()
    return made


def test_request_is_on_record_and_gives_nothing_yet(run: Run, deployment: Deployment) -> None:
    told = run("grant", "request", *ASKED, "--subject", "alice", "--json", "-c", str(deployment.config)).json()
    assert (told["state"], told["requested_by"], told["seconds"]) == ("requested", whoever().actor, 3600)
    assert "alice" not in str(told)  # the configuration keeps pseudonyms
    (made,) = grant_file.read(deployment.paths.grants)
    assert made.key == deployment.keys.name("subject", "staff", "alice")
    shown = run("log", "--all", "-c", str(deployment.config)).out
    assert "grant.request" in shown
    assert "alice" not in shown


def test_own_request_cannot_be_approved_on_the_command_line(run: Run, deployment: Deployment) -> None:
    config = ("-c", str(deployment.config))
    told = run("grant", "request", *ASKED, "--subject", "alice", "--json", *config).json()
    ran = run("grant", "approve", told["id"], *config)
    assert ran.code == 1
    assert "somebody else has to approve it" in ran.err
    assert run("grant", "list", "--json", *config).json()["grants"][0]["state"] == "requested"
    assert run("grant", "deny", told["id"], "--json", *config).json()["state"] == "denied"
    assert told["id"] in run("grant", "list", *config).out


def test_whoever_is_not_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    before = whoever()
    for name in ("USER", "LOGNAME", "SUDO_USER", "SUDO_UID"):
        monkeypatch.setenv(name, "4242")
    assert whoever() == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--role", "root", "--for", "1h"), 1, "no grant of root"),
        (("--role", "admin", "--for", "5h"), 1, "at most"),
        (("--role", "admin", "--for", "soon"), 2, "--for"),
        (("--role", "admin", "--for", "1h", "--identity", "nobody"), 2, "--identity"),
    ],
)
def test_request_beyond_the_configuration_is_refused(
    run: Run, deployment: Deployment, arguments: tuple[str, ...], code: int, said: str
) -> None:
    given = ("--reason", "x", "--identity", "staff", "--subject", "a", *arguments)
    ran = run("grant", "request", *given, "-c", str(deployment.config))
    assert ran.code == code
    assert said in ran.err
    assert not deployment.paths.grants.exists()
