"""Finding an nginx that can do it, writing its files, hearing its opinion: and saying what is missing."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from tests.gateway.test_render import configured
from tests.ports import free_port

from gatebook.errors import EnvironmentFault
from gatebook.gateway import nginx, render
from gatebook.gateway.facts import HEADERS_MORE, Build, modules_to_load
from gatebook.paths import Paths

FLAGS = "--with-http_ssl_module --with-http_v2_module --with-http_auth_request_module --with-http_realip_module"
BINARY = Path("/opt/nginx")


def said(version: str = "1.22.1", flags: str = FLAGS) -> str:
    return f"nginx version: nginx/{version}\nTLS SNI support enabled\nconfigure arguments: {flags}\n"


@pytest.mark.parametrize("version", ["1.21.9", "1.9.15", "0.8.54"])
def test_old_nginx_is_refused(version: str) -> None:
    with pytest.raises(EnvironmentFault, match="too old"):
        modules_to_load(BINARY, Build(BINARY, said(version)), [])


@pytest.mark.parametrize("flag", FLAGS.split())
def test_nginx_without_a_module_is_refused_and_the_module_named(flag: str) -> None:
    with pytest.raises(EnvironmentFault, match=flag):
        modules_to_load(BINARY, Build(BINARY, said(flags=FLAGS.replace(flag, ""))), [])


def test_missing_headers_more_names_the_package(tmp_path: Path) -> None:
    build = Build(BINARY, said(flags=f"{FLAGS} --modules-path={tmp_path}"))
    with pytest.raises(EnvironmentFault, match="libnginx-mod-http-headers-more-filter"):
        modules_to_load(BINARY, build, [])


def test_headers_more_is_found_where_it_lies_and_loaded_once(tmp_path: Path) -> None:
    build = Build(BINARY, said(flags=f"{FLAGS} --modules-path={tmp_path}"))
    module = tmp_path / HEADERS_MORE
    module.touch()
    assert modules_to_load(BINARY, build, []) == (module,)
    assert modules_to_load(BINARY, build, [module]) == (module,)
    static = Build(BINARY, said(flags=f"{FLAGS} --add-module=headers-more-nginx-module-0.40"))
    assert modules_to_load(BINARY, static, []) == ()


def test_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    static = Build(BINARY, said(flags=f"{FLAGS} --add-module=headers-more"))
    with pytest.raises(EnvironmentFault, match=r"other\.so"):
        modules_to_load(BINARY, static, [tmp_path / "other.so"])


@pytest.mark.parametrize("words", ["", "Apache/2.4", "nginx version: nginx/x.y.z\nconfigure arguments:"])
def test_program_that_is_no_nginx_is_refused(words: str) -> None:
    with pytest.raises(EnvironmentFault, match="does not answer as nginx"):
        Build(BINARY, words)


def test_binary_that_is_missing_or_no_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("")
    script = tmp_path / "true"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    for path in (tmp_path / "none", tmp_path / "text", tmp_path, script):
        with pytest.raises(EnvironmentFault, match=str(path)):
            nginx.find(configured(gateway={"nginx": str(path)}))


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]:8443", "10.0.0.1:443"])
def test_https_upstream_that_could_never_be_verified_is_refused(host: str) -> None:
    with pytest.raises(EnvironmentFault, match=r"upstreams\.orders: .* names only"):
        nginx.find(configured(upstreams={"orders": {"url": f"https://{host}"}}))


def test_system_without_authorities_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx, "_ca_bundle", lambda: None)
    with pytest.raises(EnvironmentFault, match="ca-certificates"):
        nginx.find(configured(upstreams={"orders": {"url": "https://orders.example"}}))
    own = {"url": "https://orders.example", "ca": "/srv/ca.pem"}
    assert nginx.find(configured(upstreams={"orders": own})).ca_bundle is None


def test_nginx_of_this_machine_is_described(binary: Path | None) -> None:
    facts = nginx.find(configured(gateway={"nginx": None if binary is None else str(binary)}))
    assert facts.version >= (1, 22, 0)
    assert facts.root == (os.geteuid() == 0)
    assert bool(facts.modules) == (binary is not None)


def test_written_files_replace_the_old_ones_whole_and_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "nginx"
    nginx.write({"a.conf": b"old", "b.conf": b"b"}, folder)
    nginx.write({"a.conf": b"new"}, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"a.conf": b"new", "b.conf": b"b"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_crash_before_the_replacement_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nginx.write({"a.conf": b"old"}, tmp_path)

    def full(descriptor: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        nginx.write({"a.conf": b"new"}, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.conf": b"old"}


def test_configuration_that_nginx_refuses_is_an_error_in_its_words(tmp_path: Path, binary: Path | None) -> None:
    facts = nginx.find(configured(gateway={"nginx": None if binary is None else str(binary)}))
    nginx.write({nginx.CONF: b"events {}\nhttp { frobnicate on; }\n"}, tmp_path)
    with pytest.raises(EnvironmentFault, match='unknown directive "frobnicate"') as caught:
        nginx.test(facts, tmp_path)
    assert str(tmp_path / nginx.CONF) in str(caught.value)


def test_missing_certificate_is_named(tmp_path: Path, binary: Path | None) -> None:
    tls = {"certificate": str(tmp_path / "none.pem"), "key": str(tmp_path / "none.key")}
    made = configured(
        listen=[{"address": "127.0.0.1:8443", "tls": tls}],
        gateway={"nginx": None if binary is None else str(binary)},
    )
    facts = nginx.find(made)
    nginx.write(render.render(made, Paths(tmp_path / "state"), facts), tmp_path)
    with pytest.raises(EnvironmentFault, match=r"none\.pem"):
        nginx.test(facts, tmp_path)


def test_testing_touches_neither_ports_nor_files_of_a_running_gateway(
    tmp_path: Path, binary: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        made = configured(
            listen=[
                {"address": f"127.0.0.1:{taken.getsockname()[1]}"},
                {"address": f"[::1]:{free_port()}"},
            ],
            gateway={"nginx": None if binary is None else str(binary)},
        )
        facts = nginx.find(made)
        paths = Paths(tmp_path / "state")
        nginx.write(render.render(made, paths, facts), paths.nginx)
        nginx.test(facts, paths.nginx)
    assert not paths.runtime.exists()
    assert not list(here.iterdir())
    assert [path.name for path in paths.nginx.iterdir()] == [nginx.CONF]


def test_command_line_names_only_the_folder(tmp_path: Path) -> None:
    facts = nginx.find(configured())
    assert nginx.argv(facts, tmp_path)[1:] == [
        "-p",
        f"{tmp_path}/",
        "-c",
        f"{tmp_path}/nginx.conf",
        "-e",
        "stderr",
    ]
