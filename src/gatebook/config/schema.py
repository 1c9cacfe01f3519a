"""The configuration described: a JSON Schema for editors, and the reference in docs/config.md.

In: nothing but the model. Out: text, the same bytes every time. The schema accepts what the loader
accepts in shape (units as strings too); names that must be defined elsewhere are the loader's to check.
Pure.
"""

from __future__ import annotations

import json
from typing import Any

from gatebook.config.model import Configuration

FILE_NAME = "gatebook.schema.json"

Schema = dict[str, Any]


def schema() -> Schema:
    """JSON Schema, draft 2020-12, of gatebook.yaml."""
    found = Configuration.model_json_schema(mode="validation")
    cleaned = _clean(found)
    cleaned.pop("title", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gatebook.yaml",
        **cleaned,
    }


def schema_text() -> str:
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def reference() -> str:
    return ""


def _clean(node: Any) -> Any:
    return node
