"""Client certificates of real authorities: who is let in, who is not, and on whose word."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.identity.mint import b64
from tests.pki import CA, CLIENT, DAY, HOUR, Authority, Pair, openssl, self_signed

from gatebook.config.model import MTLSProvider
from gatebook.errors import EnvironmentFault
from gatebook.identity import crl_watch
from gatebook.identity.chain import Authorities
from gatebook.identity.crl import RevocationLists
from gatebook.identity.crl_watch import CRLWatch, problem_of
from gatebook.identity.mtls import MTLSMethod, read_authorities
from gatebook.identity.types import Bound, Credential, Identity, Refusal

OURS = "machines"


class Place:
    """One provider with its files; `ask` answers as the guard would hear it, first cold, then from memory."""

    def __init__(self, folder: Path, *authorities: Authority, crl: bytes | None = None, **settings: Any) -> None:
        self.ca = folder / "authorities.pem"
        self.ca.write_bytes(b"".join(authority.pem for authority in authorities))
        self.crl = folder / "lists.pem"
        named = {} if crl is None else {"crl": self.crl}
        if crl is not None:
            self.crl.write_bytes(crl)
        self.provider = MTLSProvider(
            **{"type": "mtls", "ca": self.ca, "subject": "common_name", **named, **settings}
        )
        self.authorities = read_authorities(self.ca)
        self.watch = None if crl is None else CRLWatch(self.provider, self.crl, self.authorities)
        self.method = MTLSMethod(OURS, self.provider, self.authorities, self.watch)

    def ask(self, pair: Pair, now: float | None = None) -> Identity | Refusal:
        return self.answer(pair.der(), now)

    def answer(self, der: bytes, now: float | None = None) -> Identity | Refusal:
        moment = time.time() if now is None else now
        credential = Credential("certificate", der)
        cold = self.method.recall(credential, moment)
        answer = asyncio.run(self.method.verify(credential, moment))
        if isinstance(cold, Identity):
            assert cold == answer
        if isinstance(answer, Identity):
            assert self.method.recall(credential, moment) == answer
        else:
            assert not isinstance(self.method.recall(credential, moment), Identity)
        return answer

    def reason(self, pair: Pair, now: float | None = None) -> str:
        answer = self.ask(pair, now)
        assert isinstance(answer, Refusal), answer
        assert answer.provider == (None if answer.reason == "certificate_untrusted" else OURS)
        return answer.reason


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pki")


@pytest.fixture(scope="module")
def root(pki: Path) -> Authority:
    return Authority("root", pki)


@pytest.fixture(scope="module")
def between(pki: Path, root: Authority) -> Authority:
    return Authority("between", pki, root, CA.replace("CA:TRUE", "CA:TRUE, pathlen:0"))


def test_certificate_is_who_it_says_with_the_roles_of_the_table(root: Authority, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "subject": "san_uri",
        "roles": {"spiffe://acme/billing": ["reader", "payer"], "spiffe://acme/other": ["admin"]},
        "roles_field": "organizational_unit",
        "groups_field": "organization",
    }
    alternatives = "subjectAltName = URI:spiffe://acme/billing, DNS:a.example\n"
    pair = root.issue("/O=acme/OU=payer/OU=auditor/CN=x", CLIENT + alternatives)
    found = Place(tmp_path, root, **settings).ask(pair)
    assert isinstance(found, Identity)
    assert (found.provider, found.method, found.subject) == (OURS, "mtls", "spiffe://acme/billing")
    assert found.roles == ("reader", "payer", "auditor")
    assert found.groups == ("acme",)
    assert found.claims["san_dns"] == ["a.example"]
    assert found.bound == Bound(x5t_s256=b64(hashlib.sha256(pair.der()).digest()))


def test_certificate_without_the_subject_that_is_asked_for_is_refused(root: Authority, tmp_path: Path) -> None:
    place = Place(tmp_path, root, subject="san_uri")
    assert place.reason(root.issue()) == "certificate_subject"
    assert place.reason(root.issue(extensions="subjectAltName = URI:a, URI:b\n")) == "certificate_subject"
    roles = Place(tmp_path, root, roles_field="organizational_unit")
    assert roles.reason(root.issue("/OU=a\u200bb/CN=x")) == "certificate_subject"


def test_certificate_of_another_authority_is_refused(root: Authority, tmp_path: Path) -> None:
    """Not even one of the same name counts: it is the key that issues."""
    impostor = Authority("root", tmp_path)
    place = Place(tmp_path, root)
    for pair in (impostor.issue(), self_signed(tmp_path), impostor.pair):
        assert place.reason(pair) == "certificate_untrusted"
    assert place.reason(impostor.issue(start=-2 * HOUR, end=-HOUR)) == "certificate_untrusted"


def test_certificate_of_another_providers_authority_on_this_route_is_nobodys_here(
    root: Authority, tmp_path: Path
) -> None:
    other = Authority("other", tmp_path)
    assert Place(tmp_path, root).ask(other.issue()) == Refusal("certificate_untrusted", None)
    assert isinstance(Place(tmp_path, other).ask(other.issue()), Identity)


def test_authority_itself_is_no_client(root: Authority, between: Authority, tmp_path: Path) -> None:
    place = Place(tmp_path, root, between)
    for authority in (root, between):
        answer = place.ask(authority.pair)
        assert isinstance(answer, Refusal)
        assert answer.reason in ("certificate_usage", "certificate_untrusted")


def test_expired_certificate_is_refused_at_the_edge(root: Authority, tmp_path: Path) -> None:
    place = Place(tmp_path, root)
    pair = root.issue(start=-HOUR, end=HOUR)
    found = place.ask(pair)
    assert isinstance(found, Identity)
    end = found.expires_at
    assert isinstance(place.ask(pair, end - 0.001), Identity)
    assert place.reason(pair, end) == place.reason(pair, end + 10 * DAY) == "certificate_expired"
    begin = end - 2 * HOUR
    early = Place(tmp_path, root)
    assert early.reason(pair, begin - 0.001) == "certificate_not_yet_valid"
    assert isinstance(early.ask(pair, begin), Identity)


def test_certificate_outlives_no_authority_of_its(tmp_path: Path) -> None:
    brief = Authority("brief", tmp_path, end=HOUR)
    place = Place(tmp_path, brief)
    pair = brief.issue(end=10 * DAY)
    found = place.ask(pair)
    assert isinstance(found, Identity)
    assert found.expires_at < time.time() + HOUR + 5
    assert place.reason(pair, found.expires_at + 1) == "certificate_untrusted"


@pytest.mark.parametrize("use", ["serverAuth", "codeSigning", "anyExtendedKeyUsage"])
def test_certificate_for_another_use_is_refused(root: Authority, tmp_path: Path, use: str) -> None:
    assert (
        Place(tmp_path, root).reason(root.issue(extensions=f"extendedKeyUsage = {use}\n")) == "certificate_usage"
    )


def test_authority_for_another_use_vouches_for_no_client(root: Authority, tmp_path: Path) -> None:
    servers = Authority("servers", tmp_path, root, CA + "extendedKeyUsage = serverAuth\n")
    assert Place(tmp_path, root, servers).reason(servers.issue()) == "certificate_untrusted"


def test_certificate_without_a_purpose_or_alternative_names_is_accepted(root: Authority, tmp_path: Path) -> None:
    pair = root.issue(extensions="basicConstraints = CA:FALSE\n")
    assert isinstance(Place(tmp_path, root).ask(pair), Identity)


@pytest.mark.parametrize("key", ["rsa", "ed25519"])
def test_other_kinds_of_key_are_accepted(root: Authority, tmp_path: Path, key: str) -> None:
    assert isinstance(Place(tmp_path, root).ask(root.issue(key=key)), Identity)


def test_weak_key_is_refused(root: Authority, tmp_path: Path) -> None:
    assert Place(tmp_path, root).reason(root.issue(key="rsa1024")) == "certificate_usage"


def test_authority_between_has_to_be_in_the_file(root: Authority, between: Authority, tmp_path: Path) -> None:
    pair = between.issue()
    assert Place(tmp_path, root).reason(pair) == "certificate_untrusted"
    assert isinstance(Place(tmp_path, root, between).ask(pair), Identity)
    assert isinstance(Place(tmp_path, between).ask(pair), Identity)  # alone it is an anchor itself
    assert Place(tmp_path, between).reason(root.issue()) == "certificate_untrusted"


def test_authority_below_one_that_may_have_none_below_it_vouches_for_nobody(
    root: Authority, between: Authority, tmp_path: Path
) -> None:
    below = Authority("below", tmp_path, between)
    assert Place(tmp_path, root, between, below).reason(below.issue()) == "certificate_untrusted"


def test_client_cannot_vouch_for_another(root: Authority, tmp_path: Path) -> None:
    """Its certificate signs one, and is put into the file by mistake: it is no authority."""
    client = Authority("client", tmp_path, root, "basicConstraints = critical, CA:FALSE\n" + CLIENT)
    with pytest.raises(EnvironmentFault, match="certificate 2 cannot vouch for others"):
        Place(tmp_path, root, client)
    assert Place(tmp_path, root).reason(client.issue()) == "certificate_untrusted"


@pytest.mark.parametrize(
    ("constraint", "alternatives", "subject", "fits"),
    [
        ("permitted;DNS:acme.example", "DNS:a.acme.example", "san_dns", True),
        ("permitted;DNS:acme.example", "DNS:a.evil.example", "san_dns", False),
        ("excluded;DNS:acme.example", "DNS:a.acme.example", "san_dns", False),
        ("permitted;email:acme.example", "email:a@acme.example", "san_email", True),
        ("permitted;email:acme.example", "email:a@evil.example", "san_email", False),
        ("permitted;URI:acme.example", "URI:https://acme.example/", "san_uri", False),  # not understood
        ("permitted;DNS:acme.example", "DNS:a.acme.example", "common_name", False),  # nobody has checked it
        ("permitted;dirName:names", "DNS:a.acme.example", "san_dns", False),
    ],
)
def test_constrained_authority_vouches_for_its_own_names_only(
    root: Authority, tmp_path: Path, constraint: str, alternatives: str, subject: str, fits: bool
) -> None:
    extensions = f"{CA}nameConstraints = critical, {constraint}\n[names]\nCN = x\n"
    constrained = Authority("constrained", tmp_path, root, extensions)
    answer = Place(tmp_path, root, constrained, subject=subject).ask(
        constrained.issue(extensions=f"{CLIENT}subjectAltName = {alternatives}\n")
    )
    assert isinstance(answer, Identity) == fits, answer


def test_critical_extension_that_is_not_known_is_refused(root: Authority, tmp_path: Path) -> None:
    pair = root.issue(extensions=f"{CLIENT}1.2.3.4 = critical, ASN1:NULL\n")
    assert Place(tmp_path, root).reason(pair) == "certificate_untrusted"


def test_oversized_or_broken_certificate_is_malformed(root: Authority, tmp_path: Path) -> None:
    for data in (b"-", root.issue().der()[:-1], b"\0" * 1000):
        assert Place(tmp_path, root).answer(data) == Refusal("certificate_malformed", None)


def test_certificates_in_memory_are_bounded(
    root: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatebook.identity.mtls.MAX_CERTIFICATES", 2)
    place = Place(tmp_path, root)
    for _ in range(3):
        place.ask(root.issue())
    assert len(place.method._known) == 2


# -- the file of authorities ------------------------------------------------------------------------------
def test_file_that_holds_no_authority_is_refused_and_named(root: Authority, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    with pytest.raises(EnvironmentFault, match=r"ca\.pem: no such file"):
        read_authorities(path)
    weak = Authority("weak", tmp_path, key="rsa1024")
    ed25519 = Authority("ed25519", tmp_path, key="ed25519")
    for data, why in (
        (b"", "no certificate that can be read"),
        (root.pair.key.read_bytes(), "no certificate that can be read"),
        (weak.pem, "certificate 1 cannot vouch for others: its key is an RSA key of less than 2048 bits"),
        (root.pem + ed25519.pem, "certificate 2 cannot vouch for others: its key is neither RSA nor EC"),
        (root.pem + root.issue().certificate.read_bytes(), "certificate 2 cannot vouch for others"),
    ):
        path.write_bytes(data)
        with pytest.raises(EnvironmentFault, match=why):
            read_authorities(path)


def test_authority_that_stands_in_the_file_twice_is_one(root: Authority, between: Authority) -> None:
    found = Authorities(root.pem + between.pem + root.pem)
    assert len(found.all) == 2
    assert [anchor.subject.rfc4514_string() for anchor in found.anchors] == ["CN=root"]


# -- revocation lists -------------------------------------------------------------------------------------
@pytest.fixture
def own(tmp_path: Path) -> Authority:
    return Authority("own", tmp_path)


def test_revoked_certificate_is_refused_and_others_are_not(own: Authority, tmp_path: Path) -> None:
    good, bad = own.issue(), own.issue()
    own.revoke(bad)
    place = Place(tmp_path, own, crl=own.crl())
    assert isinstance(place.ask(good), Identity)
    assert place.reason(bad) == "certificate_revoked"


def test_certificate_that_is_revoked_now_is_refused_from_now_on(own: Authority, tmp_path: Path) -> None:
    pair = own.issue()
    place = Place(tmp_path, own, crl=own.crl())
    assert isinstance(place.ask(pair), Identity)
    own.revoke(pair)
    place.crl.write_bytes(own.crl())
    assert place.watch is not None
    place.watch.poll()
    assert place.reason(pair) == "certificate_revoked"


def test_change_of_the_list_is_known_without_being_asked(
    own: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crl_watch, "POLL_S", 0.01)
    pair = own.issue()
    place = Place(tmp_path, own, crl=own.crl())

    async def until(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():  # noqa: ASYNC110 - nobody tells of a file's change
                await asyncio.sleep(0.01)

    async def main() -> None:
        watch, method = place.watch, place.method
        assert watch is not None
        credential = Credential("certificate", pair.der())
        assert isinstance(await method.verify(credential, time.time()), Identity)
        assert isinstance(method.recall(credential, time.time()), Identity)
        watch.start()
        watch.start()
        own.revoke(pair)
        (tmp_path / "new").write_bytes(own.crl())
        (tmp_path / "new").replace(place.crl)
        await until(lambda: method.recall(credential, time.time()) is None)
        assert await method.verify(credential, time.time()) == Refusal("certificate_revoked", OURS)
        await watch.stop()
        await watch.stop()

    asyncio.run(main())


def test_list_signed_by_somebody_else_shuts_everybody_out(own: Authority, root: Authority, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    impostor = Authority("own", tmp_path / "there")
    pair = own.issue()
    for forged in (impostor.crl(), root.crl(), own.crl() + impostor.crl()):
        place = Place(tmp_path, own, crl=forged)
        assert place.reason(pair) == "provider_unavailable"
        assert "no authority of the provider signed it" in problem_of(place.crl, place.authorities, time.time())
        assert place.reason(own.issue(start=-2 * HOUR, end=-HOUR)) == "certificate_expired"
        assert place.ask(root.issue()) == Refusal("certificate_untrusted", None)


def test_list_whose_content_was_changed_shuts_everybody_out(own: Authority, tmp_path: Path) -> None:
    pair = own.issue()
    own.revoke(pair)
    der = openssl("crl", "-outform", "DER", given=own.crl())
    changed = openssl("crl", "-inform", "DER", given=der.replace(b"\x02\x02\x10\x01", b"\x02\x02\x10\x02"))
    place = Place(tmp_path, own, crl=changed)
    assert place.reason(pair) == "provider_unavailable"


def test_expired_list_shuts_everybody_out_at_the_edge(own: Authority, tmp_path: Path) -> None:
    pair = own.issue()
    place = Place(tmp_path, own, crl=own.crl(end=HOUR))
    assert place.watch is not None
    assert place.watch.value is not None
    end = place.watch.value.ends
    assert isinstance(place.ask(pair, end - 0.001), Identity)
    credential = Credential("certificate", pair.der())
    assert place.method.recall(credential, end) == Refusal(
        "provider_unavailable", OURS
    )  # known before, and still not
    assert place.reason(pair, end) == "provider_unavailable"
    assert problem_of(place.crl, place.authorities, end) == "a list has run out"


def test_list_of_the_future_shuts_everybody_out(own: Authority, tmp_path: Path) -> None:
    place = Place(tmp_path, own, crl=own.crl(start=HOUR, end=DAY))
    assert place.reason(own.issue()) == "provider_unavailable"
    assert problem_of(place.crl, place.authorities, time.time()) == "a list lies in the future"


def test_list_is_missing_of_one_authority_and_everybody_is_shut_out(
    own: Authority, root: Authority, tmp_path: Path
) -> None:
    place = Place(tmp_path, own, root, crl=own.crl())
    assert place.reason(own.issue()) == place.reason(root.issue()) == "provider_unavailable"
    assert problem_of(place.crl, place.authorities, time.time()) == "no list of 'CN=root'"


def test_revoked_authority_vouches_for_nobody(own: Authority, tmp_path: Path) -> None:
    below = Authority("below", tmp_path, own)
    pair = below.issue()
    assert isinstance(Place(tmp_path, own, below, crl=own.crl() + below.crl()).ask(pair), Identity)
    own.revoke(below.pair)
    assert Place(tmp_path, own, below, crl=own.crl() + below.crl()).reason(pair) == "certificate_revoked"


def test_list_that_is_only_a_part_shuts_everybody_out(own: Authority, tmp_path: Path) -> None:
    partial = own.crl(extensions="issuingDistributionPoint = critical, @idp\n[idp]\nonlyuser = TRUE\n")
    place = Place(tmp_path, own, crl=partial)
    assert place.reason(own.issue()) == "provider_unavailable"
    assert "has a critical extension" in problem_of(place.crl, place.authorities, time.time())


def test_two_lists_of_one_authority_are_not_weighed_against_each_other(own: Authority, tmp_path: Path) -> None:
    older = own.crl()
    own.revoke(own.issue())
    with pytest.raises(ValueError, match="a second one of 'CN=own'"):
        RevocationLists(older + own.crl(), Authorities(own.pem))


def test_authority_that_may_not_sign_lists_does_not(tmp_path: Path) -> None:
    silent = Authority("silent", tmp_path, extensions=CA.replace(", cRLSign", ""))
    with pytest.raises(ValueError, match="no authority of the provider signed it"):
        RevocationLists(silent.crl(), Authorities(silent.pem))


@pytest.mark.parametrize("data", [b"", b"garbage", b"-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n"])
def test_file_without_a_list_shuts_everybody_out_until_there_is_one(
    own: Authority, tmp_path: Path, data: bytes
) -> None:
    pair = own.issue()
    place = Place(tmp_path, own, crl=data)
    assert place.watch is not None
    assert place.reason(pair) == "provider_unavailable"
    place.crl.write_bytes(own.crl())
    place.watch.poll()
    assert isinstance(place.ask(pair), Identity)
    place.crl.unlink()
    place.watch.poll()
    assert place.reason(pair) == "provider_unavailable"
    assert "no such file" in problem_of(place.crl, place.authorities, time.time())
    place.crl.write_bytes(own.crl())
    place.watch.poll()
    assert isinstance(place.ask(pair), Identity)


def test_endless_list_is_not_read(own: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crl_watch, "MAX_BYTES", 100)
    place = Place(tmp_path, own, crl=own.crl())
    assert place.reason(own.issue()) == "provider_unavailable"
    assert problem_of(place.crl, place.authorities, time.time()) == "more than 100 bytes"
