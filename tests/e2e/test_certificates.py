"""Client certificates through the whole of it: who is let in, who is not, and what is on record of each."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.e2e.deployment import Deployment, until
from tests.pki import CLIENT, HOUR, Authority, Pair, self_signed

NAME = "subjectAltName = URI:spiffe://acme/billing\n"


class Scene(NamedTuple):
    deployment: Deployment
    machines: Authority
    robots: Authority
    lists: Path

    def publish(self) -> None:
        new = self.lists.with_suffix(".new")
        new.write_bytes(self.machines.crl())
        new.replace(self.lists)

    def refused(self, path: str, reason: str, pair: Pair | None = None, **more: Any) -> None:
        """401, and the reason and the certificate are on record."""
        answer = self.deployment.ask(path, certificate=pair, **more)
        assert answer.status_code == 401
        assert answer.json()["title"].startswith("Authentication")
        found = self.deployment.access(answer.headers["X-Request-ID"])
        assert found["decision"]["reason"] == reason
        assert found["tls"].get("certificate") == (None if pair is None else sha256(pair))


def sha256(pair: Pair) -> str:
    return hashlib.sha256(pair.der()).hexdigest()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("certificates")
    machines, robots = Authority("machines", folder), Authority("robots", folder)
    made = Deployment(folder / "deployment")
    lists = made.folder / "crl.pem"
    scene = Scene(made, machines, robots, lists)
    scene.publish()
    try:
        (made.folder / "machines.pem").write_bytes(machines.pem)
        (made.folder / "robots.pem").write_bytes(robots.pem)
        rule = {"name": "billing", "roles": ["payer"]}
        route = {"methods": ["GET", "POST"], "upstream": "orders", "allow": [rule]}
        made.configuration["identity"]["staff"]["certificate_bound"] = "allow"
        made.configuration["identity"] |= {
            "machines": {
                "type": "mtls",
                "ca": "machines.pem",
                "crl": "crl.pem",
                "subject": "san_uri",
                "roles": {"spiffe://acme/billing": ["payer"]},
            },
            "robots": {"type": "mtls", "ca": "robots.pem", "subject": "san_uri", "roles_field": "common_name"},
        }
        made.configuration["routes"] += [
            {"name": "pay", "path": "/pay/{id}", "identity": ["machines"], **route},
            {"name": "either", "path": "/either/{id}", "identity": ["machines", "robots"], **route},
        ]
        made.write()
        made.start()
        yield scene
        made.verify()
    finally:
        made.close()


def test_certificate_opens_what_its_name_allows(scene: Scene) -> None:
    pair = scene.machines.issue(extensions=CLIENT + NAME)
    answer = scene.deployment.ask("/pay/1", certificate=pair, method="POST", content=b"hello")
    assert (answer.status_code, answer.text) == (200, "5 bytes")
    found = scene.deployment.access(answer.headers["X-Request-ID"])
    assert (found["identity"]["provider"], found["identity"]["method"]) == ("machines", "mtls")
    assert found["identity"]["roles"] == ["payer"]
    assert found["tls"]["certificate"] == sha256(pair)
    seen = scene.deployment.upstream.seen[-1]
    assert seen.one("Gatebook-Subject") == "spiffe://acme/billing"
    assert not {name for name in seen.names if "cert" in name}


def test_certificate_that_is_not_needed_is_on_record_all_the_same(scene: Scene) -> None:
    pair = self_signed(scene.lists.parent)
    for token in (None, scene.deployment.reader()):
        answer = scene.deployment.ask("/orders/1" if token else "/healthz", token, certificate=pair)
        assert answer.status_code == 200
        assert scene.deployment.access(answer.headers["X-Request-ID"])["tls"]["certificate"] == sha256(pair)


def test_certificate_that_does_not_fit_is_refused_and_the_reason_is_on_record(scene: Scene) -> None:
    machines, folder = scene.machines, scene.lists.parent
    scene.refused("/pay/1", "credential_missing")
    scene.refused("/pay/1", "certificate_untrusted", self_signed(folder))
    scene.refused("/pay/1", "certificate_untrusted", scene.robots.issue(extensions=CLIENT + NAME))
    expired = machines.issue(extensions=CLIENT + NAME, start=-2 * HOUR, end=-HOUR)
    scene.refused("/pay/1", "certificate_expired", expired)
    early = machines.issue(extensions=CLIENT + NAME, start=HOUR, end=2 * HOUR)
    scene.refused("/pay/1", "certificate_not_yet_valid", early)
    server = machines.issue(extensions="extendedKeyUsage = serverAuth\n" + NAME)
    scene.refused("/pay/1", "certificate_usage", server)
    scene.refused("/pay/1", "certificate_subject", machines.issue())
    # What is of no use where certificates count is no harm where they do not.
    assert scene.deployment.ask("/healthz", certificate=expired).status_code == 200
    assert scene.deployment.ask("/orders/1", scene.deployment.reader(), certificate=expired).status_code == 200


def test_challenge_names_what_is_missing(scene: Scene) -> None:
    answer = scene.deployment.ask("/pay/1")
    assert answer.headers["WWW-Authenticate"] == 'ClientCertificate realm="acme"'


def test_certificate_of_another_providers_authority_is_refused_where_that_is_not_accepted(scene: Scene) -> None:
    robot = scene.robots.issue("/CN=payer", CLIENT + NAME)
    answer = scene.deployment.ask("/either/1", certificate=robot)
    assert answer.status_code == 200
    assert scene.deployment.access(answer.headers["X-Request-ID"])["identity"]["provider"] == "robots"
    scene.refused("/pay/1", "certificate_untrusted", robot)


def test_forged_certificate_field_opens_nothing(scene: Scene) -> None:
    pem = scene.machines.issue(extensions=CLIENT + NAME).certificate.read_text()
    for value in (pem.replace("\n", "%0A").replace(" ", "%20"), pem.replace("\n", "")):
        for name in ("Gatebook-Certificate", "Client-Cert", "X-SSL-Client-Cert", "X-Forwarded-Client-Cert"):
            scene.refused("/pay/1", "credential_missing", headers={name: value})


def test_revoked_certificate_is_refused_within_a_second_on_an_open_connection(scene: Scene) -> None:
    pair = scene.machines.issue(extensions=CLIENT + NAME)
    with scene.deployment.client(pair) as client:
        assert client.get("/pay/1").status_code == 200
        scene.machines.revoke(pair)
        scene.publish()
        until(lambda: client.get("/pay/1").status_code == 401, "the revocation")
    scene.refused("/pay/1", "certificate_revoked", pair)
    assert (
        scene.deployment.ask("/pay/1", certificate=scene.machines.issue(extensions=CLIENT + NAME)).status_code
        == 200
    )


def test_stolen_bound_token_opens_nothing_by_another_certificate_or_none(scene: Scene) -> None:
    folder = scene.lists.parent
    owner, thief = self_signed(folder, "owner"), self_signed(folder, "thief")
    thumbprint = urlsafe_b64encode(hashlib.sha256(owner.der()).digest()).rstrip(b"=").decode()
    token = scene.deployment.reader(cnf={"x5t#S256": thumbprint})
    assert scene.deployment.ask("/orders/1", token, certificate=owner).status_code == 200
    scene.refused("/orders/1", "certificate_mismatch", thief, token=token)
    scene.refused("/orders/1", "certificate_missing", token=token)
    assert scene.deployment.ask("/orders/1", token, certificate=owner).status_code == 200
