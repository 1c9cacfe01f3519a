"""Items to a syslog server: RFC 5424 in octet-counted frames, over TLS (RFC 5425) or plain on this machine.

Syslog has no acknowledgement. A batch counts once the other machine's kernel has confirmed each byte of it; what
its syslog had not read when it died is lost there, so the last messages of a connection that broke are sent again
on the next one. No byte-order mark stands before a message, though the RFC has one: programs that read JSON choke
on it.
"""

from __future__ import annotations

import collections
import datetime
import fcntl
import os
import re
import socket
import ssl
import struct
import termios
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from gatebook.config.sinks import SyslogSink
from gatebook.errors import EnvironmentFault
from gatebook.identity.fetch import tls_context
from gatebook.sinks.destination import Answer, Delivered, Limits, Piece, Retry, Unfit
from gatebook.sinks.fields import document, facts, level
from gatebook.sinks.http import words
from gatebook.sinks.item import Item, encode

SEVERITY: Final = {"info": 6, "warn": 4, "error": 3}
AGAIN_BYTES: Final = 1 << 20  # of what was sent last: as much as lies in sockets' buffers and in a syslog's own
POLL_S: Final = 0.01


class SyslogDestination:
    def __init__(self, settings: SyslogSink, wait: Callable[[float], object] = time.sleep) -> None:
        """Raises EnvironmentFault."""
        self._settings = settings
        self._wait = wait
        self.limits = Limits(items=500, batch_bytes=1 << 20, item_bytes=settings.max_message + 10)
        self._context: ssl.SSLContext | None = None
        if settings.scheme == "tls":
            self._context = tls_context(settings.certificates)
            if settings.client_certificate is not None:
                try:
                    self._context.load_cert_chain(settings.client_certificate)
                except OSError as error:
                    raise EnvironmentFault(f"{settings.client_certificate}: {error}") from None
        self._socket: socket.socket | None = None
        self._recent: collections.deque[bytes] = collections.deque()
        self._recent_bytes = 0

    def encode(self, item: Item) -> bytes:
        known = facts(item)
        made = document(item, self._settings.format, known)
        message = self._message(item, known, encode(made))
        if len(message) > self._settings.max_message:
            # Without the exact records it may fit; the ids say where they are.
            slim = {name: value for name, value in made.items() if name != "ledger"}
            message = self._message(item, known, encode(slim))
        if len(message) > self._settings.max_message:
            raise Unfit(f"a message of {len(message)} bytes; `max_message` is {self._settings.max_message}")
        return b"%d %s" % (len(message), message)

    def _message(self, item: Item, known: dict[str, Any], body: bytes) -> bytes:
        priority = self._settings.facility * 8 + SEVERITY[level(item, known)]
        moment = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(microseconds=item.time_us)
        stamp = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        named = (("id", item.id), ("origin", str(known["origin"])), ("index", str(item.index)))
        data = " ".join(
            [f"gatebook@{self._settings.enterprise}", *(f'{key}="{_value(text)}"' for key, text in named)]
        )
        host = re.sub(r"[^\x21-\x7e]", "", str(known["node"]))[:255] or "-"
        head = f"<{priority}>1 {stamp} {host} gatebook {os.getpid()} {item.kind} [{data}] "
        return head.encode() + body

    def send(self, batch: Sequence[Piece]) -> Answer:
        data = b"".join(piece.data for piece in batch)
        try:
            stream = self._connected()
            stream.sendall(data)
            if not self._confirmed(stream):
                raise TimeoutError(f"not confirmed within {self._settings.timeout:g} s")
        except (OSError, ssl.SSLError) as error:
            self._drop()
            return Retry(f"{self._settings.address}: {words(str(error)) or type(error).__name__}")
        self._remember(batch)
        return Delivered()

    def _connected(self) -> socket.socket:
        """The connection, or a new one that begins with what the last one may have lost."""
        if self._socket is not None and self._is_open(self._socket):
            return self._socket
        self._drop()
        plain = socket.create_connection((self._settings.host, self._settings.port), self._settings.timeout)
        try:
            made = (
                plain
                if self._context is None
                else self._context.wrap_socket(plain, server_hostname=self._settings.host)
            )
            made.sendall(b"".join(self._recent))
        except BaseException:
            plain.close()
            raise
        self._socket = made
        return made

    def _is_open(self, stream: socket.socket) -> bool:
        """A syslog server says nothing, but for what TLS says by itself; what ends is its leaving."""
        stream.settimeout(0)
        try:
            while stream.recv(4096):
                pass
            return False
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        finally:
            stream.settimeout(self._settings.timeout)

    def _confirmed(self, stream: socket.socket) -> bool:
        """Whether the other kernel has confirmed each byte that was sent."""
        until = time.monotonic() + self._settings.timeout
        while _unconfirmed(stream):
            if time.monotonic() > until or not self._is_open(stream):
                return False
            self._wait(POLL_S)
        return self._is_open(stream)

    def _remember(self, batch: Sequence[Piece]) -> None:
        for piece in batch:
            self._recent.append(piece.data)
            self._recent_bytes += len(piece.data)
        while self._recent_bytes > AGAIN_BYTES:
            self._recent_bytes -= len(self._recent.popleft())

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        if isinstance(self._socket, ssl.SSLSocket):
            try:
                self._socket.settimeout(1.0)
                self._socket.unwrap().close()  # or the other side speaks of an unexpected end
            except (OSError, ValueError):
                pass
        self._drop()


def _unconfirmed(stream: socket.socket) -> int:
    """Bytes in the socket's send queue (SIOCOUTQ, which Linux gives TIOCOUTQ's number)."""
    (count,) = struct.unpack("i", fcntl.ioctl(stream.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))
    return int(count)


def _value(text: str) -> str:
    """RFC 5424, 6.3.3."""
    return re.sub(r'(["\\\]])', r"\\\1", text)
