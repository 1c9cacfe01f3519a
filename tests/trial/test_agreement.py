"""What a trial says is what the guard does: the same requests, by random configurations, through both.

The guard's side is real to its answer's record: tokens verified by a provider's published keys, the service, a
connection to a recorder's twin. The trial's side is told who asks, or verifies the same token itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.guard.twin import Twin, until
from tests.identity.deployment import KEYS, place
from tests.identity.mint import claims, ec_key, mint
from tests.identity.mint import oidc as oidc_provider
from tests.identity.provider import Provider
from tests.policy.conftest import configuration_of, identity_of
from tests.policy.strategies import ROLES, callers, headers, methods, paths, routes

from gatebook import kept, record
from gatebook.config.model import Configuration
from gatebook.guard.asked import Asked
from gatebook.guard.client import RecorderClient
from gatebook.guard.rules import Rules
from gatebook.guard.service import Service
from gatebook.identity import Identifier, grant_file
from gatebook.identity.grant import Grant
from gatebook.identity.types import Identity, Refusal
from gatebook.policy import Match, Routes
from gatebook.trial.explain import explain
from gatebook.trial.identify import identify
from gatebook.trial.judge import Judge, Judged, Request, Who
from gatebook.trial.lent import read_lent
from gatebook.wire import upstreams_mark

GRANTS = [
    {"role": "admin", "max": "1h", "approve": ["ops"]},
    {"role": "writer", "max": "1h", "approve": ["ops"]},
]
ids = map("{:08d}".format, count()).__next__  # a guard never takes up one again that it has seen end


def grant_of(role: str, fate: str, provider: str = "partners") -> Grant:
    """Of ann, unless its fate says otherwise."""
    now = int(time.time())
    subject = "eve" if fate == "of another" else "ann"
    decision: Any = {"requested": None, "denied": "denied"}.get(fate, "approved")
    decided = {"ended": now - 600, "requested": None, "to come": now + 900}.get(fate, now - 60)
    return Grant(
        id=ids().translate(str.maketrans("0123456789", "abcdefghij")),
        role=role,
        provider=provider,
        key=KEYS.name("subject", provider, subject),
        shown=subject,
        seconds={"ended": 300, "too long": 7200}.get(fate, 1800),
        reason="incident",
        requested=now - 700,
        requested_by="os:1000",
        decision=decision,
        decided=decided,
        decided_by=None if decided is None else "os:1001",
        approver=None if decision != "approved" else "eve" if fate == "by another" else "ops",
        revoked=now - 5 if fate == "revoked" else None,
        revoked_by="os:1002" if fate == "revoked" else None,
        completed=fate == "completed",
    )


FATES = ("of another", "requested", "denied", "ended", "to come", "too long", "by another", "revoked", "completed")
grants = st.lists(
    st.builds(
        grant_of,
        st.sampled_from(["admin", "writer", "reader"]),  # no grant of reader is configured
        st.sampled_from(["in force"] * len(FATES) + list(FATES)),
        st.sampled_from(["partners", "partners", "others"]),
    ),
    max_size=3,
)


class World:
    """One guard with two providers. `configured` gives configurations that have those, too."""

    def __init__(self, folder: Path, runner: asyncio.Runner) -> None:
        self.paths = place(folder / "state")
        self.runner = runner
        self.providers = {name: Provider(ec_key(name).jwk(kid=name)) for name in ("partners", "others")}
        self.twin = Twin(folder / "recorder.sock")
        runner.run(self._start())

    async def _start(self) -> None:
        for provider in self.providers.values():
            await provider.up()
        await self.twin.start()
        first = self.configured({"path": "/a"})
        identifier = Identifier(first, self.paths)
        await identifier.start()
        self.recorder = RecorderClient(self.twin.path, 10.0)
        self.recorder.start()
        self.service = Service(Rules(first, KEYS), identifier, self.recorder)
        self.identifier = identifier
        await until(lambda: self.recorder.up, "the recorder")

    async def stop(self) -> None:
        await self.recorder.stop()
        await self.identifier.stop()
        self.twin.die()
        for provider in self.providers.values():
            await provider.down()

    def configured(self, *routes: dict[str, Any]) -> Configuration:
        providers = {name: oidc_provider(issuer=each.issuer) for name, each in self.providers.items()}
        made = configuration_of(*routes, identity=providers, roles=ROLES, grants=GRANTS)
        return made.model_copy(update={"state_dir": self.paths.state})

    def grant(self, held: list[Grant]) -> None:
        """All that there is from now on; the guard has seen it."""
        with kept.change(self.paths.grants, grant_file.KIND) as change:
            change.become(grant_file.Document(version=1, grants=tuple(held)), lambda: None)
        self.identifier._held.poll()

    def token(self, who: Identity) -> str:
        now = time.time()
        said = claims(
            iss=self.providers[who.provider].issuer,
            sub=who.subject,
            iat=now - 10,
            exp=now + 300,
            roles=list(who.roles),
            groups=list(who.groups),
            scope=" ".join(who.scopes),
            **who.claims,
        )
        header = {"alg": "ES256", "kid": who.provider}
        return mint(said, header, ec_key(who.provider).sign).decode()

    async def decided(self, configuration: Configuration, request: Request) -> record.Decision:
        """By the guard."""
        self.identifier.reconfigure(configuration)
        self.service.rules = Rules(configuration, KEYS)
        asked = Asked(
            id=request.facts().id,
            method=request.method,
            uri=request.target,
            host=request.host,
            protocol="HTTP/" + request.protocol,
            address=request.address,
            port=request.port,
            tls="TLSv" + (request.tls_version or ""),
            cipher="",
            group="",
            sni="",
            connection=1,
            connection_request=1,
            worker=1,
            upstreams=upstreams_mark(configuration.upstreams),
            headers=request.presented().headers,
        )
        answers: list[bytes] = []
        before = len(self.twin.items)
        self.service.decide(asked, answers.append)
        await until(lambda: answers, "an answer")
        found = record.decode(self.twin.items[before].record)
        assert isinstance(found, record.Decision)
        assert answers[0].startswith(b"HTTP/1.1 204") is (found.decision.verdict == "allow")
        return found


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with TemporaryDirectory() as folder, asyncio.Runner() as runner:
        made = World(Path(folder), runner)
        yield made
        runner.run(made.stop())


def told(found: Judged) -> tuple[Any, ...]:
    shadow = found.shadow
    name = found.match.route.name if isinstance(found.match, Match) else None
    seen = None if shadow is None else ("allow" if shadow.allowed else "deny", shadow.reason, shadow.rule)
    return found.verdict, found.status, found.reason, found.rule, name, seen, found.grants


def on_record(found: record.Decision) -> tuple[Any, ...]:
    part, shadow = found.decision, found.decision.shadow
    seen = None if shadow is None else (shadow.verdict, shadow.reason, shadow.rule)
    return part.verdict, part.status, part.reason, part.rule, found.request.route, seen, part.grants


def request_for(method: str, path: str, fields: dict[str, str], token: str | None) -> Request:
    sent = [*fields.items(), *([("authorization", f"Bearer {token}")] if token is not None else [])]
    return Request(
        method=method,
        target=path,
        host="api.example",
        headers=tuple(sent),
        address="192.0.2.7",
        port=4711,
        protocol="1.1",
        tls_version="1.3",
        at=time.time(),
    )


def as_the_guard_sees(
    world: World, configuration: Configuration, request: Request, caller: Identity | None
) -> Who:
    """A caller of a provider that the route does not accept is one whose token has the wrong issuer."""
    match = Routes(configuration).match(request.method, request.target)
    accepted = match.route.identity if isinstance(match, Match) else "none"
    if caller is not None and accepted != "none" and caller.provider not in accepted:
        return Refusal("token_issuer")
    return caller


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_trial_and_guard_agree_on_random_configurations_and_requests(world: World, data: st.DataObject) -> None:
    configuration = world.configured(data.draw(routes()))
    world.grant(data.draw(grants))
    caller = data.draw(callers())
    token = None if caller is None else world.token(caller)
    request = request_for(data.draw(methods), data.draw(paths), data.draw(headers), token)
    decision = world.runner.run(world.decided(configuration, request))
    live = on_record(decision)
    judge = Judge(configuration, read_lent(configuration).held)
    who = as_the_guard_sees(world, configuration, request, caller)
    assert told(judge.judge(request, who)) == live
    explained = explain(judge, request, who, verified=False)
    verdict, shadow = explained["verdict"], explained["verdict"]["shadow"]
    assert (verdict["verdict"], verdict["status"], verdict["reason"], verdict["rule"]) == live[:4]
    assert (None if shadow is None else tuple(shadow[name] for name in ("verdict", "reason", "rule"))) == live[5]
    assert tuple(verdict["grants"]) == live[6]
    if explained["rules"] and decision.identity is not None:
        granted = [each["role"] for each in explained["identity"]["granted"]]
        assert granted == list(decision.identity.granted)
        assert explained["identity"]["roles"] == list(decision.identity.roles)
    assert token is None or token not in str(explained)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(st.data())
def test_trial_that_verifies_the_token_agrees_with_the_guard(world: World, data: st.DataObject) -> None:
    configuration = world.configured(data.draw(routes()))
    world.grant(data.draw(grants))
    caller = data.draw(callers())
    request = request_for(data.draw(methods), data.draw(paths), data.draw(headers), None)
    match = Routes(configuration).match(request.method, request.target)
    if not isinstance(match, Match):
        return
    token = None if caller is None else world.token(caller)
    sent, who = world.runner.run(identify(configuration, request, match.route, token))
    live = on_record(world.runner.run(world.decided(configuration, sent)))
    assert told(Judge(configuration, read_lent(configuration).held).judge(sent, who)) == live


@pytest.mark.parametrize("fate", ["in force", *FATES])
def test_grant_lends_its_role_to_a_trial_only_where_the_guard_lends_it(world: World, fate: str) -> None:
    admins = {"name": "admins", "roles": ["admin"]}
    configuration = world.configured({"path": "/f/{x}", "identity": ["partners"], "allow": [admins]})
    held = grant_of("admin", fate)
    world.grant([held])
    caller = identity_of(roles=("reader",))
    request = request_for("GET", "/f/a", {}, world.token(caller))
    live = world.runner.run(world.decided(configuration, request))
    found = explain(Judge(configuration, read_lent(configuration).held), request, caller, verified=False)
    assert found["verdict"]["verdict"] == live.decision.verdict == ("allow" if fate == "in force" else "deny")
    assert found["verdict"]["grants"] == list(live.decision.grants) == ([held.id] if fate == "in force" else [])


def test_grants_file_that_anybody_can_write_lends_nothing_and_the_trial_says_so(world: World) -> None:
    configuration = world.configured({"path": "/f/{x}"})
    world.grant([grant_of("admin", "in force")])
    world.paths.grants.chmod(0o666)
    lent = read_lent(configuration)
    world.paths.grants.chmod(0o600)
    assert lent.held is None
    assert "lets others in" in lent.why


def test_one_time_route_refuses_a_token_without_an_id_in_a_trial_as_in_the_guard(world: World) -> None:
    route = {"path": "/f/{x}", "identity": ["partners"], "allow": [{"name": "all", "when": "true"}]}
    configuration = world.configured({**route, "one_time": True})
    world.grant([])
    for claimed in ({"jti": "a"}, {}):
        caller = identity_of(claims=claimed, token_id=claimed.get("jti"))
        request = request_for("GET", "/f/a", {}, world.token(caller))
        live = on_record(world.runner.run(world.decided(configuration, request)))
        found = Judge(configuration).judge(request, caller)
        assert told(found) == live
        assert found.reason == ("rule" if claimed else "token_id_missing")


def test_trace_alone_gives_the_same_ruling(world: World) -> None:
    """What an explanation shows of each rule leads to its verdict; nothing else does."""

    @settings(deadline=None)
    @given(routes(), callers(), methods, paths, headers)
    def holds(
        route: dict[str, Any], caller: Identity | None, method: str, path: str, fields: dict[str, str]
    ) -> None:
        judge = Judge(world.configured(route))
        found = explain(judge, request_for(method, path, fields, None), caller, verified=False)
        if not found["rules"]:
            return
        reason, rule = "no_rule", None
        if route["identity"] == "none" and not any(each["mode"] == "enforce" for each in route["allow"]):
            reason = "public"
        for each in found["rules"]:
            parts = [part["holds"] for part in each["parts"]]
            assert each["holds"] is (False if False in parts else None if None in parts else True)
            assert each["asked"] or rule is not None
            if each["mode"] == "shadow" or rule is not None:
                assert not each["decides"]
            elif each["holds"] or (each["holds"] is None and each["effect"] == "deny"):
                rule = each["name"]
                reason = (
                    ("rule" if each["effect"] == "allow" else "deny_rule") if each["holds"] else "condition_error"
                )
                assert each["decides"]
            elif each["holds"] is None:
                reason = "condition_error"
        verdict = found["verdict"]
        assert (verdict["reason"], verdict["rule"]) == (reason, rule)

    holds()
