"""The demo's folder and configuration: usable as they are, never over a deployment, gone afterwards."""

from __future__ import annotations

import datetime
import socket
import stat
from pathlib import Path

import pytest

from gatebook import policy
from gatebook.config.load import load
from gatebook.demo import scene
from gatebook.errors import EnvironmentFault
from gatebook.paths import Paths

NOW = datetime.datetime.now(datetime.UTC)
WHERE = scene.Addresses("127.0.0.1:8443", "http://127.0.0.1:9002", "http://127.0.0.1:9001", "http://127.0.0.1:9")


def test_configuration_is_in_order_and_of_the_given_addresses(tmp_path: Path) -> None:
    config = scene.configure(tmp_path, WHERE, NOW)
    found = load(config)
    assert list(policy.problems(found)) == list(policy.warnings(found)) == []
    assert found.listen[0].address == WHERE.listen
    assert {upstream.url for upstream in found.upstreams.values()} == {WHERE.api, WHERE.nowhere}
    staff = found.identity["staff"]
    assert staff.type == "oidc"
    assert staff.issuer == WHERE.issuer
    assert {p.name for p in tmp_path.iterdir()} == {"gatebook.yaml", "gatebook.schema.json", "state", "tls"}


def test_ledger_key_is_of_the_origin_that_the_configuration_names(tmp_path: Path) -> None:
    found = load(scene.configure(tmp_path, WHERE, NOW))
    assert found.origin in (Paths(found.state_dir).keys / "log.pub").read_text()


def test_deployment_that_is_there_is_left_alone(tmp_path: Path) -> None:
    config = scene.configure(tmp_path, WHERE, NOW)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    with pytest.raises(EnvironmentFault, match="there is already"):
        scene.configure(tmp_path, WHERE._replace(listen="127.0.0.1:1"), NOW)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    assert load(config).listen[0].port == 8443


def test_temporary_folder_is_private_and_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scene.place(None) as made:
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
        runtime = Paths(made / "state").runtime
        runtime.mkdir(parents=True)
    assert not made.exists()
    assert not runtime.exists()


def test_temporary_folder_goes_when_the_demo_is_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(KeyboardInterrupt), scene.place(None):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_temporary_folder_stays_and_is_named_after_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(EnvironmentFault) as raised, scene.place(None) as made:
        raise EnvironmentFault("no")
    assert made.is_dir()
    assert str(made) in raised.value.__notes__[0]


def test_named_folder_is_made_and_kept(tmp_path: Path) -> None:
    with scene.place(tmp_path / "a" / "b") as made:
        assert made.is_dir()
    assert made.is_dir()


def test_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="file"), scene.place(tmp_path / "file"):
        pass


def test_taken_port_is_not_chosen() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.bind((scene.HOST, scene.USUAL_PORT))
        except OSError:
            pass  # somebody has it already, which serves as well
        else:
            other.listen()
        port = int(scene.free_address().rpartition(":")[2])
    assert port not in (0, scene.USUAL_PORT)


def test_nobody_refuses_connections() -> None:
    with scene.nobody() as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(ConnectionRefusedError), socket.create_connection((scene.HOST, port), timeout=5):
            pass
