"""pydantic's validation errors -> problems with a place, a dotted key, what was found and expected.

In: a ValidationError and the Source it came from. Out: problems, in the file's order. Pydantic's
locations hold more than keys (the tags of unions, `[key]`); a walk along the model takes them out, and
finds the model whose fields an unknown key is compared with. A model's own ValueErrors say `expected …`,
or `field: …` to point at one of its fields. Never prints the words of a union's other branches. Pure.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from gatebook.config.model import Configuration, Provider
from gatebook.config.schema import duration
from gatebook.config.source import Location, Source, dotted, shown
from gatebook.config.value import NAME
from gatebook.errors import Problem

_KINDS = {
    "string_type": "text; numbers and such in quotes",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "path_type": "a file's path",
    "is_instance_of": "a file's path",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than": ("gt", "more than {}"),
    "greater_than_equal": ("ge", "at least {}"),
    "less_than": ("lt", "less than {}"),
    "less_than_equal": ("le", "at most {}"),
}
_PATTERNS = {
    NAME: "a name of lower-case letters, digits, '-', '_', '.', of at most 64 characters",
}


def explain(error: ValidationError, source: Source, root: type[BaseModel] = Configuration) -> list[Problem]:
    """One problem for each error of validating as `root`, ordered by line and column."""
    errors = [(e, _walk(e["loc"], root)) for e in error.errors(include_url=False)]
    meant = {place for e, walked in errors if e["type"] == "extra_forbidden" and (place := _meant(walked))}
    found = [
        _problem(e, walked, source)
        for e, walked in errors
        if not (e["type"] == "missing" and walked.location in meant)
    ]
    return sorted(found, key=lambda p: (p.line, p.column))


def _meant(unknown: _Walked) -> Location | None:
    """Where an unknown key would stand if it were spelt right: that key is then not reported as missing."""
    close = _closest(str(unknown.location[-1]), unknown.owner.model_fields) if unknown.owner else None
    return (*unknown.location[:-1], close) if close else None


def unknown_keys(error: ValidationError) -> list[Location]:
    """Where the keys stand that no model knows, deepest first: without them more can be checked."""
    where = [
        _walk(e["loc"], Configuration).location
        for e in error.errors(include_url=False)
        if e["type"] == "extra_forbidden"
    ]
    return sorted(where, key=len, reverse=True)


def wrong_places(error: ValidationError) -> list[Location]:
    """Where each error stands, or what is missing should; those of the file as a whole are left out."""
    found = []
    for e in error.errors(include_url=False):
        location, _, model = _walk(e["loc"], Configuration)
        if e["type"] == "value_error" and model is not None:
            name = str(e["ctx"]["error"]).partition(": ")[0]
            location = (*location, name) if name in model.model_fields else location
        if location:
            found.append(location)
    return sorted(found, key=len, reverse=True)


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean x?`, or nothing when nothing is near."""
    close = _closest(name, known)
    return f"did you mean `{close}`?" if close else ""


def _closest(name: str, known: Iterable[str]) -> str | None:
    found = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return found[0] if found and not name.replace(".", "").isdigit() else None


def _problem(error: ErrorDetails, walked: _Walked, source: Source) -> Problem:
    location, owner, model = walked
    kind, context = error["type"], error.get("ctx", {})
    description = _description(owner, location[-1]) if location else ""
    if kind == "extra_forbidden":
        name = str(location[-1])
        known = sorted(owner.model_fields) if owner else []
        hint = nearest(name, known)
        expected = "" if hint else _one_of(known)
        return source.problem(source.key_at(location), dotted(location), "unknown key", expected, hint)
    if kind == "missing":
        place = source.key_at(location[:-1])
        return source.problem(place, dotted(location), "missing", description)
    if error["loc"][-1] == "[key]":
        place = source.key_at(location)
        return source.problem(
            place, dotted(location), f"found {shown(error['input'])}", _expected(error, description)
        )
    if kind == "union_tag_not_found":
        location = (*location, "type")
        return source.problem(source.key_at(location), dotted(location), "missing", _one_of(PROVIDERS))
    if kind == "union_tag_invalid":
        location = (*location, "type")
        return _found(source, location, context["tag"], _one_of(PROVIDERS), nearest(context["tag"], PROVIDERS))
    if kind == "value_error":
        return _said(error, location, model, source)
    hint = ""
    if kind == "literal_error" and isinstance(error["input"], str):
        hint = nearest(error["input"], re.findall(r"'([^']*)'", context["expected"]))
    elif kind in ("literal_error", "string_type") and isinstance(error["input"], (int, float)):
        hint = "put it in quotes" if f"'{error['input']}'" in context.get("expected", "") else ""
    value: Any = error["input"]
    if kind in _BOUNDS and isinstance(value, float):
        expected = _expected(error, description)
        return source.problem(source.value_at(location), dotted(location), f"found {duration(value)}", expected)
    return _found(source, location, value, _expected(error, description), hint)


def _found(source: Source, location: Location, value: object, expected: str, hint: str = "") -> Problem:
    return source.problem(source.value_at(location), dotted(location), f"found {shown(value)}", expected, hint)


def _said(error: ErrorDetails, location: Location, model: type[BaseModel] | None, source: Source) -> Problem:
    """A ValueError of the model's own: `expected x`, `expected x, found y`, `field: …`, or a plain statement."""
    text = str(error["ctx"]["error"])
    value: Any = error["input"]
    name, colon, rest = text.partition(": ")
    if colon and model and name in model.model_fields:
        location, text = (*location, name), rest
        value = value.get(name) if isinstance(value, dict) else value
    if not text.startswith("expected "):
        return source.problem(source.value_at(location), dotted(location), text)
    expected, _, found = text.removeprefix("expected ").partition(", found ")
    return source.problem(source.value_at(location), dotted(location), f"found {found or shown(value)}", expected)


def _expected(error: ErrorDetails, description: str) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in _BOUNDS:
        name, text = _BOUNDS[kind]
        is_duration = isinstance(error["input"], float)  # no other key becomes one
        return text.format(duration(context[name]) if is_duration else _plain(context[name]))
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"]) or description or f"text that matches {context['pattern']}"
    if kind == "literal_error":
        none = context["expected"] == "'none'"  # a route's identity that is no list
        return "a list of identity providers' names, or none" if none else str(context["expected"])
    if kind == "too_short":
        return f"at least {context['min_length']} item{'s' if context['min_length'] > 1 else ''}"
    return _KINDS.get(kind, error["msg"])


def _one_of(names: Iterable[str]) -> str:
    return "one of " + ", ".join(names)


def _description(model: type[BaseModel] | None, name: str | int) -> str:
    """What a missing key would hold, in the model's own words."""
    field = model.model_fields.get(str(name)) if model else None
    return field.description or "" if field else ""


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


class _Walked(NamedTuple):
    location: Location  # keys and indices only, as in the file
    owner: type[BaseModel] | None  # the model that the last part is, or should be, a field of
    model: type[BaseModel] | None  # the model that the location leads to, if it leads to one


def _walk(loc: Iterable[str | int], root: type[BaseModel]) -> _Walked:
    location: Location = ()
    owner: type[BaseModel] | None = None
    kind: Any = root
    for part in loc:
        tagged = _branches(kind)
        if part == "[key]":
            break
        if tagged:
            kind = tagged.get(str(part))  # this part names a branch; it is no key of the file
            continue
        location = (*location, part)
        owner = _model(kind)
        kind = _inner(kind, part)
    return _Walked(location, owner, _model(kind))


def _bare(kind: Any) -> Any:
    """Without Annotated and without `| None`."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        members = [a for a in get_args(kind) if a is not type(None)]
        if len(members) == 1:
            return _bare(members[0])
    return kind


def _model(kind: Any) -> type[BaseModel] | None:
    bare = _bare(kind)
    return bare if isinstance(bare, type) and issubclass(bare, BaseModel) else None


def _inner(kind: Any, part: str | int) -> Any:
    """The type of what stands under `part` of a `kind`; None when there is no such thing."""
    bare, model = _bare(kind), _model(kind)
    if model is not None:
        field = model.model_fields.get(str(part))
        return field.annotation if field else None
    return get_args(bare)[-1] if get_origin(bare) in (list, dict) else None


def _branches(kind: Any) -> dict[str, Any]:
    """The branches of a tagged union by their tags; empty for anything else."""
    bare = _bare(kind)
    if get_origin(bare) not in (Union, types.UnionType):
        return {}
    return {_tag(member): member for member in get_args(bare)}


def _tag(member: Any) -> str:
    for extra in get_args(member)[1:] if get_origin(member) is Annotated else ():
        if isinstance(extra, Tag):
            return extra.tag
    model = _model(member)
    return str(get_args(model.model_fields["type"].annotation)[0]) if model else ""


PROVIDERS = sorted(_branches(Provider))
