"""Webhooks: a library of Standard Webhooks verifies what is sent; every fault of a receiver ends in an answer."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from standardwebhooks import Webhook, WebhookVerificationError
from tests.sinks.receiver import Receiver, Reply
from tests.sinks.test_delivery import ids, traffic

from gatebook.config.sinks import WebhookSink
from gatebook.errors import EnvironmentFault
from gatebook.sinks.destination import Answer, Delivered, Divide, Pause, Piece, Retry
from gatebook.sinks.http import MAX_ANSWER_BYTES
from gatebook.sinks.stream import Place, Stream
from gatebook.sinks.webhook import WebhookDestination

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


OPEN: list[WebhookDestination] = []


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def destination(url: str, tmp_path: Path, secret: str = SECRET, timeout: float = 5.0) -> WebhookDestination:
    (tmp_path / "hook.key").write_text(secret + "\n")
    settings = {"type": "webhook", "url": url, "secret": {"file": str(tmp_path / "hook.key")}, "timeout": timeout}
    OPEN.append(made := WebhookDestination(WebhookSink.model_validate(settings)))
    return made


def pieces(made: WebhookDestination, requests: int = 2) -> list[Piece]:
    return [Piece(item, made.encode(item)) for item in Stream(traffic(requests), Place()).read(100)]


def send(made: WebhookDestination) -> Answer:
    return made.send(pieces(made))


def test_message_is_one_that_others_verify(receiver: Receiver, tmp_path: Path) -> None:
    made = destination(receiver.url + "/hook?team=soc", tmp_path)
    assert send(made) == Delivered()
    (request,) = receiver.requests
    assert request.path == "/hook?team=soc"
    body = Webhook(SECRET).verify(request.body, request.headers)
    assert [item["id"] for item in body] == ids(0, 2)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(request.body.replace(b"read-order", b"read-orderX"), request.headers)


def test_batch_that_is_sent_again_has_the_id_that_it_had(receiver: Receiver, tmp_path: Path) -> None:
    made = destination(receiver.url, tmp_path)
    send(made)
    send(made)
    first, second = (request.headers["webhook-id"] for request in receiver.requests)
    assert first == second


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(204), Delivered),
        (Reply(429), Retry),
        (Reply(500), Retry),
        (Reply(503), Retry),
        (Reply(401), Pause),
        (Reply(404), Pause),
        (Reply(302, headers=(("Location", "http://127.0.0.1:1/"),)), Pause),
        (Reply(400), Divide),
        (Reply(413), Divide),
        (Reply(200, b"x" * 100, cut=10), Retry),
        (Reply(cut=-1), Retry),
        (Reply(200, b"x" * (MAX_ANSWER_BYTES + 1)), Retry),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, Reply) else value.__name__,
)
def test_answers(receiver: Receiver, tmp_path: Path, reply: Reply, expected: type[Answer]) -> None:
    receiver.answer = lambda _: reply
    assert isinstance(send(destination(receiver.url, tmp_path)), expected)
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(("value", "low", "high"), [("7", 7, 7), ("Wed, 01 Jan 2200 00:00:00 GMT", 1e8, 1e10)])
def test_retry_after_is_read(receiver: Receiver, tmp_path: Path, value: str, low: float, high: float) -> None:
    receiver.answer = lambda _: Reply(503, headers=(("Retry-After", value),))
    answer = send(destination(receiver.url, tmp_path))
    assert isinstance(answer, Retry)
    assert answer.after_s is not None
    assert low <= answer.after_s <= high


def test_credential_in_an_answer_is_not_repeated(receiver: Receiver, tmp_path: Path) -> None:
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl" + "A" * 20
    receiver.answer = lambda _: Reply(400, f"bad header Bearer {token}\x1b[31m".encode())
    answer = send(destination(receiver.url, tmp_path))
    assert isinstance(answer, Divide)
    assert token not in answer.why
    assert "\x1b" not in answer.why


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    answer = send(destination(f"http://127.0.0.1:{port}", tmp_path))
    assert isinstance(answer, Retry)


def test_listener_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        made = destination(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path, timeout=0.2)
        assert isinstance(send(made), Retry)


def test_name_that_does_not_resolve(tmp_path: Path) -> None:
    assert isinstance(send(destination("https://soc.invalid/hook", tmp_path)), Retry)


@pytest.mark.parametrize("secret", ["short", "whsec_!!!"])
def test_weak_or_broken_secret_is_refused_without_being_told(tmp_path: Path, secret: str) -> None:
    with pytest.raises(EnvironmentFault) as error:
        destination("https://soc.example/hook", tmp_path, secret)
    assert secret not in str(error.value)


@pytest.mark.parametrize(
    "url", ["http://soc.example/hook", "https://user:pw@soc.example/", "ftp://soc.example", "https://x/#f"]
)
def test_url_that_would_give_records_away_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        WebhookSink.model_validate({"type": "webhook", "url": url, "secret": {"env": "X"}})


def test_body_is_json(receiver: Receiver, tmp_path: Path) -> None:
    send(destination(receiver.url, tmp_path))
    request = receiver.requests[0]
    assert request.headers["content-type"] == "application/json"
    assert len(json.loads(request.body)) == 2
