"""DPoP through the whole of it: a certified provider's tokens, an unmodified client library, and thieves."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from tests.e2e.deployment import Deployment, until
from tests.identity.mint import EC
from tests.identity.prove import ath, prove
from tests.oidc.provider import PEERS, Client, Provider, serve
from tests.pki import self_signed

ROUTES = {
    "/orders/{id}": "plain",
    "/strict/{id}": "strict",
    "/nonce/{id}": "nonce",
    "/onward/{id}": "onward",
    "/opaque/{id}": "opaque",
}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    reader = {"roles": ["reader"]}
    clients = {
        "app": Client(claims=reader),
        "mesh": Client(claims=reader, bound=True),
        "reference": Client(claims=reader, format="opaque"),
    }
    with serve(clients) as running:
        yield running


@pytest.fixture(scope="module")
def behind(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = Deployment(tmp_path_factory.mktemp("dpop"))
    try:
        staff = made.configuration["identity"].pop("staff") | {"issuer": provider.issuer}
        settings = {
            "plain": {"dpop": "allow", "certificate_bound": "allow"},
            "strict": {"dpop": "require"},
            "nonce": {"dpop": "require", "dpop_nonce": True},
            "onward": {"dpop": "allow", "forward_proof": True},
        }
        made.configuration["identity"] |= {name: staff | more for name, more in settings.items()}
        secret = made.folder / "client.secret"
        secret.write_text(provider.clients["app"].secret)
        secret.chmod(0o600)
        made.configuration["identity"]["opaque"] = {
            "type": "introspection",
            "url": f"{provider.issuer}/token/introspection",
            "client": {"id": "app", "secret": {"file": str(secret)}},
            "audience": ["orders-api"],
            "accept_untyped": True,
            "dpop": "require",
        }
        made.configuration["gateway"] = {"origins": [made.url]}
        made.configuration["guard"]["processes"] = 2
        made.configuration["routes"] = [
            {
                "name": name,
                "path": path,
                "methods": ["GET", "POST"],
                "upstream": "orders",
                "identity": [name],
                "allow": [{"name": "readers", "roles": ["reader"]}],
            }
            for path, name in ROUTES.items()
        ]
        scarce = {"limits": [{"name": "few", "per": "identity", "rate": "2/hour"}], "path": "/scarce/{id}"}
        made.configuration["routes"] += [{**made.configuration["routes"][0], "name": "scarce", **scarce}]
        made.configuration["routes"] += [
            {"name": "open", "path": "/open", "methods": ["GET"], "upstream": "orders", "identity": "none"}
        ]
        made.write()
        made.start()
        yield made
        made.verify()
    finally:
        made.close()


class Holder:
    """A client with a key of its own, and a token that is bound to it."""

    def __init__(self, deployment: Deployment, provider: Provider, client: str = "app") -> None:
        self.deployment = deployment
        self.key = EC()
        proof = self._prove({"htm": "POST", "htu": f"{provider.issuer}/token", "iat": int(time.time())})
        self.token = provider.get_token(client, proof=proof)

    def _prove(self, said: dict[str, Any], **more: Any) -> str:
        return prove(said, key=self.key, **more).decode()

    def proof(self, path: str, method: str = "GET", **said: Any) -> str:
        about = {"htm": method, "htu": self.deployment.url + path, "iat": int(time.time())}
        return self._prove({**about, "ath": ath(self.token.encode()), "jti": str(uuid.uuid4()), **said})

    def send(
        self, path: str, *proofs: str, method: str = "GET", scheme: str = "DPoP", token: str = "", **fields: str
    ) -> httpx2.Response:
        headers = [("Authorization", f"{scheme} {token or self.token}"), *(("DPoP", proof) for proof in proofs)]
        with self.deployment.client() as client:
            return client.request(method, path, headers=[*headers, *fields.items()])

    def ask(self, path: str = "/orders/1", method: str = "GET") -> httpx2.Response:
        return self.send(path, self.proof(path, method), method=method)

    def refused(self, answer: httpx2.Response, reason: str, error: str = "invalid_dpop_proof") -> None:
        assert answer.status_code == 401
        assert f'error="{error}"' in answer.headers["WWW-Authenticate"]
        found = self.deployment.access(answer.headers["X-Request-ID"])
        assert found["decision"]["reason"] == reason


@pytest.fixture
def holder(behind: Deployment, provider: Provider) -> Holder:
    return Holder(behind, provider)


# -- with the library -------------------------------------------------------------------------------------
@pytest.mark.parametrize("alg", ["ES256", "PS256", "RS256"])
def test_unmodified_client_library_is_served(behind: Deployment, provider: Provider, alg: str) -> None:
    call = {
        "issuer": provider.issuer,
        "client": "app",
        "secret": provider.clients["app"].secret,
        "alg": alg,
        "requests": [
            {"method": method, "url": behind.url + path}
            for method, path in (
                ("GET", "/orders/1"),
                ("POST", "/strict/1"),
                ("GET", "/strict/1?expand=lines"),
                ("GET", "/nonce/1"),
                ("GET", "/nonce/2"),
                ("GET", "/onward/%C3%BC"),
            )
        ],
    }
    done = subprocess.run(
        ["node", str(PEERS / "caller.mjs"), json.dumps(call)],
        env={**os.environ, "NODE_EXTRA_CA_CERTS": str(behind.folder / "tls" / "ca.pem")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == [200] * 6, done.stdout


# -- a proof is for one request ---------------------------------------------------------------------------
def test_replayed_proof_is_refused_and_on_record(holder: Holder) -> None:
    proof = holder.proof("/orders/1")
    assert holder.send("/orders/1", proof).status_code == 200
    holder.refused(holder.send("/orders/1", proof), "proof_replayed")
    holder.refused(holder.send("/orders/1?a=1", proof, scheme="dpop"), "proof_replayed")
    assert holder.ask().status_code == 200


def test_proof_replayed_on_another_guard_is_refused(holder: Holder) -> None:
    """Which guard is asked depends on the credentials' bytes, and a client can add to those."""
    proof = holder.proof("/orders/1")
    answers = [holder.send("/orders/1", proof, **{"X-API-Key": f"gbk_{n}"}).status_code for n in range(12)]
    assert sorted(answers) == [200] + [401] * 11


def test_proof_replayed_at_once_opens_once(holder: Holder) -> None:
    proof = holder.proof("/orders/1")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: holder.send("/orders/1", proof).status_code, range(16)))
    assert sorted(found) == [200] + [401] * 15


def test_proof_replayed_after_guards_and_recorder_were_killed_is_refused(
    behind: Deployment, holder: Holder
) -> None:
    proof = holder.proof("/orders/1")
    assert holder.send("/orders/1", proof).status_code == 200
    killed = [p for p in behind.status()["processes"] if p["role"].startswith(("guard", "recorder"))]
    assert len(killed) == 3
    for process in killed:
        os.kill(process["pid"], signal.SIGKILL)
    until(lambda: holder.ask().status_code == 200, "new guards")
    holder.refused(holder.send("/orders/1", proof), "proof_replayed")


def test_replay_takes_nothing_of_its_owners_limit(holder: Holder) -> None:
    """Else whoever saw one proof could lock its owner out."""
    proof = holder.proof("/scarce/1")
    assert holder.send("/scarce/1", proof).status_code == 200
    for _ in range(3):
        holder.refused(holder.send("/scarce/1", proof), "proof_replayed")
    assert [holder.ask("/scarce/1").status_code for _ in range(2)] == [200, 429]


def test_proof_for_another_method_url_or_token_is_refused(behind: Deployment, holder: Holder) -> None:
    holder.refused(holder.send("/orders/1", holder.proof("/orders/1", "POST")), "proof_target")
    holder.refused(holder.send("/orders/1", holder.proof("/orders/2")), "proof_target")
    elsewhere = holder.proof("/orders/1", htu="https://other.example/orders/1")
    holder.refused(holder.send("/orders/1", elsewhere), "proof_target")
    holder.refused(holder.send("/orders/1", elsewhere, Host="other.example"), "proof_target")
    holder.refused(holder.send("/orders/1", elsewhere, **{"X-Forwarded-Host": "other.example"}), "proof_target")
    holder.refused(holder.send("/orders/1", holder.proof("/orders/1", ath=ath(b"other"))), "proof_token")


def test_proof_older_than_the_window_is_refused(holder: Holder) -> None:
    holder.refused(holder.send("/orders/1", holder.proof("/orders/1", iat=int(time.time()) - 91)), "proof_expired")
    early = holder.proof("/orders/1", iat=int(time.time()) + 40)
    holder.refused(holder.send("/orders/1", early), "proof_not_yet_valid")


def test_two_proof_headers_are_refused(holder: Holder) -> None:
    one, two = holder.proof("/orders/1"), holder.proof("/orders/1")
    holder.refused(holder.send("/orders/1", one, two), "proof_malformed")
    holder.refused(holder.send("/orders/1", f"{one}, {two}"), "proof_malformed")
    assert holder.send("/orders/1", one).status_code == 200  # nothing was used up


def test_oversized_proof_is_refused(holder: Holder) -> None:
    holder.refused(holder.send("/orders/1", holder.proof("/orders/1", x="a" * 5000)), "proof_malformed")


# -- thieves ----------------------------------------------------------------------------------------------
def test_stolen_bound_token_opens_nothing(behind: Deployment, provider: Provider, holder: Holder) -> None:
    holder.refused(holder.send("/orders/1"), "proof_missing")
    holder.refused(holder.send("/orders/1", scheme="Bearer"), "proof_missing", "invalid_token")
    holder.refused(
        holder.send("/orders/1", holder.proof("/orders/1"), scheme="Bearer"), "proof_missing", "invalid_token"
    )
    thief = Holder(behind, provider)
    stolen = thief.proof("/orders/1", ath=ath(holder.token.encode()))
    holder.refused(thief.send("/orders/1", stolen, token=holder.token), "proof_key")
    assert thief.ask().status_code == holder.ask().status_code == 200


def test_unbound_token_is_no_dpop_token(behind: Deployment, provider: Provider, holder: Holder) -> None:
    free = provider.get_token("app")
    proof = holder.proof("/orders/1", ath=ath(free.encode()))
    holder.refused(holder.send("/orders/1", proof, token=free), "token_unbound", "invalid_token")
    assert holder.send("/orders/1", token=free, scheme="Bearer").status_code == 200
    holder.refused(holder.send("/strict/1", token=free, scheme="Bearer"), "token_unbound", "invalid_token")


def test_opaque_bound_token_wants_its_proof_like_any_other(behind: Deployment, provider: Provider) -> None:
    holder = Holder(behind, provider, "reference")
    assert "." not in holder.token
    for _ in range(2):  # asked about, and known
        assert holder.ask("/opaque/1").status_code == 200
    holder.refused(holder.send("/opaque/1", scheme="Bearer"), "proof_missing", "invalid_token")
    thief = Holder(behind, provider, "reference")
    stolen = thief.proof("/opaque/1", ath=ath(holder.token.encode()))
    holder.refused(thief.send("/opaque/1", stolen, token=holder.token), "proof_key")


def test_stolen_certificate_bound_token_opens_nothing(
    behind: Deployment, provider: Provider, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("mesh")
    owner, thief = self_signed(folder, "owner"), self_signed(folder, "thief")
    token = provider.get_token("mesh", certificate=owner.der())
    assert behind.ask("/orders/1", token, certificate=owner).status_code == 200
    for pair, reason in ((thief, "certificate_mismatch"), (None, "certificate_missing")):
        answer = behind.ask("/orders/1", token, certificate=pair)
        assert answer.status_code == 401
        assert behind.access(answer.headers["X-Request-ID"])["decision"]["reason"] == reason
    answer = behind.ask("/onward/1", token, certificate=owner)  # certificate_bound: off
    assert behind.access(answer.headers["X-Request-ID"])["decision"]["reason"] == "token_binding"


# -- nonces, challenges, upstreams ------------------------------------------------------------------------
def test_nonce_is_demanded_and_serves_on_every_guard(behind: Deployment, holder: Holder) -> None:
    answer = holder.ask("/nonce/1")
    holder.refused(answer, "proof_nonce", "use_dpop_nonce")
    nonce = answer.headers["DPoP-Nonce"]
    for n in range(6):
        proof = holder.proof("/nonce/1", nonce=nonce)
        assert holder.send("/nonce/1", proof, **{"X-API-Key": f"x{n}"}).status_code == 200
    assert holder.ask("/nonce/1").headers["DPoP-Nonce"]
    holder.refused(holder.send("/nonce/1", proof), "proof_replayed")


def test_forged_nonce_is_none(holder: Holder) -> None:
    forged = holder.proof("/nonce/1", nonce="AAAAAAAAAAAAAAAAAAAAAAAAAAA")
    holder.refused(holder.send("/nonce/1", forged), "proof_nonce", "use_dpop_nonce")


def test_challenge_says_what_to_bring(behind: Deployment) -> None:
    challenge = behind.ask("/orders/1").headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer realm="acme", DPoP realm="acme", algs="ES256 ')
    strict = behind.ask("/strict/1").headers["WWW-Authenticate"]
    assert strict.startswith('DPoP realm="acme", algs="ES256 ')
    assert "error" not in challenge + strict


def test_proof_ends_here_unless_the_upstream_is_to_check_it_too(behind: Deployment, holder: Holder) -> None:
    assert holder.ask("/orders/1").status_code == 200
    seen = behind.upstream.seen[-1]
    assert (seen.one("DPoP"), seen.one("Authorization")) == (None, f"DPoP {holder.token}")
    proof = holder.proof("/onward/1")
    assert holder.send("/onward/1", proof).status_code == 200
    seen = behind.upstream.seen[-1]
    assert (seen.one("DPoP"), seen.one("Authorization")) == (proof, f"DPoP {holder.token}")
    assert (seen.one("X-Forwarded-Proto"), seen.one("X-Forwarded-Host")) == ("https", f"localhost:{behind.port}")


def test_proof_on_a_public_route_is_the_upstreams(behind: Deployment, holder: Holder) -> None:
    proof = holder.proof("/open")
    for _ in range(2):
        assert holder.send("/open", proof).status_code == 200
        assert behind.upstream.seen[-1].one("DPoP") == proof


def test_neither_token_nor_proof_lies_about_in_clear(behind: Deployment, holder: Holder) -> None:
    proof = holder.proof("/orders/1")
    holder.send("/orders/1", proof)
    holder.refused(holder.send("/orders/1", proof), "proof_replayed")
    text = behind.cli("log", "--json", "--all", "-c", str(behind.config)).stdout + behind.said()
    for secret in (holder.token, proof, proof.split(".")[1]):
        assert secret not in text


def test_url_is_what_a_trusted_proxy_says_that_the_client_saw(stopped: Deployment, provider: Provider) -> None:
    staff = stopped.configuration["identity"]["staff"]
    staff |= {"issuer": provider.issuer, "dpop": "require"}
    stopped.configuration["gateway"] = {"origins": ["https://public.example"], "trusted_proxies": ["127.0.0.1"]}
    stopped.write()
    stopped.start()
    holder = Holder(stopped, provider)

    def by_proxy(proof: str, **said: str) -> int:
        forwarded = {f"X-Forwarded-{name}": value for name, value in said.items()}
        headers = {"Authorization": f"DPoP {holder.token}", "DPoP": proof, **forwarded}
        url = f"http://127.0.0.1:{stopped.plain_port}/orders/1"
        return httpx2.get(url, headers=headers, trust_env=False).status_code

    def proof(origin: str) -> str:
        return holder.proof("/orders/1", htu=f"{origin}/orders/1")

    assert by_proxy(proof("https://public.example"), Proto="https", Host="public.example", For="192.0.2.1") == 200
    assert by_proxy(proof("https://public.example:443"), Proto="https", Host="public.example") == 200
    assert by_proxy(proof("https://public.example"), Proto="http", Host="public.example") == 401
    assert by_proxy(proof("https://public.example"), Proto="https", Host="other.example") == 401
    assert by_proxy(proof("https://other.example"), Proto="https", Host="other.example") == 401
    assert by_proxy(proof("https://public.example")) == 401
    holder.refused(holder.ask(), "proof_target")
