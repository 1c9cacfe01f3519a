"""A deployment whose log holds two hours of requests, a heartbeat a minute; and ways to forge a bundle of it."""

from __future__ import annotations

import datetime
import hashlib
import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from tests.access.ledger import T0, decision, outcome

from gatebook import record, starter
from gatebook.config import effective
from gatebook.config.load import load
from gatebook.evidence import manifest
from gatebook.evidence.archive import Writer
from gatebook.ledger import keys
from gatebook.ledger.entry import Entry, Heartbeat
from gatebook.ledger.read import Reader
from gatebook.paths import Paths
from gatebook.recorder.journal import Journal
from gatebook.recorder.process import open_writer

MINUTE_US = 60_000_000
MINUTES = 120
Members = dict[str, bytes]


class Place:
    """Each minute: a heartbeat, request `m` allowed, its outcome; each fifth is denied; of `start`, an hour in."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "gatebook.yaml"
        starter.initialise(folder, "acme", datetime.datetime.now(datetime.UTC))
        self.configuration = load(self.config)
        self.paths = Paths(folder / "state")
        effective.write(self.configuration, self.paths.effective)

    def write(self, make: Callable[[Any], object]) -> None:
        """`make` is given the ledger's writer."""
        writer = open_writer(self.configuration, self.paths, Journal())
        try:
            make(writer)
            writer.sync()
        finally:
            writer.close()

    def two_hours(self) -> None:
        def make(writer: Any) -> None:
            for minute in range(MINUTES):
                writer.append_entry(beat(minute))
                at = T0 + minute * MINUTE_US + 10_000_000
                made = self.decision(minute, time_us=at, verdict="deny" if minute % 5 == 0 else "allow")
                index = writer.append([record.encode(made)])
                status = 403 if minute % 5 == 0 else 200
                writer.append([record.encode(outcome(minute, index, status, time_us=at + 5000))])

        self.write(make)

    def decision(self, number: int, **changes: Any) -> record.Decision:
        made = decision(number, **changes)
        digest = self.configuration.digest().hex()
        return msgspec.structs.replace(made, decision=msgspec.structs.replace(made.decision, configuration=digest))

    def reader(self) -> Reader:
        key = keys.load_reader(self.paths.keys)
        return Reader(self.paths.ledger, "acme/node-1", self.paths.deks, key)


def beat(minute: int) -> Entry:
    """Of one request since the last."""
    since = int(minute > 0)
    return Heartbeat(T0 + minute * MINUTE_US, since, since, 1000, since, 0)


def at(minute: int) -> str:
    """A time for the command line."""
    return manifest.iso(T0 + minute * MINUTE_US)


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(held: Mapping[str, bytes]) -> bytes:
    """A zip as gatebook writes it."""
    out = io.BytesIO()
    writer = Writer(out)
    for name, data in held.items():
        with writer.adding(
            name, packed=not name.startswith("log/tile/0"), large=name == "records.jsonl"
        ) as stream:
            stream.write(data)
    writer.close()
    return out.getvalue()


def forge(path: Path, change: Callable[[Members], None], **claims: Any) -> Path:
    """The bundle as an attacker changes it who knows the format: the manifest goes with the change."""
    held = members(path)
    change(held)
    claimed = manifest.parse(held.pop(manifest.NAME))
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(held.items())}
    held[manifest.NAME] = manifest.encode(msgspec.structs.replace(claimed, members=hashes, **claims))
    out = path.with_name("forged.zip")
    out.write_bytes(packed(held))
    return out
