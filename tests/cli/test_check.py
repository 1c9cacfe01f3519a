"""`gatebook check`: everything that would keep `run` from starting, at once, and nothing is changed."""

from __future__ import annotations

import datetime
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.pki import DAY, HOUR, Authority
from tests.ports import free_port

from gatebook import certificates, starter
from gatebook.config.load import load
from gatebook.gateway import render
from gatebook.ledger.note import Cosigner, Signer
from gatebook.paths import Paths, make_private

Run = Callable[..., Any]
NOW = datetime.datetime.now(datetime.UTC)


class Deployment:
    """What `gatebook init` makes, on a free port, with ways to spoil it."""

    def __init__(self, folder: Path, run: Run) -> None:
        starter.initialise(folder, "acme", NOW)
        self.folder, self.run = folder, run
        self.config = folder / "gatebook.yaml"
        self.port = free_port()
        self.change("127.0.0.1:8443", f"127.0.0.1:{self.port}")

    def change(self, old: str, new: str) -> None:
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new, 1))

    def check(self) -> Any:
        return self.run("check", "-c", str(self.config))

    def problems(self) -> list[str]:
        """`key: message` of each problem; each has a place, and the exit code fits."""
        ran = self.run("check", "--json", "-c", str(self.config))
        said = ran.json()
        assert ran.code == (2 if said["problems"] else 0)
        assert said["ok"] is (not said["problems"])
        assert all(p["file"] == str(self.config) and p["line"] > 0 for p in said["problems"] + said["warnings"])
        return [f"{p['key']}: {p['message']}" for p in said["problems"]]

    def warnings(self) -> list[str]:
        said = self.run("check", "--json", "-c", str(self.config)).json()
        return [f"{w['key']}: {w['message']}" for w in said["warnings"] if "as root" not in w["message"]]


@pytest.fixture
def made(tmp_path: Path, run: Run) -> Deployment:
    return Deployment(tmp_path, run)


def test_what_init_makes_passes_as_it_is(made: Deployment) -> None:
    ran = made.check()
    assert ran.code == 0
    assert re.fullmatch(rf"ok: {made.config}: 2 routes, configuration [0-9a-f]{{16}}\n", ran.out)
    assert made.problems() == []
    assert made.warnings() == []


def test_check_changes_nothing(made: Deployment) -> None:
    def state() -> dict[str, tuple[float, int]]:
        return {str(p): (p.lstat().st_mtime_ns, p.lstat().st_mode) for p in sorted(made.folder.rglob("*"))}

    before = state()
    made.check()
    assert state() == before
    assert not Paths(made.folder / "state").runtime.exists()


def test_everything_wrong_is_said_at_once(made: Deployment) -> None:
    (made.folder / "state").chmod(0o755)
    (made.folder / "tls" / "server.pem").unlink()
    made.change("upstream: orders, identity: none}", "upstream: order, identity: none}")
    made.change("    limits:", "    limitz: []\n    limits:")
    made.change("{name: readers, roles: [reader, admin]}", "{name: readers, when: 'identity.'}")
    said = made.problems()
    assert [line.partition(": ")[0] for line in said] == [
        "state_dir",
        "listen[0].tls.certificate",
        "routes[0].upstream",
        "routes[1].allow[0].when",
        "routes[1].limitz",
    ]
    ran = made.check()
    assert ran.code == 2
    assert len(re.findall("^error: ", ran.err, re.M)) == 5
    assert "did you mean `limits`?" in ran.err


def test_nothing_is_said_twice(made: Deployment) -> None:
    made.change("- name: read-order", "- name: health")  # the reader of the file and the policy both object
    (said,) = made.problems()
    assert said == "routes[1].name: a second route 'health'"


def test_wrong_value_hides_neither_missing_files_nor_wrong_conditions_nor_a_taken_port(made: Deployment) -> None:
    made.change("timeout: 15s", "timeout: fast")
    made.change("server.pem", "missing.pem")
    made.change("#      - {name: own-tenant", "      - {name: own-tenant")
    made.change("identity.claims.tenant == ", "identity.claims.tenant = ")
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", made.port))
        other.listen()
        said = made.problems()
    assert [text.partition(":")[0] for text in said] == [
        "listen[0].address",
        "listen[0].tls.certificate",
        "upstreams.orders.timeout",
        "routes[1].allow[1].when",
    ]


def test_what_is_put_in_place_of_a_wrong_rule_is_blamed_for_nothing(made: Deployment) -> None:
    made.change("roles: [reader, admin]", "rolls: [reader, admin]")
    made.change("path: /healthz", "path: 7")
    ran = made.run("check", "--json", "-c", str(made.config)).json()
    assert [problem["key"] for problem in ran["problems"]] == ["routes[0].path", "routes[1].allow[0].rolls"]
    assert not any("rule" in warning["message"] for warning in ran["warnings"])


def test_https_upstream_by_address_is_an_error_at_its_url(made: Deployment) -> None:
    made.change("http://127.0.0.1:9001", "https://127.0.0.1:9001")
    (said,) = made.problems()
    assert said.startswith("upstreams.orders.url: nginx verifies certificates for names only")


def test_syntax_error_is_the_only_thing_said(made: Deployment) -> None:
    made.change("listen:", "listen: [")
    assert len(made.problems()) == 1


def test_condition_that_is_no_cel_names_its_rule_and_place(made: Deployment) -> None:
    made.change("{name: readers, roles: [reader, admin]}", "{name: readers, when: 'identity.subject + 1'}")
    (said,) = made.problems()
    assert said.startswith("routes[1].allow[0].when: ")


# -- the state folder ------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", [0o755, 0o750, 0o770, 0o600])
def test_state_folder_open_to_others(made: Deployment, mode: int) -> None:
    (made.folder / "state").chmod(mode)
    (said,) = made.problems()
    assert f"mode {mode:04o}" in said
    assert stat.S_IMODE((made.folder / "state").stat().st_mode) == mode  # refused, never repaired


def test_state_folder_that_is_a_link(made: Deployment) -> None:
    (made.folder / "state").rename(made.folder / "elsewhere")
    (made.folder / "state").symlink_to(made.folder / "elsewhere")
    assert ["not a folder" in said for said in made.problems()] == [True]


def test_no_state_folder_says_what_makes_one(made: Deployment) -> None:
    (made.folder / "state").rename(made.folder / "elsewhere")
    (said,) = made.problems()
    assert "gatebook init" in said


def test_state_folder_of_somebody_else(made: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert any("owned by uid" in said and said.startswith("state_dir") for said in made.problems())


@pytest.mark.parametrize("name", ["log.key", "reader.pub", "pseudonym.key", "fingerprint.key"])
def test_missing_key(made: Deployment, name: str) -> None:
    (made.folder / "state" / "keys" / name).unlink()
    assert any(f"keys/{name}: no such" in said for said in made.problems())


@pytest.mark.parametrize("name", ["log.key", "pseudonym.key", "fingerprint.key"])
def test_key_that_others_can_read(made: Deployment, name: str) -> None:
    (made.folder / "state" / "keys" / name).chmod(0o644)
    (said,) = made.problems()
    assert f"keys/{name}: mode 0644 lets others at a secret" in said


def test_all_missing_keys_are_named(made: Deployment) -> None:
    for path in (made.folder / "state" / "keys").iterdir():
        path.unlink()
    assert len(made.problems()) == 5


def test_readers_private_key_may_be_kept_elsewhere(made: Deployment) -> None:
    (made.folder / "state" / "keys" / "reader.key").unlink()
    assert made.problems() == []


# -- certificates ----------------------------------------------------------------------------------------
def put(made: Deployment, name: str, data: bytes) -> None:
    (made.folder / "tls" / name).write_bytes(data)


def test_key_of_another_certificate(made: Deployment) -> None:
    put(made, "server.key", certificates.development(NOW).key)
    (said,) = made.problems()
    assert said.startswith("listen[0].tls.key: ")
    assert "is not the key of the certificate beside it" in said


def test_certificate_that_has_expired(made: Deployment) -> None:
    old = certificates.development(NOW - datetime.timedelta(days=91))
    put(made, "server.pem", old.certificate)
    put(made, "server.key", old.key)
    (said,) = made.problems()
    assert "expired on" in said


def test_certificate_that_will_expire_soon_is_a_warning(made: Deployment) -> None:
    old = certificates.development(NOW - datetime.timedelta(days=80))
    put(made, "server.pem", old.certificate)
    put(made, "server.key", old.key)
    assert made.problems() == []
    (said,) = made.warnings()
    assert "expires on" in said
    assert made.check().err.count("warning: ") == 1 + (os.geteuid() == 0)


def test_private_key_that_everybody_can_read(made: Deployment) -> None:
    (made.folder / "tls" / "server.key").chmod(0o644)
    (said,) = made.problems()
    assert "mode 0644 lets others at a secret" in said


def test_private_key_that_its_group_can_read_is_a_warning(made: Deployment) -> None:
    (made.folder / "tls" / "server.key").chmod(0o640)
    assert made.problems() == []
    (said,) = made.warnings()
    assert "mode 0640 lets its group read a secret" in said


def test_pipe_in_place_of_a_key_does_not_hang(made: Deployment) -> None:
    (made.folder / "tls" / "server.key").unlink()
    os.mkfifo(made.folder / "tls" / "server.key", 0o600)
    assert any("not a regular file" in said for said in made.problems())


def test_ca_files_of_providers_and_upstreams(made: Deployment) -> None:
    put(made, "broken.pem", b"nonsense")
    provider = "{type: oidc, issuer: 'https://login.acme.example', audience: [a], ca: tls/missing.pem}"
    made.change("identity:\n", f"identity:\n  staff: {provider}\n")
    made.change(
        "upstreams:\n", "upstreams:\n  billing: {url: 'https://billing.internal.example', ca: tls/broken.pem}\n"
    )
    said = made.problems()
    assert said[0].startswith("identity.staff.ca: ")
    assert "missing.pem: no such file" in said[0]
    assert said[1].startswith("upstreams.billing.ca: ")
    assert "holds no certificate" in said[1]


def test_certificates_of_the_time_stamp_authority(made: Deployment) -> None:
    put(made, "broken.pem", b"nonsense")
    asked = "timestamps: {url: 'http://timestamp.example.com', certificates: tls/broken.pem}"
    made.change("identity:\n", f"{asked}\nidentity:\n")
    (said,) = made.problems()
    assert said.startswith("timestamps.certificates: ")
    assert "holds no certificate" in said


def test_secrets_that_are_only_named(made: Deployment) -> None:
    put(made, "key.pem", b"nonsense")
    put(made, "open.secret", b"hunter2")
    (made.folder / "tls" / "key.pem").chmod(0o600)
    (made.folder / "tls" / "open.secret").chmod(0o644)
    clients = {
        "one": "secret: {file: tls/missing.secret}",
        "two": "secret: {file: tls/open.secret}",
        "three": "secret: {env: GATEBOOK_TEST_NOT_SET}",
        "four": "method: private_key_jwt, key: {file: tls/key.pem}",
    }
    asked = "type: introspection, url: 'https://login.acme.example/introspect', audience: [a]"
    lines = [f"  {name}: {{{asked}, client: {{id: g, {client}}}}}\n" for name, client in clients.items()]
    made.change("identity:\n", "identity:\n" + "".join(lines))
    said = made.problems()
    assert len(said) == 4
    assert said[0].startswith("identity.one.client.secret: ")
    assert "no such file" in said[0]
    assert "mode 0644 lets others at a secret" in said[1]
    assert "GATEBOOK_TEST_NOT_SET: not set" in said[2]
    assert said[3].startswith("identity.four.client.key: ")
    assert "holds no private key" in said[3]
    assert "hunter2" not in "".join(said)


def test_what_sinks_need_is_looked_into(made: Deployment) -> None:
    put(made, "open.secret", b"hunter2")
    (made.folder / "tls" / "open.secret").chmod(0o644)
    (made.folder / "state" / "keys" / "reader.key").unlink()
    hook = "type: webhook, url: 'https://soc.example/hook'"
    sinks = {
        "one": f"{hook}, secret: {{env: GATEBOOK_TEST_NOT_SET}}, where: 'record.'",
        "two": f"{hook}, secret: {{file: tls/open.secret}}, certificates: tls/none.pem",
        "three": "type: file, path: x.jsonl, where: 'size(record)'",
        "four": "type: otlp, url: 'https://c.example', headers: {x-key: {env: GATEBOOK_TEST_NOT_SET}}",
    }
    with made.config.open("a") as config:
        config.write("\nsinks:\n" + "".join(f"  {name}: {{{sink}}}\n" for name, sink in sinks.items()))
    said = made.problems()
    for key, words in (
        ("sinks.one.where", ""),
        ("sinks.one.secret", "GATEBOOK_TEST_NOT_SET: not set"),
        ("sinks.two.secret", "mode 0644 lets others at a secret"),
        ("sinks.two.certificates", "no such file"),
        ("sinks.three.where", ""),
        ("sinks.four.headers.x-key", "GATEBOOK_TEST_NOT_SET: not set"),
    ):
        assert [each for each in said if each.startswith(f"{key}: ") and words in each], (key, said)
    assert len(said) == 6
    assert "hunter2" not in "".join(said)
    assert [each for each in made.warnings() if "no reader's key on this host" in each]


# -- addresses -------------------------------------------------------------------------------------------
@pytest.fixture
def taken(made: Deployment) -> Iterator[None]:
    with closing(socket.socket()) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", made.port))
        other.listen()
        yield


@pytest.mark.usefixtures("taken")
def test_port_of_another_program(made: Deployment) -> None:
    assert made.problems() == [f"listen[0].address: 127.0.0.1:{made.port}: address already in use"]


@pytest.fixture
def running(made: Deployment) -> Iterator[Paths]:
    """A supervisor of this state folder, as far as `check` can see."""
    paths = Paths(made.folder / "state")
    make_private(paths.runtime)
    paths.effective.write_bytes(load(made.config).effective())
    with closing(socket.socket(socket.AF_UNIX)) as control:
        control.bind(str(paths.control_socket))
        control.listen()
        yield paths
    paths.control_socket.unlink()
    paths.runtime.rmdir()


@pytest.mark.usefixtures("taken", "running")
def test_port_that_our_own_running_instance_holds(made: Deployment) -> None:
    assert made.problems() == []


@pytest.mark.usefixtures("taken")
def test_port_held_by_others_after_our_instance_was_killed(made: Deployment, running: Paths) -> None:
    running.control_socket.unlink()
    running.control_socket.write_bytes(b"")
    assert made.problems() == [f"listen[0].address: 127.0.0.1:{made.port}: address already in use"]


def test_address_of_another_machine(made: Deployment) -> None:
    made.change(f"127.0.0.1:{made.port}", "192.0.2.1:8443")
    (said,) = made.problems()
    assert said == "listen[0].address: 192.0.2.1:8443: cannot assign requested address"


# -- nginx -----------------------------------------------------------------------------------------------
def test_nginx_that_is_not_there(made: Deployment) -> None:
    made.config.write_text(made.config.read_text() + "\ngateway: {nginx: /nowhere/nginx}\n")
    (said,) = made.problems()
    assert said.startswith("gateway")
    assert "/nowhere/nginx" in said


def test_what_nginx_itself_refuses_is_reported(made: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    real = render.render

    def spoilt(*arguments: Any) -> dict[str, bytes]:
        return {name: data + b"\nno_such_directive on;\n" for name, data in real(*arguments).items()}

    monkeypatch.setattr("gatebook.preflight.render.render", spoilt)
    (said,) = made.problems()
    assert "no_such_directive" in said


# -- who runs it -----------------------------------------------------------------------------------------
def test_root_is_warned(made: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.geteuid()
    said = made.run("check", "--json", "-c", str(made.config)).json()["warnings"]
    assert ["as root" in w["message"] for w in said] == [True] * (uid == 0)


def test_missing_configuration_is_one_problem(run: Run, tmp_path: Path) -> None:
    ran = run("check", "-c", str(tmp_path / "none.yaml"))
    assert ran.code == 2
    assert ran.err.startswith(f"error: {tmp_path}/none.yaml: no such file or directory")


def test_rule_that_never_decides_is_a_warning_at_its_own_line(made: Deployment) -> None:
    rule = "      - {name: readers, roles: [reader, admin]}\n"
    made.change(rule, rule + "      - {name: admins, roles: [admin]}\n")
    line = made.config.read_text()[: made.config.read_text().index("{name: admins")].count("\n") + 1
    ran = made.check()
    assert ran.code == 0
    said = "rule admins never decides: readers before it holds whenever it does"
    assert f"{made.config}:{line}:9: routes[1].allow[1]: {said}" in ran.err


def test_role_that_is_not_declared_is_an_error_with_the_nearest(made: Deployment) -> None:
    made.change("# What is behind the gateway.", "roles: {admin: {includes: [reader]}, raeder: {}}")
    assert made.problems() == [
        "roles.admin.includes[0]: no role is called 'reader'",
        "routes[1].allow[0].roles[0]: no role is called 'reader'",
    ]
    assert "did you mean `raeder`?" in made.check().err


def test_authorities_of_client_certificates_are_looked_into(made: Deployment) -> None:
    made.change("identity:\n", "identity:\n  hosts: {type: mtls, ca: hosts.pem, subject: common_name}\n")
    assert made.problems() == [f"identity.hosts.ca: {made.folder / 'hosts.pem'}: no such file or directory"]
    authority = Authority("root", made.folder)
    for data, why in (
        (b"", "holds no certificate that can be read"),
        (
            authority.issue().certificate.read_bytes(),
            "certificate 1 cannot vouch for others: it is no authority's, by what it says of itself",
        ),
    ):
        (made.folder / "hosts.pem").write_bytes(data)
        assert made.problems() == [f"identity.hosts.ca: {made.folder / 'hosts.pem'}: {why}"]
    (made.folder / "hosts.pem").write_bytes(authority.pem)
    assert made.problems() == made.warnings() == []
    old = Authority("old", made.folder, start=-DAY, end=-HOUR)
    (made.folder / "hosts.pem").write_bytes(authority.pem + old.pem)
    assert made.problems() == []
    assert made.warnings() == [f"identity.hosts.ca: {made.folder / 'hosts.pem'}: 'CN=old' has expired"]


def test_revocation_lists_that_are_of_no_use_are_warned_of(made: Deployment) -> None:
    authority = Authority("root", made.folder)
    (made.folder / "hosts.pem").write_bytes(authority.pem)
    hosts = "{type: mtls, ca: hosts.pem, crl: crl.pem, subject: common_name}"
    made.change("identity:\n", f"identity:\n  hosts: {hosts}\n")
    path = made.folder / "crl.pem"

    def warning() -> str:
        assert made.problems() == []  # it shuts nobody out but the holders of these certificates
        (found,) = made.warnings()
        assert found.startswith(f"identity.hosts.crl: {path}: ")
        assert found.endswith("; until it is in order no certificate of hosts opens anything")
        return found

    assert "no such file" in warning()
    path.write_bytes(Authority("other", made.folder).crl())
    assert "no authority of the provider signed it" in warning()
    path.write_bytes(authority.crl(start=-DAY, end=-HOUR))
    assert "a list has run out" in warning()
    path.write_bytes(authority.crl())
    assert made.warnings() == []


def test_policy_of_witnesses(made: Deployment) -> None:
    made.change("identity:\n", "witnesses: {policy: witnesses.policy, ca: tls/broken.pem}\nidentity:\n")
    put(made, "broken.pem", b"nonsense")
    said = made.problems()
    assert len(said) == 2
    assert said[0].startswith("witnesses.policy: ")
    assert "no such file" in said[0]
    assert said[1].startswith("witnesses.ca: ")
    made.change(", ca: tls/broken.pem", "")
    policy = made.folder / "witnesses.policy"
    keys = [Cosigner(f"witness.example/{n}", bytes([n]) * 32).vkey for n in range(3)]
    policy.write_text(f"witness a {keys[0]}\nwitnes b {keys[1]} https://b.example/\nquorum c\n")
    said = made.problems()
    assert ["2:1: 'witnes' is no line" in said[0], "3:8: 'c' is no witness" in said[1]] == [True, True]
    policy.write_text(f"witness a {keys[0]}\nquorum a\n")
    assert "nobody is asked" in made.problems()[0]
    policy.write_text(
        f"witness a {keys[0]} http://a.example/\nwitness b {keys[1]} ftp://b.example/\n"
        f"witness c {keys[2]} https://user:secret@c.example/\nquorum none\n"
    )
    said = made.problems()
    assert [name in said[at] for at, name in enumerate(["URL of a ", "URL of b ", "URL of c "])] == [True] * 3
    assert "secret" not in "".join(said)
    policy.write_text(
        f"log {Signer('other/log', b'o' * 32).vkey}\nwitness a {keys[0]} https://a.example/w\nquorum a\n"
    )
    assert made.problems() == []
    assert "but not acme/node-1" in made.warnings()[0]


@pytest.mark.parametrize(("kept", "count"), [("90d", 1), ("364d", 1), ("400d", 0)])
def test_records_that_are_kept_for_less_than_a_year_are_a_warning(made: Deployment, kept: str, count: int) -> None:
    made.config.write_text(made.config.read_text() + f"\nretention: {{records: {kept}}}\n")
    assert len([said for said in made.warnings() if "many standards ask for a year" in said]) == count


def test_records_that_are_kept_for_less_than_a_day_are_refused(made: Deployment) -> None:
    made.config.write_text(made.config.read_text() + "\nretention: {records: 23h}\n")
    assert "retention.records" in made.check().err


@pytest.mark.parametrize(
    ("audit", "said"),
    [
        ("{address: seal}", "opens them for nobody"),
        ("{unseal: [auditor]}", "nothing is sealed"),
        ("{subject: seal, unseal: [auditor]}", None),
        ("{subject: keep}", None),
    ],
)
def test_sealing_for_nobody_is_a_warning(made: Deployment, audit: str, said: str | None) -> None:
    text = re.sub(r"(?m)^audit:.*$(\n^ .*$)*", "", made.config.read_text())
    made.config.write_text(f"{text}\naudit: {audit}\n")
    found = [each for each in made.warnings() if "seal" in each]
    assert len(found) == (said is not None)
    assert said is None or said in found[0]
