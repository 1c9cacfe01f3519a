"""The life of a request: what is answered is on record, what cannot be is refused, and nobody waits in vain."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from joserfc import jws, jwt
from tests.e2e.issuer import Issuer
from tests.guard.inside import IMPATIENCE, Answer, Inside, Line, head, inside
from tests.guard.place import KEYS, ROUTES, route
from tests.guard.twin import looped, until
from tests.identity.mint import EC
from tests.identity.prove import ath, jkt, prove

from gatebook import record, wire
from gatebook.guard import service as module
from gatebook.guard.asked import Asked, parse
from gatebook.guard.rules import Rules, Verdict
from gatebook.policy import Match, Miss
from gatebook.sealed import unseal


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    yield made
    made.stop()


def staff(issuer: Issuer) -> dict[str, Any]:
    return {"staff": {"type": "oidc", "issuer": issuer.url, "audience": ["orders-api"]}}


def keyed(guard: Inside, *roles: str) -> str:
    """The header field of a fresh API key that is known already."""
    text = guard.place.api_key(*(roles or ("reader",)), subject="ann")
    guard.identifier._watch.poll()
    return f"X-API-Key: {text}"


def is_refused(answer: Answer, reason: str = "recorder_unavailable") -> bool:
    return not answer.allowed and (answer.status, answer.reason, answer.place) == (503, reason, None)


# -- what goes well -----------------------------------------------------------------------------------------
@looped
async def test_allowed_request_names_upstream_caller_and_receipt(tmp_path: Path) -> None:
    async with inside(tmp_path) as guard:
        answer = await guard.ask("/orders/7", keyed(guard, "reader", "auditor"))
        assert answer.fields["gatebook-upstream"] == "orders"
        assert answer.fields["gatebook-subject"] == "ann"
        assert answer.fields["gatebook-roles"] == "reader,auditor"
        assert answer.fields["gatebook-provider"] == "partners"
        assert "gatebook-strip" not in answer.fields
        found = guard.decision(answer)
        assert (found.id, found.upstream, found.decision.verdict) == (answer.id, "orders", "allow")
        assert found.decision.rule == "readers"
        assert found.decision.durability == "before-access"
        assert found.decision.configuration == guard.place.configuration.digest().hex()
        assert found.identity is not None
        assert found.identity.subject == guard.twin.names["subject:partners:ann"].hex()


@looped
async def test_no_answer_leaves_before_its_record_is_durable(tmp_path: Path) -> None:
    async with inside(tmp_path) as guard:
        key, line = keyed(guard), await guard.line()
        assert (await line.ask("/orders/7", key)).allowed
        guard.twin.holds = True
        asking = asyncio.ensure_future(line.ask("/orders/8", key))
        await until(lambda: guard.twin.held, "the record")
        await asyncio.sleep(0.05)
        assert not asking.done()
        guard.twin.release()
        assert guard.decision(await asking).request.path == "/orders/8"


@pytest.mark.parametrize(
    ("uri", "method", "key", "reason", "status"),
    [
        ("/orders/../admin", "GET", True, "path_not_canonical", 400),
        ("/nowhere", "GET", True, "no_route", 404),
        ("/orders/7", "DELETE", True, "method_not_allowed", 405),
        ("/orders/7", "GET", False, "credential_missing", 401),
        ("/orders", "POST", True, "no_rule", 403),
        ("/tenant", "GET", True, "condition_error", 403),
    ],
)
@looped
async def test_denial_is_on_record_with_the_status_that_the_client_sees(
    tmp_path: Path, uri: str, method: str, key: bool, reason: str, status: int
) -> None:
    async with inside(tmp_path) as guard:
        fields = [keyed(guard)] if key else []
        answer = await guard.ask(uri, *fields, method=method)
        assert (answer.status, answer.reason) == (status, reason)
        found = guard.decision(answer)
        assert (found.id, found.request.path, found.upstream) == (answer.id, uri, None)
        assert (found.decision.verdict, found.decision.status, found.decision.reason) == ("deny", status, reason)
        problem = json.loads(answer.fields["gatebook-problem"])
        assert (problem["status"], problem["request_id"]) == (status, answer.id)
        assert "readers" not in str(answer.fields)


@looped
async def test_denial_says_how_to_do_better(tmp_path: Path) -> None:
    async with inside(tmp_path) as guard:
        missing = await guard.ask()
        assert missing.fields["gatebook-authenticate"] == 'ApiKey realm="acme"'
        method = await guard.ask(method="DELETE")
        assert method.fields["gatebook-allow"] == "GET, HEAD"
        key = keyed(guard)
        await guard.ask("/scarce", key)
        await guard.ask("/scarce", key)
        limited = await guard.ask("/scarce", key)
        assert limited.status == 429
        assert int(limited.fields["gatebook-retry-after"]) > 0
        assert limited.fields["gatebook-ratelimit"].startswith('"few";r=0')
        part = guard.decision(limited).limit
        assert part is not None
        assert (part.name, part.remaining) == ("few", 0)


@looped
async def test_public_route_identifies_nobody_even_with_a_credential(tmp_path: Path) -> None:
    async with inside(tmp_path) as guard:
        answer = await guard.ask("/healthz", keyed(guard))
        assert (answer.reason, answer.status) == ("public", 200)
        assert "gatebook-subject" not in answer.fields
        assert guard.decision(answer).identity is None


@looped
async def test_credential_is_stripped_where_the_route_says_so(tmp_path: Path) -> None:
    async with inside(tmp_path) as guard:
        assert (await guard.ask("/stripped", keyed(guard))).fields["gatebook-strip"] == "1"


@looped
async def test_header_that_is_no_utf8_fails_the_condition_and_nothing_else(tmp_path: Path) -> None:
    async with inside(tmp_path) as guard:
        key = keyed(guard)
        assert (await guard.ask("/tenant", key, "X-Tenant: acme")).allowed
        strange = await guard.ask("/tenant", key, "X-Tenant: acme", b"X-Other: \xff\xfe")
        assert strange.reason == "condition_error"
        assert (await guard.ask("/orders/7", key, b"X-Other: \xff\xfe")).allowed


@looped
async def test_many_at_once_each_get_the_receipt_of_their_own_record(tmp_path: Path) -> None:
    async with inside(tmp_path) as guard:
        key = keyed(guard)

        async def caller(number: int) -> list[tuple[str, Answer]]:
            line = await guard.line()
            uris = [f"/orders/{number}-{count}" for count in range(8)]
            return [(uri, await line.ask(uri, key)) for uri in uris]

        answers = [each for found in await asyncio.gather(*map(caller, range(40))) for each in found]
        for uri, answer in answers:
            found = guard.decision(answer)
            assert (found.id, found.request.path) == (answer.id, uri)
        assert len({answer.place for _, answer in answers}) == len(answers) == len(guard.twin.items)


# -- never 2xx without a receipt ---------------------------------------------------------------------------
MISBEHAVIOURS: dict[str, Callable[[Inside], None]] = {
    "hangs": lambda guard: setattr(guard.twin, "holds", True),
    "hangs up": lambda guard: setattr(guard.twin, "judge", lambda message: guard.twin.hang_up()),
    "refuses": lambda guard: setattr(guard.twin, "judge", lambda message: wire.Refused("disk full")),
    "answers another question": lambda guard: setattr(guard.twin, "judge", lambda message: wire.Stands(9, 0, 1)),
    "gives out an index again": lambda guard: setattr(guard.twin, "judge", lambda message: wire.Appended(0)),
    "speaks another protocol": lambda guard: setattr(guard.twin, "judge", lambda message: b"HTTP/1.1 204\r\n\r\n"),
}


@pytest.mark.parametrize("uri", ["/orders/7", "/healthz", "/nowhere"])
@pytest.mark.parametrize("misbehaviour", MISBEHAVIOURS)
@looped
async def test_recorder_that_misbehaves_lets_nobody_through(tmp_path: Path, misbehaviour: str, uri: str) -> None:
    async with inside(tmp_path, guard=IMPATIENCE) as guard:
        key, line = keyed(guard), await guard.line()
        assert (await line.ask("/orders/1", key)).place == 0
        MISBEHAVIOURS[misbehaviour](guard)
        assert is_refused(await line.ask(uri, key))
        assert is_refused(await guard.ask(uri, key))


@pytest.mark.parametrize("misbehaviour", MISBEHAVIOURS)
@looped
async def test_newcomer_that_no_pseudonym_can_be_had_for_is_refused(tmp_path: Path, misbehaviour: str) -> None:
    async with inside(tmp_path, guard=IMPATIENCE) as guard:
        MISBEHAVIOURS[misbehaviour](guard)
        assert is_refused(await guard.ask("/orders/7", keyed(guard)))
        assert guard.twin.items == []


@looped
async def test_recorder_that_is_away_costs_no_decision_and_lets_nobody_through(tmp_path: Path) -> None:
    async with inside(tmp_path) as guard:
        key = keyed(guard)
        guard.twin.die()
        await until(lambda: not guard.recorder.up)
        for uri in ("/orders/7", "/healthz", "/lax", "/nowhere"):
            assert is_refused(await guard.ask(uri, key))
        await guard.twin.start()
        await until(lambda: guard.recorder.up)
        assert (await guard.ask("/orders/7", key)).allowed


# -- one-time routes -----------------------------------------------------------------------------------------
def once(issuer: Issuer) -> dict[str, Any]:
    providers = {**staff(issuer), "partners": {"type": "api_key"}}
    return {"identity": providers, "routes": [route("pay", "/pay", identity=["staff", "partners"], one_time=True)]}


@looped
async def test_token_opens_a_one_time_route_once_and_a_refusal_uses_nothing_up(
    tmp_path: Path, issuer: Issuer
) -> None:
    async with inside(tmp_path, **once(issuer)) as guard:
        stranger = f"Authorization: Bearer {issuer.token(roles=['visitor'])}"
        assert [(await guard.ask("/pay", stranger)).reason for _ in range(2)] == ["no_rule"] * 2
        token = f"Authorization: Bearer {issuer.token(roles=['reader'])}"
        answers = await asyncio.gather(*(guard.ask("/pay", token) for _ in range(8)))
        assert sorted(answer.reason for answer in answers) == ["rule"] + ["token_replayed"] * 7
        for answer in answers:
            found = guard.decision(answer).decision
            assert (found.reason, found.rule) == (answer.reason, "readers")
        assert len(guard.twin.asked_to(wire.Once)) == 8


@looped
async def test_credential_without_a_name_of_its_own_opens_no_one_time_route(
    tmp_path: Path, issuer: Issuer
) -> None:
    async with inside(tmp_path, **once(issuer)) as guard:
        answer = await guard.ask("/pay", keyed(guard))
        assert guard.decision(answer).decision.reason == "token_id_missing"
        assert not answer.allowed


@pytest.mark.parametrize("misbehaviour", MISBEHAVIOURS)
@looped
async def test_use_that_cannot_be_written_down_is_none(tmp_path: Path, issuer: Issuer, misbehaviour: str) -> None:
    async with inside(tmp_path, **{**once(issuer), "guard": IMPATIENCE}) as guard:
        known = f"Authorization: Bearer {issuer.token(roles=['reader'])}"
        assert (await guard.ask("/pay", known)).allowed
        MISBEHAVIOURS[misbehaviour](guard)
        fresh = f"Authorization: Bearer {issuer.token(roles=['reader'])}"
        assert is_refused(await guard.ask("/pay", fresh))


# -- proofs --------------------------------------------------------------------------------------------------
class Holder:
    """A client with a token that is bound to its key; `fields` are of one request, with a proof of its own."""

    def __init__(self, issuer: Issuer) -> None:
        self._key = EC()
        self._token = issuer.token(roles=["reader"], cnf={"jkt": jkt(self._key)})

    def fields(self, uri: str = "/orders/7") -> tuple[str, ...]:
        said = {"htu": f"https://api.acme.example{uri}", "iat": int(time.time()), "ath": ath(self._token.encode())}
        proof = prove(said, key=self._key).decode()
        host = ("X-Forwarded-Proto: https", "X-Forwarded-Host: api.acme.example")
        return (*host, f"Authorization: DPoP {self._token}", f"DPoP: {proof}")


def proving(issuer: Issuer, **settings: Any) -> dict[str, Any]:
    providers = staff(issuer)
    providers["staff"] |= {"dpop": "allow", **settings}
    known = {"identity": providers, "gateway": {"origins": ["https://api.acme.example"]}}
    stripped = route("stripped", "/stripped", identity=["staff"], strip_credential=True)
    return {**known, "routes": [route("read-order", "/orders/{order_id}", identity=["staff"]), stripped]}


@looped
async def test_proof_opens_once_whoever_is_first(tmp_path: Path, issuer: Issuer) -> None:
    async with inside(tmp_path, **proving(issuer)) as guard:
        fields = Holder(issuer).fields()
        answers = await asyncio.gather(*(guard.ask("/orders/7", *fields) for _ in range(8)))
        assert sorted(answer.reason for answer in answers) == ["proof_replayed"] * 7 + ["rule"]
        for answer in answers:
            assert guard.decision(answer).decision.reason == answer.reason


@pytest.mark.parametrize("misbehaviour", MISBEHAVIOURS)
@looped
async def test_proof_whose_use_cannot_be_written_down_opens_nothing(
    tmp_path: Path, issuer: Issuer, misbehaviour: str
) -> None:
    async with inside(tmp_path, **{**proving(issuer), "guard": IMPATIENCE}) as guard:
        holder = Holder(issuer)
        assert (await guard.ask("/orders/7", *holder.fields())).allowed
        MISBEHAVIOURS[misbehaviour](guard)
        assert is_refused(await guard.ask("/orders/7", *holder.fields()))


@pytest.mark.parametrize(("forward", "uri", "strip"), [(False, "/orders/7", "proof"), (False, "/stripped", "1")])
@looped
async def test_proof_that_was_used_up_is_kept_from_the_upstream(
    tmp_path: Path, issuer: Issuer, forward: bool, uri: str, strip: str
) -> None:
    async with inside(tmp_path, **proving(issuer, forward_proof=forward)) as guard:
        answer = await guard.ask(uri, *Holder(issuer).fields(uri))
        assert answer.allowed
        assert answer.fields["gatebook-strip"] == strip


@looped
async def test_nothing_is_used_up_by_what_is_refused_before(tmp_path: Path, issuer: Issuer) -> None:
    async with inside(tmp_path, **proving(issuer)) as guard:
        fields = Holder(issuer).fields()
        assert (await guard.ask("/orders/8", *fields)).reason == "proof_target"
        assert (await guard.ask("/orders/7", *fields, fields[-1])).reason == "proof_malformed"
        assert guard.twin.asked_to(wire.Once) == []
        assert (await guard.ask("/orders/7", *fields)).allowed


# -- people with a browser -----------------------------------------------------------------------------------
@looped
async def test_person_is_shown_where_to_log_in_and_a_script_is_not(tmp_path: Path, issuer: Issuer) -> None:
    providers = staff(issuer)
    secret = {"file": str(tmp_path / "login.secret")}  # the portal's: a guard never reads it
    providers["staff"]["login"] = {"client": {"id": "web", "method": "post", "secret": secret}}
    sections: dict[str, Any] = {"identity": providers, "portal": {"url": "https://api.acme.example"}}
    async with inside(tmp_path, **sections, routes=[route("a", "/a", identity=["staff"])]) as guard:
        page = "https://api.acme.example/.gatebook/login?provider=staff"
        person = await guard.ask("/a?b=c&d", "Sec-Fetch-Mode: navigate")
        assert (person.reason, person.fields["gatebook-location"]) == (
            "login_required",
            f"{page}&return_to=%2Fa%3Fb%3Dc%26d",
        )
        assert guard.decision(person).decision.reason == "login_required"
        far = await guard.ask(f"/a?{'%22' * 2000}", "Sec-Fetch-Mode: navigate")
        assert far.fields["gatebook-location"] == page
        for fields in (["Sec-Fetch-Mode: cors"], ["Accept: application/json"], []):
            script = await guard.ask("/a", *fields)
            assert script.reason == "credential_missing"
            assert "gatebook-location" not in script.fields


# -- durability: after-response ------------------------------------------------------------------------------
@looped
async def test_lax_route_answers_without_waiting_and_without_a_receipt(tmp_path: Path) -> None:
    async with inside(tmp_path) as guard:
        key = keyed(guard)
        assert (await guard.ask("/orders/7", key)).allowed  # its pseudonym is known from here on
        guard.twin.holds = True
        answer = await guard.ask("/lax", key)
        assert answer.allowed
        assert answer.place is None
        assert guard.decisions_of(answer) == []
        guard.twin.release()
        await until(lambda: guard.decisions_of(answer), "the record")
        assert guard.decisions_of(answer)[0].decision.durability == "after-response"


@looped
async def test_denial_on_a_lax_route_waits_for_its_receipt(tmp_path: Path) -> None:
    async with inside(tmp_path) as guard:
        answer = await guard.ask("/lax")
        assert answer.reason == "credential_missing"
        assert guard.decision(answer).decision.verdict == "deny"


@looped
async def test_full_queue_closes_lax_routes_too(tmp_path: Path) -> None:
    async with inside(tmp_path) as guard:
        key = keyed(guard)
        assert (await guard.ask("/lax", key)).allowed
        guard.twin.holds = True
        large = wire.Item(bytes(4 << 20))
        for _ in range(3):  # what may leave has left by then
            while guard.recorder.append(large, lambda index: None):
                pass
            await asyncio.sleep(0.01)
        line = await guard.line()
        for uri in ("/lax", "/orders/7"):
            assert is_refused(await line.ask(uri, key))
        guard.twin.release()


@looped
async def test_lost_record_of_one_who_was_let_through_is_said(tmp_path: Path) -> None:
    async with inside(tmp_path) as guard:
        key = keyed(guard)
        assert (await guard.ask("/orders/7", key)).allowed
        guard.twin.holds = True
        lines = [await guard.line() for _ in range(3)]
        assert all([(await line.ask("/lax", key)).allowed for line in lines])
        with structlog.testing.capture_logs() as said:
            guard.twin.hang_up()
            await until(lambda: [entry for entry in said if "requests" in entry])
        assert [entry["requests"] for entry in said if "requests" in entry] == [3]
        guard.twin.holds = False


# -- what does not fit ---------------------------------------------------------------------------------------
QUOTE = '"'
KEPT = {"headers": {"keep": [f"X-{n}" for n in range(16)]}, "query": {"keep": [f"q{n}" for n in range(16)]}}


@looped
async def test_record_too_large_is_refused_and_still_on_record(tmp_path: Path) -> None:
    """Each quotation mark takes two bytes in a record."""
    fields = [f"X-{n}: {QUOTE * 512}" for n in range(16)]
    query = "&".join(f"q{n}={QUOTE * 500}" for n in range(16))
    async with inside(tmp_path, audit=KEPT) as guard:
        key = keyed(guard)
        assert (await guard.ask("/orders/7", key, *fields)).allowed
        assert (await guard.ask(f"/orders/7?{query}", key)).allowed
        with structlog.testing.capture_logs() as said:
            answer = await guard.ask(f"/orders/7?{query}", key, *fields)
        assert (answer.status, answer.reason) == (503, "guard_error")
        (found,) = guard.decisions_of(answer)
        assert found == guard.decision(answer)
        assert (found.decision.verdict, found.decision.reason) == ("deny", "guard_error")
        assert (found.request.path, found.request.headers, found.request.query) == ("/orders/7", {}, {})
        assert found.identity is not None
        assert found.upstream is None
        assert [entry["request"] for entry in said if entry["log_level"] == "error"] == [answer.id]


@looped
async def test_answer_too_large_is_refused_before_anything_is_on_record_as_allowed(
    tmp_path: Path, issuer: Issuer
) -> None:
    routes = [route("a", "/a", identity=["staff"], allow=[{"name": "all", "roles": ["reader"]}])]
    async with inside(tmp_path, identity=staff(issuer), routes=routes) as guard:
        plain = issuer.token(roles=["reader", *(f"{number}-{'é' * 100}" for number in range(26))])
        # Its claims in UTF-8 instead of escapes: short enough for a token, and three times as long in a header.
        claims = json.dumps(jwt.decode(plain, issuer.key).claims, ensure_ascii=False).encode()
        token = jws.serialize_compact({"alg": "RS256", "kid": "one", "typ": "at+jwt"}, claims, issuer.key)
        answer = await guard.ask("/a", f"Authorization: Bearer {token}")
        assert (answer.status, answer.reason) == (503, "guard_error")
        (found,) = guard.decisions_of(answer)
        assert found == guard.decision(answer)
        assert found.decision.verdict == "deny"
        assert found.identity is not None
        assert found.identity.roles == ()


# -- those who wait, leave, or are forgotten -----------------------------------------------------------------
@looped
async def test_client_that_leaves_while_its_decision_is_synced_disturbs_no_other(tmp_path: Path) -> None:
    async with inside(tmp_path) as guard:
        key = keyed(guard)
        assert (await guard.ask("/orders/7", key)).allowed
        guard.twin.holds = True
        lines = [await guard.line() for _ in range(9)]
        asked = [head(f"/orders/{number}", key) for number in range(9)]
        for line, (_, data) in zip(lines, asked, strict=True):
            line.send(data)
        await until(lambda: sum(len(m.items) for m in guard.twin.asked_to(wire.Append)) >= 10)
        for line in lines[::2]:
            line.close()
        await until(lambda: len(guard.connections) == 5, "the leavers to be gone")
        guard.twin.release()
        for line, (request_id, _) in list(zip(lines, asked, strict=True))[1::2]:
            assert guard.decision(await line.read(request_id)).id == request_id
        await until(lambda: guard.service.idle)
        assert {decision.id for decision in guard.twin.decisions} >= {request_id for request_id, _ in asked}


@looped
async def test_newcomers_pseudonym_is_asked_for_once_and_then_known(tmp_path: Path) -> None:
    async with inside(tmp_path, audit={"address": "pseudonym"}) as guard:
        key, line = keyed(guard), await guard.line()
        for _ in range(3):
            found = guard.decision(await line.ask("/orders/7", key))
            assert found.client is not None
            assert found.client.address == guard.twin.names["address:192.0.2.7"].hex()
        assert [m.name for m in guard.twin.asked_to(wire.Pseudonym)] == [
            "subject:partners:ann",
            "address:192.0.2.7",
        ]
        other = guard.decision(await line.ask("/orders/7", key, Address="2001:db8::1"))
        assert other.client is not None
        assert other.client.address == guard.twin.names["address:2001:db8::1"].hex()
        assert len(guard.twin.asked_to(wire.Pseudonym)) == 3


@looped
async def test_flood_of_addresses_is_forgotten_oldest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_NAMES", 4)
    async with inside(tmp_path, audit={"address": "pseudonym"}) as guard:
        line = await guard.line()
        for number in (1, 2, 3, 4, 5, 5, 1):
            found = guard.decision(await line.ask("/healthz", Address=f"192.0.2.{number}"))
            assert found.client is not None
            assert found.client.address == guard.twin.names[f"address:192.0.2.{number}"].hex()
        asked = [message.name[-1] for message in guard.twin.asked_to(wire.Pseudonym)]
        assert asked == ["1", "2", "3", "4", "5", "1"]
        assert len(guard.service._names) == 4


@looped
async def test_who_was_forgotten_has_another_pseudonym_a_beat_later(tmp_path: Path) -> None:
    """The recorder has destroyed the row; nobody asked the guard to forget what it remembers of it."""
    async with inside(tmp_path) as guard:
        key, line = keyed(guard), await guard.line()
        assert (await line.ask("/orders/7", key)).allowed
        old = guard.twin.names.pop("subject:partners:ann")
        guard.twin.names["somebody else"] = old  # so that the next one is another one
        assert guard.service._names
        guard.twin.erasures += 1
        await until(lambda: not guard.service._names)
        found = guard.decision(await line.ask("/orders/7", key))
        assert found.identity is not None
        assert found.identity.subject == guard.twin.names["subject:partners:ann"].hex() != old.hex()


@looped
async def test_pseudonym_that_was_on_its_way_while_its_owner_was_forgotten_is_not_remembered(
    tmp_path: Path,
) -> None:
    async with inside(tmp_path) as guard:
        guard.twin.holds = True
        asking = asyncio.ensure_future(guard.ask("/orders/7", keyed(guard)))
        await until(lambda: {type(message) for _, message in guard.twin.held} == {wire.Pseudonym, wire.Status})
        said = b""
        for _, message in guard.twin.held:
            guard.twin.erasures = int(isinstance(message, wire.Status))
            said += wire.pack(guard.twin.honestly(message))
        connection = guard.twin.held[0][0]
        guard.twin.held.clear()
        guard.twin.holds = False
        connection.write(said)  # all in one read
        await asking
        assert not guard.service._names


@looped
async def test_pseudonym_is_asked_for_anew_when_its_period_is_over(tmp_path: Path) -> None:
    async with inside(tmp_path) as guard:
        key, line = keyed(guard), await guard.line()
        guard.twin.until = time.time() + 3600
        for _ in range(2):
            assert (await line.ask("/orders/7", key)).allowed
        assert len(guard.twin.asked_to(wire.Pseudonym)) == 1
        guard.service._names_until = time.time() - 1
        assert (await line.ask("/orders/7", key)).allowed
        assert len(guard.twin.asked_to(wire.Pseudonym)) == 2


@looped
async def test_caller_and_address_are_sealed_under_the_callers_row(tmp_path: Path) -> None:
    async with inside(tmp_path, audit={"subject": "seal", "address": "seal"}) as guard:
        key, line = keyed(guard), await guard.line()
        found = guard.decision(await line.ask("/orders/7", key))
        row = guard.twin.names["subject:partners:ann"]
        assert found.sealed is not None
        assert found.sealed.under == row.hex()
        assert unseal(found.sealed, row * 2, found.id) == {"subject": "ann", "address": "192.0.2.7"}
        assert found.client is not None
        assert found.client.address == "192.0.2.0/24"
        nobody = guard.decision(await line.ask("/healthz"))
        row = guard.twin.names["address:192.0.2.7"]
        assert nobody.sealed is not None
        assert unseal(nobody.sealed, row * 2, nobody.id) == {"address": "192.0.2.7"}


@looped
async def test_recorder_that_gives_no_key_lets_nobody_in_where_something_is_to_be_sealed(tmp_path: Path) -> None:
    async with inside(tmp_path, audit={"address": "seal"}) as guard:
        guard.twin.judge = lambda message: (
            wire.Pseudonymous(bytes(16)) if isinstance(message, wire.Pseudonym) else guard.twin.honestly(message)
        )
        assert is_refused(await guard.ask("/orders/7", keyed(guard)), "recorder_unavailable")


@looped
async def test_more_than_can_wait_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TASKS", 2)
    async with inside(tmp_path) as guard:
        key = keyed(guard)
        guard.twin.holds = True
        waiting = [asyncio.ensure_future(guard.ask("/orders/7", key)) for _ in range(2)]
        await until(lambda: len(guard.service._tasks) == 2)
        assert is_refused(await guard.ask("/orders/7", key), "guard_error")
        guard.twin.release()
        assert all([(await each).allowed for each in waiting])
        assert (await guard.ask("/orders/7", key)).allowed


@looped
async def test_one_whose_task_is_cancelled_is_answered_too(tmp_path: Path) -> None:
    async with inside(tmp_path) as guard:
        guard.twin.holds = True
        asking = asyncio.ensure_future(guard.ask("/orders/7", keyed(guard)))
        await until(lambda: guard.twin.held)
        (task,) = guard.service._tasks
        task.cancel()
        assert is_refused(await asking, "guard_error")
        guard.twin.release()
        await until(lambda: guard.service.idle)
        assert guard.twin.items == []


@looped
async def test_second_answer_to_one_question_reaches_nobody(tmp_path: Path) -> None:
    """nginx would take it for the answer to the connection's next question."""
    async with inside(tmp_path) as guard:
        answers: list[bytes] = []
        case = module.Case(asked(), guard.service.rules, answers.append)
        case.give_up("guard_error")
        case.answer(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert len(answers) == 1
        assert answers[0].startswith(b"HTTP/1.1 403 ")


# -- errors of ours ------------------------------------------------------------------------------------------
class Broken(Rules):
    """Rules with a fault where `breaks` says."""

    breaks = "match"

    def match(self, asked: Asked) -> Match | Miss:
        if self.breaks == "match":
            raise RuntimeError("a fault of ours")
        return super().match(asked)

    def judge(self, *given: Any) -> Verdict:
        if self.breaks == "judge":
            raise RuntimeError("a fault of ours")
        return super().judge(*given)

    def decision(self, *given: Any) -> record.Decision:
        if self.breaks == "decision":
            raise RuntimeError("a fault of ours")
        return super().decision(*given)


@pytest.mark.parametrize("newcomer", [False, True])
@pytest.mark.parametrize("where", ["match", "judge", "decision"])
@looped
async def test_fault_of_ours_is_503_and_never_a_pass(tmp_path: Path, where: str, newcomer: bool) -> None:
    async with inside(tmp_path) as guard:
        key = keyed(guard)
        if not newcomer:
            assert (await guard.ask("/orders/7", key)).allowed
        broken = Broken(guard.place.configuration, KEYS)
        broken.breaks = where
        guard.service.rules = broken
        before = len(guard.twin.items)
        with structlog.testing.capture_logs() as said:
            answer = await guard.ask("/orders/7", key)
        assert is_refused(answer, "guard_error")
        assert [entry["request"] for entry in said if entry["log_level"] == "error"] == [answer.id]
        assert len(guard.twin.items) == before


# -- identification that waits ---------------------------------------------------------------------------------
@looped
async def test_unknown_token_is_verified_and_known_afterwards(tmp_path: Path, issuer: Issuer) -> None:
    routes = [route("a", "/a", identity=["staff"])]
    async with inside(tmp_path, identity=staff(issuer), routes=routes) as guard:
        token = issuer.token("bob", roles=["reader"])
        answers = [await guard.ask("/a", f"Authorization: Bearer {token}") for _ in range(2)]
        assert all(answer.allowed for answer in answers)
        parts = [guard.decision(answer).identity for answer in answers]
        assert parts[0] == parts[1]
        assert parts[0] is not None
        assert parts[0].method == "oidc"


@looped
async def test_provider_that_stalls_makes_its_tokens_unavailable_in_time(tmp_path: Path, issuer: Issuer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stalled:  # connections are made, and nobody ever reads
        url = f"http://127.0.0.1:{stalled.getsockname()[1]}"
        providers = {**staff(issuer), "partners": {"type": "api_key"}}
        providers["staff"]["issuer"] = url
        routes = [route("a", "/a", identity=["staff"]), route("b", "/b", identity=["partners"])]
        async with inside(tmp_path, identity=providers, routes=routes, guard=IMPATIENCE) as guard:
            answer = await guard.ask("/a", f"Authorization: Bearer {issuer.token(iss=url)}")
            assert (answer.status, answer.reason) == (503, "provider_unavailable")
            assert guard.decision(answer).decision.reason == "provider_unavailable"
            assert (await guard.ask("/b", keyed(guard))).allowed


@looped
async def test_nobody_is_identified_by_one_configuration_and_judged_by_another(tmp_path: Path) -> None:
    """`staff` is the company's issuer and opens /admin; then it is the developers', and there is no /admin."""
    company, developers = Issuer(), Issuer()
    admin = [route("admin", "/admin", identity=["staff"]), route("a", "/a", identity=["staff"])]
    async with inside(tmp_path, identity=staff(company), routes=admin) as guard:
        token = developers.token("mallory", roles=["reader"])
        field = f"Authorization: Bearer {token}"
        assert (await guard.ask("/admin", field)).reason == "token_issuer"
        answers: list[bytes] = []
        guard.service.decide(asked("/admin", field), answers.append)  # has to be verified, in a moment
        guard.reload(identity=staff(developers), routes=admin[1:])
        await until(lambda: answers)
        assert b"Gatebook-Reason: no_route\r\n" in answers[0]
        (found,) = guard.twin.decisions[1:]
        assert found.decision.configuration == guard.place.configuration.digest().hex()
        assert (await guard.ask("/a", field)).allowed
    company.stop()
    developers.stop()


@looped
async def test_one_who_waits_for_a_pseudonym_keeps_the_rules_it_was_judged_by(tmp_path: Path) -> None:
    async with inside(tmp_path) as guard:
        key = keyed(guard)
        before = guard.place.configuration.digest().hex()
        guard.twin.holds = True
        asking = asyncio.ensure_future(guard.ask("/orders/7", key))
        await until(lambda: guard.twin.held)
        guard.reload(routes=[route("none", "/none")])
        guard.twin.release()
        answer = await asking
        assert answer.allowed
        assert guard.decision(answer).decision.configuration == before
        assert (await guard.ask("/orders/7", key)).reason == "no_route"


@looped
async def test_revoked_route_is_refused_from_the_switch_on(tmp_path: Path) -> None:
    async with inside(tmp_path) as guard:
        key, line = keyed(guard), await guard.line()
        assert (await line.ask("/orders/7", key)).allowed
        guard.reload(routes=[each for each in ROUTES if each["name"] != "read-order"])
        assert (await line.ask("/orders/7", key)).reason == "no_route"


@looped
async def test_limits_outlast_a_reload(tmp_path: Path) -> None:
    async with inside(tmp_path) as guard:
        key, line = keyed(guard), await guard.line()
        assert [(await line.ask("/scarce", key)).status for _ in range(3)] == [200, 200, 429]
        guard.reload(audit={"address": "drop"})
        assert (await line.ask("/scarce", key)).status == 429


# -- credentials -----------------------------------------------------------------------------------------------
@looped
async def test_no_credential_stands_in_a_record_or_a_log_line(tmp_path: Path, issuer: Issuer) -> None:
    kept = {"headers": {"keep": ["user-agent", "x-note"]}, "query": {"keep": ["note"]}, "subject": "keep"}
    providers = {**staff(issuer), "partners": {"type": "api_key"}}
    routes = [*ROUTES, route("both", "/both/{name}", identity=["staff", "partners"])]
    with structlog.testing.capture_logs() as said:
        async with inside(tmp_path, identity=providers, routes=routes, audit=kept) as guard:
            key = keyed(guard)
            secret = key.partition(": ")[2]
            token = issuer.token("bob", roles=["reader"])
            signature = token.rpartition(".")[2]
            everywhere = [
                f"User-Agent: {secret}",
                f"X-Note: {token}",
                f"X-Request-ID: {secret}",
                f"Cookie: {token}",
            ]
            for uri in ("/both/a", f"/both/{secret}?note={secret}", f"/x/{token}?access_token={token}", "/lax"):
                for credential in (
                    key,
                    f"Authorization: Bearer {token}",
                    f"Authorization: Bearer {token}x",
                    key + "x",
                ):
                    await guard.ask(uri, credential, *everywhere, Host=secret, Sni=secret)
            written = b"\n".join(item.record for item in guard.twin.items)
            names = "".join(message.name for message in guard.twin.asked_to(wire.Pseudonym))
    assert len(written.splitlines()) == 16
    for hidden in (secret, token, signature):
        assert hidden.encode() not in written
        assert hidden not in str(said)
        assert hidden not in names


@looped
async def test_all_uses_of_one_credential_can_be_linked_and_those_of_two_cannot(tmp_path: Path) -> None:
    async with inside(tmp_path) as guard:
        first, second = keyed(guard), keyed(guard)
        parts = [guard.decision(await guard.ask("/orders/7", key)).identity for key in (first, second, first)]
        fingerprints = [part.credential for part in parts if part is not None]
        assert fingerprints[0] == fingerprints[2] != fingerprints[1]


# -- readiness ---------------------------------------------------------------------------------------------------
@looped
async def test_pages_say_whether_it_would_decide(tmp_path: Path) -> None:
    async with inside(tmp_path) as guard:
        line = await guard.line()
        assert (await page(line, "/ready")).code == 200
        assert (await page(line, "/status")).code == 200
        for path in ("/", "/decide/", "/ready?x", "/READY", "//ready", "/decide?x"):
            assert (await page(line, path)).code == 404
        guard.service.draining = True
        assert (await page(line, "/ready")).code == 503
        guard.service.draining = False
        guard.twin.die()
        await until(lambda: not guard.recorder.up)
        assert (await page(line, "/ready")).code == 503


async def page(line: Line, path: str) -> Answer:
    line.send(f"GET {path} HTTP/1.1\r\nHost: guard\r\n\r\n".encode())
    return await line.read()


def asked(uri: str = "/orders/7", *fields: str) -> Asked:
    """As the protocol makes it of the gateway's bytes."""
    _, data = head(uri, *fields)
    pairs = [line.split(b": ", 1) for line in data.split(b"\r\n")[2:] if line]
    own = {name.lower(): value for name, value in pairs if name.startswith(b"Gatebook-")}
    return parse(own, [(name.lower(), value) for name, value in pairs if not name.startswith(b"Gatebook-")])
