"""The configuration for nginx as text: the same every time, and nothing an operator writes can leave its place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import crossplane
import pytest

from gatebook.config.model import Configuration
from gatebook.errors import EnvironmentFault
from gatebook.gateway import nginx, render, tree
from gatebook.gateway.facts import NginxFacts
from gatebook.paths import Paths
from gatebook.wire import FROM_GUARD, TO_GUARD

FACTS = NginxFacts(binary=Path("/usr/sbin/nginx"), version=(1, 31, 3), flags=frozenset(), open_files=4096)


def configured(**sections: Any) -> Configuration:
    return Configuration.model_validate(
        {
            "version": 1,
            "name": "acme",
            "state_dir": "/srv/gatebook/state",
            "listen": [{"address": "127.0.0.1:8080"}],
            "upstreams": {"orders": {"url": "http://127.0.0.1:9001"}},
            "routes": [{"name": "all", "path": "/", "methods": ["GET"], "upstream": "orders", "identity": "none"}],
        }
        | sections
    )


def rendered(configuration: Configuration, facts: NginxFacts = FACTS) -> str:
    (name,) = files = render.render(configuration, Paths(configuration.state_dir), facts)
    assert name == nginx.CONF
    return files[name].decode()


def test_same_configuration_gives_the_same_bytes() -> None:
    upstreams = {name: {"url": f"http://{name}.example:80"} for name in ("b", "a", "c")}
    backwards = dict(reversed(upstreams.items()))
    first = rendered(configured(upstreams=upstreams | {"orders": {"url": "http://o"}}))
    assert first == rendered(configured(upstreams=upstreams | {"orders": {"url": "http://o"}}))
    assert first == rendered(configured(upstreams=backwards | {"orders": {"url": "http://o"}}))


def test_routes_are_no_concern_of_nginx() -> None:
    one = configured()
    many = configured(
        routes=[
            {"name": f"r-{n}", "path": f"/r/{n}", "methods": ["GET"], "upstream": "orders", "identity": "none"}
            for n in range(50)
        ]
    )
    assert rendered(one) == rendered(many)


def test_what_is_built_is_read_back_as_it_was_meant(tmp_path: Path) -> None:
    values = ['{"a":"$b"}', "", " ", "it's", 'a"b', "~^[^?]*$", r"~*^\S+\.x$", "a;b", "a{b", "}", "é", "a  b"]
    block = [tree.directive("log_format", "name", value) for value in values]
    (tmp_path / "x.conf").write_bytes(tree.build(block))
    assert [each["args"][1] for each in tree.parse(tmp_path / "x.conf")] == values


@pytest.mark.parametrize("name", ["a$b", "a\\b", "a'b", 'a"b', "a\nb", "a\x00b", "${pid}"])
def test_path_that_nginx_would_read_differently_is_refused(name: str) -> None:
    with pytest.raises(EnvironmentFault, match="choose another name"):
        tree.file(Path("/srv") / name)


def test_relative_path_is_refused() -> None:
    with pytest.raises(EnvironmentFault, match="relative"):
        tree.file(Path("tls/server.pem"))


@pytest.mark.parametrize("name", ["a b", "a;b", "a{b}", "ü", "#a"])
def test_path_with_any_other_character_is_quoted(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.conf").write_bytes(tree.build([tree.directive("pid", tree.file(Path("/srv") / name))]))
    (found,) = tree.parse(tmp_path / "x.conf")
    assert found["args"] == [f"/srv/{name}"]


@pytest.mark.parametrize(("seconds", "text"), [(0.0001, "1ms"), (2.5, "2500ms"), (3e9, f"{tree.MAX_TIME_MS}ms")])
def test_times_stay_within_what_nginx_can_count(seconds: float, text: str) -> None:
    assert tree.milliseconds(seconds) == text


def test_all_that_guard_and_gateway_agreed_to_say_is_said() -> None:
    text = rendered(configured())
    for name, variable in TO_GUARD.items():
        assert f"proxy_set_header {name} {variable};" in text
    for name, variable in FROM_GUARD.items():
        assert f"auth_request_set {variable} $upstream_http_{name.lower().replace('-', '_')};" in text


@pytest.mark.parametrize(
    ("version", "there", "not_there"),
    [
        ((1, 22, 1), ["ssl http2;"], ["http2 on;", "keepalive_min_timeout"]),
        ((1, 25, 1), ["http2 on;"], ["ssl http2;", "keepalive_min_timeout"]),
        ((1, 27, 4), ["http2 on;", "keepalive_min_timeout 10s;"], ["ssl http2;"]),
    ],
)
def test_each_version_is_told_in_its_own_words(
    version: tuple[int, int, int], there: list[str], not_there: list[str]
) -> None:
    tls = {"certificate": "/srv/c.pem", "key": "/srv/k.pem"}
    facts = NginxFacts(binary=FACTS.binary, version=version, flags=frozenset())
    text = rendered(configured(listen=[{"address": "127.0.0.1:8443", "tls": tls}]), facts)
    assert all(words in text for words in there)
    assert not any(words in text for words in not_there)


def test_session_without_a_certificate_is_not_resumed_once_certificates_are_asked_for() -> None:
    tls = {"certificate": "/srv/c.pem", "key": "/srv/k.pem"}
    listen = [{"address": "127.0.0.1:8443", "tls": tls}]
    staff = {"type": "oidc", "issuer": "https://login.example", "audience": ["orders"]}
    caches = set()
    for bound in ("off", "allow", "require"):
        text = rendered(configured(listen=listen, identity={"staff": {**staff, "certificate_bound": bound}}))
        assert ("ssl_verify_client optional_no_ca;" in text) == (bound != "off")
        caches.add(re.findall(r"ssl_session_cache (\S+);", text)[0])
    assert len(caches) == 2


def test_only_root_names_a_user() -> None:
    as_root = NginxFacts(binary=FACTS.binary, version=FACTS.version, flags=frozenset(), root=True)
    assert "user root root;" in rendered(configured(), as_root)
    assert "user " not in rendered(configured())


def test_several_guards_keep_a_credential_with_one_of_them() -> None:
    keys = {
        name: {"type": "api_key", "header": header}
        for name, header in {"a": "X-B", "b": "x-b", "c": "X-A"}.items()
    }
    text = rendered(configured(guard={"processes": 3}, identity=keys))
    assert "map $http_authorization$http_x_a$http_x_b $gatebook_caller" in text
    assert "hash $gatebook_caller consistent;" in text
    assert text.count("max_fails=0;") == 3


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2:aaaa:bbbb:cccc:dddd", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:3:4:5:6", True),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:3:3:4:5:6", False),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db9::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("::1", "::2", False),
    ],
)
def test_flood_from_one_ipv6_network_counts_as_one_client(
    one: str, other: str, same: bool, tmp_path: Path
) -> None:
    (tmp_path / "nginx.conf").write_text(rendered(configured()))
    (http,) = (each for each in tree.parse(tmp_path / "nginx.conf") if each["directive"] == "http")
    (cases,) = (each["block"] for each in http["block"] if "$gatebook_neighbourhood" in each["args"][1:2])
    patterns = [each["directive"][1:] for each in cases if each["directive"] != "default"]

    def key(address: str) -> str:
        return next((found[1] for pattern in patterns if (found := re.match(pattern, address))), address)

    assert (key(one) == key(other)) == same


@pytest.mark.parametrize(
    ("url", "server", "host"),
    [
        ("http://10.0.0.1", "10.0.0.1:80", "10.0.0.1"),
        ("https://billing.example/", "billing.example:443", "billing.example"),
        ("https://billing.example:443", "billing.example:443", "billing.example:443"),
        ("http://[::1]:9001", "[::1]:9001", "[::1]:9001"),
        ("http://[::1]", "[::1]:80", "[::1]"),
    ],
)
def test_upstream_is_called_by_the_name_in_its_url(url: str, server: str, host: str) -> None:
    text = rendered(configured(upstreams={"orders": {"url": url}}))
    assert f"        server {server};" in text
    assert f"proxy_set_header Host {host};" in text
    assert ("proxy_ssl_verify on;" in text) == url.startswith("https")


def test_bytes_are_a_configuration_by_another_reader_too(tmp_path: Path) -> None:
    path = tmp_path / "nginx.conf"
    path.write_text(rendered(configured()))
    parsed = crossplane.parse(str(path), single=True, check_args=False, check_ctx=False)
    assert parsed["status"] == "ok"
