"""A reader's key in Vault's Transit engine, against a twin of it: what is sent, to whom, and what is believed."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from tests.kms.transit import TOKEN, Transit
from tests.pki import Authority

from gatebook.errors import Damaged, EnvironmentFault
from gatebook.kms import sealed, transit
from gatebook.kms.transit import access
from gatebook.ledger.keys import reader_of

READER = reader_of(X25519PrivateKey.from_private_bytes(b"r" * 32))


@pytest.fixture
def twin() -> Iterator[Transit]:
    with Transit().serve() as served:
        yield served


def client(twin: Transit, key: str = "gatebook", **more: str) -> transit.Transit:
    reach = access(twin.environment(**more), Path("/nowhere"))
    return transit.Transit(reach, "transit", key, timeout_s=1.0)


def test_what_was_encrypted_is_decrypted_and_the_token_goes_along(twin: Transit) -> None:
    kms = client(twin)
    made = kms.encrypt(b"secret", b"about")
    assert made.startswith("vault:v1:")
    assert kms.decrypt(made, b"about") == b"secret"
    assert twin.asked == ["/v1/transit/encrypt/gatebook", "/v1/transit/decrypt/gatebook"]
    assert [(head["x-vault-token"], head["x-vault-request"]) for head in twin.headers] == [(TOKEN, "true")] * 2


def test_file_opens_to_the_same_reader_and_holds_neither_address_nor_token(twin: Transit) -> None:
    data = sealed.seal(READER, client(twin), "transit", "gatebook")
    assert data.startswith(sealed.MARK)
    assert TOKEN.encode() not in data
    assert b"127.0.0.1" not in data
    assert sealed.unseal(sealed.parse(data, "x"), client(twin)).id == READER.id


def test_ciphertext_of_another_reader_does_not_pass_for_this_one(twin: Transit) -> None:
    other = reader_of(X25519PrivateKey.from_private_bytes(b"o" * 32))
    mine = sealed.parse(sealed.seal(READER, client(twin), "transit", "gatebook"), "x")
    theirs = sealed.parse(sealed.seal(other, client(twin), "transit", "gatebook"), "x")
    swapped = sealed.Sealed(mine.gatebook, mine.kms, mine.mount, mine.key, mine.reader, theirs.ciphertext)
    with pytest.raises(EnvironmentFault, match="authentication failed"):
        sealed.unseal(swapped, client(twin))


def test_kms_that_gives_another_key_is_not_believed(twin: Transit) -> None:
    found = sealed.parse(sealed.seal(READER, client(twin), "transit", "gatebook"), "x")
    twin.misbehave = "another key"
    with pytest.raises(EnvironmentFault, match="another key"):
        sealed.unseal(found, client(twin))


def test_leave_that_is_withdrawn_is_said_without_the_token(twin: Transit) -> None:
    kms = client(twin)
    made = kms.encrypt(b"secret", b"about")
    twin.allowed = {"encrypt"}
    with pytest.raises(EnvironmentFault, match=r"decrypt/gatebook: 403 .*permission denied.*policy") as refused:
        kms.decrypt(made, b"about")
    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize(
    ("misbehaviour", "words"),
    [
        ("redirect", "307"),
        ("huge", "more than"),
        ("rubbish", "not Transit's"),
        ("silence", "no answer within 1 s"),
        ("no data", "holds no ciphertext"),
        ("sealed", "503 Vault is sealed; it is sealed"),
        ("words to the terminal", "400"),
    ],
)
def test_misbehaving_kms_ends_in_one_clear_error(twin: Transit, misbehaviour: str, words: str) -> None:
    twin.misbehave = misbehaviour
    with pytest.raises(EnvironmentFault, match=words) as refused:
        client(twin).encrypt(b"secret", b"about")
    assert len(str(refused.value)) < 500
    assert twin.asked == ["/v1/transit/encrypt/gatebook"]


def test_wrong_token_unknown_key_and_wrong_namespace_say_which(twin: Transit) -> None:
    with pytest.raises(EnvironmentFault, match="403 permission denied"):
        client(twin, VAULT_TOKEN="wrong").encrypt(b"", b"")
    with pytest.raises(EnvironmentFault, match="400 encryption key not found"):
        client(twin, key="other").encrypt(b"", b"")
    with pytest.raises(EnvironmentFault, match="404 namespace not found"):
        client(twin, VAULT_NAMESPACE="team").encrypt(b"", b"")
    twin.namespace = "team"
    assert client(twin, VAULT_NAMESPACE="team").encrypt(b"x", b"")


def test_nobody_there_is_said_at_once() -> None:
    with pytest.raises(EnvironmentFault, match="ConnectError"):
        client(Transit()).encrypt(b"", b"")


def test_tls_is_checked_against_the_authority_that_is_named_and_no_other(tmp_path: Path) -> None:
    authority, stranger = Authority("root", tmp_path), Authority("stranger", tmp_path)
    pair = authority.issue("/CN=kms", "subjectAltName = IP:127.0.0.1\nextendedKeyUsage = serverAuth\n")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with Transit().serve(context) as twin:
        assert client(twin, VAULT_CACERT=str(authority.pair.certificate)).encrypt(b"x", b"")
        for trusted in ({"VAULT_CACERT": str(stranger.pair.certificate)}, {}):
            with pytest.raises(EnvironmentFault, match=r"(?i)certificate"):
                client(twin, **trusted).encrypt(b"x", b"")
        assert len(twin.asked) == 1, "a token went to a server that nobody vouches for"
        with pytest.raises(EnvironmentFault, match="VAULT_CACERT"):
            client(twin, VAULT_CACERT=str(tmp_path / "missing")).encrypt(b"x", b"")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "VAULT_ADDR: not set"),
        ({"VAULT_ADDR": "http://vault.example:8200", "VAULT_TOKEN": "t"}, "in the clear"),
        ({"VAULT_ADDR": "http://127.0.0.1.example:8200", "VAULT_TOKEN": "t"}, "in the clear"),
        ({"VAULT_ADDR": "https://user@vault:8200", "VAULT_TOKEN": "t"}, "expected https"),
        ({"VAULT_ADDR": "ftp://vault", "VAULT_TOKEN": "t"}, "expected https"),
        ({"VAULT_ADDR": "https://vault:8200"}, "log in"),
        ({"VAULT_ADDR": "https://vault:8200", "VAULT_TOKEN": "a\r\nX-Evil: 1"}, "holds no token"),
    ],
)
def test_environment_that_would_give_the_token_away_or_names_none_is_refused(
    environment: dict[str, str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(EnvironmentFault, match=words):
        access(environment, tmp_path)


def test_token_is_taken_from_where_the_clients_own_login_leaves_it(tmp_path: Path) -> None:
    (tmp_path / ".vault-token").write_text("hvs.kept\n")
    found = access({"VAULT_ADDR": "https://[::1]:8200/", "VAULT_NAMESPACE": ""}, tmp_path)
    assert (found.token, found.address, found.namespace) == ("hvs.kept", "https://[::1]:8200", None)


@pytest.mark.parametrize("name", ["../sys/seal", "a/b", "", "a?b", "a#b", "%2e%2e", "a b"])
def test_name_that_leads_elsewhere_in_the_kms_is_refused(name: str) -> None:
    reach = transit.Access("https://vault:8200", "t")
    with pytest.raises(EnvironmentFault):
        transit.Transit(reach, "transit", name)
    if name != "a/b":  # mounts may have folders
        with pytest.raises(EnvironmentFault):
            transit.Transit(reach, name, "gatebook")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b'{"gatebook":"reader/1"}',
        b'{"gatebook":"reader/2","kms":"transit","mount":"m","key":"k","reader":"'
        + b"0" * 64
        + b'","ciphertext":"c"}',
        b'{"gatebook":"reader/1","kms":"other","mount":"m","key":"k","reader":"'
        + b"0" * 64
        + b'","ciphertext":"c"}',
        b'{"gatebook":"reader/1","kms":"transit","mount":"m","key":"k","reader":"0","ciphertext":"c"}',
        b'{"gatebook":"reader/1","kms":"transit","mount":"m","key":"k","reader":"'
        + b"0" * 64
        + b'","ciphertext":"c","address":"https://evil"}',
        b"[" * 4000,
        b" " * 5000,
    ],
)
def test_file_that_is_none_or_says_more_than_it_may_is_refused(data: bytes) -> None:
    with pytest.raises(Damaged, match="not a reader's key in a KMS"):
        sealed.parse(data, "x")


def test_ciphertext_that_is_none_is_never_sent(twin: Transit) -> None:
    with pytest.raises(EnvironmentFault, match="not a ciphertext"):
        client(twin).decrypt("vault:v1:AA\nBB", b"")
    assert twin.asked == []
