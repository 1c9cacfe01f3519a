"""Signals: a credential that comes from a network, or by a TLS client, that it never came from before.

In: whose credential was established, and the connection. Out: words for the decision's record (record.SIGNALS).
They never change a verdict: people move, and so do thieves. A session's tokens are one credential. What was seen
is kept as salted hashes in this process's memory, the last few of each for the credentials last used; so a first
use is no signal, nor the first after a restart, or of a credential that was forgotten or reached another guard.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import NamedTuple

from gatebook.identity.types import Identity
from gatebook.redact import network_of

MAX_CREDENTIALS = 50_000
KNOWN = 4  # networks and TLS clients of one credential; the least recently new goes first
_MEMO_ADDRESSES, _MEMO_CLIENTS = 8192, 512

# Values that clients insert at random so that nobody relies on lists (RFC 8701).
_GREASE = re.compile(rb"(?:^|(?<=:))0x([0-9a-f])a\1a(?::|$)", re.IGNORECASE)


class _Seen(NamedTuple):
    networks: tuple[int, ...]
    clients: tuple[int, ...]


class Signals:
    def __init__(self, max_credentials: int = MAX_CREDENTIALS) -> None:
        self._seen: OrderedDict[int, _Seen] = OrderedDict()
        self._max = max_credentials
        self._networks: dict[str, int | None] = {}
        self._clients: dict[tuple[str, bytes], int] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def notice(self, who: Identity, address: str, tls: str, ciphers: bytes) -> tuple[str, ...]:
        """`ciphers` are what the client offered, with colons between; b"" where that is not known."""
        network, client = self._network(address), self._client(tls, ciphers)
        # Python's hash of bytes and texts is keyed anew in each process: nothing leads back from these numbers.
        session = who.claims.get("sid")
        whose = hash((who.provider, session) if isinstance(session, str) else who.credential_sha256)
        before = self._seen.get(whose)
        if before is None:
            self._seen[whose] = _Seen(_one(network), _one(client))
            if len(self._seen) > self._max:
                self._seen.popitem(last=False)
            return ()
        self._seen.move_to_end(whose)
        words: list[str] = []
        if network is not None and network not in before.networks:
            words += ["new_network"] * bool(before.networks)
            before = before._replace(networks=(network, *before.networks)[:KNOWN])
            self._seen[whose] = before
        if client is not None and client not in before.clients:
            words += ["new_tls_client"] * bool(before.clients)
            self._seen[whose] = before._replace(clients=(client, *before.clients)[:KNOWN])
        return tuple(words)

    def _network(self, address: str) -> int | None:
        """The address's /24 or /48, the cut of `audit.address: truncate`."""
        found = self._networks.get(address)
        if found is None:
            network = network_of(address)
            found = None if network is None else hash(network)
            if len(self._networks) >= _MEMO_ADDRESSES:
                self._networks.clear()
            self._networks[address] = found
        return found

    def _client(self, tls: str, ciphers: bytes) -> int | None:
        """By what one client offers on every connection: not its groups, which a resumed TLS 1.2 session lacks,
        nor the protocol within (ALPN), since a WebSocket is HTTP/1.1."""
        if not ciphers:
            return None
        found = self._clients.get((tls, ciphers))
        if found is None:
            found = hash((tls, _GREASE.sub(b"", ciphers).strip(b":")))
            if len(self._clients) >= _MEMO_CLIENTS:
                self._clients.clear()
            self._clients[tls, ciphers] = found
        return found


def _one(found: int | None) -> tuple[int, ...]:
    return () if found is None else (found,)
