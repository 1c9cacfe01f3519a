"""Fetching a provider's keys from one that errs, lies, stalls or floods: on real sockets."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from tests.identity.mint import oidc, rsa_key
from tests.identity.provider import JWKS, Answer, Provider, document, endless, hang, hang_up, plain, trickle

from gatebook import certificates
from gatebook.errors import EnvironmentFault
from gatebook.identity import discovery
from gatebook.identity.discovery import MAX_BODY_BYTES, WELL_KNOWN, Discovery
from gatebook.identity.fetch import Unusable, tls_context
from gatebook.identity.jwk import Keys

KEY = rsa_key("r1").jwk(kid="r1")


def fetched(
    prepare: Callable[[Provider], None] = lambda provider: None, path: str = ""
) -> tuple[Keys | str, Provider]:
    """The keys or what is said to be wrong; and the provider, with whom it was asked."""

    async def main() -> tuple[Keys | str, Provider]:
        async with Provider(KEY) as provider:
            prepare(provider)
            try:
                return await Discovery(oidc(issuer=provider.issuer + path)).keys(), provider
            except Unusable as error:
                return str(error), provider

    return uvloop.run(main())


def test_keys_are_found() -> None:
    keys, provider = fetched()
    assert isinstance(keys, Keys)
    assert [key.kid for key in keys.named(None)] == ["r1"]
    assert provider.asked == {WELL_KNOWN: 1, JWKS: 1}


@pytest.mark.parametrize("slash", ["", "/"])
def test_issuer_with_a_path(slash: str) -> None:
    def prepare(provider: Provider) -> None:
        there = {"issuer": provider.issuer + "/realms/acme" + slash, "jwks_uri": provider.issuer + JWKS}
        provider.answers["/realms/acme" + WELL_KNOWN] = document(there)

    keys, _ = fetched(prepare, "/realms/acme" + slash)
    assert isinstance(keys, Keys)


def answers(path: str, answer: Answer) -> Callable[[Provider], None]:
    return lambda provider: provider.answers.__setitem__(path, answer)


def says(**changed: object) -> Callable[[Provider], None]:
    """A discovery document with something else in it; None takes a member away."""

    def prepare(provider: Provider) -> None:
        told = {**provider.discovered, **changed}
        provider.answers[WELL_KNOWN] = document({name: value for name, value in told.items() if value is not None})

    return prepare


def jwks_at(change: Callable[[str], str]) -> Callable[[Provider], None]:
    return lambda provider: says(jwks_uri=change(provider.issuer))(provider)


HUGE = b'{"keys":[],"x":"' + b"x" * MAX_BODY_BYTES + b'"}'
BAD: dict[str, tuple[Callable[[Provider], None], str]] = {
    "discovery-not-found": (answers(WELL_KNOWN, plain(b"", "404 Not Found")), "status 404"),
    "discovery-fails": (answers(WELL_KNOWN, plain(b"", "500 Oh")), "status 500"),
    "discovery-created": (answers(WELL_KNOWN, plain(b"{}", "201 Created")), "status 201"),
    "discovery-empty": (answers(WELL_KNOWN, plain(b"", "204 No Content")), "status 204"),
    "discovery-not-json": (answers(WELL_KNOWN, plain(b"<html>")), "discovery document cannot be used"),
    "discovery-a-list": (answers(WELL_KNOWN, document([])), "not a JSON object"),
    "discovery-huge": (answers(WELL_KNOWN, plain(HUGE)), "more than"),
    "discovery-without-end": (answers(WELL_KNOWN, endless), "more than"),
    "discovery-hangs-up": (answers(WELL_KNOWN, hang_up), "no answer in HTTP"),
    "discovery-speaks-no-http": (
        answers(WELL_KNOWN, lambda w: _raw(w, b"SSH-2.0-x\r\n\r\n")),
        "no answer in HTTP",
    ),
    "discovery-shorter-than-said": (
        answers(WELL_KNOWN, lambda w: _raw(w, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}")),
        "no answer in HTTP",
    ),
    "discovery-with-endless-headers": (
        answers(WELL_KNOWN, lambda w: _raw(w, b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n")),
        "no answer in HTTP",
    ),
    "issuer-of-another": (says(issuer="https://evil.example"), "another issuer"),
    "issuer-with-a-slash-more": (lambda p: says(issuer=p.issuer + "/")(p), "another issuer"),
    "issuer-missing": (says(issuer=None), "another issuer"),
    "issuer-a-list": (lambda p: says(issuer=[p.issuer])(p), "another issuer"),
    "jwks-uri-missing": (says(jwks_uri=None), "jwks_uri"),
    "jwks-uri-a-number": (says(jwks_uri=5), "jwks_uri"),
    "jwks-uri-a-file": (says(jwks_uri="file:///etc/passwd"), "jwks_uri"),
    "jwks-uri-plain-http-elsewhere": (says(jwks_uri="http://192.0.2.1/jwks"), "jwks_uri"),
    "jwks-uri-relative": (says(jwks_uri=JWKS), "jwks_uri"),
    "jwks-uri-with-a-user": (jwks_at(lambda i: i.replace("//", "//user:secret@") + JWKS), "jwks_uri"),
    "jwks-uri-with-a-query": (jwks_at(lambda i: i + JWKS + "?x=1"), "jwks_uri"),
    "jwks-uri-long": (jwks_at(lambda i: i + "/" + "x" * 3000), "jwks_uri"),
    "jwks-not-found": (jwks_at(lambda i: i + "/nowhere"), "status 404"),
    "jwks-not-json": (answers(JWKS, plain(b"nope")), "JWKS cannot be used"),
    "jwks-of-10000-keys": (answers(JWKS, document({"keys": [{"kty": "x"}] * 10_000})), "10000 keys"),
    "jwks-huge": (answers(JWKS, plain(HUGE)), "more than"),
    "jwks-10-MB": (answers(JWKS, plain(b" " * 10_000_000)), "more than"),
    "jwks-without-end": (answers(JWKS, endless), "more than"),
    "jwks-compressed-bomb": (
        answers(JWKS, plain(gzip.compress(bytes(20_000_000)), "200 OK", "Content-Encoding: gzip")),
        "compressed",
    ),
}


async def _raw(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)


@pytest.mark.parametrize("name", BAD)
def test_provider_that_errs_gives_no_keys(name: str) -> None:
    prepare, why = BAD[name]
    said, _ = fetched(prepare)
    assert isinstance(said, str)
    assert why in said


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize("path", [WELL_KNOWN, JWKS])
def test_redirect_is_not_followed(path: str, status: str) -> None:
    def prepare(provider: Provider) -> None:
        provider.answers[path] = plain(b"", status, f"Location: {provider.issuer}/elsewhere")

    said, provider = fetched(prepare)
    assert isinstance(said, str)
    assert "redirect" in said
    assert "/elsewhere" not in provider.asked


@pytest.mark.parametrize("stall", [hang, trickle])
@pytest.mark.parametrize("path", [WELL_KNOWN, JWKS])
def test_provider_that_stalls_is_given_up(path: str, stall: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(discovery, "TOTAL_TIMEOUT_S", 0.5)
    said, _ = fetched(answers(path, stall))
    assert isinstance(said, str)
    assert "within 0." in said


def test_provider_that_is_down() -> None:
    async def main() -> None:
        async with Provider() as provider:
            issuer = provider.issuer
        with pytest.raises(Unusable, match="no connection"):
            await Discovery(oidc(issuer=issuer)).keys()

    uvloop.run(main())


def test_nothing_of_ours_is_told_and_no_proxy_asked_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    keys, provider = fetched()
    assert isinstance(keys, Keys)
    for head in provider.heads:
        assert b"cookie" not in head.lower()
        assert b"authorization" not in head.lower()


# -- TLS --------------------------------------------------------------------------------------------------
@pytest.fixture
def development(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private CA and a certificate of it for loopback."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    made = certificates.development(datetime.datetime.now(datetime.UTC))
    for name, data in (("ca.pem", made.ca), ("server.pem", made.certificate), ("server.key", made.key)):
        (tmp_path / name).write_bytes(data)
    return tmp_path


def serving(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return context


def over_tls(
    folder: Path, ask: Callable[[Provider], Awaitable[Keys]], context: ssl.SSLContext | None = None
) -> Keys:
    async def main() -> Keys:
        async with Provider(KEY, tls=context or serving(folder)) as provider:
            return await ask(provider)

    return uvloop.run(main())


def test_private_ca_is_trusted_where_it_is_named(development: Path) -> None:
    keys = over_tls(development, lambda p: Discovery(oidc(issuer=p.issuer, ca=development / "ca.pem")).keys())
    assert len(keys) == 1


def test_private_ca_is_not_trusted_otherwise(development: Path) -> None:
    with pytest.raises(Unusable, match="certificate verify failed"):
        over_tls(development, lambda p: Discovery(oidc(issuer=p.issuer)).keys())


def test_certificate_of_another_ca_is_refused(development: Path, tmp_path: Path) -> None:
    other = certificates.development(datetime.datetime.now(datetime.UTC))
    (tmp_path / "other.pem").write_bytes(other.ca)
    with pytest.raises(Unusable, match="certificate verify failed"):
        over_tls(development, lambda p: Discovery(oidc(issuer=p.issuer, ca=tmp_path / "other.pem")).keys())


def test_https_issuer_may_not_send_us_to_plain_http_on_this_machine(development: Path) -> None:
    async def ask(provider: Provider) -> Keys:
        said = {**provider.discovered, "jwks_uri": f"http://127.0.0.1:{provider.port}{JWKS}"}
        provider.answers[WELL_KNOWN] = plain(json.dumps(said).encode())
        return await Discovery(oidc(issuer=provider.issuer, ca=development / "ca.pem")).keys()

    with pytest.raises(Unusable, match="jwks_uri"):
        over_tls(development, ask)


def test_old_tls_is_refused(development: Path) -> None:
    for context in (tls_context(None), tls_context(development / "ca.pem")):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname


@pytest.mark.parametrize("content", [None, b"", b"no pem"])
def test_ca_that_cannot_be_used_is_said_at_once(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EnvironmentFault, match="cannot be used as a provider's CA"):
        Discovery(oidc(ca=path))
