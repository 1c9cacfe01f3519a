"""Signals: what is new about a credential's use, what is not, and what an attacker does to hide it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gatebook.guard.signals import KNOWN, Signals
from gatebook.identity.types import Identity

CIPHERS = "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256"
ALICE = Identity(
    provider="staff", method="oidc", subject="alice", credential_sha256=bytes(32), expires_at=1_800_000_000.0
)


def other(number: int) -> Identity:
    return msgspec.structs.replace(ALICE, credential_sha256=number.to_bytes(32))


class Noticing(Signals):
    def __call__(self, who: Identity = ALICE, **changed: Any) -> tuple[str, ...]:
        known = {"address": "192.0.2.1", "tls": "TLSv1.3", "ciphers": CIPHERS, **changed}
        return self.notice(who, known["address"], known["tls"], known["ciphers"].encode())


@pytest.fixture
def signals() -> Noticing:
    return Noticing()


def test_first_use_and_the_same_again_are_no_signal(signals: Noticing) -> None:
    assert [signals(), signals(), signals(other(1))] == [(), (), ()]


def test_credential_from_a_new_network_is_a_signal_once(signals: Noticing) -> None:
    signals()
    assert signals(address="192.0.2.200") == ()  # of the same /24
    assert signals(address="198.51.100.1") == ("new_network",)
    assert signals(address="198.51.100.1") == ()
    assert signals() == ()


def test_ipv6_networks_are_told_by_their_48_bits_and_mapped_ones_are_ipv4(signals: Noticing) -> None:
    signals(address="2001:db8:1:2::1")
    assert signals(address="2001:db8:1:ffff::9") == ()
    assert signals(address="2001:db8:2::1") == ("new_network",)
    assert signals(address="192.0.2.1") == ("new_network",)
    assert signals(address="::ffff:192.0.2.77") == ()


@pytest.mark.parametrize(
    "changed",
    [
        {"ciphers": CIPHERS + ":ECDHE-RSA-AES128-GCM-SHA256"},
        {"ciphers": ":".join(reversed(CIPHERS.split(":")))},
        {"tls": "TLSv1.2"},
        {"ciphers": "-"},
    ],
)
def test_credential_by_a_new_tls_client_is_a_signal_once(signals: Noticing, changed: dict[str, Any]) -> None:
    signals()
    assert signals(**changed) == ("new_tls_client",)
    assert signals(**changed) == ()
    assert signals() == ()


def test_thief_is_told_by_both(signals: Noticing) -> None:
    signals()
    assert signals(address="203.0.113.5", ciphers="AES128-SHA") == ("new_network", "new_tls_client")


def test_values_that_a_browser_inserts_at_random_are_no_new_client(signals: Noticing) -> None:
    one, two = CIPHERS.split(":")
    signals(ciphers=f"0x0a0a:{CIPHERS}")
    assert signals(ciphers=f"0xdada:{CIPHERS}") == ()
    assert signals() == ()
    assert signals(ciphers=f"{CIPHERS}:0x1a1a") == ()
    assert signals(ciphers=f"{one}:0x2a2a:0x4A4A:{two}") == ()
    assert signals(ciphers=f"0x0a1a:{CIPHERS}") == ("new_tls_client",)


def test_connection_that_does_not_say_what_was_offered_gives_no_verdict(signals: Noticing) -> None:
    signals()
    assert signals(ciphers="") == ()
    assert signals(who=other(1), tls="", ciphers="") == ()
    assert signals(who=other(1)) == ()  # the first that says it
    assert signals(who=other(1), ciphers="AES128-SHA") == ("new_tls_client",)


@pytest.mark.parametrize("address", ["", "unix:", "nonsense", "1.2.3"])
def test_address_that_is_none_gives_no_verdict(signals: Noticing, address: str) -> None:
    signals()
    assert signals(address=address) == ()


def test_next_token_of_a_session_is_the_same_credential(signals: Noticing) -> None:
    signals(msgspec.structs.replace(ALICE, claims={"sid": "s1"}))
    refreshed = msgspec.structs.replace(other(1), claims={"sid": "s1"})
    assert signals(refreshed, address="203.0.113.5") == ("new_network",)
    elsewhere = msgspec.structs.replace(other(2), claims={"sid": "s1"}, provider="partners")
    assert signals(elsewhere, address="198.51.100.1") == ()
    assert signals(msgspec.structs.replace(other(3), claims={"sid": ["s1"]}), address="198.51.100.1") == ()


def test_flood_of_credentials_does_not_fill_the_memory_and_the_last_used_stay() -> None:
    signals = Noticing(max_credentials=10)
    signals()
    for number in range(1, 100):
        signals(other(number))
        signals()
    assert len(signals) == 10
    assert signals(address="203.0.113.5") == ("new_network",)


def test_many_networks_push_out_the_oldest_only(signals: Noticing) -> None:
    for number in range(KNOWN + 1):
        signals(address=f"203.0.{number}.1")
    assert signals(address="203.0.1.1") == ()
    assert signals(address="203.0.0.1") == ("new_network",)


def test_flood_of_offers_and_addresses_does_not_fill_the_memory(signals: Noticing) -> None:
    for number in range(20_000):
        signals(address=f"10.{number >> 8}.{number & 255}.1", ciphers=f"0x{number:04x}")
    assert len(signals._networks) <= 8192
    assert len(signals._clients) <= 512


def test_memory_holds_no_address_for_long_after_its_use(signals: Noticing) -> None:
    """What is kept of a credential is numbers; addresses stand in the memo alone."""
    signals()
    assert all(isinstance(number, int) for seen in signals._seen.values() for part in seen for number in part)
