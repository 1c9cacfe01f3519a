"""`gatebook keys …`: who signs, who reads, and a reader's key that leaves the host, without losing a record."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.access.ledger import decision
from tests.cli.conftest import Run
from tests.cli.logged import Logged
from tests.kms.transit import Transit

from gatebook.ledger import keys
from gatebook.ledger.deks import Deks

PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def logged(tmp_path: Path) -> Logged:
    return Logged(tmp_path / "acme")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text(PASSPHRASE + "\n")
    path.chmod(0o600)
    return path


def acts(run: Run, config: str, *more: str) -> list[dict[str, Any]]:
    lines = run("log", "--all", "--json", "-c", config, *more).out.splitlines()
    found = [json.loads(line) for line in lines]
    return [each for each in found if each.get("kind") == "admin"]


def test_show_names_the_log_key_the_readers_and_warns_of_the_open_one(run: Run, logged: Logged) -> None:
    ran = run("keys", "show", "-c", str(logged.config))
    assert ran.code == 0
    assert (logged.paths.keys / "log.pub").read_text().strip() in ran.out
    assert "reader.key, open" in ran.out
    assert "take-away" in ran.err
    told = run("keys", "show", "--json", "-c", str(logged.config)).json()
    assert (told["former"], [each["name"] for each in told["readers"]]) == ([], ["reader"])


def test_help_of_each_says_that_there_is_the_other(run: Run) -> None:
    assert "`gatebook key`" in run("keys", "--help").out.replace("gatebook key.", "`gatebook key`.")
    assert "gatebook keys" in run("key", "--help").out


def test_rotate_prints_the_new_key_and_verify_follows_from_the_old_one(
    run: Run, logged: Logged, tmp_path: Path
) -> None:
    config = ("-c", str(logged.config))
    kept = tmp_path / "kept.pub"
    kept.write_bytes((logged.paths.keys / "log.pub").read_bytes())
    ran = run("keys", "rotate", "--reason", "once a year", *config)
    assert ran.code == 0
    assert ran.out.strip() == (logged.paths.keys / "log.pub").read_text().strip()
    told = run("keys", "show", "--json", *config).json()
    assert [each["vkey"] for each in told["former"]] == [kept.read_text().strip()]
    assert told["former"][0]["signs_until"] is not None
    found = run("verify", "--key", str(kept), "--json", *config).json()
    assert found["verified"] is True
    assert any("KEY entries lead" in text for text in found["rests_on"])
    assert run("keys", "retire", *config).code == 0
    assert run("keys", "show", "--json", *config).json()["former"][0]["signs_until"] is None
    assert [each["action"] for each in acts(run, str(logged.config))][-2:] == ["keys.rotate", "keys.retire"]
    assert run("keys", "retire", *config).code == 3


def openssl_key(folder: Path, name: str) -> tuple[Path, Path]:
    """A reader's key pair as somebody makes it who has no gatebook."""
    private, public = folder / f"{name}.key", folder / f"{name}.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "X25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    private.chmod(0o600)
    return private, public


def test_reader_that_is_added_reads_what_comes_and_with_rewrap_what_was(
    run: Run, logged: Logged, tmp_path: Path
) -> None:
    config = ("-c", str(logged.config))
    private, public = openssl_key(tmp_path, "auditor")
    before = run("log", "--json", *config).out
    assert run("keys", "add", "auditor", str(public), *config).code == 0
    logged.add(decision(9))
    ran = run("log", "--json", "--reader", str(private), *config)
    assert ran.out.count("\n") == 1
    assert "could not be read" in ran.err
    told = run("keys", "rewrap", "--json", *config).json()
    assert told["changed"] >= 4
    assert told["shut"] == 0
    ran = run("log", "--json", "--reader", str(private), *config)
    assert (ran.err, ran.out.count("\n")) == ("", before.count("\n") + 1)
    told = run("keys", "rewrap", "--json", *config).json()
    assert told["changed"] == 0, "what was sealed since was sealed for both"


def test_reader_that_is_removed_reads_nothing_new_and_with_rewrap_nothing(
    run: Run, logged: Logged, tmp_path: Path
) -> None:
    config = ("-c", str(logged.config))
    private, public = openssl_key(tmp_path, "auditor")
    assert run("keys", "add", "auditor", str(public), "--rewrap", *config).code == 0
    assert run("verify", "--reader", str(private), "--json", *config).json()["verified"] is True
    assert run("keys", "remove", "auditor", "--rewrap", *config).code == 0
    gone = keys.load_reader(private).id
    deks = Deks(logged.paths.deks)
    assert all(one.recipient != gone for dek_id in deks.ids() for one in deks.get(dek_id) or [])
    ran = run("log", "--reader", str(private), *config)
    assert "could not be read" in ran.err
    assert [each["action"] for each in acts(run, str(logged.config))][-3:] == [
        "keys.add",
        "keys.rewrap",
        "keys.remove",
    ]


def test_last_reader_stays(run: Run, logged: Logged) -> None:
    ran = run("keys", "remove", "reader", "-c", str(logged.config))
    assert ran.code == 3
    assert "only reader" in ran.err
    assert (logged.paths.keys / "reader.pub").exists()


@pytest.mark.parametrize("name", ["../log", "Auditor", "", "a" * 33, "-x", "a/b"])
def test_name_that_leads_out_of_keys_is_refused(run: Run, logged: Logged, tmp_path: Path, name: str) -> None:
    before = sorted(logged.paths.keys.iterdir())
    _, public = openssl_key(tmp_path, "auditor")
    assert run("keys", "add", "-c", str(logged.config), "--", name, str(public)).code == 2
    assert sorted(logged.paths.keys.iterdir()) == before


def test_private_key_in_a_public_ones_place_is_refused(run: Run, logged: Logged, tmp_path: Path) -> None:
    private, _ = openssl_key(tmp_path, "auditor")
    ran = run("keys", "add", "auditor", str(private), "-c", str(logged.config))
    assert ran.code != 0
    assert "not an X25519 public key" in ran.err
    assert not (logged.paths.keys / "reader-auditor.pub").exists()


# -- the reader's key leaves ----------------------------------------------------------------------------


def test_taken_away_key_reads_with_its_passphrase_alone_and_the_recorder_goes_on(
    run: Run, logged: Logged, tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ("-c", str(logged.config))
    away = tmp_path / "away.pem"
    ran = run("keys", "take-away", "-o", str(away), "--passphrase-file", str(secret), *config)
    assert ran.code == 0
    assert not (logged.paths.keys / "reader.key").exists()
    assert away.stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED PRIVATE KEY" in away.read_bytes()
    logged.add(decision(9))
    for command in (("log",), ("prove", "11"), ("keys", "rewrap")):
        ran = run(*command, *config)
        assert (ran.code, "name it with --reader FILE" in ran.err, "init" in ran.err) == (3, True, False), command
    ran = run("log", "--reader", str(tmp_path / "nowhere.pem"), *config)
    assert (ran.code, "nowhere.pem: no such file" in ran.err) == (3, True)
    assert run("sinks", "list", *config).code == 0
    assert run("verify", "--json", *config).json()["levels"][2]["result"] == "not tried"
    ran = run("log", "--reader", str(away), *config)
    assert (ran.code, "GATEBOOK_READER_PASSPHRASE_FILE" in ran.err) == (3, True)
    monkeypatch.setenv("GATEBOOK_READER_PASSPHRASE_FILE", str(secret))
    assert run("verify", "--reader", str(away), "--json", *config).json()["levels"][2]["result"] == "passed"
    assert acts(run, str(logged.config), "--reader", str(away))[-1]["action"] == "keys.take_away"
    told = run("keys", "show", "--json", *config)
    assert told.json()["readers"][0]["private"] == "no"
    assert "take-away" not in told.err


def test_passphrase_is_asked_for_on_the_terminal_without_showing_it(
    run: Run, logged: Logged, tmp_path: Path, secret: Path
) -> None:
    away = tmp_path / "away.pem"
    config = ("-c", str(logged.config))
    assert run("keys", "export", "-o", str(away), "--passphrase-file", str(secret), *config).code == 0
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "gatebook", "verify", "--json", "--reader", str(away), *config]
    with subprocess.Popen(
        command,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:
        os.close(theirs)
        shown = b""
        while b"Passphrase of" not in shown:
            shown += os.read(ours, 1000)
        os.write(ours, PASSPHRASE.encode() + b"\n")
        assert process.stdout is not None
        found = json.loads(process.stdout.read())
        with contextlib.suppress(OSError):  # the terminal is gone with the last process on it
            while piece := os.read(ours, 1000):
                shown += piece
    os.close(ours)
    assert found["levels"][2]["result"] == "passed"
    assert PASSPHRASE.encode() not in shown


def test_key_on_another_disk_opens_whatever_its_mode_if_it_has_a_passphrase(
    run: Run, logged: Logged, tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory sticks know no modes; what is open is still refused."""
    config = ("-c", str(logged.config))
    away, plain = tmp_path / "away.pem", tmp_path / "plain.pem"
    assert run("keys", "export", "-o", str(away), "--passphrase-file", str(secret), *config).code == 0
    plain.write_bytes((logged.paths.keys / "reader.key").read_bytes())
    monkeypatch.setenv("GATEBOOK_READER_PASSPHRASE_FILE", str(secret))
    for path, code in ((away, 0), (plain, 3)):
        path.chmod(0o644)
        assert run("log", "--reader", str(path), *config).code == code


def test_exported_key_opens_with_openssl_and_is_behind_scrypt(
    run: Run, logged: Logged, tmp_path: Path, secret: Path
) -> None:
    away = tmp_path / "away.pem"
    assert (
        run("keys", "export", "-o", str(away), "--passphrase-file", str(secret), "-c", str(logged.config)).code
        == 0
    )
    opened = subprocess.run(
        ["openssl", "pkey", "-in", away, "-passin", f"file:{secret}"], capture_output=True, check=True
    ).stdout
    assert opened == (logged.paths.keys / "reader.key").read_bytes()
    parsed = subprocess.run(["openssl", "asn1parse", "-in", away], capture_output=True, check=True).stdout
    assert b":scrypt" in parsed
    assert b":4000" in parsed  # N, 16384


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [(PASSPHRASE, 0o644, "chmod"), ("short", 0o600, "at least 12"), ("", 0o600, "empty")],
)
def test_weak_or_shown_passphrase_makes_no_file_and_deletes_nothing(
    run: Run, logged: Logged, tmp_path: Path, secret: Path, text: str, mode: int, words: str
) -> None:
    secret.write_text(text)
    secret.chmod(mode)
    away = tmp_path / "away.pem"
    for command in ("take-away", "export"):
        ran = run("keys", command, "-o", str(away), "--passphrase-file", str(secret), "-c", str(logged.config))
        assert ran.code != 0
        assert words in ran.err
    assert not away.exists()
    assert [each["action"] for each in acts(run, str(logged.config))] == ["key.create"]
    assert (logged.paths.keys / "reader.key").exists()


def test_wrong_passphrase_is_no_damage(
    run: Run, logged: Logged, tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ("-c", str(logged.config))
    away = tmp_path / "away.pem"
    run("keys", "export", "-o", str(away), "--passphrase-file", str(secret), *config)
    secret.write_text("another one, as long")
    monkeypatch.setenv("GATEBOOK_READER_PASSPHRASE_FILE", str(secret))
    ran = run("verify", "--reader", str(away), *config)
    assert (ran.code, "passphrase is another one" in ran.err) == (3, True)
    assert "another one, as long" not in ran.err


def test_nothing_is_ever_written_over_and_then_nothing_is_deleted(
    run: Run, logged: Logged, tmp_path: Path, secret: Path
) -> None:
    away = tmp_path / "away.pem"
    away.write_text("precious")
    ran = run("keys", "take-away", "-o", str(away), "--passphrase-file", str(secret), "-c", str(logged.config))
    assert (ran.code, away.read_text()) == (3, "precious")
    assert (logged.paths.keys / "reader.key").exists()
    for out, words in ((away, "exists already"), (tmp_path / "none" / "away.pem", "no folder")):
        ran = run("keys", "export", "-o", str(out), "--passphrase-file", str(secret), "-c", str(logged.config))
        assert (ran.code, words in ran.err) == (3, True)
    assert away.read_text() == "precious"
    assert [each["action"] for each in acts(run, str(logged.config))] == ["key.create"]


def test_new_reader_takes_the_old_ones_place(
    run: Run, logged: Logged, tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How a reader's key is rotated: another one, old segments opened to it, the old one taken out of all."""
    config = ("-c", str(logged.config))
    away = tmp_path / "away.pem"
    new = ("keys", "new-reader", "office", "-o", str(away), "--passphrase-file", str(secret))
    assert run(*new, *config).code == 0
    assert run("keys", "rewrap", *config).code == 0
    assert run("keys", "remove", "reader", "--rewrap", *config).code == 0
    (logged.paths.keys / "reader.key").unlink()
    monkeypatch.setenv("GATEBOOK_READER_PASSPHRASE_FILE", str(secret))
    found = run("verify", "--reader", str(away), "--json", *config).json()
    assert (found["verified"], found["levels"][2]["result"]) == (True, "passed")
    assert run(*new, *config).code == 3


# -- in a KMS -------------------------------------------------------------------------------------------


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Transit]:
    with Transit().serve() as served:
        for name, value in served.environment().items():
            monkeypatch.setenv(name, value)
        yield served


def test_key_in_a_kms_reads_only_with_its_leave(run: Run, logged: Logged, twin: Transit) -> None:
    config = ("-c", str(logged.config))
    assert run("keys", "take-away", "--transit", "gatebook", *config).code == 0
    assert sorted(path.name for path in logged.paths.keys.glob("reader*")) == ["reader.kms", "reader.pub"]
    assert run("keys", "show", "--json", *config).json()["readers"][0]["private"] == "kms"
    assert run("log", *config).code == 0
    assert run("verify", "--json", *config).json()["levels"][2]["result"] == "passed"
    asked = len(twin.asked)
    twin.allowed = {"encrypt"}
    ran = run("log", *config)
    assert (ran.code, ran.out) == (3, "")
    assert "permission denied" in ran.err
    assert len(twin.asked) == asked + 1
    logged.add(decision(9))  # writing needs nobody's leave
    assert len(twin.asked) == asked + 1


def test_kms_that_does_not_give_it_back_leaves_it_where_it_is(run: Run, logged: Logged, twin: Transit) -> None:
    twin.misbehave = "another key"
    ran = run("keys", "take-away", "--transit", "gatebook", "-c", str(logged.config))
    assert ran.code == 3
    assert (logged.paths.keys / "reader.key").exists()
    assert run("log", "-c", str(logged.config)).code == 0
