"""Whatever a witness answers becomes a value, soon and in little memory; only its cosignature ever counts."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import pytest
from tests.ports import free_port
from tests.witness.logs import COSIGNER, NOW, Log
from tests.witness.misbehaving import Misbehaving, http

from gatebook.identity.fetch import new_client
from gatebook.ledger.note import Cosigner
from gatebook.witness.asking import MAX_RETRY_S, Answer, Conflict, Contradicted, Failed, Vouched, ask
from gatebook.witness.protocol import MAX_ANSWER_BYTES, Request, parse_request

LOG = Log()
TEXT = LOG.checkpoint(9).text()
LINE = str(COSIGNER.cosign(TEXT, NOW))
REQUEST = Request(5, LOG.proof(5, 9), LOG.note(9))
TIMEOUT_S = 1.0


async def asked(url: str, timeout_s: float = TIMEOUT_S, times: int = 1) -> list[Answer]:
    async with new_client(None, timeout_s) as client:
        return [await ask(client, url, COSIGNER.verifier, REQUEST, timeout_s, NOW) for _ in range(times)]


def answered(*answers: bytes, **how: Any) -> Answer:
    async def run() -> Answer:
        async with Misbehaving(*answers, **how).serving() as server:
            return (await asked(server.url))[0]

    return asyncio.run(run())


def why(answer: Answer) -> str:
    assert isinstance(answer, Failed), answer
    return answer.why


def test_request_is_what_the_protocol_says() -> None:
    async def run() -> bytes:
        async with Misbehaving(http(200, LINE)).serving() as server:
            await asked(server.url + "/")
            return server.asked[0]

    head, _, body = asyncio.run(run()).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /w/add-checkpoint HTTP/1.1\r\n")
    assert parse_request(body) == REQUEST


def test_cosignature_is_taken() -> None:
    found = answered(http(200, LINE))
    assert isinstance(found, Vouched)
    assert (str(found.line), found.time_s) == (LINE, NOW)


@pytest.mark.parametrize(
    "answer",
    [
        http(200, LINE.rstrip("\n")),
        http(200, str(Cosigner("w/other", bytes(32)).cosign(TEXT, NOW)) + LINE),
        http(200, LINE, "Content-Type: text/html"),
        http(200, LINE, "Content-Encoding: identity"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"1\r\n%c\r\n" % byte for byte in LINE.encode())
        + b"0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(LINE.encode()) + LINE.encode(),
    ],
)
def test_harmless_deviations_are_borne(answer: bytes) -> None:
    assert isinstance(answered(answer), Vouched)


@pytest.mark.parametrize("kind", ["text/x.tlog.size", "text/plain; charset=utf-8", "application/json"])
def test_conflict_is_read_whatever_its_content_type(kind: str) -> None:
    assert answered(http(409, "7\n", f"Content-Type: {kind}")) == Conflict(7)
    assert answered(http(409, "7", f"Content-Type: {kind}")) == Conflict(7)


def test_conflict_without_a_size_is_told_apart() -> None:
    assert answered(http(409, "tree size mismatch\n")) == Conflict(None)
    assert answered(http(409)) == Conflict(None)


def test_contradiction_is_told_apart_from_faults() -> None:
    assert answered(http(422, "bad proof\n")) == Contradicted()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "malformed"),
        (403, "does not know this log's key"),
        (404, "does not know this log"),
        (429, "too often"),
        (500, "fault of its own"),
        (502, "fault of its own"),
        (418, "not in the protocol"),
        (201, "not in the protocol"),
        (204, "not in the protocol"),
    ],
)
def test_every_refusal_is_said_in_words(status: int, said: str) -> None:
    found = why(answered(http(status, "secret words of a witness")))
    assert said in found
    assert str(status) in found
    assert "secret" not in found


def test_how_long_to_wait_is_heeded_within_bounds() -> None:
    for sent, heeded in (
        ("30", 30.0),
        ("999999", float(MAX_RETRY_S)),
        ("soon", 0.0),
        ("-5", 0.0),
        ("\u0663", 0.0),
    ):
        found = answered(http(429, "", f"Retry-After: {sent}"))
        assert isinstance(found, Failed)
        assert found.retry_s == heeded


def test_200_without_a_cosignature_does_not_count() -> None:
    for body in ("", "\n", "thanks", str(Cosigner(COSIGNER.name, bytes(32)).cosign(TEXT, NOW))):
        assert "no cosignature of its key" in why(answered(http(200, body)))


def test_cosignature_of_another_checkpoint_does_not_count() -> None:
    assert "not for this checkpoint" in why(
        answered(http(200, str(COSIGNER.cosign(LOG.checkpoint(8).text(), NOW))))
    )


def test_redirect_is_refused_and_not_followed() -> None:
    async def run() -> tuple[Answer, int]:
        async with Misbehaving(http(200, LINE)).serving() as other:
            answer = http(307, "", f"Location: {other.url}/add-checkpoint")
            async with Misbehaving(answer).serving() as server:
                return (await asked(server.url))[0], len(other.asked)

    found, followed = asyncio.run(run())
    assert "redirect" in why(found)
    assert followed == 0


def test_flood_of_bytes_is_cut_off() -> None:
    assert "more than" in why(answered(http(200, b"x" * (MAX_ANSWER_BYTES + 1))))
    endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + b"x" * 65536 + b"\r\n"
    assert "more than" in why(answered(endless + b"10000\r\n" + b"x" * 65536 + b"\r\n"))


def test_compressed_answer_is_refused_not_unpacked() -> None:
    body = gzip.compress(b"x" * (10 << 20))
    assert "compressed" in why(answered(http(200, body, "Content-Encoding: gzip")))


def test_silence_and_slow_drips_end() -> None:
    assert "answer" in why(answered(b""))
    assert "answer" in why(answered(http(200, LINE), drip_s=0.2))
    assert "answer" in why(answered(http(200, LINE)[:-5]))


def test_closed_port_and_nonsense_are_told() -> None:
    assert "connection" in why(asyncio.run(asked(f"http://127.0.0.1:{free_port()}"))[0])
    assert "HTTP" in why(answered(b"SSH-2.0-OpenSSH_9.2\r\n", close=True))
    assert "HTTP" in why(answered(b"\x15\x03\x01\x00\x02\x02\x46", close=True))


def test_connection_is_kept_and_one_that_was_closed_unsaid_is_no_failure() -> None:
    async def run(*, close: bool) -> tuple[list[Answer], int]:
        async with Misbehaving(http(200, LINE), close=close).serving() as server:
            return await asked(server.url, times=3), server.connections

    kept, connections = asyncio.run(run(close=False))
    assert all(isinstance(each, Vouched) for each in kept)
    assert connections == 1
    closed, connections = asyncio.run(run(close=True))
    assert all(isinstance(each, Vouched) for each in closed)
    assert connections >= 3
