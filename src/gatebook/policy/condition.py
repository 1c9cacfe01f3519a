"""`when`: one CEL expression of type bool over what is known of a request.

In: the expression's text when the configuration is compiled, `Facts` and the route's match at each
request. Out: True, False, or None for "could not be evaluated", which never allows. A variable that has
no value (a token without a client, an anonymous caller's subject) is left unbound, so that a condition
on it fails instead of comparing with an empty text. Pure; the variables are listed in docs/policy.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec
from cel_expr_python import cel

from gatebook.config.model import Route
from gatebook.identity.types import Identity
from gatebook.policy.route import Match

MAX_EXPRESSION_BYTES = 4 << 10
MAX_QUERY_PAIRS = 64

_TEXTS = cel.Type.Map(cel.Type.STRING, cel.Type.STRING)
_LIST = cel.Type.List(cel.Type.STRING)
VARIABLES: dict[str, Any] = {
    "identity.provider": cel.Type.STRING,
    "identity.method": cel.Type.STRING,
    "identity.subject": cel.Type.STRING,
    "identity.client": cel.Type.STRING,
    "identity.roles": _LIST,
    "identity.groups": _LIST,
    "identity.scopes": _LIST,
    "identity.claims": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
    "identity.token_id": cel.Type.STRING,
    "identity.issued_at": cel.Type.TIMESTAMP,
    "identity.bound": cel.Type.BOOL,
    "request.id": cel.Type.STRING,
    "request.method": cel.Type.STRING,
    "request.path": cel.Type.STRING,
    "request.query": _TEXTS,
    "request.headers": _TEXTS,
    "request.host": cel.Type.STRING,
    "request.protocol": cel.Type.STRING,
    "route.name": cel.Type.STRING,
    "route.path": cel.Type.STRING,
    "path": _TEXTS,
    "client.address": cel.Type.STRING,
    "client.port": cel.Type.INT,
    "tls.version": cel.Type.STRING,
    "tls.cipher": cel.Type.STRING,
    "tls.group": cel.Type.STRING,
    "tls.sni": cel.Type.STRING,
    "tls.certificate": cel.Type.STRING,
    "now": cel.Type.TIMESTAMP,
}
_environment = cel.NewEnv(variables=VARIABLES)
_PATH_NAME = re.compile(r"""(?<![\w.])path\s*(?:\.\s*([A-Za-z_]\w*)|\[\s*["']([^"']*)["']\s*\])""")
_ROLE_NAME = re.compile(r"""(["'])((?:(?!\1)[^\\])*)\1\s+in\s+identity\s*\.\s*roles\b""")
_LITERAL = re.compile(r"""\"(?:\\.|[^"\\])*\"|'(?:\\.|[^'\\])*'""")
_IDENTITY = re.compile(r"(?<![\w.])identity\s*\.")


class Facts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the gateway says of a request, in the record's own forms ("2", "1.3").

    `headers` has lower-case names; of a header sent twice the values are joined (see `joined`).
    """

    id: str
    method: str
    host: str
    protocol: str
    headers: Mapping[str, str]
    address: str
    port: int = 0
    tls_version: str | None = None
    tls_cipher: str | None = None
    tls_group: str | None = None
    tls_sni: str | None = None
    tls_certificate: str | None = None  # SHA-256 of the client's, hex


class Read(NamedTuple):
    """An expression's value, or why it has none, in CEL's own words."""

    value: Any
    error: str | None


class Condition(NamedTuple):
    """A compiled expression and the variables its text can possibly name.

    `constant`: its value where it is the same for all requests, as far as CEL can tell without any.
    """

    program: Any
    names: tuple[str, ...]
    constant: bool | None

    def holds(self, match: Match, identity: Identity | None, facts: Facts, now: float) -> bool | None:
        """None when the expression fails: a missing key, a wrong type, too much work."""
        try:
            value = self.program.eval(data=_values(self.names, match, identity, facts, now))
            result = value.value()
        except Exception:  # the C++ runtime raises RuntimeError, ValueError or TypeError, as it pleases
            return None
        return result if result is True or result is False else None

    def read(self, match: Match, identity: Identity | None, facts: Facts, now: float) -> Read:
        """The value of any expression, for people: slower than `holds`, and never what decides."""
        try:
            value = self.program.eval(data=_values(self.names, match, identity, facts, now))
            found = value.plain_value()
        except Exception as error:  # as in `holds`
            return Read(None, _words(str(error)))
        return Read(None, _words(str(found))) if value.type() == cel.Type.ERROR else Read(found, None)


def _words(error: str) -> str:
    """CEL's words, without its own codes: `NOT_FOUND: Key not found in map : "b"` -> `no key "b"`."""
    words = error.partition(": ")[2] if error.partition(": ")[0].isupper() else error
    words = re.sub(r'^No value with name "([^"]*)" found in Activation$', r"\1 is not there", words)
    return re.sub(r"^Key not found in map : ", "no key ", words)


@lru_cache(maxsize=4096)
def compile_condition(text: str) -> Condition:
    """Raises ValueError, with CEL's own words and position, unless `text` is an expression of type bool."""
    condition = compile_value(text)
    kind = condition.program.return_type()
    if kind not in (cel.Type.BOOL, cel.Type.DYN):  # what is dynamic is checked at each request
        raise ValueError(f"is of type {kind.name()}")
    return condition


def compile_in(environment: Any, text: str) -> Any:
    """A program in that environment. Raises ValueError, in CEL's own words."""
    if len(text.encode()) > MAX_EXPRESSION_BYTES:
        raise ValueError(f"longer than {MAX_EXPRESSION_BYTES} bytes")
    try:
        return environment.compile(text)
    except RuntimeError as error:
        words = str(error).removeprefix("INVALID_ARGUMENT: ").removesuffix(" [INVALID_ARGUMENT]")
        raise ValueError(words.removeprefix("ERROR: ").replace("<input>:", "").strip()) from None


def compile_value(text: str) -> Condition:
    """An expression of any type. Raises ValueError as `compile_condition` does."""
    program = compile_in(_environment, text)
    # A variable can only be named by spelling its last word, so this leaves out none that is used.
    names = tuple(name for name in VARIABLES if name.rpartition(".")[2] in text)
    return Condition(program, names, _constant(program))


def _constant(program: Any) -> bool | None:
    """Without variables, CEL answers only where no variable could change the answer."""
    try:
        result = program.eval(data={}).value()
    except Exception:
        return None
    return result if result is True or result is False else None


def unknown_parameters(text: str, params: frozenset[str]) -> list[str]:
    """Names after `path.` or in `path["…"]` that the route's template does not have."""
    named = {first or second for first, second in _PATH_NAME.findall(text)}
    return sorted(named - params)


def unknown_roles(text: str, known: Collection[str]) -> list[str]:
    """Names in `"…" in identity.roles` that are not declared."""
    return sorted({found[2] for found in _ROLE_NAME.finditer(text)} - set(known))


def names_identity(text: str) -> bool:
    return _IDENTITY.search(_LITERAL.sub('""', text)) is not None


def joined(headers: list[tuple[str, str]]) -> dict[str, str]:
    """Header fields as a map. Of a name sent twice the values are joined with ", " (RFC 9110, 5.2)."""
    result: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()
        result[name] = f"{result[name]}, {value}" if name in result else value
    return result


def query_is_clear(query: str) -> bool:
    """Whether conditions can read it as texts by name."""
    if query.isascii() and "%" not in query and query.count("&") < MAX_QUERY_PAIRS:
        return True
    found = _query(query)
    return found is not None and _are_texts(found)


def _are_texts(values: Mapping[str, str]) -> bool:
    """Whether CEL takes them: bytes that were no UTF-8 are no text."""
    try:
        for name, value in values.items():
            name.encode()
            value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _query(query: str) -> dict[str, str] | None:
    """A query as a map, names sent twice joined; None when it cannot be read as one without doubt."""
    if not query:
        return {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_PAIRS)
    except ValueError:
        return None
    result: dict[str, str] = {}
    for name, value in pairs:
        result[name] = f"{result[name]}, {value}" if name in result else value
    return result


def _values(
    names: tuple[str, ...], match: Match, identity: Identity | None, facts: Facts, now: float
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in names:
        value = _value(name, match, match.route, identity, facts, now)
        if value is not None:
            values[name] = value
    return values


def _value(name: str, match: Match, route: Route, identity: Identity | None, facts: Facts, now: float) -> Any:
    scope, _, field = name.partition(".")
    if scope == "identity":
        return None if identity is None else _of_identity(field, identity)
    if scope == "request":
        if field == "headers":
            return dict(facts.headers)
        if field == "query":
            return _query(match.query)
        return match.path if field == "path" else getattr(facts, field)
    if scope == "client":
        return facts.address if field == "address" else facts.port
    if scope == "tls":
        return getattr(facts, "tls_" + field)
    if scope == "route":
        return getattr(route, field)
    return match.params if scope == "path" else datetime.fromtimestamp(now, UTC)


def _of_identity(field: str, identity: Identity) -> Any:
    value = getattr(identity, field)
    if field == "bound":
        return value is not None
    if isinstance(value, tuple):
        return list(value)
    if field == "issued_at":
        return None if value is None else datetime.fromtimestamp(value, UTC)
    return dict(value) if field == "claims" else value
