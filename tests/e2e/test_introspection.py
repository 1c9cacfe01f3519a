"""Opaque tokens of a certified provider, through all of gatebook; and what clients get while it is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.e2e.deployment import Deployment, until
from tests.oidc.provider import Client, Provider, serve

SECRET = "introspect-me"
CLIENTS = {
    "reports": Client(format="opaque", claims={"realm_access": {"roles": ["reader"]}}),
    "visitor": Client(format="opaque"),
    "signed": Client(claims={"roles": ["reader"]}),
    "gatebook": Client(secret=SECRET),
}


def configure(made: Deployment, provider: Provider) -> None:
    """Signed tokens are verified by `staff`, opaque ones asked about by `opaque`, on the same routes."""
    secret = made.folder / "introspection.secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    made.configuration["identity"] |= {
        "staff": {"type": "oidc", "issuer": provider.issuer, "audience": ["orders-api"]},
        "opaque": {
            "type": "introspection",
            "url": f"{provider.issuer}/token/introspection",
            "issuer": provider.issuer,
            "audience": ["orders-api"],
            "client": {"id": "gatebook", "secret": {"file": "introspection.secret"}},
            "roles_claim": "realm_access.roles",
            "cache": "1s",
        },
    }
    for route in made.configuration["routes"]:
        if route["identity"] != "none":
            route["identity"] = ["staff", "opaque", "partners"]
    made.write()


def asked(made: Deployment, token: str) -> tuple[int, dict[str, Any]]:
    answer = made.ask("/orders/1", token)
    return answer.status_code, made.access(answer.headers["X-Request-ID"])


@pytest.mark.parametrize("outage", [False, True])
def test_opaque_tokens_open_while_their_provider_vouches_for_them(stopped: Deployment, outage: bool) -> None:
    with serve(CLIENTS) as provider:
        configure(stopped, provider)
        stopped.start()
        token = provider.get_token("reports")
        status, found = asked(stopped, token)
        assert status == 200
        assert {name: found["identity"][name] for name in ("provider", "method", "client", "roles")} == {
            "provider": "opaque",
            "method": "introspection",
            "client": "reports",
            "roles": ["reader"],
        }
        assert asked(stopped, provider.get_token("visitor"))[0] == 403
        assert asked(stopped, provider.get_token("signed"))[1]["identity"]["method"] == "oidc"
        status, found = asked(stopped, "nobody-s")
        assert (status, found["decision"]["reason"]) == (401, "token_inactive")
        status, found = asked(stopped, provider.get_token("reports", audience="billing-api"))
        assert (status, found["decision"]["reason"]) == (401, "token_audience")
        if not outage:
            provider.revoke("reports", token)
            until(lambda: asked(stopped, token)[0] == 401, "the revocation to be noticed")
    if outage:
        until(lambda: asked(stopped, token)[0] == 503, "the answer to have served")
        answer = stopped.ask("/orders/1", token)
        assert answer.headers["Retry-After"] == "1"
        found = stopped.access(answer.headers["X-Request-ID"])
        assert (found["decision"]["reason"], found["error"]["source"]) == ("provider_unavailable", "guard")
        assert stopped.ask("/healthz").status_code == 200
    held = [path for path in Path(stopped.paths.state).rglob("*") if path.is_file()]
    assert not [
        path for path in held if token.encode() in path.read_bytes() or SECRET.encode() in path.read_bytes()
    ]
    assert token not in stopped.said()
    assert SECRET not in stopped.said()
    stopped.verify()
