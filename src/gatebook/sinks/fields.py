"""What our fields are called elsewhere: Elastic Common Schema, OCSF, OpenTelemetry, Datadog, Splunk CIM. Pure.

One table for all of them; a cell is a name, or a name and what makes our value theirs. Names are tested against
the schemas' own lists. Bytes are turned round where a schema counts from the client's side, times have each
schema's unit. A record's exact text goes along where a schema has a place for it: mapped fields prove nothing.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

import msgspec

from gatebook import __version__
from gatebook.access.found import Access, Event, Strange
from gatebook.record import REASONS
from gatebook.sinks.item import Item, plain

Schema = Literal["gatebook", "ecs", "ocsf", "otel", "datadog", "cim"]

ECS_VERSION: Final = "9.4.0"
OCSF_VERSION: Final = "1.8.0"
SEMCONV_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
_OTEL_METHODS = frozenset("CONNECT DELETE GET HEAD OPTIONS PATCH POST PUT TRACE QUERY".split())  # noqa: SIM905
_OCSF_METHODS = {
    method: number
    for number, method in enumerate(
        ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT", "TRACE", "PATCH"], 1
    )
}


_EPOCH = datetime.datetime(1970, 1, 1)  # in UTC, and written as such


class To(NamedTuple):
    """A name in a schema, and how our value becomes one of it."""

    name: str
    convert: Callable[[Any], Any] = lambda value: value


class Row(NamedTuple):
    """`ours`: a path in the facts. An empty name: the schema has no place for it."""

    ours: str
    ecs: str | To = ""
    ocsf: str | To = ""
    otel: str | To = ""
    datadog: str | To = ""
    cim: str | To = ""


def _ns(us: int) -> int:
    return us * 1000


def _ms(us: int) -> int:
    return us // 1000


def _s(us: int) -> float:
    return us / 1_000_000


def _iso(us: int) -> str:
    moment = _EPOCH + datetime.timedelta(microseconds=us)
    return f"{moment.isoformat(timespec='microseconds')}Z"


def _otel_method(method: str) -> str:
    return method if method in _OTEL_METHODS else "_OTHER"


def _host(address: str) -> str:
    """Of `10.0.0.1:9001` or `[::1]:9001` the address."""
    return address.rpartition(":")[0].strip("[]") or address


def _one(value: Any) -> list[Any]:
    return [value]


TABLE: Final = (
    # -- which ------------------------------------------------------------------------------------------
    Row("id", "event.id", "metadata.uid", "log.record.uid", "gatebook.id", "event_id"),
    Row("kind", "event.dataset", "metadata.log_name", "gatebook.kind", "evt.name", "gatebook_kind"),
    Row("time_us", To("@timestamp", _iso), To("time", _ms), "", To("timestamp", _ms), ""),
    Row("origin", "gatebook.origin", "unmapped.gatebook.origin", "gatebook.origin", "gatebook.origin", "origin"),
    Row("index", "event.sequence", "metadata.sequence", "gatebook.index", "gatebook.index", "index_in_ledger"),
    Row(
        "decision_index",
        "gatebook.decision_index",
        "unmapped.gatebook.decision_index",
        "gatebook.decision_index",
        "gatebook.decision_index",
        "decision_index",
    ),
    Row(
        "outcome_index",
        "gatebook.outcome_index",
        "unmapped.gatebook.outcome_index",
        "gatebook.outcome_index",
        "gatebook.outcome_index",
        "outcome_index",
    ),
    Row("open", "gatebook.open", "unmapped.gatebook.open", "gatebook.open", "gatebook.open", "open"),
    Row(
        "request_id", "http.request.id", "http_request.uid", "gatebook.request_id", "http.request_id", "request_id"
    ),
    Row("trace_id", "trace.id", "trace.uid", "", "trace_id", "trace_id"),
    # -- what was asked -----------------------------------------------------------------------------------
    Row(
        "request.method",
        "http.request.method",
        "http_request.http_method",
        To("http.request.method", _otel_method),
        "http.method",
        "http_method",
    ),
    Row("request.path", "url.path", "http_request.url.path", "url.path", "http.url_details.path", "uri_path"),
    Row("request.query", "gatebook.query", "unmapped.gatebook.query", "", "http.url_details.queryString", ""),
    Row("query", "url.query", "http_request.url.query_string", "url.query", "", "uri_query"),
    Row("request.headers", "gatebook.headers", "unmapped.gatebook.headers", "", "gatebook.headers", ""),
    Row(
        "request.route",
        "gatebook.route",
        "unmapped.gatebook.route",
        "gatebook.route",
        "gatebook.route",
        "route",
    ),
    Row(
        "request.host",
        "url.domain",
        "http_request.url.hostname",
        "server.address",
        "http.url_details.host",
        "url_domain",
    ),
    Row(
        "request.protocol",
        "http.version",
        "http_request.version",
        "network.protocol.version",
        "http.version",
        "http_version",
    ),
    Row(
        "request.claimed_id",
        "gatebook.claimed_id",
        "unmapped.gatebook.claimed_id",
        "gatebook.claimed_id",
        "gatebook.claimed_id",
        "",
    ),
    Row(
        "user_agent",
        "user_agent.original",
        "http_request.user_agent",
        "user_agent.original",
        "http.useragent",
        "http_user_agent",
    ),
    # -- from where ---------------------------------------------------------------------------------------
    Row("client_ip", "client.ip", "src_endpoint.ip", "client.address", "network.client.ip", "src"),
    Row(
        "client_network", "client.address", "src_endpoint.name", "client.address", "gatebook.client.network", "src"
    ),
    Row("client.port", "client.port", "src_endpoint.port", "client.port", "network.client.port", "src_port"),
    # -- who ----------------------------------------------------------------------------------------------
    Row("identity.subject", "user.id", "actor.user.uid", "user.id", "usr.id", "user"),
    Row(
        "identity.provider",
        "user.domain",
        "actor.user.domain",
        "gatebook.provider",
        "gatebook.provider",
        "authentication_service",
    ),
    Row(
        "identity.method",
        "gatebook.authentication",
        "unmapped.gatebook.authentication",
        "gatebook.authentication",
        "gatebook.authentication",
        "authentication_method",
    ),
    Row("identity.client", "gatebook.client", "actor.app_uid", "gatebook.client", "gatebook.client", "client_id"),
    Row(
        "identity.credential",
        "gatebook.credential",
        "actor.user.credential_uid",
        "gatebook.credential",
        "gatebook.credential",
        "credential",
    ),
    Row("identity.roles", "user.roles", "unmapped.gatebook.roles", "user.roles", "usr.roles", "user_role"),
    Row(
        "identity.groups",
        "gatebook.groups",
        "unmapped.gatebook.groups",
        "gatebook.groups",
        "gatebook.groups",
        "",
    ),
    Row(
        "identity.scopes",
        "gatebook.scopes",
        "unmapped.gatebook.scopes",
        "gatebook.scopes",
        "gatebook.scopes",
        "",
    ),
    Row(
        "identity.granted",
        "gatebook.granted",
        "unmapped.gatebook.granted",
        "gatebook.granted",
        "gatebook.granted",
        "",
    ),
    # -- on whose word ------------------------------------------------------------------------------------
    Row("decision.verdict", "gatebook.verdict", "action", "gatebook.verdict", "gatebook.verdict", ""),
    Row("action", "", "", "", "gatebook.action", "action"),
    Row("reason", "event.reason", "status_detail", "gatebook.reason", "gatebook.reason", "reason"),
    Row("decision.rule", "rule.name", "policy.name", "security_rule.name", "gatebook.rule", "rule"),
    Row(
        "decision.configuration",
        "rule.version",
        "policy.version",
        "security_rule.version",
        "gatebook.configuration",
        "rule_version",
    ),
    Row(
        "decision.grants",
        "gatebook.grants",
        "unmapped.gatebook.grants",
        "gatebook.grants",
        "gatebook.grants",
        "",
    ),
    Row(
        "decision.shadow",
        "gatebook.shadow",
        "unmapped.gatebook.shadow",
        "",
        "gatebook.shadow",
        "",
    ),
    Row("outcome", "event.outcome", "", "gatebook.outcome", "evt.outcome", ""),
    Row(
        "throttled",
        "gatebook.throttled",
        "unmapped.gatebook.throttled",
        "gatebook.throttled",
        "gatebook.throttled",
        "",
    ),
    Row("limit", "gatebook.limit", "unmapped.gatebook.limit", "", "gatebook.limit", ""),
    Row(
        "signals",
        "gatebook.signals",
        "unmapped.gatebook.signals",
        "gatebook.signals",
        "gatebook.signals",
        "signals",
    ),
    # -- what came of it ----------------------------------------------------------------------------------
    Row(
        "status",
        "http.response.status_code",
        "http_response.code",
        "http.response.status_code",
        "http.status_code",
        "status",
    ),
    Row(
        "response.bytes_in",
        "http.request.bytes",
        "traffic.bytes_out",
        "http.request.size",
        "network.bytes_read",
        "bytes_in",
    ),
    Row(
        "response.bytes_out",
        "http.response.bytes",
        "traffic.bytes_in",
        "http.response.size",
        "network.bytes_written",
        "bytes_out",
    ),
    Row(
        "response.duration_us",
        To("event.duration", _ns),
        To("duration", _ms),
        "gatebook.duration_us",
        To("duration", _ns),
        To("duration", _s),
    ),
    Row(
        "upstream.name",
        "gatebook.upstream.name",
        "dst_endpoint.svc_name",
        "gatebook.upstream.name",
        "gatebook.upstream.name",
        "app",
    ),
    Row(
        "upstream.address",
        To("destination.address", _host),
        To("dst_endpoint.ip", _host),
        "gatebook.upstream.address",
        To("network.destination.ip", _host),
        To("dest_ip", _host),
    ),
    Row(
        "upstream.status",
        "gatebook.upstream.status",
        "proxy_http_response.code",
        "gatebook.upstream.status",
        "gatebook.upstream.status",
        "",
    ),
    Row(
        "upstream.response_us",
        "gatebook.upstream.response_us",
        To("proxy_http_response.latency", _ms),
        "gatebook.upstream.response_us",
        "gatebook.upstream.response_us",
        To("response_time", _ms),
    ),
    Row("error_source", "error.type", "status_code", "error.type", "error.kind", "error_source"),
    Row(
        "error.detail",
        "error.code",
        "http_response.message",
        "gatebook.error.detail",
        "gatebook.error.detail",
        "error_code",
    ),
    Row("error.message", "error.message", "message", "gatebook.error.message", "error.message", ""),
    # -- how ----------------------------------------------------------------------------------------------
    Row(
        "tls.version", "tls.version", "tls.version", "tls.protocol.version", "gatebook.tls.version", "ssl_version"
    ),
    Row("tls.cipher", "tls.cipher", "tls.cipher", "tls.cipher", "gatebook.tls.cipher", "ssl_cipher"),
    Row("tls.group", "tls.curve", "unmapped.gatebook.tls_group", "tls.curve", "gatebook.tls.group", ""),
    Row("tls.sni", "tls.client.server_name", "tls.sni", "gatebook.tls.sni", "gatebook.tls.sni", ""),
    Row(
        "tls.certificate",
        To("tls.client.hash.sha256", str.upper),
        "unmapped.gatebook.certificate_sha256",
        To("tls.client.hash.sha256", str.upper),
        "gatebook.tls.certificate",
        "ssl_hash",
    ),
    # -- of other kinds -----------------------------------------------------------------------------------
    Row("admin.action", "event.action", "api.operation", "gatebook.action", "gatebook.admin.action", "command"),
    Row("admin.actor", "user.name", "actor.user.name", "user.name", "usr.name", "user"),
    Row(
        "alert.name",
        "rule.id",
        "unmapped.gatebook.alert",
        "security_rule.ruleset.name",
        "gatebook.alert",
        "signature",
    ),
    Row("system.event", "event.action", "api.operation", "gatebook.action", "gatebook.system.event", "command"),
    Row("detail", "gatebook.detail", "unmapped.gatebook.detail", "gatebook.detail", "gatebook.detail", "detail"),
    Row("node", "observer.name", "metadata.product.feature.name", "", "host", "dvc"),
    # -- the proof ----------------------------------------------------------------------------------------
    Row("original", "event.original", "raw_data", "", "gatebook.original", ""),
    Row("ledger", "gatebook.ledger", "unmapped.gatebook.ledger", "", "gatebook.ledger", "ledger"),
)


def facts(item: Item) -> dict[str, Any]:
    """What the table starts from: our own form of the item, and what follows from it."""
    known = plain(item)
    known["origin"] = item.id.rsplit("/", 1 if not item.id.endswith("/open") else 2)[0]
    known["index"] = item.index
    known["node"] = known["origin"].rpartition("/")[2]
    known["original"] = "\n".join(part["record"] for part in known["ledger"])
    match item.found:
        case Access():
            known |= _of_access(item.found)
        case Event(record=made):
            body = msgspec.to_builtins(made)
            detail = body.get("detail") or {}
            known["detail"] = msgspec.json.encode(detail).decode()
            known[item.kind] = {
                "action": body.get("action"),
                "actor": body.get("actor"),
                "name": body.get("alert"),
                "event": body.get("event"),
            }
        case Strange():
            pass
    return known


def _of_access(found: Access) -> dict[str, Any]:
    decision, error = found.decision, found.error
    denied = decision is not None and decision.verdict == "deny"
    known: dict[str, Any] = {
        "status": found.status,
        "outcome": _outcome(found),
        "action": None if decision is None else "blocked" if denied else "allowed",
        "reason": decision.reason if decision is not None else None,
        "throttled": decision is not None and decision.reason in ("limit_exceeded", "attempts_exceeded"),
    }
    if error is not None:
        known["error_source"] = error.source
    elif denied and decision is not None and decision.reason in REASONS:
        known["error_source"] = REASONS[decision.reason].source
    if found.request is not None:
        known["user_agent"] = found.request.headers.get("user-agent")
        known["query"] = "&".join(f"{name}={value}" for name, value in found.request.query.items()) or None
    if found.client is not None and found.client.address is not None:
        whole = "/" not in found.client.address and ("." in found.client.address or ":" in found.client.address)
        known["client_ip" if whole else "client_network"] = found.client.address
    return known


def _outcome(found: Access) -> Literal["success", "failure", "unknown"]:
    """Of what was asked for: a denial is a failure, and so is an answer that says so."""
    if found.decision is not None and found.decision.verdict == "deny":
        return "failure"
    if found.error is not None and found.error.detail == "outcome_unknown":
        return "unknown"
    if found.open or found.response is None or found.response.status is None:
        return "unknown" if found.error is None else "failure"
    return "success" if found.response.status < 400 and found.error is None else "failure"


class _Step(NamedTuple):
    """A cell of the table, its paths taken apart once."""

    ours: tuple[str, ...]
    folders: tuple[str, ...]
    name: str
    convert: Callable[[Any], Any] | None


def _step(ours: str, cell: str | To) -> _Step:
    name, convert = (cell, None) if isinstance(cell, str) else cell
    *folders, last = name.split(".")
    return _Step(tuple(ours.split(".")), tuple(folders), last, convert)


_STEPS: Final = {
    schema: tuple(_step(row.ours, cell) for row in TABLE if (cell := getattr(row, schema)))
    for schema in Row._fields
    if schema != "ours"
}


def document(item: Item, schema: Schema, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """The item in that schema's words; what is not known is left out. `known`: its facts, if they are at hand."""
    if schema == "gatebook":
        return plain(item)
    known = facts(item) if known is None else known
    made: dict[str, Any] = {}
    for ours, folders, name, convert in _STEPS[schema]:
        value: Any = known
        for each in ours:
            value = value.get(each) if isinstance(value, dict) else None
        if value is None or value == [] or value == {}:
            continue
        into = made
        for each in folders:
            into = into.setdefault(each, {})
        into[name] = value if convert is None else convert(value)
    _CONSTANTS[schema](made, known, item)
    return made


def _get(known: dict[str, Any], path: str) -> Any:
    value: Any = known
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _put(made: dict[str, Any], path: str, value: Any) -> None:
    *folders, last = path.split(".")
    for name in folders:
        made = made.setdefault(name, {})
    made[last] = value


# -- what each schema wants besides ------------------------------------------------------------------------
def _ecs(made: dict[str, Any], known: dict[str, Any], item: Item) -> None:
    _put(made, "ecs.version", ECS_VERSION)
    _put(made, "event.module", "gatebook")
    _put(made, "event.dataset", f"gatebook.{item.kind}")
    _put(made, "event.kind", "alert" if item.kind == "alert" else "event")
    for name, value in (
        ("type", "proxy"),
        ("vendor", "gatebook"),
        ("product", "gatebook"),
        ("version", __version__),
    ):
        _put(made, f"observer.{name}", value)
    related = {
        "ip": [known["client_ip"]] if known.get("client_ip") else [],
        "user": [who] if (who := _get(known, "identity.subject")) else [],
        "hosts": [host] if (host := _get(known, "request.host")) else [],
    }
    for name, values in related.items():
        if values:
            _put(made, f"related.{name}", values)
    if item.access is not None:
        _put(made, "event.category", ["web", "api"])
        verdict = {"allowed": ["allowed"], "blocked": ["denied"]}.get(known.get("action") or "", ["error"])
        _put(made, "event.type", ["access", *verdict])
        if _get(known, "tls.version"):
            _put(made, "tls.version_protocol", "tls")
    elif item.kind == "admin":
        _put(made, "event.category", ["configuration"])
        _put(made, "event.type", ["change"])


def _ocsf(made: dict[str, Any], known: dict[str, Any], item: Item) -> None:
    product = {"name": "gatebook", "vendor_name": "gatebook", "version": __version__}
    made.setdefault("metadata", {}).update(
        version=OCSF_VERSION, product=product, profiles=["security_control", "host"]
    )
    class_uid, activity = 6003, 99
    made["severity_id"] = 1
    if item.access is not None:
        class_uid = 4002
        activity = _OCSF_METHODS.get(str(_get(known, "request.method")), 99)
        denied = known.get("action") == "blocked"
        made["action_id"] = {"allowed": 1, "blocked": 2}.get(known.get("action") or "", 0)
        made["action"] = {1: "Allowed", 2: "Denied", 0: "Unknown"}[made["action_id"]]
        made["disposition_id"] = (
            14 if known.get("throttled") else 26 if denied and known["status"] == 401 else 2 if denied else 1
        )
        made["severity_id"] = (
            2 if denied else 3 if known["outcome"] == "failure" and known["status"] in (502, 503, 504) else 1
        )
        made["status_id"] = {"success": 1, "failure": 2, "unknown": 0}[known["outcome"]]
        made.setdefault("src_endpoint", {})
        if "http_response" in made and "code" not in made["http_response"]:
            made["unmapped"].setdefault("gatebook", {})["error_detail"] = made.pop("http_response").get("message")
        if "proxy_http_response" in made and "code" not in made["proxy_http_response"]:
            made.pop("proxy_http_response")
    else:
        made.setdefault("actor", {}).setdefault("app_name", "gatebook")
        made.setdefault("api", {}).setdefault("operation", item.kind)
        made["src_endpoint"] = {"name": known["node"]}
        made["severity_id"] = {"low": 2, "medium": 3, "high": 4}.get(str(known.get("severity")), 1)
    made |= {
        "category_uid": class_uid // 1000,
        "class_uid": class_uid,
        "activity_id": activity,
        "type_uid": class_uid * 100 + activity,
    }


def _otel(made: dict[str, Any], known: dict[str, Any], _item: Item) -> None:
    method = _get(known, "request.method")
    if method is not None and method not in _OTEL_METHODS:
        _put(made, "http.request.method_original", method)
    if _get(known, "tls.version"):
        _put(made, "tls.protocol.name", "tls")


def _datadog(made: dict[str, Any], known: dict[str, Any], item: Item) -> None:
    made |= {
        "ddsource": "gatebook",
        "hostname": known["node"],
        "status": level(item, known),
        "message": line(item, known),
    }
    made.pop("host", None)


def _cim(made: dict[str, Any], known: dict[str, Any], item: Item) -> None:
    made["vendor_product"] = "gatebook"
    if item.access is None:
        made["severity"] = known.get("severity") or "informational"


_CONSTANTS: Final[dict[str, Callable[[dict[str, Any], dict[str, Any], Item], None]]] = {
    "ecs": _ecs,
    "ocsf": _ocsf,
    "otel": _otel,
    "datadog": _datadog,
    "cim": _cim,
}


def level(item: Item, known: dict[str, Any]) -> Literal["info", "warn", "error"]:
    """A denial is a warning, a fault is an error."""
    if item.kind == "alert":
        return "error" if known.get("severity") == "high" else "warn"
    if known.get("action") == "blocked":
        return "warn"
    return "error" if known.get("error_source") in ("gateway", "guard", "upstream") else "info"


def line(item: Item, known: dict[str, Any]) -> str:
    """The item in a line for people."""
    if item.access is None:
        what = next((v for v in (known.get(item.kind) or {}).values() if v), item.kind)
        return f"{item.kind} {what}"
    request, status = known.get("request") or {}, known.get("status")
    who = _get(known, "identity.subject") or "nobody known"
    action = known.get("action") or "refused by the gateway"
    said = f"{request.get('method', '-')} {request.get('path', '-')} {action}"
    return f"{said} {status or '-'} for {who}" + (f" ({known['reason']})" if known.get("reason") else "")
