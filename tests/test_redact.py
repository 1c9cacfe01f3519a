"""Redaction: no credential and no more of a person than the configuration keeps reaches a record."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook import record, redact
from gatebook.config.model import Configuration
from gatebook.identity.types import Identity
from gatebook.record import ClientPart, IdentityPart, RequestPart, TLSPart
from gatebook.redact import CREDENTIAL_HEADERS, CREDENTIAL_QUERY, Known, Names, Redactor, problems
from gatebook.sealed import unseal

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"


def configure(**audit: Any) -> Configuration:
    return Configuration.model_validate(
        {
            "version": 1,
            "name": "acme",
            "listen": [{"address": "127.0.0.1:8080"}],
            "identity": {"partners": {"type": "api_key", "header": "X-Partner-Key"}},
            "upstreams": {"orders": {"url": "http://127.0.0.1:9001"}},
            "routes": [
                {"name": "a", "path": "/a", "methods": ["GET"], "upstream": "orders", "identity": ["partners"]}
            ],
            "audit": audit,
        }
    )


def redactor(**audit: Any) -> Redactor:
    return Redactor(configure(**audit))


def identity(**fields: Any) -> Identity:
    own = {
        "provider": "partners",
        "method": "api_key",
        "subject": "ann",
        "credential_sha256": b"",
        "expires_at": 0,
    }
    return Identity(**{**own, **fields})


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("::FFFF:c000:24d", "192.0.2.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("2001:0DB8:0001::77", "2001:db8:1::/48"),
        ("fe80::77%eth0", "fe80::/48"),
        ("::1", "::/48"),
        ("unix:", None),
        ("", None),
        ("192.0.2.077", None),
        ("192.0.2.77, 10.0.0.1", None),
        ("192.0.2.77\n", None),
        ("1.2.3.4\x00", None),
        ("\udce9:", None),
    ],
)
def test_truncated_address_keeps_nothing_of_the_host(address: str, network: str | None) -> None:
    audit = redactor(address="truncate")
    assert audit.address(address) == network
    assert audit.client_part(address, 4711) == ClientPart(address=network)


def test_kept_address_has_one_spelling() -> None:
    audit = redactor(address="keep")
    assert audit.address("2001:0DB8::0001") == "2001:db8::1"
    assert audit.client_part("::ffff:192.0.2.7", 4711) == ClientPart(address="192.0.2.7", port=4711)


def test_dropped_address_leaves_nothing() -> None:
    audit = redactor(address="drop")
    assert audit.address("192.0.2.7") is None
    assert audit.client_part("192.0.2.7", 4711) is None
    assert audit.names(None, "192.0.2.7").address is None


def test_pseudonymised_address_is_named_but_not_written() -> None:
    audit = redactor(address="pseudonym")
    assert audit.address("192.0.2.7") is None
    assert audit.names(None, "::ffff:192.0.2.7").address == "address:192.0.2.7"
    assert audit.names(None, "unix:").address is None
    assert audit.client_part("192.0.2.7", 4711, "p-1") == ClientPart(address="p-1", port=4711)
    assert audit.client_part("192.0.2.7", 4711) == ClientPart(port=4711)


def test_subject_is_named_for_its_pseudonym_and_not_written() -> None:
    audit = redactor(subject="pseudonym")
    assert audit.names(identity(), "192.0.2.7") == ("subject:partners:ann", None)
    part = audit.identity_part(identity(client="shop", roles=("r",)), "p-2", "f00")
    named = IdentityPart(provider="partners", method="api_key", subject="p-2", client="shop", credential="f00")
    assert part == msgspec.structs.replace(named, roles=("r",), groups=(), scopes=())
    assert audit.identity_part(identity(), None, "f00").subject is None


def test_kept_subject_needs_no_pseudonym() -> None:
    audit = redactor(subject="keep")
    assert audit.names(identity(), "192.0.2.7").subject is None
    assert audit.identity_part(identity(subject="ann\u202e"), None, "f").subject == "ann\\u202e"


def test_only_named_query_values_are_kept() -> None:
    audit = redactor(query={"keep": ["page", "q r"]})
    assert audit.query("page=2&secret=x&q+r=a%20b&Page=3&pageX=4&page%00=5") == {"page": "2", "q r": "a b"}
    assert redactor().query("page=2") == {}


def test_query_name_is_found_however_it_is_spelt() -> None:
    assert redactor(query={"keep": ["page"]}).query("p%61ge=2") == {"page": "2"}


def test_no_value_of_a_name_sent_twice_is_hidden() -> None:
    assert redactor(query={"keep": ["page"]}).query("page=1&x&page=2&page") == {"page": "1, 2, "}


def test_only_named_headers_are_kept() -> None:
    audit = redactor(headers={"keep": ["User-Agent", "accept"]})
    assert audit.headers({"user-agent": "curl/8", "x-other": "1"}) == {"user-agent": "curl/8"}


@pytest.mark.parametrize("name", [*sorted(CREDENTIAL_HEADERS), "x-partner-key", "AUTHORIZATION", "Cookie"])
def test_credential_header_is_never_kept_even_if_configured(name: str) -> None:
    configuration = configure(headers={"keep": ["accept", name]})
    assert Redactor(configuration).headers({name.lower(): "hush", "accept": "*/*"}) == {"accept": "*/*"}
    assert [place for place, _, _ in problems(configuration)] == [("audit", "headers", "keep", 1)]


@pytest.mark.parametrize("name", [*sorted(CREDENTIAL_QUERY), "Access_Token"])
def test_credential_in_the_query_is_never_kept_even_if_configured(name: str) -> None:
    configuration = configure(query={"keep": ["page", name]})
    assert Redactor(configuration).query(f"{name}=hush&page=1") == {"page": "1"}
    assert [place for place, _, _ in problems(configuration)] == [("audit", "query", "keep", 1)]


def test_harmless_names_are_no_problem() -> None:
    assert problems(configure(query={"keep": ["page"]}, headers={"keep": ["user-agent"]})) == []


def test_credential_in_the_wrong_place_is_masked() -> None:
    part = redactor(query={"keep": ["next"]}).request_part(
        method="GET",
        path=f"/login/{JWT}",
        query=f"next=/cb%3Faccess_token%3D{JWT}",
        host=f"{JWT}.example",
        headers={"user-agent": f"tool Bearer {JWT}"},
        claimed_id="gbk_abcdefghijklmnop",
    )
    text = record.encode(
        record.Decision(
            id="0" * 32,
            time_us=1,
            request=part,
            decision=record.DecisionPart(
                verdict="deny", status=404, reason="no_route", configuration="", durability="before-access"
            ),
        )
    ).decode()
    assert "eyJ" not in text
    assert "abcdefgh" not in text


def test_request_part_says_what_was_asked() -> None:
    part = redactor(query={"keep": ["page"]}).request_part(
        method="GET",
        path="/orders/caf%C3%A9",
        query="page=2",
        route="read-order",
        host="api.example",
        protocol="HTTP/2.0",
        headers={"user-agent": "curl/8"},
        claimed_id="abc-1",
    )
    assert part == RequestPart(
        method="GET",
        path="/orders/caf%C3%A9",
        route="read-order",
        host="api.example",
        protocol="2",
        query={"page": "2"},
        headers={"user-agent": "curl/8"},
        claimed_id="abc-1",
    )


def test_bytes_that_are_no_text_are_spelt_out() -> None:
    raw = b"caf\xe9 \x1b[2J \xe2\x80\xae".decode("utf-8", "surrogateescape")
    part = redactor(query={"keep": ["q"]}).request_part(
        method="G\x00T", path="/" + raw, query="q=%ff%0d%0a", headers={"user-agent": raw}
    )
    assert part.headers == {"user-agent": "caf\\xe9 \\x1b[2J \\u202e"}
    assert part.query == {"q": "\\xff\\x0d\\x0a"}
    assert part.method == "G\\x00T"


def test_long_texts_are_cut_and_say_so() -> None:
    audit = redactor(query={"keep": ["q"]})
    part = audit.request_part(
        method="M" * 900, path="/" + "a" * 3000, query="q=" + "b" * 3000, claimed_id="c" * 900
    )
    assert part.path.startswith("/aaa")
    assert "[3001 bytes, sha256:" in part.path
    assert len(part.path) <= 2048
    assert len(part.query["q"].encode()) < 600
    assert part.query["q"].endswith("more]")
    assert len(part.method.encode()) < 200
    assert len((part.claimed_id or "").encode()) < 300


def test_many_kept_values_are_bounded_together() -> None:
    names = [f"n{number}" for number in range(60)]
    kept = redactor(query={"keep": names}).query("&".join(f"{name}={'v' * 400}" for name in names))
    assert list(kept) == names
    assert sum(map(len, kept.values())) < 12_000
    assert kept["n0"] == "v" * 400
    assert "dropped" in kept["n59"]


NASTY = st.text(st.sampled_from('a"\\\x00\x1b\udce9é\u202e=&%'), max_size=3000)


@given(st.lists(NASTY, min_size=7, max_size=7))
def test_record_stays_within_its_bound_whatever_is_sent(texts: list[str]) -> None:
    names = [f"n{number}" for number in range(60)]
    audit = redactor(query={"keep": names}, headers={"keep": names})
    part = audit.request_part(
        method=texts[0],
        path=texts[1] * 10,
        host=texts[2] * 10,
        protocol=texts[3],
        claimed_id=texts[4],
        query="&".join(f"{name}={texts[5]}" for name in names),
        headers=dict.fromkeys(names, texts[6]),
    )
    assert len(record._encoder.encode(part)) < record.MAX_RECORD_BYTES - 6000


@given(NASTY, NASTY)
def test_every_part_can_be_encoded(one: str, other: str) -> None:
    audit = redactor(address="keep", subject="keep", query={"keep": ["a"]})
    parts = [
        audit.request_part(method=one, path=other, query="a=" + one, host=one, headers={"user-agent": other}),
        audit.client_part(one, 1),
        audit.tls_part(one or "x", other, one, other),
        audit.identity_part(identity(subject=one, client=other, roles=(one, other)), None, "f"),
    ]
    assert json.loads(record._encoder.encode(parts))


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        ("ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        ("ECDHE-RSA-CHACHA20-POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
        ("DHE-RSA-AES256-GCM-SHA384", "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384"),
        ("TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
        ("AES128-SHA", "AES128-SHA"),
    ],
)
def test_cipher_has_its_registered_name(given_name: str, name: str) -> None:
    assert redact.cipher_name(given_name) == name
    assert redact.cipher_name(name) == name


def test_tls_part_is_in_the_records_words() -> None:
    audit = redactor()
    assert audit.tls_part("TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519", "api.example", "ab") == TLSPart(
        version="1.3", cipher="TLS_AES_128_GCM_SHA256", group="X25519", sni="api.example", certificate="ab"
    )
    assert audit.tls_part("", "") is None
    assert audit.tls_part(None) is None
    assert audit.tls_part("1.2") == TLSPart(version="1.2")


def test_memory_of_tls_parts_is_bounded() -> None:
    audit = redactor()
    for number in range(5000):
        audit.tls_part("TLSv1.3", sni=f"h{number}.example")
    assert len(audit._tls_parts) <= 1024


@pytest.mark.parametrize(
    ("text", "version"),
    [("HTTP/1.0", "1.0"), ("HTTP/1.1", "1.1"), ("HTTP/2.0", "2"), ("2", "2"), ("HTTP/9", "HTTP/9")],
)
def test_protocol_is_a_bare_version(text: str, version: str) -> None:
    assert redact.protocol_version(text) == version


def test_tls_version_is_a_bare_version() -> None:
    assert [redact.tls_version(text) for text in ("TLSv1.2", "TLSv1.3", "1.3", "SSLv3")] == [
        "1.2",
        "1.3",
        "1.3",
        "SSLv3",
    ]


def test_list_of_names_that_is_cut_says_so() -> None:
    part = redactor().identity_part(
        identity(groups=tuple(f"g{n}" for n in range(70)), roles=("x" * 200,) * 70), None, "f"
    )
    assert part.groups is not None
    assert part.groups[-1] == "…[and 6 more]"
    assert len(part.groups) == 65
    assert part.roles[-1].startswith("…[and ")


# -- what is sealed ------------------------------------------------------------------------------------------
ROW = Known("ab" * 16, b"k" * 32)


@pytest.mark.parametrize(
    ("subject", "address", "names"),
    [
        ("pseudonym", "seal", ("subject:partners:ann", None)),
        ("keep", "seal", ("subject:partners:ann", None)),  # there has to be a row to seal the address under
        ("seal", "truncate", ("subject:partners:ann", None)),
        ("seal", "pseudonym", ("subject:partners:ann", "address:192.0.2.7")),
    ],
)
def test_sealing_asks_for_the_callers_own_row(subject: str, address: str, names: tuple[str, str]) -> None:
    assert redactor(subject=subject, address=address).names(identity(), "192.0.2.7") == names


def test_sealed_values_stand_nowhere_else() -> None:
    audit = redactor(subject="seal", address="seal")
    assert audit.identity_part(identity(), "ab" * 16, "f00").subject == "ab" * 16
    assert audit.client_part("192.0.2.7", 4711) == ClientPart(address="192.0.2.0/24")
    part = audit.sealed("1" * 32, identity(), "::ffff:192.0.2.7", Names(ROW, None))
    assert part is not None
    assert part.under == "ab" * 16
    assert unseal(part, b"k" * 32, "1" * 32) == {"subject": "ann", "address": "192.0.2.7"}


def test_nobodys_address_is_sealed_under_a_row_of_its_own() -> None:
    audit = redactor(subject="seal", address="seal")
    assert audit.names(None, "192.0.2.7") == (None, "address:192.0.2.7")
    part = audit.sealed("1" * 32, None, "192.0.2.7", Names(None, ROW))
    assert part is not None
    assert unseal(part, b"k" * 32, "1" * 32) == {"address": "192.0.2.7"}


def test_address_is_not_kept_in_clear_when_there_is_no_key_to_seal_it_under() -> None:
    audit = redactor(address="seal")
    assert audit.sealed("1" * 32, None, "192.0.2.7", Names(None, None)) is None
    assert audit.sealed("1" * 32, None, "192.0.2.7", Names(None, Known("ab" * 16))) is None


@pytest.mark.parametrize("audit", [{}, {"subject": "keep", "address": "keep"}, {"address": "pseudonym"}])
def test_nothing_is_sealed_unless_it_was_asked_for(audit: dict[str, str]) -> None:
    assert not redactor(**audit).seals
    assert redactor(**audit).sealed("1" * 32, identity(), "192.0.2.7", Names(ROW, ROW)) is None
