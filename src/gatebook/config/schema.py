"""The configuration described: a JSON Schema for editors, and the reference in docs/config.md.

In: nothing but the model. Out: text, the same bytes every time. The schema takes what the loader takes
in shape (units as text too); whether names are defined elsewhere in the file is for the loader to say.
The reference is made from the schema. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from gatebook.config.model import Configuration

FILE_NAME = "gatebook.schema.json"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_DURATIONS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1), ("ms", 0.001))
_SIZES = (("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10))

Schema = dict[str, Any]


def schema() -> Schema:
    """JSON Schema, draft 2020-12, of gatebook.yaml."""
    made = Configuration.model_json_schema(mode="validation")
    definitions: Schema = made["$defs"]
    rate = definitions["Rate"]  # as text, or spelled out
    text = rate.pop("anyOf")
    definitions["Rate"] = {"description": rate["description"], "anyOf": [*text, rate]}
    for node in (made, *definitions.values()):
        _clean(node)
    return {"$schema": _DIALECT, "title": "gatebook.yaml", **made}


def schema_text() -> str:
    """The schema as JSON, as `gatebook init` writes it beside the configuration."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _clean(node: Schema) -> None:
    """Takes out the titles, which repeat the keys, and writes defaults as a person would."""
    node.pop("title", None)
    for value in node.get("properties", {}).values():
        value.pop("title", None)
        if "patternProperties" in value:  # so that a name of another shape is an error, too
            (pattern, inner), *_ = value.pop("patternProperties").items()
            inner.pop("discriminator", None)  # OpenAPI's, not JSON Schema's
            value["propertyNames"]["pattern"] = pattern
            value["additionalProperties"] = inner
        if isinstance(value.get("default", {}), dict) or value["default"] is None:
            value.pop("default", None)
        elif isinstance(value.get("default"), (int, float)) and _is_text_or_number(value):
            is_size = "integer" in value["type"]
            value["default"] = _size(value["default"]) if is_size else duration(value["default"])
    for branch in node.get("anyOf", []):
        _clean(branch)


def _is_text_or_number(value: Schema) -> bool:
    return isinstance(value.get("type"), list)


def duration(seconds: float) -> str:
    """As a person would write it."""
    for unit, size in _DURATIONS:
        if seconds >= size and (seconds / size).is_integer():
            return f"{int(seconds / size)}{unit}"
    return f"{seconds:g}s"


def _size(count: int) -> str | int:
    for unit, size in _SIZES:
        if count and count % size == 0:
            return f"{count // size}{unit}"
    return count


def reference() -> str:
    """docs/config.md."""
    whole = schema()
    lines = [
        "# The configuration, key by key",
        "",
        "Made from the program by `gatebook config docs`; change the model, not this file.",
        "",
        "`gatebook.yaml` is YAML 1.2 in UTF-8: one document, no tags; anchors and `<<` merges may be used. A key",
        "that is not listed here is an error, never ignored. Relative paths count from the file's own folder.",
        "Durations are written `500ms`, `15s`, `10m`, `1h`, `90d`, `1w`, `1y` or as a number of seconds; sizes",
        "`64k`, `10m`, `1g` or as a number of bytes; rates `100/minute` (`second`, `minute`, `hour`, `day`).",
        "`gatebook check` reports everything that is wrong with a file at once, each with line and column, and",
        "`gatebook config schema` prints a JSON Schema that editors complete and check from.",
        "",
    ]
    for heading, node in _sections(whole, whole, ""):
        lines += [f"## {heading}", "", node.get("description", "").replace("\n", " "), ""]
        lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
        required = node.get("required", [])
        for key, value in node["properties"].items():
            default = "**required**" if key in required else _default(value)
            kind = _kind(whole, value)
            lines.append(f"| `{key}` | {kind} | {default} | {_cell(value.get('description', ''))} |")
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _sections(whole: Schema, node: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Each mapping with keys of its own, with the dotted key it stands under."""
    yield (f"`{path}`" if path else "Top level"), node
    for key, value in node["properties"].items():
        inner = f"{path}.{key}" if path else key
        for place, found in _mappings(whole, value, inner):
            yield from _sections(whole, found, place)


def _mappings(whole: Schema, value: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """The mappings that `value` may be or hold, with their places."""
    value = _resolved(whole, value)
    if value.get("type") == "array":
        yield from _mappings(whole, value["items"], f"{path}[]")
    elif isinstance(value.get("additionalProperties"), dict):
        yield from _mappings(whole, value["additionalProperties"], f"{path}.<name>")
    elif "properties" in value:
        kind = value["properties"].get("type", {}).get("const")
        yield (f"{path}: {{type: {kind}}}" if kind else path), value
    for branch in value.get("oneOf", []) + value.get("anyOf", []):
        yield from _mappings(whole, branch, path)


def _resolved(whole: Schema, value: Schema) -> Schema:
    if "$ref" in value:
        found: Schema = whole["$defs"][value["$ref"].rpartition("/")[2]]
        return found
    return value


def _kind(whole: Schema, value: Schema) -> str:
    """What may be written, in a few words."""
    value = _resolved(whole, value)
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return ", ".join(f"`{v}`" for v in value["enum"])
    branches = [b for b in value.get("anyOf", []) + value.get("oneOf", []) if b.get("type") != "null"]
    if branches:
        words = list(dict.fromkeys(_kind(whole, branch) for branch in branches))
        return "rate" if words == ["text", "mapping"] else " or ".join(words)
    if _is_text_or_number(value):
        return "size" if "integer" in value["type"] else "duration"
    if value.get("type") == "array":
        return f"list of {_kind(whole, value['items'])}"
    if isinstance(value.get("additionalProperties"), dict):
        return "mapping by name"
    words_of = {"string": "text", "integer": "number", "number": "number", "boolean": "`true`, `false`"}
    return "path" if value.get("format") == "path" else words_of.get(str(value.get("type")), "mapping")


def _default(value: Schema) -> str:
    default = value.get("default")
    if default in (None, []):
        return ""
    if isinstance(default, list):
        return ", ".join(f"`{v}`" for v in default)
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
