"""The demo's API: it answers as the demo's table says, and no request makes it fail or grow."""

from __future__ import annotations

import httpx2
import pytest
from websockets.sync.client import connect

from gatebook.demo import api as module

Client = httpx2.Client


def test_it_says_that_it_is_well(api: str, client: Client) -> None:
    assert client.get(f"{api}/healthz").json() == {"status": "ok"}


def test_order_is_given_with_the_caller_that_the_gateway_named(api: str, client: Client) -> None:
    answer = client.get(f"{api}/orders/1001", headers={"Gatebook-Subject": "alice", "Gatebook-Roles": "reader"})
    assert answer.status_code == 200
    assert answer.json()["item"] == "anvil"
    assert answer.json()["caller"] == {"subject": "alice", "roles": "reader"}


@pytest.mark.parametrize(("tenant", "status"), [("acme", 200), ("globex", 404)])
def test_order_of_another_tenant_is_not_there(api: str, client: Client, tenant: str, status: int) -> None:
    assert client.get(f"{api}/orders/1001", headers={"X-Tenant": tenant}).status_code == status


def test_list_holds_one_tenants_orders_when_asked_for_them(api: str, client: Client) -> None:
    orders = client.get(f"{api}/orders", headers={"X-Tenant": "globex"}).json()["orders"]
    assert {order["tenant"] for order in orders} == {"globex"}
    assert len(client.get(f"{api}/orders").json()["orders"]) > len(orders)


def test_order_that_is_made_can_be_read(api: str, client: Client) -> None:
    made = client.post(f"{api}/orders", json={"item": "kettle"})
    assert made.status_code == 201
    assert client.get(api + made.headers["location"]).json()["item"] == "kettle"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"item": 7}', b"\xff", b"[" * 9000, b'{"item":"' + b"x" * 20000 + b'"}']
)
def test_order_that_is_none_is_refused(api: str, client: Client, body: bytes) -> None:
    assert client.post(f"{api}/orders", content=body).status_code == 400


def test_orders_cannot_fill_the_memory(api: str, client: Client) -> None:
    statuses = [client.post(f"{api}/orders", json={"item": "x"}).status_code for _ in range(module.MAX_ORDERS)]
    assert statuses[-1] == 409
    assert len(client.get(f"{api}/orders").json()["orders"]) == module.MAX_ORDERS


@pytest.mark.parametrize("seconds", ["0", "0.01", "-1"])
def test_slow_answer_comes(api: str, client: Client, seconds: str) -> None:
    assert client.get(f"{api}/slow", params={"seconds": seconds}).json()["waited_s"] == max(0.0, float(seconds))


def test_events_come_as_a_stream(api: str, client: Client) -> None:
    with client.stream("GET", f"{api}/events?count=2") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert [event.json() for event in httpx2.EventSource(answer)] == [
            {"number": 1, "of": 2},
            {"number": 2, "of": 2},
        ]


@pytest.mark.parametrize("count", ["0", "-3", "nan", "x"])
def test_odd_number_of_events_is_no_error(api: str, client: Client, count: str) -> None:
    assert client.get(f"{api}/events", params={"count": count}).status_code == 200


def test_websocket_gives_back_what_it_gets(api: str) -> None:
    with connect(api.replace("http", "ws", 1) + "/echo") as socket:
        socket.send("hello")
        assert socket.recv() == "hello"
