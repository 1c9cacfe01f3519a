"""What goes wrong on the way to a receiver: certificates, storms, broken connections, death, a long backlog."""

from __future__ import annotations

import json
import multiprocessing
import random
import resource
import threading
from collections import Counter
from pathlib import Path

import pytest
from bench.ledger import GROUP, Clock, Load, opened
from tests.ledger.caller import READER
from tests.pki import DAY, HOUR, Authority
from tests.sinks.receiver import Receiver, Reply, Request
from tests.sinks.test_delivery import ids, traffic
from tests.sinks.twin import Sink

from gatebook.config.sinks import FileSink, WebhookSink
from gatebook.ledger.read import Reader
from gatebook.sinks.cursor import Book
from gatebook.sinks.delivery import Delivery, begin
from gatebook.sinks.destination import Limits
from gatebook.sinks.file import FileDestination
from gatebook.sinks.stream import Stream
from gatebook.sinks.webhook import WebhookDestination


def hook(folder: Path, url: str, **more: object) -> WebhookDestination:
    (folder / "hook.key").write_text("a secret of more than 24 bytes")
    settings = {"type": "webhook", "url": url, "secret": {"file": str(folder / "hook.key")}, "timeout": 5, **more}
    made = WebhookDestination(WebhookSink.model_validate(settings))
    made.limits = Limits(items=5, batch_bytes=1 << 20, item_bytes=1 << 18, linger_s=0.0)
    return made


def got(receiver: Receiver) -> list[str]:
    return [item["id"] for request in receiver.requests for item in json.loads(request.body)]


ADDRESS = "subjectAltName = IP:127.0.0.1\nextendedKeyUsage = serverAuth\n"
OTHER = "subjectAltName = DNS:other.example\nextendedKeyUsage = serverAuth\n"


@pytest.mark.parametrize(
    ("extensions", "end", "words"),
    [(ADDRESS, -HOUR, "expired"), (OTHER, DAY, "not valid for"), (ADDRESS, DAY, "")],
)
def test_receiver_that_cannot_show_who_it_is_gets_nothing_until_it_can(
    tmp_path: Path, extensions: str, end: float, words: str
) -> None:
    authority = Authority("root", tmp_path)
    pair = authority.issue("/CN=receiver", extensions, start=-DAY, end=end)
    receiver = Receiver(pair=pair)
    made = hook(tmp_path, receiver.url, certificates=str(authority.pair.certificate))
    sink = Sink(tmp_path, traffic(3), made)  # type: ignore[arg-type]
    sink.run()
    receiver.close()
    made.close()
    assert got(receiver) == ([] if words else ids(0, 2, 4))
    state = sink.book.state()
    assert state is not None
    assert state.doing == ("waiting" if words else "sending")
    assert words in state.why
    assert sink.place.next == (0 if words else 6)


def test_storm_of_429_and_503_costs_nothing_but_time(tmp_path: Path) -> None:
    chosen = random.Random(4)

    def storm(_request: Request) -> Reply:
        return Reply(chosen.choice([429, 503, 503, 200]), headers=(("Retry-After", "1"),))

    answered: list[int] = []

    def answer(request: Request) -> Reply:
        reply = storm(request)
        answered.append(reply.status)
        return reply

    receiver = Receiver(answer)
    made = hook(tmp_path, receiver.url)
    sink = Sink(tmp_path, traffic(50), made)  # type: ignore[arg-type]
    delivery = sink.run()
    receiver.close()
    made.close()
    stored = [
        item["id"]
        for request, status in zip(receiver.requests, answered, strict=True)
        for item in json.loads(request.body)
        if status == 200
    ]
    assert stored == ids(*range(0, 100, 2))
    assert len(sink.waits) == len(answered) - 10
    assert min(sink.waits) >= 1
    assert (delivery.cursor.sent, delivery.cursor.refused) == (50, 0)


@pytest.mark.parametrize("cut", [-1, 3])
def test_connection_that_breaks_after_the_send_makes_duplicates_under_the_same_ids(
    tmp_path: Path, cut: int
) -> None:
    broken = [Reply(200, b"thank you", cut=cut)] * 3
    receiver = Receiver(lambda _: broken.pop() if broken else Reply())
    made = hook(tmp_path, receiver.url)
    sink = Sink(tmp_path, traffic(10), made)  # type: ignore[arg-type]
    delivery = sink.run()
    receiver.close()
    made.close()
    counted = Counter(got(receiver))
    assert set(counted) == set(ids(*range(0, 20, 2)))
    assert sorted(counted.values()) == [1] * 5 + [4] * 5
    bodies = {request.headers["webhook-id"]: request.body for request in receiver.requests}
    assert all(bodies[request.headers["webhook-id"]] == request.body for request in receiver.requests)
    assert delivery.cursor.sent == 10


def test_receiver_that_dies_in_a_batch_and_comes_back_misses_nothing(tmp_path: Path) -> None:
    first = Receiver()
    seen = []

    def die(request: Request) -> Reply:
        seen.append(request)
        if len(seen) == 2:
            threading.Thread(target=first.close).start()
            return Reply(cut=-1)
        return Reply()

    first.answer = die
    made = hook(tmp_path, first.url)
    sink = Sink(tmp_path, traffic(20), made)  # type: ignore[arg-type]
    sink.run()  # gives up waiting in the end, as a process that is stopped does
    assert sink.place.next == 10
    made.close()
    second = Receiver()
    made = hook(tmp_path, second.url)
    Sink(tmp_path, sink.ledger, made).run()  # type: ignore[arg-type]
    second.close()
    made.close()
    assert got(second) == ids(*range(10, 40, 2))
    assert got(first)[:5] == ids(0, 2, 4, 6, 8)


def _follow(root: Path, told: object) -> None:
    """All of the ledger to a file; the most memory that this process had when a fifth was sent, and at the end."""
    source = Reader(root / "ledger", "acme/node-1", root / "deks", READER)
    destination, book = (
        FileDestination(FileSink.model_validate({"type": "file", "path": str(root / "items.jsonl")})),
        Book(root, "file"),
    )
    delivery = Delivery(
        "file",
        destination,
        lambda place: Stream(source, place),
        book,
        begin(book, source.origin, source.size, "beginning"),
        wants=lambda _: True,
        stop=threading.Event(),
    )
    early = 0
    while delivery.cursor.place.next < source.size:
        delivery.step()
        if not early and delivery.cursor.place.next > source.size // 5:
            early = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told.send((delivery.cursor.sent, early, most))  # type: ignore[attr-defined]


def test_backlog_is_not_held_in_memory(tmp_path: Path) -> None:
    load, clock, groups = Load(), Clock(), 48
    writer = opened(tmp_path, clock)
    for _ in range(groups):
        first = writer.append(load.decisions())
        writer.append(load.outcomes(first))
        writer.sync()
        clock.passes(2 * GROUP)
    writer.close()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_follow, args=(tmp_path, theirs))
    process.start()
    assert ours.poll(60), "it did not come to the end"
    sent, early_kib, most_kib = ours.recv()
    process.join()
    assert sent == groups * GROUP
    assert most_kib - early_kib < 24 << 10, "memory grows with the backlog"
