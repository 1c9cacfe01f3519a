"""Answers that nginx takes as they are meant: one field a line, nothing breaks out, and all of it fits."""

from __future__ import annotations

import json
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatebook.guard import answer
from gatebook.guard.answer import allow, deny, finish, plain, plainly
from gatebook.limits import Taken
from gatebook.record import REASONS, LimitPart
from gatebook.wire import DENIAL_STATUSES, FROM_GUARD

DENIALS = sorted(reason for reason, known in REASONS.items() if known.status >= 300)
ORIGIN = f"{'a' * 64}/{'b' * 64}"  # as long as names may be
GATEWAYS_BUFFER = 16 << 10
TAKEN = Taken(True, LimitPart(name="few", limit=9, remaining=3, reset_s=60), '"few";q=9;w=60', 7)
REFUSED = Taken(
    False, LimitPart(name="few", limit=9, remaining=0, reset_s=60, retry_after_s=7), '"few";q=9;w=60', 7
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    ["a\r\nGatebook-Upstream: admin", "a\nb", "a,b", "a b", "%41", "é", "\udcff", "\x00", "a: b", ""]
)


def read(data: bytes) -> tuple[str, dict[str, str]]:
    """The status line and the fields; no field may stand twice, no byte may follow."""
    top, _, rest = data.partition(b"\r\n\r\n")
    assert rest == b""
    first, *lines = top.decode("ascii").split("\r\n")
    pairs = [line.partition(": ")[::2] for line in lines]
    fields = {name: value for name, value in pairs}  # noqa: C416 - `dict` has no type for slices
    assert len(fields) == len(pairs)
    return first, fields


# -- values ------------------------------------------------------------------------------------------------
@given(text=texts)
def test_value_stays_in_its_field_and_can_be_read_back(text: str) -> None:
    found = plain(text)
    assert found.isascii()
    assert not set(found) & set("\r\n ,\x00")
    assert unquote_to_bytes(found) == text.encode("utf-8", "surrogateescape")


@given(subject=texts, roles=st.lists(texts, max_size=4))
def test_names_of_a_caller_make_no_further_field(subject: str, roles: list[str]) -> None:
    first, fields = read(
        finish(
            allow(reason="rule", upstream="orders", strip="1", who=(subject, roles, "partners"), taken=None),
            (ORIGIN, 4711),
        )
    )
    assert first == "HTTP/1.1 204 No Content"
    expected = {"Reason", "Upstream", "Strip", "Subject", "Provider", "Decision", "Receipt"} | (
        {"Roles"} if roles else set()
    )
    assert set(fields) == {f"Gatebook-{name}" for name in expected}
    assert fields["Gatebook-Upstream"] == "orders"
    if roles:
        assert [unquote_to_bytes(each) for each in fields["Gatebook-Roles"].split(",")] == [
            role.encode("utf-8", "surrogateescape") for role in roles
        ]


def test_role_with_a_comma_is_not_two_roles() -> None:
    head = allow(reason="rule", upstream="orders", strip="", who=("ann", ["reader,admin"], "partners"), taken=None)
    assert read(finish(head))[1]["Gatebook-Roles"] == "reader%2Cadmin"


def test_letters_that_no_text_can_have_are_refused_before_they_are_sent() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        allow(reason="rule", upstream="orders", strip="", who=("\ud800", (), "partners"), taken=None)


# -- what each answer says ---------------------------------------------------------------------------------
def test_public_answer_names_nobody() -> None:
    _, fields = read(finish(allow(reason="public", upstream="orders", strip="", who=None, taken=None)))
    assert fields == {"Gatebook-Reason": "public", "Gatebook-Upstream": "orders"}


def test_receipt_names_ledger_and_index() -> None:
    head = allow(reason="public", upstream="orders", strip="", who=None, taken=None)
    _, fields = read(finish(head, ("acme/node-1", 0)))
    assert (fields["Gatebook-Receipt"], fields["Gatebook-Decision"]) == ("acme/node-1/0", "0")


@pytest.mark.parametrize("reason", DENIALS)
def test_denial_is_one_that_the_gateway_can_pass_on(reason: str) -> None:
    first, fields = read(finish(deny(reason=reason, request_id="0" * 32, authenticate="Bearer", taken=TAKEN)))
    status = REASONS[reason].status
    assert status in DENIAL_STATUSES
    assert first == ("HTTP/1.1 401 Unauthorized" if status == 401 else "HTTP/1.1 403 Forbidden")
    assert fields["Content-Length"] == "0"
    assert fields["Gatebook-Status"] == str(status)
    problem = json.loads(fields["Gatebook-Problem"])
    assert problem == {
        "type": "about:blank",
        "title": REASONS[reason].title,
        "status": status,
        "request_id": "0" * 32,
    }
    assert ("Gatebook-Authenticate" in fields) == (status == 401)
    assert ("Gatebook-Retry-After" in fields) == (status == 503)
    assert {name for name in fields if name.startswith("Gatebook-")} <= set(FROM_GUARD)


def test_denials_of_credentials_look_alike() -> None:
    told = set()
    for reason in DENIALS:
        if REASONS[reason].status == 401 and reason != "credential_missing":
            head = deny(reason=reason, request_id="0" * 32, authenticate="Bearer")
            told.add(head.replace(reason.encode(), b""))
    assert len(told) == 1


def test_limits_are_told_on_both_answers() -> None:
    _, fields = read(finish(allow(reason="rule", upstream="orders", strip="", who=None, taken=TAKEN)))
    assert fields["Gatebook-Ratelimit"] == '"few";r=3;t=7'
    assert fields["Gatebook-Ratelimit-Policy"] == '"few";q=9;w=60'
    assert "Gatebook-Retry-After" not in fields
    _, fields = read(finish(deny(reason="limit_exceeded", request_id="0" * 32, taken=REFUSED)))
    assert fields["Gatebook-Retry-After"] == "7"


def test_place_to_log_in_is_told() -> None:
    head = deny(reason="login_required", request_id="0" * 32, login="https://api.example/.gatebook/login?a=b")
    assert read(finish(head))[1]["Gatebook-Location"] == "https://api.example/.gatebook/login?a=b"


def test_methods_are_listed() -> None:
    head = deny(reason="method_not_allowed", request_id="0" * 32, allowed_methods=("GET", "HEAD"))
    assert read(finish(head))[1]["Gatebook-Allow"] == "GET, HEAD"


# -- what fits -----------------------------------------------------------------------------------------------
def test_largest_answer_fits_into_the_gateways_buffer_with_its_receipt() -> None:
    def named(length: int) -> bytes:
        return allow(reason="rule", upstream="orders", strip="1", who=("a" * length, (), "p"), taken=TAKEN)

    room = answer.MAX_HEAD_BYTES - len(named(0))
    assert len(finish(named(room), (ORIGIN, 2**63))) < GATEWAYS_BUFFER
    with pytest.raises(ValueError, match="the gateway takes"):
        named(room + 1)


def test_page_has_its_length() -> None:
    assert plainly("200 OK", b"ready\n") == b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nready\n"
