"""The token service in a whole deployment: real nginx, guard, recorder; clients that nobody here wrote."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.e2e.deployment import Deployment, until

TOKEN, REVOKE = "/.gatebook/token", "/.gatebook/revoke"


def configure(deployment: Deployment, **portal: Any) -> None:
    url = f"http://127.0.0.1:{deployment.plain_port}"
    chosen = deployment.configuration
    chosen["identity"]["own"] = {"type": "gatebook"}
    # The same tokens as any other API would take them: by discovery, over HTTP.
    chosen["identity"]["peer"] = {"type": "oidc", "issuer": f"{url}/.gatebook", "audience": [url]}
    chosen["portal"] = {"url": url, "requests_per_second": 500, **portal}
    rules = [{"name": "scoped", "roles": ["reader"], "scopes": ["orders.read"]}]
    for name in ("own", "peer"):
        chosen["routes"].append(
            {
                "name": f"by-{name}",
                "path": f"/{name}/{{id}}",
                "methods": ["GET"],
                "upstream": "orders",
                "identity": [name],
                "allow": rules,
            }
        )
    deployment.write()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = Deployment(tmp_path_factory.mktemp("serving"))
    try:
        configure(made)
        made.start()
        yield made
        made.verify()
    finally:
        made.close()


def make_client(deployment: Deployment, *more: str) -> dict[str, Any]:
    arguments = ("--identity", "own", "--roles", "reader", "--scopes", "orders.read,orders.write", "--ttl", "1h")
    done = deployment.cli("client", "create", *arguments, *more, "--json", "-c", str(deployment.config))
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def post(deployment: Deployment, client: dict[str, Any], path: str = TOKEN, **fields: str) -> httpx2.Response:
    return deployment.ask(path, method="POST", data=fields, auth=(client["client_id"], client["client_secret"]))


def session(deployment: Deployment, client: dict[str, Any], **more: Any) -> OAuth2Session:
    made = OAuth2Session(
        client["client_id"],
        client["client_secret"],
        token_endpoint=deployment.url + TOKEN,
        revocation_endpoint_auth_method=more.get("token_endpoint_auth_method", "client_secret_basic"),
        **more,
    )
    made.verify = str(deployment.folder / "tls" / "ca.pem")
    made.trust_env = False
    return made


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_unmodified_oauth_library_gets_uses_refreshes_and_revokes_tokens(serving: Deployment, method: str) -> None:
    client = make_client(serving, "--refresh")
    with session(serving, client, scope="orders.read", token_endpoint_auth_method=method) as library:
        first = library.fetch_token(grant_type="client_credentials")
        assert library.get(f"{serving.url}/own/7").status_code == 200
        second = library.refresh_token(serving.url + TOKEN)
        assert second["access_token"] != first["access_token"]
        assert second["refresh_token"] != first["refresh_token"]
        assert library.get(f"{serving.url}/own/7").status_code == 200
        with pytest.raises(OAuthError, match="invalid_grant"):
            library.refresh_token(serving.url + TOKEN, first["refresh_token"])
        until(lambda: library.get(f"{serving.url}/own/7").status_code == 401, "the session to be over", 5)
        third = library.fetch_token(grant_type="client_credentials")
        assert library.revoke_token(serving.url + REVOKE, third["refresh_token"]).status_code == 200


def test_unmodified_oauth_library_signs_for_its_tokens(serving: Deployment, tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    public, form = serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PrivateFormat.PKCS8
    path = tmp_path / "public.pem"
    path.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, public))
    client = make_client(serving, "--key", str(path))
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    made = {"client_id": client["client_id"], "client_secret": pem}
    with session(serving, made, token_endpoint_auth_method="private_key_jwt") as library:
        issuer = serving.configuration["portal"]["url"] + "/.gatebook"
        library.register_client_auth_method(PrivateKeyJWT(issuer, alg="RS256"))
        for _ in range(2):
            library.fetch_token(grant_type="client_credentials")
            assert library.get(f"{serving.url}/own/7").status_code == 200


def test_wrong_secret_is_told_as_the_library_expects(serving: Deployment) -> None:
    client = make_client(serving)
    with session(serving, {**client, "client_secret": "wrong"}) as library, pytest.raises(OAuthError) as told:
        library.fetch_token(grant_type="client_credentials")
    assert told.value.error == "invalid_client"


def test_token_opens_what_its_roles_and_scopes_open_and_is_found_by_its_fingerprint(serving: Deployment) -> None:
    client = make_client(serving)
    issued = post(serving, client, grant_type="client_credentials")
    answer = serving.ask("/own/1", issued.json()["access_token"])
    assert answer.status_code == 200
    used = serving.access(answer.headers["X-Request-ID"])
    given = serving.access(issued.headers["X-Request-ID"])
    assert used["identity"]["method"] == "gatebook"
    assert used["identity"]["client"] == given["identity"]["client"] == client["client_id"]
    assert used["identity"]["subject"] == given["identity"]["subject"]
    assert used["identity"]["credential"] == given["issued"]["credential"]
    assert given["response"]["status"] == 200
    assert given["request"]["route"] == "gatebook:token"
    narrow = post(serving, client, grant_type="client_credentials", scope="orders.write").json()
    assert serving.ask("/own/1", narrow["access_token"]).status_code == 403


def test_any_other_api_verifies_our_tokens_by_discovery(serving: Deployment) -> None:
    token = post(serving, make_client(serving), grant_type="client_credentials").json()["access_token"]
    until(lambda: serving.ask("/peer/1", token).status_code == 200, "the provider's keys to be fetched")


def test_token_of_a_revoked_client_opens_nothing_within_a_second(serving: Deployment) -> None:
    client = make_client(serving, "--refresh")
    told = post(serving, client, grant_type="client_credentials").json()
    assert serving.ask("/own/1", told["access_token"]).status_code == 200
    serving.cli("client", "revoke", client["client_id"], "-c", str(serving.config))
    until(lambda: serving.ask("/own/1", told["access_token"]).status_code == 401, "the token to be refused", 5)
    answer = post(serving, client, grant_type="refresh_token", refresh_token=told["refresh_token"])
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    acts = [each for each in serving.log("--all") if each.get("kind") == "admin"]
    mine = [act["action"] for act in acts if client["client_id"] in str(act)]
    assert mine[:2] == ["client.create", "client.revoke"]


def test_refresh_reuse_ends_access_tokens_too_and_its_alert_is_shown(serving: Deployment) -> None:
    client = make_client(serving, "--refresh")
    first = post(serving, client, grant_type="client_credentials").json()
    second = post(serving, client, grant_type="refresh_token", refresh_token=first["refresh_token"]).json()
    assert serving.ask("/own/1", second["access_token"]).status_code == 200
    answer = post(serving, client, grant_type="refresh_token", refresh_token=first["refresh_token"])
    assert (answer.status_code, answer.json()) == (400, {"error": "invalid_grant"})

    def ended() -> bool:
        return all(serving.ask("/own/1", told["access_token"]).status_code == 401 for told in (first, second))

    until(ended, "the end of both", 5)
    (alert,) = [
        each
        for each in serving.log("--all")
        if each.get("kind") == "alert" and each["detail"]["client"] == client["client_id"]
    ]
    assert (alert["alert"], alert["severity"]) == ("refresh_reused", "high")
    lines = serving.cli("log", "--all", "-c", str(serving.config)).stdout.splitlines()
    (line,) = [each for each in lines if "alert refresh_reused" in each and client["client_id"] in each]
    assert "high" in line


def test_credentials_of_clients_are_nowhere_in_files_that_we_write(serving: Deployment) -> None:
    client = make_client(serving, "--refresh")
    told = post(serving, client, grant_type="client_credentials").json()
    secrets = (client["client_secret"], told["refresh_token"], told["access_token"])
    files = [
        path
        for folder in (serving.paths.state, serving.paths.runtime, serving.folder)
        for path in folder.rglob("*")
        if path.is_file()
    ]
    for path in files:
        data = path.read_bytes()
        for secret in secrets:
            assert secret.encode() not in data, path


def test_key_rotation_under_load_fails_no_request(stopped: Deployment) -> None:
    configure(stopped, key_rotation="2s")
    stopped.start()
    client = make_client(stopped)
    statuses: Counter[int] = Counter()
    kids: set[str] = set()
    ended = threading.Event()

    def work() -> None:
        with stopped.client() as caller:
            while not ended.is_set():
                auth = (client["client_id"], client["client_secret"])
                issued = caller.post(TOKEN, data={"grant_type": "client_credentials"}, auth=auth)
                statuses[issued.status_code] += 1
                token = issued.json()["access_token"]
                kids.add(token.split(".")[0])
                for _ in range(3):
                    answer = caller.get("/own/1", headers={"Authorization": f"Bearer {token}"})
                    statuses[answer.status_code] += 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: len(kids) >= 4, "three rotations")
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}, statuses
    turned = [each for each in stopped.log("--all") if each.get("event") == "portal.keys"]
    assert len(turned) >= 4
    stopped.verify()


def test_killed_portal_loses_no_client_and_forgets_no_family(serving: Deployment) -> None:
    client = make_client(serving, "--refresh")
    token = post(serving, client, grant_type="client_credentials").json()["refresh_token"]
    pid = serving.pid("portal")
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in serving.pids() and serving.status().get("ready"), "another portal")
    answer = post(serving, client, grant_type="refresh_token", refresh_token=token)
    assert answer.status_code == 200
    assert post(serving, client, grant_type="refresh_token", refresh_token=token).status_code == 400


def test_private_keys_are_private(serving: Deployment) -> None:
    folder = serving.paths.portal_keys.parent
    assert oct(folder.stat().st_mode)[-3:] == "700"
    assert {oct(entry.stat().st_mode)[-3:] for entry in folder.iterdir()} == {"600"}
