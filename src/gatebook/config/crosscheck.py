"""What pydantic cannot see: names that must be defined elsewhere in the file, or must not stand twice.

In: a Source, whose data may be of any shape (so that these problems are shown beside pydantic's). Out:
problems. What is not of the expected shape is passed over here: it is already a problem there. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

from gatebook.config.explain import nearest
from gatebook.config.source import Location, Source, dotted, shown
from gatebook.errors import Problem

_EFFECTS = ("deny", "allow")


def crosscheck(source: Source) -> list[Problem]:
    """All of them, in no particular order."""
    data = source.data
    return [
        *_references(source, data),
        *_unique(source, _texts(data, ("routes",), "name"), "route"),
        *_unique(source, _texts(data, ("grants",), "role"), "grant of role", "each role once"),
        *_names_within_routes(source, data),
        *_roles(source, data),
        *_addresses(source, data),
        *_provider_urls(source, data),
        *_portal(source, data),
        *_bindings(source, data),
        *_one_time(source, data),
    ]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _routes(data: Any) -> Iterator[tuple[Location, dict[str, Any]]]:
    for number, route in enumerate(_list(_mapping(data).get("routes"))):
        yield ("routes", number), _mapping(route)


def _texts(holder: Any, where: Location, name: str) -> Iterator[tuple[Location, str]]:
    """The texts under `name` of each mapping in the list at `where[-1]` of `holder`."""
    for number, item in enumerate(_list(_mapping(holder).get(str(where[-1])))):
        text = _mapping(item).get(name)
        if isinstance(text, str):
            yield (*where, number, name), text


def _references(source: Source, data: Any) -> Iterator[Problem]:
    upstreams = _mapping(data).get("upstreams")
    providers = _mapping(data).get("identity", {})
    for where, route in _routes(data):
        upstream = route.get("upstream")
        if isinstance(upstream, str) and isinstance(upstreams, dict) and upstream not in upstreams:
            yield _undefined(source, (*where, "upstream"), "upstream", upstream, list(upstreams))
        identity = route.get("identity")
        for number, name in enumerate(_list(identity)):
            location = (*where, "identity", number)
            if isinstance(name, str) and isinstance(providers, dict) and name not in providers:
                yield _undefined(source, location, "identity provider", name, list(providers))


def _undefined(source: Source, location: Location, what: str, name: str, known: list[str]) -> Problem:
    hint = nearest(name, known)
    expected = "" if hint else "one of " + ", ".join(sorted(known)[:20]) if known else f"an {what} defined above"
    message = f"no {what} is called {shown(name)}"
    return source.problem(source.value_at(location), dotted(location), message, expected, hint)


def _unique(
    source: Source, names: Iterator[tuple[Location, str]], what: str, wanted: str = "a name of its own"
) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for location, name in names:
        place = source.value_at(location)
        if name in first:
            message = f"a second {what} {shown(name)}"
            expected = f"{wanted}; the first is in line {first[name]}"
            yield source.problem(place, dotted(location), message, expected)
        first.setdefault(name, place[0])


def _names_within_routes(source: Source, data: Any) -> Iterator[Problem]:
    for where, route in _routes(data):
        rules = chain(*(_texts(route, (*where, effect), "name") for effect in _EFFECTS))
        yield from _unique(source, rules, "rule")
        yield from _unique(source, _texts(route, (*where, "limits"), "name"), "limit")


def _roles(source: Source, data: Any) -> Iterator[Problem]:
    """Where roles are declared, each that is named must be among them, and none may include itself."""
    declared = _mapping(_mapping(data).get("roles"))
    if not declared:
        return
    places = [
        (*where, effect, number, "roles")
        for where, route in _routes(data)
        for effect in _EFFECTS
        for number in range(len(_list(route.get(effect))))
    ]
    places += [("roles", name, "includes") for name in declared]
    for name, provider in _mapping(_mapping(data).get("identity")).items():
        places += [("identity", name, "roles", subject) for subject in _mapping(_mapping(provider).get("roles"))]
    for number, _ in enumerate(_list(_mapping(data).get("grants"))):
        name = _at(data, ("grants", number, "role"))
        if isinstance(name, str) and name not in declared:
            yield _undefined(source, ("grants", number, "role"), "role", name, list(declared))
    for place in places:
        for at, name in enumerate(_list(_at(data, place))):
            if isinstance(name, str) and name not in declared:
                yield _undefined(source, (*place, at), "role", name, list(declared))
    for name in declared:
        yield from _circle(source, declared, name)


def _circle(source: Source, declared: dict[str, Any], name: str) -> Iterator[Problem]:
    """The shortest way from a role back to itself; reported once, at the role that stands first of all in it."""
    order = list(declared)
    ways: list[tuple[str, ...]] = [(name,)]
    seen = {name}
    for way in ways:
        for at, inner in enumerate(_list(_mapping(declared[way[-1]]).get("includes"))):
            if inner == name:
                if name == min(way, key=order.index):
                    place: Location = ("roles", way[-1], "includes", at)
                    said = f"a circle: {' includes '.join((*way, name))}"
                    yield source.problem(source.value_at(place), dotted(place), said, "roles that end somewhere")
                return
            if isinstance(inner, str) and inner in declared and inner not in seen:
                seen.add(inner)
                ways.append((*way, inner))


def _at(data: Any, place: Location) -> Any:
    for part in place:
        data = _mapping(data).get(part) if isinstance(part, str) else _list(data)[part]
    return data


def _addresses(source: Source, data: Any) -> Iterator[Problem]:
    def canonical() -> Iterator[tuple[Location, str]]:
        for location, text in _texts(data, ("listen",), "address"):
            host, _, port = text.rpartition(":")
            try:
                yield location, f"{ipaddress.ip_address(host.strip('[]'))} port {int(port)}"
            except ValueError:
                continue  # pydantic's problem

    yield from _unique(source, canonical(), "listener on", "another address or port")


def _provider_urls(source: Source, data: Any) -> Iterator[Problem]:
    """Keys and answers fetched over http could be anybody's: only loopback may do without TLS."""
    for name, provider in _mapping(_mapping(data).get("identity")).items():
        for key in ("issuer", "url"):
            url = _mapping(provider).get(key)
            if isinstance(url, str) and not is_safe_url(url):
                location = ("identity", name, key)
                expected = "an https URL without user, query or fragment; http on loopback only"
                yield source.problem(source.value_at(location), dotted(location), f"found {shown(url)}", expected)


def _portal(source: Source, data: Any) -> Iterator[Problem]:
    """What the portal serves has one issuer, and so one address that clients know it by."""
    providers = _mapping(_mapping(data).get("identity"))
    issuing = [name for name, provider in providers.items() if _mapping(provider).get("type") == "gatebook"]
    for name in issuing[1:]:
        location = ("identity", name, "type")
        message = "a second token service of our own"
        expected = f"one for all; {issuing[0]} is one already"
        yield source.problem(source.value_at(location), dotted(location), message, expected)
    if _mapping(_mapping(data).get("portal")).get("url") is None:
        asking = [("identity", name, "type") for name in issuing[:1]]
        asking += [("identity", name, "login") for name, it in providers.items() if "login" in _mapping(it)]
        for location in asking:
            message = "its tokens need an issuer" if location[2] == "type" else "browsers need a way back"
            expected = "portal.url, such as https://api.example.com"
            yield source.problem(source.value_at(location), dotted(location), message, expected)


def _bindings(source: Source, data: Any) -> Iterator[Problem]:
    """What proofs and client certificates need elsewhere in the file, and what contradicts them."""
    listeners = [_mapping(listener) for listener in _list(_mapping(data).get("listen"))]
    gateway, portal = (_mapping(_mapping(data).get(name)) for name in ("gateway", "portal"))
    origins = gateway.get("origins") or portal.get("url")
    forwarding = set()
    for name, provider in _mapping(_mapping(data).get("identity")).items():
        said = _mapping(provider)

        def problem(key: str, message: str, expected: str, name: str = name) -> Problem:
            location = ("identity", name, key)
            return source.problem(source.value_at(location), dotted(location), message, expected)

        takes_proofs = said.get("dpop", "off") != "off"
        for key in ("type", "certificate_bound"):
            asks = said.get(key) == "mtls" if key == "type" else said.get(key, "off") != "off"
            if asks and not any("tls" in listener for listener in listeners):
                yield problem(key, "client certificates without TLS", "a listener with tls")
        if takes_proofs and not origins:
            yield problem("dpop", "proofs are for a URL", "gateway.origins, such as [https://api.example.com]")
        for key in ("dpop_nonce", "forward_proof"):
            if said.get(key) is True and not takes_proofs:
                yield problem(key, "there are no proofs", "dpop: allow, or require")
        if said.get("dpop_nonce") is True and said.get("forward_proof") is True:
            expected = "one of the two: a proof holds one nonce, so who checks last has to be who asks for it"
            yield problem("dpop_nonce", "a nonce of ours in a proof for the upstream", expected)
        if said.get("forward_proof") is True:
            forwarding.add(name)
    for where, route in _routes(data):
        strips = route.get("strip_credential") is True
        for number, name in enumerate(_list(route.get("identity"))):
            if strips and isinstance(name, str) and name in forwarding:
                location = (*where, "identity", number)
                message = f"{shown(name)} forwards proofs, and this route strips credentials"
                yield source.problem(source.value_at(location), dotted(location), message, "one or the other")


def _one_time(source: Source, data: Any) -> Iterator[Problem]:
    """What has no id cannot be told from its first use."""
    providers = _mapping(_mapping(data).get("identity"))
    for where, route in _routes(data):
        for number, name in enumerate(_list(route.get("identity")) if route.get("one_time") is True else []):
            kind = _mapping(providers.get(name)).get("type") if isinstance(name, str) else None
            if kind in ("api_key", "mtls"):
                location = (*where, "identity", number)
                message = f"{shown(name)} is of type {kind}, whose credentials open more than once"
                expected = "providers of tokens alone, because one_time is true"
                yield source.problem(source.value_at(location), dotted(location), message, expected)


def is_safe_url(url: str) -> bool:
    """https, or http on a loopback address or localhost; no user, query or fragment (OIDC Discovery 1.0)."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or port == 0 or parts.query or parts.fragment or "@" in parts.netloc or url != url.strip():
        return False
    if not url.isascii() or not url.isprintable() or " " in url or "?" in url or "#" in url:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
