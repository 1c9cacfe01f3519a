"""A file of lines: each record once, whatever was torn or sent again."""

from __future__ import annotations

import base64
import datetime
import json
import os
from pathlib import Path

import pytest
from tests.access.ledger import ORIGIN
from tests.sinks.test_delivery import ids, traffic
from tests.sinks.twin import Sink, salt

from gatebook.config.sinks import FileSink
from gatebook.sinks.destination import Delivered, Piece, Retry
from gatebook.sinks.file import FileDestination
from gatebook.sinks.stream import Place, Stream


def settings(path: Path, **more: object) -> FileSink:
    return FileSink.model_validate({"type": "file", "path": str(path), **more})


def pieces(destination: FileDestination, requests: int) -> list[Piece]:
    items = Stream(traffic(requests), Place()).read(100)
    return [Piece(item, destination.encode(item)) for item in items]


def lines(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_bytes().splitlines()]


def test_lines_hold_the_access_and_what_proves_it(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    destination = FileDestination(settings(path))
    sink = Sink(tmp_path, traffic(2), destination)  # type: ignore[arg-type]
    sink.run()
    first = json.loads(path.read_bytes().splitlines()[0])
    assert first["id"] == f"{ORIGIN}/0"
    assert first["kind"] == "access"
    assert first["request"]["path"] == "/orders/0"
    assert first["response"]["status"] == 200
    assert [part["index"] for part in first["ledger"]] == [0, 1]
    assert json.loads(first["ledger"][0]["record"])["kind"] == "decision"
    assert base64.b64decode(first["ledger"][1]["salt"]) == salt(1)
    assert path.stat().st_mode & 0o777 == 0o600


def test_batch_that_is_sent_again_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    destination = FileDestination(settings(path))
    batch = pieces(destination, 3)
    assert destination.send(batch) == Delivered()
    assert destination.send(batch) == Delivered(duplicates=3)
    destination.close()
    again = FileDestination(settings(path))
    assert again.send(batch) == Delivered(duplicates=3)
    assert lines(path) == ids(0, 2, 4)


@pytest.mark.parametrize("kept", [0, 1, 50, -1])
def test_line_that_a_crash_tore_is_written_anew(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "access.jsonl"
    first = FileDestination(settings(path))
    batch = pieces(first, 2)
    first.send(batch[:1])
    first.close()
    with path.open("ab") as stream:
        stream.write(batch[1].data[:kept])
    FileDestination(settings(path)).send(batch)
    assert lines(path) == ids(0, 2)


def test_file_of_a_day_that_is_over_gets_its_date(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    destination = FileDestination(settings(path, rotate="daily"))
    batch = pieces(destination, 3)
    destination.send(batch[:1])
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    for _ in range(2):
        os.utime(path, (yesterday.timestamp(), yesterday.timestamp()))
        destination.send(batch[1:2])
        batch = batch[1:]
    assert lines(path) == ids(4)
    names = sorted(each.name for each in tmp_path.iterdir())
    day = yesterday.date().isoformat()
    assert names == ["access.jsonl", f"access.jsonl.{day}", f"access.jsonl.{day}.2"]


def test_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    destination = FileDestination(settings(path))
    batch = pieces(destination, 2)
    destination.send(batch[:1])
    path.rename(tmp_path / "moved")
    destination.send(batch[1:])
    assert lines(path) == ids(2)


def test_folder_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    destination = FileDestination(settings(tmp_path / "later" / "access.jsonl"))
    batch = pieces(destination, 1)
    answer = destination.send(batch)
    assert isinstance(answer, Retry)
    assert "no such file" in answer.why
    (tmp_path / "later").mkdir()
    assert destination.send(batch) == Delivered()


def test_link_that_somebody_planted_is_not_written_through(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    path.symlink_to(tmp_path / "elsewhere")
    destination = FileDestination(settings(path))
    assert isinstance(destination.send(pieces(destination, 1)), Retry)
    assert not (tmp_path / "elsewhere").exists()
