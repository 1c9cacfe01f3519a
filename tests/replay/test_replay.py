"""A replay says what the guard says, or that it does not know. Random configurations, requests and audit settings.

The records are made by the guard's own rules; what is held against the replay is the guard's own judgement of the
full facts, which the replay never sees.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.guard.place import KEYS
from tests.policy.conftest import configuration_of, identity_of
from tests.policy.strategies import CONDITIONS, ROLES, methods, paths, routes

from gatebook import record
from gatebook.config.model import Configuration
from gatebook.guard.asked import Asked
from gatebook.guard.rules import Rules, Verdict
from gatebook.identity.types import Credential, Identity, Refusal
from gatebook.policy import Match, Miss
from gatebook.redact import Known, Names
from gatebook.replay.judge import Replay, Replayed, Said
from gatebook.trial.judge import Judge, refused
from gatebook.wire import upstreams_mark

NOW_US = 1_700_000_000_123_456
MORE = (
    "request.headers['x-kept'] == 'a'",
    "!has(request.headers.kept) || identity.subject == 'ann'",
    "'x-kept' in request.headers && request.headers['x-kept'] != 'b'",
    "request.headers.exists(h, h == 'x-tenant')",
    "size(request.headers) < 2",
    "request.query.page == '1'",
    "has(request.query.page) ? request.query.page == '1' : client.address == '192.0.2.7'",
    "request.query == {}",
    "client.address.startsWith('192.') && client.port > 0",
    "has(identity.claims.tenant) || request.method == 'PUT'",
    "identity.provider == 'partners' && !('admin' in identity.roles)",
    "identity.subject == 'ann'",
    "identity.groups.exists(g, g == 'h')",
    "now < timestamp('2023-11-14T22:13:20.123456Z')",
    "now == timestamp('2023-11-14T22:13:20.123456Z')",
    "tls.version == '1.3' && tls.sni == 'api.example'",
    "request.host == 'api.example' || identity.bound",
    "identity.client == 'app'",
    "{'m': request.headers}['m']['x-tenant'] == 'a'",
    "\"x\" + 'y' in request.headers || request.headers['x' + '-kept'] == 'a'",
    "request.headers[request.method] == 'a'",
    "request . headers [ 'x-kept' ] == 'a' // headers",
)

conditions = st.sampled_from([*CONDITIONS, *MORE])


@st.composite
def many_routes(draw: st.DrawFn) -> dict[str, Any]:
    """As for the policy's tests, but mostly with a condition alone in a rule: then it decides."""
    route = draw(routes())
    for rules in (route["deny"], route["allow"]):
        for at, rule in enumerate(rules):
            if draw(st.sampled_from([True, True, False])):
                rules[at] = {"name": rule["name"], "mode": rule["mode"], "when": draw(conditions)}
    return route


audits = st.fixed_dictionaries(
    {
        "subject": st.sampled_from(["pseudonym", "keep"]),
        "address": st.sampled_from(["keep", "truncate", "seal", "pseudonym", "drop"]),
        "headers": st.sampled_from([{"keep": []}, {"keep": ["x-kept", "kept"]}, {"keep": ["X-Tenant", "x-kept"]}]),
        "query": st.sampled_from([{"keep": []}, {"keep": ["page"]}]),
    }
)
headers = st.dictionaries(
    st.sampled_from(["x-kept", "x-tenant", "kept", "other"]),
    st.sampled_from([b"a", b"b", b"", b"\xff", b"a\\b", b"token=aaaa", b"x" * 600]),
    max_size=3,
)
queries = st.sampled_from(["", "?page=1", "?page=2", "?page=1&page=2", "?other=1", "?page=%FF", "?x=%FF&page=1"])
clients = st.sampled_from(["192.0.2.7", "::ffff:192.0.2.7", "2001:db8::7"])
some_names = st.lists(st.sampled_from(["g", "h", "a\\b", "x" * 200]), max_size=3, unique=True).map(tuple)


@st.composite
def callers(draw: st.DrawFn) -> Identity | None:
    if draw(st.sampled_from([*"someone", ""])) == "":
        return None
    return identity_of(
        provider=draw(st.sampled_from([*["partners"] * 4, "others"])),
        subject=draw(st.sampled_from(["ann", "a" * 32, "b\\x"])),
        client=draw(st.sampled_from([None, "app", "a…"])),
        roles=tuple(draw(st.lists(st.sampled_from(sorted(ROLES)), max_size=2, unique=True))),
        groups=draw(some_names),
        scopes=draw(some_names),
        claims=draw(st.sampled_from([{}, {"tenant": "a"}, {"tenant": 1}])),
    )


@st.composite
def requests(draw: st.DrawFn) -> Asked:
    tls = draw(st.sampled_from(["TLSv1.3", ""]))
    return Asked(
        id="0" * 32,
        method=draw(methods),
        uri=draw(paths) + draw(queries),
        host=draw(st.sampled_from(["api.example", "b\\x", ""])),
        protocol="HTTP/2.0",
        address=draw(clients),
        port=draw(st.sampled_from([0, 4711])),
        tls=tls,
        cipher="TLS_AES_128_GCM_SHA256" if tls else "",
        group="X25519" if tls else "",
        sni="api.example" if tls else "",
        connection=1,
        connection_request=1,
        worker=1,
        upstreams=upstreams_mark({"orders"}),
        headers=[(name.encode(), value) for name, value in draw(headers).items()],
    )


def configured(route: dict[str, Any], audit: dict[str, Any]) -> Configuration:
    return configuration_of(route, roles=ROLES, audit=audit)


def as_identified(
    configuration: Configuration, match: Match | Miss, who: Identity | None
) -> Identity | Refusal | None:
    """What the guard makes of a caller on this route."""
    reason = refused(match, who)
    return Refusal(reason) if reason is not None and isinstance(match, Match) else who


def guarded(configuration: Configuration, asked: Asked, who: Identity | None) -> record.Decision:
    """The decision record, as the guard makes it; read again from its bytes."""
    rules = Rules(configuration, KEYS)
    match, facts = rules.match(asked), rules.facts(asked)
    seen: Identity | Refusal | None = None
    if isinstance(match, Miss):
        verdict = Verdict(False, match.reason)
    else:
        seen = None if match.route.identity == "none" else as_identified(configuration, match, who)
        if isinstance(seen, Refusal):
            verdict = Verdict(False, seen.reason)
        else:
            verdict = rules.judge(asked, match, facts, seen, NOW_US / 1_000_000, 0.0)
    credential = Credential("api_key", b"x") if seen is not None else None
    names = rules.names(asked, seen if isinstance(seen, Identity) else None)
    pseudonyms = Names(*(Known("ab" * 16, b"k" * 32) if name is not None else None for name in names))
    made = rules.decision(asked, match, facts, seen, credential, verdict, pseudonyms, NOW_US)
    found = record.decode(record.encode(made))
    assert isinstance(found, record.Decision)
    return found


def ruled(decision: record.Decision) -> Said:
    made = decision.decision
    return Said(made.verdict, made.status, made.reason, made.rule, decision.request.route)


def agrees(found: Replayed, truth: Said) -> None:
    """What is said is so; what is left open is left open."""
    if found.now is None:
        assert found.kind in ("unknown", "outside", "same")
        return
    assert found.now.verdict == truth.verdict
    if found.now.reason is not None:
        assert found.now == truth
    elif found.now.status is not None and found.now.status != 401:
        assert found.now.status == truth.status


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_replay_under_the_same_configuration_says_what_was_said_or_that_it_is_unknown(data: st.DataObject) -> None:
    configuration = configured(data.draw(many_routes()), data.draw(audits))
    decision = guarded(configuration, data.draw(requests()), data.draw(callers()))
    found = Replay(Judge(configuration)).judge(decision)
    assert found.kind in ("same", "unknown")
    agrees(found, ruled(decision))


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_replay_under_another_configuration_says_what_its_guard_says_or_that_it_is_unknown(
    data: st.DataObject,
) -> None:
    before = configured(data.draw(many_routes()), data.draw(audits))
    after = configured(data.draw(many_routes()), data.draw(audits))
    asked, caller = data.draw(requests()), data.draw(callers())
    decision = guarded(before, asked, caller)
    truth = ruled(guarded(after, asked, caller))
    known = data.draw(st.sampled_from([[before], []]))
    found = Replay(Judge(after), known).judge(decision)
    agrees(found, truth)
    was = ruled(decision)
    if found.kind == "same":
        assert was == truth
    elif found.kind not in ("unknown", "outside"):
        assert found.now is not None
        assert was != truth
    if found.kind == "allow->deny":
        assert (was.verdict, truth.verdict) == ("allow", "deny")
    if found.kind == "deny->allow":
        assert (was.verdict, truth.verdict) == ("deny", "allow")
