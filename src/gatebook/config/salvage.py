"""What can still be checked of a configuration that holds wrong values: all but them.

In: a file's data, and validation. Out: a configuration with harmless values in the places of the wrong
ones, and those places: what is found there, or follows from them, is nobody's mistake. So `gatebook check`
shows a missing certificate beside a misspelt duration, instead of one after the other has been put right.
The configuration is for looking at alone; never to be run, reloaded or digested. Pure.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from gatebook.config.explain import wrong_places
from gatebook.config.model import Configuration
from gatebook.config.source import Location

_NEVER = {"name": "stand-in", "when": "false"}
_LIMIT = {"name": "stand-in", "per": "route", "rate": "1/second"}
_ENTRIES: dict[str, Any] = {
    "listen": {"address": "127.0.0.1:1"},
    "identity": {"type": "api_key"},
    "upstreams": {"url": "http://127.0.0.1:1"},
    "roles": {},
    "routes": {"name": "stand-in", "path": "/", "methods": ["GET"], "upstream": "stand-in", "identity": "none"},
}
_MISSING: dict[str, Any] = {
    "name": "stand-in",
    "listen": [_ENTRIES["listen"]],
    "upstreams": {"stand-in": _ENTRIES["upstreams"]},
    "routes": [_ENTRIES["routes"]],
}


def salvage(
    data: dict[str, Any], validate: Callable[[dict[str, Any]], Configuration]
) -> tuple[Configuration | None, list[Location]]:
    """None where nothing sensible is left; a file of another version is not looked into at all."""
    if data.get("version") != 1:
        return None, []
    data = copy.deepcopy(data)
    places: list[Location] = []
    # First without the wrong value, if it has a default; then without what it is part of; then without all.
    for put in (_drop, _replace, _clear):
        try:
            return validate(data), places
        except ValidationError as error:
            for location in wrong_places(error):
                places.append(put(data, location))
    try:
        return validate(data), places
    except ValidationError:
        return None, places


def _at(data: Any, location: Location) -> Any:
    """None where there is nothing, or no longer."""
    for part in location:
        if isinstance(data, dict):
            data = data.get(str(part))
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            return None
    return data


def _entry(location: Location) -> Location:
    """The route, rule, limit, listener, … that something is part of; else the top-level key."""
    if location[0] == "routes" and len(location) > 3 and location[2] in ("deny", "allow", "limits"):
        return location[:4]
    return location[: 2 if location[0] in _ENTRIES else 1]


def _drop(data: dict[str, Any], location: Location) -> Location:
    entry = _entry(location)
    while len(location) > len(entry) and isinstance(location[-1], int):
        location = location[:-1]  # a list as a whole, so that no other item gets another number
    holder = _at(data, location[:-1])
    if len(location) > len(entry) and isinstance(holder, dict):
        holder.pop(str(location[-1]), None)
    return location


def _replace(data: dict[str, Any], location: Location) -> Location:
    entry = _entry(location)
    holder: Any = _at(data, entry[:-1])
    key: Any = entry[-1]
    if len(entry) == 4:
        value = _LIMIT if entry[2] == "limits" else _NEVER
        value = value | {"name": f"stand-in-{key}"}
    elif len(entry) == 2:
        value = _ENTRIES[str(entry[0])]
        value = value | {"name": f"stand-in-{key}", "path": f"/stand-in-{key}"} if entry[0] == "routes" else value
    else:
        return _clear(data, location)
    if isinstance(holder, dict) or (isinstance(holder, list) and isinstance(key, int) and key < len(holder)):
        holder[key] = copy.deepcopy(value)
    return entry


def _clear(data: dict[str, Any], location: Location) -> Location:
    top = str(location[0])
    data.pop(top, None)
    if top in _MISSING:
        data[top] = copy.deepcopy(_MISSING[top])
    return (top,)
