"""What a replay takes for known, for unknown, and for a difference: one case each."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.policy.conftest import configuration_of, identity_of
from tests.policy.strategies import ROLES
from tests.replay.test_replay import guarded

from gatebook.config.model import Configuration
from gatebook.guard.asked import Asked
from gatebook.identity.types import Identity
from gatebook.policy.partial import touched
from gatebook.replay.judge import Replay, Replayed
from gatebook.replay.tally import Tally
from gatebook.trial.judge import Judge
from gatebook.wire import upstreams_mark

ANN = identity_of(roles=("writer",), groups=("g",), claims={"tenant": "a"})
KEEP = {"headers": {"keep": ["x-kept"]}, "query": {"keep": ["page"]}}


def asked(uri: str = "/f/a/b", method: str = "GET", **headers: bytes) -> Asked:
    return Asked(
        id="0" * 32,
        method=method,
        uri=uri,
        host="api.example",
        protocol="HTTP/2.0",
        address="192.0.2.7",
        port=4711,
        tls="TLSv1.3",
        cipher="TLS_AES_128_GCM_SHA256",
        group="X25519",
        sni="api.example",
        connection=1,
        connection_request=1,
        worker=1,
        upstreams=upstreams_mark({"orders"}),
        headers=[(name.replace("_", "-").encode(), value) for name, value in headers.items()],
    )


def policy(*allow: dict[str, Any] | str, audit: dict[str, Any] | None = None, **route: Any) -> Configuration:
    """One route; a text is a condition."""
    rules = [
        {"name": f"a{n}", **({"when": rule} if isinstance(rule, str) else rule)} for n, rule in enumerate(allow)
    ]
    own = {
        "path": "/f/{x}/{rest...}",
        "methods": ["GET", "PUT"],
        "identity": ["partners"],
        "allow": rules,
        **route,
    }
    return configuration_of(own, roles=ROLES, audit=audit or KEEP)


def replayed(
    before: Configuration, after: Configuration, request: Asked | None = None, who: Identity | None = ANN
) -> Replayed:
    return Replay(Judge(after), [before]).judge(guarded(before, request or asked(), who))


OPEN = policy("true")


@pytest.mark.parametrize(
    ("before", "after", "kind", "rule"),
    [
        (OPEN, policy({"roles": ["reader"]}), "same", "a0"),
        (OPEN, policy({"roles": ["admin"]}), "allow->deny", None),
        (policy({"roles": ["admin"]}), OPEN, "deny->allow", "a0"),
        (OPEN, policy("false", "true"), "other rule", "a1"),
        (policy("false"), policy("1 / 0 == 1"), "other reason", None),
        (OPEN, policy("true", name="renamed"), "other route", "a0"),
        (OPEN, policy("true", deny=[{"name": "d", "groups": ["g"]}]), "allow->deny", "d"),
        (OPEN, policy("true", path="/other/{x}"), "allow->deny", None),
        (OPEN, policy("true", methods=["PUT"]), "allow->deny", None),
        (policy("true", methods=["PUT"]), policy(identity="none"), "deny->allow", None),
    ],
)
def test_difference_is_told_for_what_it_is(
    before: Configuration, after: Configuration, kind: str, rule: str
) -> None:
    found = replayed(before, after)
    assert (found.kind, found.now and found.now.rule) == (kind, rule)


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("identity.claims.tenant == 'a'", "identity.claims"),
        ("has(identity.claims.tenant)", "identity.claims"),
        ("!has(request.headers.other)", 'request.headers["other"]'),
        ("!('other' in request.headers)", 'request.headers["other"]'),
        ("request.headers == {}", "request.headers"),
        ("!request.headers.exists(h, h == 'other')", "request.headers"),
        ("request.query.secret == '1'", 'request.query["secret"]'),
        ("identity.subject == 'ann'", "identity.subject"),
        ("client.address == '192.0.2.7'", "client.address"),
        ("identity.token_id == 'a'", "identity.token_id"),
    ],
)
def test_condition_on_what_no_record_holds_is_unknown_and_never_guessed(condition: str, why: str) -> None:
    found = replayed(OPEN, policy(condition), asked("/f/a/b?secret=1", other=b"1"))
    assert (found.kind, found.why) == ("unknown", (why,))


@pytest.mark.parametrize(
    "condition",
    [
        "identity.claims.tenant == 'a' || request.method == 'GET'",
        "!(has(request.headers.other) && request.method == 'PUT')",
        "request.headers['x-kept'] == 'a'",
        "!('x-kept' in request.headers) || request.headers['x-kept'] == 'a'",
        "request.query.page == '2'",
        "'g' in identity.groups && 'reader' in identity.roles",
        "path.x == 'a' && tls.version == '1.3'",
        "now == timestamp('2023-11-14T22:13:20.123456Z')",
    ],
)
def test_condition_that_what_is_known_decides_is_decided(condition: str) -> None:
    found = replayed(OPEN, policy(condition), asked("/f/a/b?page=2&other=1", x_kept=b"a", other=b"1"))
    assert found.kind == "same"


def test_rule_that_holds_for_certain_decides_before_what_is_unknown() -> None:
    after = policy({"roles": ["writer"]}, "identity.claims.tenant == 'a'")
    assert replayed(OPEN, after).kind == "same"
    denied = policy("true", deny=[{"name": "closed", "methods": ["GET"]}, {"name": "d", "when": "identity.bound"}])
    assert replayed(OPEN, denied).kind == "allow->deny"


def test_verdict_is_told_where_only_the_rule_is_unknown() -> None:
    found = replayed(OPEN, policy({"roles": ["admin"]}, deny=[{"name": "d", "when": "identity.claims.x == 1"}]))
    assert found.kind == "allow->deny"
    assert found.now is not None
    assert (found.now.status, found.now.reason, found.now.rule) == (403, None, None)


def test_header_that_is_not_sent_is_known_only_under_a_configuration_that_is_at_hand() -> None:
    after = policy("!('x-kept' in request.headers)")
    decision = guarded(OPEN, asked(), ANN)
    assert Replay(Judge(after), [OPEN]).judge(decision).now is not None
    assert Replay(Judge(after), []).judge(decision).kind == "unknown"


@pytest.mark.parametrize("value", [b"a\\b", b"Bearer abcdefgh12345678", b"x" * 600])
def test_value_that_was_masked_cut_or_spelt_out_is_unknown(value: bytes) -> None:
    found = replayed(OPEN, policy("request.headers['x-kept'] == 'a'"), asked(x_kept=value))
    assert found.kind == "unknown"


@pytest.mark.parametrize(
    "request_", [asked(x_kept=b"a", other=b"\xff"), asked("/f/a/b?page=2&x=%FF", x_kept=b"a")]
)
def test_bytes_elsewhere_that_make_a_condition_fail_do_not_look_harmless(request_: Asked) -> None:
    """One field that is no text makes the guard's condition on any of them fail."""
    condition = policy("request.headers['x-kept'] == 'a' && request.query == {} || request.query.page == '2'")
    truth = guarded(condition, request_, ANN).decision
    assert (truth.verdict, truth.reason) == ("deny", "condition_error")
    assert replayed(OPEN, condition, request_).kind == "unknown"
    assert replayed(condition, condition, request_).kind == "unknown"


def test_subject_that_looks_like_a_pseudonym_is_unknown_even_where_subjects_are_kept() -> None:
    kept = policy("true", audit={"subject": "keep"})
    who = msgspec.structs.replace(ANN, subject="ab" * 16)
    after = policy("identity.subject == 'ann'", audit={"subject": "keep"})
    assert replayed(kept, after, who=who).kind == "unknown"
    assert replayed(kept, after).kind == "same"


def test_groups_of_a_record_without_them_are_unknown_not_missing() -> None:
    decision = guarded(OPEN, asked(), ANN)
    assert decision.identity is not None
    old = msgspec.structs.replace(
        decision, identity=msgspec.structs.replace(decision.identity, groups=None, scopes=None)
    )
    after = policy("true", deny=[{"name": "d", "groups": ["g"]}])
    assert Replay(Judge(after), [OPEN]).judge(old).why == ("identity.groups",)


def test_refused_credential_is_refused_again_only_where_all_identification_is_the_same() -> None:
    assert replayed(OPEN, policy("false"), who=None).kind == "same"
    assert replayed(OPEN, policy("true", identity=["partners", "others"]), who=None).kind == "unknown"
    decision = guarded(OPEN, asked(), None)
    assert Replay(Judge(policy("false")), []).judge(decision).kind == "unknown"


def test_route_that_looked_at_no_identity_says_nothing_of_one_that_does() -> None:
    assert replayed(policy(identity="none"), OPEN).kind == "unknown"
    assert replayed(policy("true", path="/other/{x}"), OPEN).kind == "unknown"


def test_caller_whose_provider_is_no_longer_accepted_is_denied() -> None:
    found = replayed(OPEN, policy("true", identity=["others"]))
    assert found.kind == "allow->deny"
    assert found.now is not None
    assert found.now.status == 401


def test_what_gatebook_itself_failed_at_is_no_decision_of_a_policy() -> None:
    decision = guarded(OPEN, asked(), ANN)
    broken = msgspec.structs.replace(
        decision.decision, verdict="deny", status=503, reason="guard_error", rule=None
    )
    failed = msgspec.structs.replace(decision, decision=broken)
    assert Replay(Judge(policy("false"))).judge(failed).kind == "outside"


def test_limit_that_refused_is_left_aside() -> None:
    decision = guarded(OPEN, asked(), ANN)
    limited = msgspec.structs.replace(
        decision,
        decision=msgspec.structs.replace(decision.decision, verdict="deny", status=429, reason="limit_exceeded"),
    )
    assert Replay(Judge(OPEN)).judge(limited).kind == "same"
    assert Replay(Judge(policy("false")), [OPEN]).judge(limited).kind == "other reason"


def test_shadow_rule_of_the_other_policy_is_counted_and_not_enforced() -> None:
    found = replayed(OPEN, policy("true", deny=[{"name": "d", "methods": ["GET"], "mode": "shadow"}]))
    assert (found.kind, found.shadow) == ("same", True)


def test_tally_is_bounded_and_counts_what_it_does_not_list() -> None:
    tally = Tally(1)
    decision = guarded(OPEN, asked(), ANN)
    found = Replay(Judge(policy("false")), [OPEN]).judge(decision)
    for index in range(3):
        tally.add(index, decision, found, stranger=False)
    assert (tally.different, len(tally.listed), tally.listed[0].entry) == (3, 1, 0)
    assert dict(tally.rules) == {"r0/a0 -> no_rule": 3}
    assert dict(tally.identities) == {f"partners:{'ab' * 16}": 3}


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("request.headers.x == 'a'", {"x"}),
        ("request . headers [ 'x-y' ] == \"a\"", {"x-y"}),
        ("has(request.headers.x) && 'y' in request.headers", {"x", "y"}),
        ("request.headers.x.startsWith('headers')", {"x"}),
        ("'request.headers' == request.method", set()),
        ("request.headers['x' + 'y'] == 'a'", None),
        ("request.headers[request.method] == 'a'", None),
        ("'x' + 'y' in request.headers", None),
        ("request.headers == {}", None),
        ("request.headers.exists(h, h == 'a')", None),
        ("{'a': request.headers}['a']['x'] == 'y'", None),
        ("request.headers.`x-y` == 'a'", None),
        ("request.headers['\\x61'] == 'a'", None),
        ("r'a' in request.headers", None),
        ("request.headers.x == 'a' // request.headers.y", None),
        ("'x' in (request.headers)", None),
        ("size(request.headers) == 1", None),
    ],
)
def test_keys_that_an_expression_may_read_are_never_missed(text: str, keys: set[str] | None) -> None:
    assert touched(text, "request.headers") == (None if keys is None else frozenset(keys))


def test_address_of_ipv4_within_ipv6_is_one_address_to_conditions() -> None:
    denying = policy("true", deny=[{"name": "d", "when": "client.address == '192.0.2.7'"}])
    mapped = msgspec.structs.replace(asked(), address="::ffff:192.0.2.7")
    assert guarded(denying, mapped, ANN).decision.reason == "deny_rule"
