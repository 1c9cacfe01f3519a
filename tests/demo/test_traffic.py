"""The demo checks itself: an answer or a record that is not as it should be does not go unnoticed."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from gatebook.config.load import load
from gatebook.demo import scene, traffic
from gatebook.demo.provider import CLIENTS
from gatebook.demo.traffic import PARTNER, STEPS, Sent
from gatebook.record import REASONS


def as_expected() -> list[Sent]:
    return [
        Sent(
            step,
            step.status,
            f"id-{number}",
            f"demo/node-1/{number}",
            f"{traffic.EVENTS} events" if step.path.startswith("/events") else "",
        )
        for number, step in enumerate(STEPS)
    ]


def records(all_sent: list[Sent]) -> list[dict[str, Any]]:
    return [
        {"id": s.request_id, "decision": {"reason": s.step.reason}, "response": {"status": s.status}}
        for s in all_sent
    ]


def changed(**fields: Any) -> list[Sent]:
    return [sent._replace(**fields) if sent.step.what == "server-sent events" else sent for sent in as_expected()]


def test_what_is_expected_is_no_difference() -> None:
    assert traffic.differences(as_expected()) == []
    assert traffic.on_record(as_expected(), records(as_expected())) == []


@pytest.mark.parametrize(
    "fields",
    [{"status": 403}, {"request_id": ""}, {"receipt": ""}, {"remark": "2 events"}, {"remark": ""}],
    ids=str,
)
def test_answer_that_is_not_as_expected_is_told(fields: dict[str, Any]) -> None:
    (told,) = traffic.differences(changed(**fields))
    assert told.startswith("server-sent events: ")


def test_request_that_is_not_in_the_log_is_told() -> None:
    sent = as_expected()
    (told,) = traffic.on_record(sent, records(sent)[1:])
    assert told == f"{sent[0].step.what} (id-0): not in the log"


def test_request_that_is_twice_in_the_log_is_told() -> None:
    sent = as_expected()
    (told,) = traffic.on_record(sent, records(sent) + records(sent)[:1])
    assert "2 times" in told


@pytest.mark.parametrize(
    "record",
    [
        {"decision": {"reason": "public"}, "response": {"status": 500}},
        {"decision": {"reason": "rule"}, "response": {"status": 200}},
        {"decision": {"reason": "public"}},
        {"response": {"status": 200}},
    ],
    ids=str,
)
def test_record_that_says_something_else_is_told(record: dict[str, Any]) -> None:
    sent = as_expected()
    (told,) = traffic.on_record(sent, [{"id": "id-0", **record}, *records(sent)[1:]])
    assert told.startswith(f"{sent[0].step.what} (id-0): the log says")


def test_what_others_sent_is_not_looked_at() -> None:
    sent = as_expected()
    assert traffic.on_record(sent, [*records(sent), {"id": "another"}, {}]) == []


def test_reasons_and_statuses_are_those_of_records() -> None:
    for step in STEPS:
        assert step.reason in REASONS, step.what
        assert step.reason == "rule" or step.status == REASONS[step.reason].status, step.what


def test_callers_are_known() -> None:
    assert {step.caller for step in STEPS} <= {"", PARTNER, *CLIENTS}


def test_every_route_of_the_demo_is_used(tmp_path: Path) -> None:
    where = scene.Addresses("127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3", "http://127.0.0.1:4")
    config = scene.configure(tmp_path, where, datetime.datetime.now(datetime.UTC))
    for route in load(config).routes:
        prefix = route.path.partition("{")[0]
        assert any(s.path.startswith(prefix) and s.method in route.methods for s in STEPS), route.name
