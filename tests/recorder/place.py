"""The recorder's surroundings: a real ledger, a gateway's log folder, and clocks that go as a test tells them.

`Book` is a ledger with a journal before it; `Gateway` writes log lines as nginx does, each worker through files of
its own that it opens anew when it is told to. A second `Book` or `Desk` on the same folders is the next process.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from tests.guard.place import configured
from tests.ledger.caller import RECIPIENT, SIGNER, Contents
from tests.ledger.disk import Quick

from gatebook import record
from gatebook.config.model import Configuration
from gatebook.ledger.entry import Entry, Record
from gatebook.ledger.files import Files
from gatebook.ledger.writer import Writer
from gatebook.recorder.gatewaylog import GatewayLog
from gatebook.recorder.journal import Journal
from gatebook.recorder.worker import Workers
from gatebook.wire import Item

T0_US = 1_700_000_000_000_000
KEY = bytes(range(32))
BOOT = "boot-1"


def request_id(number: int) -> str:
    return f"{number:032x}"


def decision(number: int = 1, path: str = "/orders/1") -> record.Decision:
    return record.Decision(
        id=request_id(number),
        time_us=T0_US,
        request=record.RequestPart(method="GET", path=path),
        decision=record.DecisionPart(
            verdict="allow", status=200, reason="rule", configuration="", durability="before-access"
        ),
    )


def item(number: int = 1, worker: int = 7, path: str = "/orders/1") -> Item:
    """The record of an allowed request's decision, as a guard sends it."""
    return Item(record.encode(decision(number, path)), worker, request_id(number))


class Processes:
    """Which processes there are: pid -> when it began, in ticks."""

    def __init__(self, *pids: int) -> None:
        self.began = dict.fromkeys(pids, 1 << 40)

    def workers(self, boot: str = BOOT) -> Workers:
        return Workers(boot, lambda pid: self.began.get(pid))


class Book:
    """`root` holds the ledger. `workers` says who a pid is."""

    def __init__(self, root: Path, workers: Workers | None = None, files: Files | None = None) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        self.workers = workers or Processes(7, 8, 9).workers()
        self.journal = Journal(KEY, self.workers.worker)
        self.now_us = T0_US
        self.writer = Writer.open(
            ledger=root / "ledger",
            lock=root / "lock",
            deks=root / "deks",
            signer=SIGNER,
            recipients=lambda: [RECIPIENT],
            boot_digest=b"b" * 32,
            restore=self.journal.restore,
            snapshot=self.journal.snapshot,
            now_us=lambda: self.now_us,
            reserve_bytes=0,
            files=files or Quick(),
        )

    def commit(self) -> None:
        self.journal.commit(self.writer)

    def decide(self, *numbers: int, worker: int = 7, path: str = "/orders/1") -> list[int]:
        """Allowed requests, in one batch, durable; their indices."""
        told: list[int] = []
        self.journal.add([item(number, worker, path) for number in numbers], told.append)
        self.commit()
        return list(range(told[0], told[0] + len(numbers)))

    def contents(self) -> Contents:
        return Contents(self.root)

    def records(self) -> list[record.Record]:
        return [record.decode(data) for _, data in sorted(self.contents().records.items())]

    def outcomes(self) -> list[record.Outcome]:
        return [each for each in self.records() if isinstance(each, record.Outcome)]

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        return [(each.event, each.detail) for each in self.records() if isinstance(each, record.System)]

    def entries(self, *kinds: type[Entry]) -> list[Entry]:
        return [
            each for each in self.contents().parsed if isinstance(each, kinds) and not isinstance(each, Record)
        ]

    def killed(self, root: Path) -> Path:
        """A copy of the folder as kill -9 leaves it now, for another process."""
        shutil.copytree(self.root, root)
        return root

    def close(self) -> None:
        self.writer.close()


class Gateway:
    """nginx's logging: one write a line, by each worker through descriptors of its own."""

    def __init__(self, folder: Path, *workers: int) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)
        self.asked_to_reopen = 0
        self._workers = workers or (7,)
        self._files: dict[tuple[int, str], int] = {}
        self._numbers: dict[tuple[int, int], int] = {}

    def starts(self) -> None:
        """Every worker opens its files, which they do at the latest when they write."""
        for worker in self._workers:
            self.reopen(worker)

    def reopen(self, worker: int) -> None:
        for name in ("access", "error"):
            old = self._files.pop((worker, name), None)
            if old is not None:
                os.close(old)
            path = self.folder / f"{name}.log"
            self._files[worker, name] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def told_to_reopen(self) -> None:
        """What USR1 does, at once."""
        self.asked_to_reopen += 1
        self.starts()

    def write(self, data: bytes, worker: int | None = None, name: str = "access") -> None:
        worker = self._workers[0] if worker is None else worker
        if (worker, name) not in self._files:
            self.reopen(worker)
        os.write(self._files[worker, name], data)

    def line(self, number: int = 1, index: int | None = None, *, worker: int = 7, **fields: str) -> None:
        """The line of request `number`, which knows its decision's index or does not."""
        self.write(self.text(number, index, worker=worker, **fields), worker)

    def text(self, number: int = 1, index: int | None = None, *, worker: int = 7, **fields: str) -> bytes:
        connection = int(fields.get("c", "3"))
        known = {"i": request_id(number), "d": "" if index is None else str(index), "r": "rule", "u": "orders"}
        if "n" not in fields:
            self._numbers[worker, connection] = self._numbers.get((worker, connection), 0) + 1
            fields["n"] = str(self._numbers[worker, connection])
        known |= {"p": str(worker), "c": "3", "pr": "HTTP/1.1", "t": "1700000000.500", "s": "200"}
        known |= {"bi": "100", "bo": "200", "dt": "0.010", "ok": "OK", "ua": "127.0.0.1:1", "us": "200"}
        if index is None:
            known |= {"a": "192.0.2.7", "m": "GET", "q": "/orders/1", "h": "x"}
        return json.dumps(known | fields, separators=(",", ":")).encode() + b"\n"

    def error(self, words: str, connection: int = 3, path: str = "/orders/1", level: str = "error") -> None:
        said = f'{words}, client: 192.0.2.7, server: , request: "GET {path} HTTP/1.1", host: "x"'
        self.write(f"2026/11/24 20:00:00 [{level}] 7#7: *{connection} {said}\n".encode(), name="error")

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*.log"))

    def close(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)


class Logging(Protocol):
    """A gateway, as far as the recorder sees it."""

    folder: Path

    def told_to_reopen(self) -> None: ...


class Desk:
    """What the recorder's process does with both, by hand: one look at the logs, then a commit."""

    def __init__(
        self, book: Book, gateway: Logging, configuration: Configuration | None = None, **more: Callable[..., Any]
    ) -> None:
        self.book = book
        self.gateway = gateway
        self.monotonic = 1000.0
        self.interrupt: Callable[[], None] = lambda: None  # called where a kill may come between
        known: dict[str, Any] = {"reopen": gateway.told_to_reopen, "pseudonym": lambda name: bytes(16), **more}
        self.log = GatewayLog(
            gateway.folder,
            book.journal,
            configuration or configured(),
            book.workers,
            now_us=lambda: book.now_us,
            monotonic=lambda: self.monotonic,
            **known,
        )
        self.commit()

    def commit(self) -> None:
        self.interrupt()
        if self.book.journal.waiting:
            self.book.commit()
        self.interrupt()
        if self.book.journal.cursor_is_durable:
            self.log.sweep()

    def read(self) -> None:
        """Everything there is, in as many looks as it takes."""
        while self.log.tick():
            self.commit()

    def second(self, times: int = 1) -> None:
        """What is done each second, after a look."""
        for _ in range(times):
            self.monotonic += 1.0
            self.book.now_us += 1_000_000
            self.read()
            self.log.turn()
            self.log.bury()
            self.log.look_for_missing()
            self.log.look_for_undecided()
            self.commit()

    def close(self) -> None:
        self.log.close()
