"""The lines that the demo prints: each is complete, whatever folder it is typed in. That they work, and what
they show, is tested where the demo runs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from gatebook.demo import advice


def lines(config: Path, environment: Mapping[str, str] | None = None) -> list[str]:
    told = advice.lines(
        "gatebook", config, "https://127.0.0.1:8443", "http://127.0.0.1:9002", "ab" * 16, environment or {}
    )
    return [line for _, line in told]


def test_folder_with_a_space_does_not_break_a_line() -> None:
    folder = Path("/tmp/a demo; rm -rf x")
    for line in lines(folder / "gatebook.yaml"):
        words = shlex.split(line)
        if words[0] == "gatebook":
            assert words[words.index("-c") + 1] == str(folder / "gatebook.yaml")
        if "--cacert" in words:
            assert words[words.index("--cacert") + 1] == str(folder / "tls" / "ca.pem")


def test_every_curl_to_the_gateway_verifies_its_certificate() -> None:
    to_gateway = [line for line in lines(Path("/d/gatebook.yaml")) if "https://" in line]
    assert len(to_gateway) >= 3
    assert all("--cacert /d/tls/ca.pem" in line for line in to_gateway)
    assert not any(word in ("-k", "--insecure") for line in to_gateway for word in shlex.split(line))


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "all_proxy"])
def test_proxy_does_not_stand_between_a_line_and_loopback(name: str) -> None:
    told = lines(Path("/d/gatebook.yaml"), {name: "http://proxy.example:3128"})
    assert all("--noproxy '*'" in line for line in told if "curl" in line)


def test_command_is_named_so_that_a_shell_finds_this_very_one(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(sys.executable).parent / "gatebook"
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert advice.program() == str(script)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    assert advice.program() == "gatebook"


def test_command_is_the_interpreters_where_no_script_was_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert shlex.split(advice.program()) == [str(tmp_path / "python"), "-m", "gatebook"]
