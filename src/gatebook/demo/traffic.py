"""What the demo sends, what should come of it, and what came.

STEPS is the table of requests, each with the status and the reason that it must end with. `send` sends one
through the gateway like any client would; `differences` holds the answers, and `on_record` what the log
says of them, against the table. Never takes an answer for right that has no receipt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import httpx2

EVENTS: Final = 3


class Step(NamedTuple):
    """`caller` is one of the demo provider's clients, PARTNER, or nobody. `reason` is the record's."""

    what: str
    method: str
    path: str
    status: int
    reason: str
    caller: str = ""
    expired: bool = False
    headers: Mapping[str, str] = {}
    body: Mapping[str, Any] | None = None


class Sent(NamedTuple):
    step: Step
    status: int
    request_id: str
    receipt: str
    remark: str


PARTNER: Final = "API key"
_ORDER: Final = {"item": "kettle", "count": 2}
_GLOBEX: Final = {"X-Tenant": "globex"}
_FORGED: Final = {"Gatebook-Roles": "admin"}

STEPS: Final = (
    Step("a public route", "GET", "/healthz", 200, "public"),
    Step("a reader reads", "GET", "/orders/1001", 200, "rule", "alice"),
    Step("no credential", "GET", "/orders/1001", 401, "credential_missing"),
    Step("an expired token", "GET", "/orders/1001", 401, "token_expired", "alice", expired=True),
    Step("without a role", "GET", "/orders/1001", 403, "no_rule", "bob"),
    Step("… but of that tenant", "GET", "/orders/2001", 200, "rule", "bob", headers=_GLOBEX),
    Step("an API key reads", "GET", "/orders/1002", 200, "rule", PARTNER),
    Step("a reader writes, forged role", "POST", "/orders", 403, "no_rule", "alice", False, _FORGED, _ORDER),
    Step("an admin writes", "POST", "/orders", 201, "rule", "carol", body=_ORDER),
    Step("an unknown path", "GET", "/admin", 404, "no_route", "carol"),
    Step("another method", "DELETE", "/orders/1001", 405, "method_not_allowed", "carol"),
    Step("a path to fool the rules", "GET", "/orders/..%2f1001", 400, "path_not_canonical", "carol"),
    Step("within a limit, 2 a minute", "GET", "/orders", 200, "rule", "alice"),
    Step("within the limit", "GET", "/orders", 200, "rule", "alice"),
    Step("beyond it: throttled", "GET", "/orders", 429, "limit_exceeded", "alice"),
    Step("server-sent events", "GET", f"/events?count={EVENTS}", 200, "rule", "alice"),
    Step("an upstream that is down", "GET", "/invoices/7", 502, "rule", "alice"),
)


def send(client: httpx2.Client, step: Step, credential: Mapping[str, str]) -> Sent:
    """`client` knows the gateway's address and the CA; `credential` are the headers that identify the caller."""
    headers = {**credential, **step.headers}
    with client.stream(step.method, step.path, headers=headers, json=step.body) as answer:
        remark = _remark(answer)
    found = answer.headers
    return Sent(step, answer.status_code, found.get("X-Request-ID", ""), found.get("Gatebook-Receipt", ""), remark)


def _remark(answer: httpx2.Response) -> str:
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        return f"{sum(1 for _ in httpx2.EventSource(answer))} events"
    answer.read()
    for name in ("Retry-After", "Allow"):
        if name in answer.headers:
            return f"{name}: {answer.headers[name]}"
    return ""


def differences(all_sent: Iterable[Sent]) -> list[str]:
    """What is not as the table says; empty when all is."""
    found = []
    for sent in all_sent:
        step = sent.step
        if sent.status != step.status:
            found.append(f"{step.what}: {step.method} {step.path} gave {sent.status}, expected {step.status}")
        if not sent.request_id or not sent.receipt:
            found.append(f"{step.what}: the answer has no request id or no receipt")
        if step.path.startswith("/events") and sent.remark != f"{EVENTS} events":
            found.append(f"{step.what}: expected {EVENTS} events, found {sent.remark or 'none'}")
    return found


def on_record(all_sent: Iterable[Sent], records: Iterable[Mapping[str, Any]]) -> list[str]:
    """As `differences`, of the log: each request once, with its reason and the status that the client saw."""
    known: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        known.setdefault(record.get("id", ""), []).append(record)
    found = []
    for sent in all_sent:
        what = f"{sent.step.what} ({sent.request_id})"
        match known.get(sent.request_id, []):
            case []:
                found.append(f"{what}: not in the log")
            case [record]:
                reason = record.get("decision", {}).get("reason")
                status = record.get("response", {}).get("status")
                if (reason, status) != (sent.step.reason, sent.status):
                    found.append(
                        f"{what}: the log says {reason} and {status}, not {sent.step.reason} and {sent.status}"
                    )
            case records_of_it:
                found.append(f"{what}: {len(records_of_it)} times in the log")
    return found
