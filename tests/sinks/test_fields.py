"""Each field that is sent has a name that its schema knows; values have the units and directions that it means."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.access.ledger import ORIGIN, T0, decision, outcome
from tests.sinks.twin import Ledger

from gatebook import record
from gatebook.record import (
    Admin,
    Alert,
    ClientPart,
    ErrorPart,
    IdentityPart,
    LimitPart,
    RequestPart,
    ResponsePart,
    ShadowPart,
    System,
    TLSPart,
    UpstreamPart,
)
from gatebook.sinks.fields import TABLE, Schema, document, facts
from gatebook.sinks.item import Item
from gatebook.sinks.stream import Place, Stream

SCHEMAS = Path(__file__).parent / "schemas"


def names(*files: str) -> set[str]:
    return {name for file in files for name in (SCHEMAS / file).read_text().split()}


KNOWN: dict[str, set[str]] = {
    "ecs": names("ecs-9.5-dev-fields.txt"),
    "ocsf": names("ocsf-1.9-dev-4002-http-activity-paths.txt", "ocsf-1.9-dev-6003-api-activity-paths.txt"),
    "otel": names("otel-semconv-1.44-attributes.txt"),
}


def items(*records: record.Record) -> list[Item]:
    return Stream(Ledger(*records), Place()).read(100)


def full(**changes: Any) -> Item:
    """An access that says everything that one can."""
    asked: dict[str, Any] = {
        "trace_id": "ab" * 16,
        "identity": IdentityPart(
            provider="staff",
            method="oidc",
            subject="cd" * 16,
            client="app",
            credential="ef" * 16,
            roles=("reader",),
            groups=("g",),
            scopes=("s",),
            granted=("admin",),
        ),
        "request": RequestPart(
            method="GET",
            path="/orders/7",
            route="read-order",
            host="api.acme.example",
            protocol="2",
            query={"page": "2"},
            headers={"user-agent": "curl/8"},
            claimed_id="mine",
        ),
        "client": ClientPart(address="192.0.2.7", port=4711),
        "tls": TLSPart(
            version="1.3",
            cipher="TLS_AES_256_GCM_SHA384",
            group="X25519",
            sni="api.acme.example",
            certificate="0a" * 32,
        ),
        "limit": LimitPart(name="per-caller", limit=100, remaining=99, reset_s=1),
        "signals": ("new_network",),
    }
    came: dict[str, Any] = {
        "response": ResponsePart(status=502, bytes_in=10, bytes_out=2000, duration_us=5_250, complete=True),
        "upstream": UpstreamPart(name="orders", address="10.0.0.1:9001", status=502, response_us=4_000),
        "error": ErrorPart(source="upstream", detail="connect_refused", message="connection refused"),
    }
    (item,) = items(decision(0, **{**asked, **changes}), outcome(0, 0, 502, **came))
    return item


def others() -> list[Item]:
    return items(
        Admin(time_us=T0, action="key.create", actor="os:0", detail={"id": "k"}),
        Alert(
            time_us=T0,
            alert="refresh_reused",
            severity="high",
            identity=IdentityPart(provider="staff", method="own"),
        ),
        System(time_us=T0, event="recorder.start", detail={"clean": True}),
    )


def leaves(document: dict[str, Any], before: str = "") -> Iterator[str]:
    for name, value in document.items():
        path = f"{before}{name}"
        if isinstance(value, dict) and path not in ("gatebook", "unmapped"):
            yield from leaves(value, f"{path}.")
        else:
            yield path


@pytest.mark.parametrize("schema", ["ecs", "ocsf", "otel"])
def test_every_name_is_one_of_the_schema_or_in_our_own_corner(schema: Schema) -> None:
    for item in (full(), *others()):
        unknown = [
            name
            for name in leaves(document(item, schema))
            if name not in KNOWN[schema] and name.partition(".")[0] not in ("gatebook", "unmapped")
        ]
        assert unknown == []


@pytest.mark.parametrize("schema", ["ecs", "ocsf", "otel", "datadog", "cim"])
def test_full_access_fills_every_row_of_the_table(schema: Schema) -> None:
    known = facts(full())
    of_accesses = [
        row for row in TABLE if row.ours.partition(".")[0] not in ("admin", "alert", "system", "detail")
    ]
    missing = [row.ours for row in of_accesses if not _has(known, row.ours)]
    assert set(missing) <= {"open", "client_network", "decision.grants", "decision.shadow"}
    made = document(full(), schema)
    assert len(list(leaves(made))) > 20


def _has(known: dict[str, Any], path: str) -> bool:
    value: Any = known
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value is not None


def at(made: dict[str, Any], path: str) -> Any:
    value: Any = made
    for name in path.split("."):
        value = value[name]
    return value


def test_units_and_directions() -> None:
    ecs, ocsf, datadog, cim = (document(full(), schema) for schema in ("ecs", "ocsf", "datadog", "cim"))
    assert at(ecs, "@timestamp") == "2023-11-14T22:13:20.000000Z"
    assert at(ecs, "event.duration") == 5_250_000
    assert at(ocsf, "time") == T0 // 1000
    assert at(ocsf, "duration") == 5
    assert at(datadog, "duration") == 5_250_000
    assert at(cim, "duration") == 0.00525
    assert at(ecs, "http.request.bytes") == 10  # what the client sent
    assert at(ocsf, "traffic.bytes_out") == 10  # seen from the client
    assert at(datadog, "network.bytes_read") == 10
    assert at(cim, "bytes_in") == 10
    assert at(ecs, "destination.address") == "10.0.0.1"
    assert at(ecs, "tls.client.hash.sha256") == "0A" * 32


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ((decision(0), outcome(0, 0)), ("allowed", "success", ["access", "allowed"], 1, 1)),
        ((decision(0), outcome(0, 0, 404)), ("allowed", "failure", ["access", "allowed"], 1, 2)),
        ((decision(0, verdict="deny"), outcome(0, 0, 403)), ("blocked", "failure", ["access", "denied"], 2, 2)),
        (
            (outcome(0, None, 400, request=RequestPart(method="GET", path="/"), upstream=None),),
            (None, "failure", ["access", "error"], 0, 2),
        ),
    ],
    ids=["allowed", "allowed-404", "denied", "refused-by-the-gateway"],
)
def test_verdicts(records: tuple[record.Record, ...], expected: tuple[Any, ...]) -> None:
    (item,) = items(*records)
    ecs, ocsf = document(item, "ecs"), document(item, "ocsf")
    assert document(item, "cim").get("action") == expected[0]
    assert at(ecs, "event.outcome") == expected[1]
    assert at(ecs, "event.type") == expected[2]
    assert (ocsf["action_id"], ocsf["status_id"]) == expected[3:]


def test_what_ocsf_requires_is_there() -> None:
    for item in (full(), *others()):
        made = document(item, "ocsf")
        for name in (
            "activity_id",
            "category_uid",
            "class_uid",
            "type_uid",
            "severity_id",
            "time",
            "metadata.version",
        ):
            assert at(made, name) is not None
        assert made["type_uid"] == made["class_uid"] * 100 + made["activity_id"]
        assert at(made, "metadata.product.vendor_name") == "gatebook"
        if made["class_uid"] == 6003:
            assert at(made, "api.operation")
            assert made["actor"]
            assert made["src_endpoint"]
        else:
            assert "http_request" in made or "http_response" in made


def test_network_of_a_client_is_never_sent_as_its_address() -> None:
    item = full(client=ClientPart(address="192.0.2.0/24"))
    ecs = document(item, "ecs")
    assert at(ecs, "client.address") == "192.0.2.0/24"
    assert "ip" not in ecs["client"]
    assert "ip" not in ecs["related"]


def test_exact_records_go_along() -> None:
    item = full()
    ecs = document(item, "ecs")
    assert at(ecs, "event.original") == "\n".join(part.record.decode() for part in item.parts)
    assert [part["index"] for part in at(ecs, "gatebook.ledger")] == [0, 1]


def test_pseudonym_of_an_address_is_no_ip() -> None:
    assert "client_ip" not in facts(full(client=ClientPart(address="ab" * 16)))


def test_unusual_method_is_other_in_otel() -> None:
    item = full(request=RequestPart(method="BREW", path="/pot"))
    made = document(item, "otel")
    assert at(made, "http.request.method") == "_OTHER"
    assert at(made, "http.request.method_original") == "BREW"


def test_open_stream_is_known_by_its_own_id() -> None:
    stream = Stream(Ledger(decision(0)), Place())
    stream.read(10)
    (item,) = stream.notices(T0 + 10**12)
    made = document(item, "ecs")
    assert at(made, "event.id") == f"{ORIGIN}/0/open"
    assert at(made, "gatebook.origin") == ORIGIN
    assert at(made, "event.outcome") == "unknown"


def test_shadow_verdict_goes_along() -> None:
    verdict = record.DecisionPart(
        verdict="allow",
        status=200,
        reason="rule",
        configuration="cd" * 32,
        durability="before-access",
        shadow=ShadowPart(verdict="deny", reason="no_rule"),
    )
    assert at(document(full(decision=verdict), "ecs"), "gatebook.shadow")["verdict"] == "deny"
