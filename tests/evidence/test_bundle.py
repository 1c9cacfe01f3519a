"""`gatebook bundle`: what is in it, that it is the same each time, and that it verifies anywhere."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.access.ledger import T0, decision, outcome, request_id, unknown
from tests.evidence.place import MINUTE_US, Place, at, beat, members

from gatebook import record
from gatebook.evidence.tree import bundle_name
from gatebook.ledger.entry import Erase, Loss, LossReason
from gatebook.record import IdentityPart, RequestPart

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(tmp_path_factory.mktemp("deployment") / "acme")
    made.two_hours()
    return made


@pytest.fixture
def key(place: Place, tmp_path: Path) -> str:
    """The log's public key, where nothing else of the deployment is."""
    (tmp_path / "log.pub").write_bytes((place.paths.keys / "log.pub").read_bytes())
    return str(tmp_path / "log.pub")


def export(run: Run, place: Place, out: Path, *options: str) -> Any:
    ran = run("bundle", "-o", str(out), "-c", str(place.config), "--json", *options)
    assert ran.code == 0, ran.err + ran.out
    return ran.json()


HOUR = ("--since", at(30), "--until", at(90))


def test_bundle_of_an_hour_holds_its_records_and_verifies_without_the_deployment(
    run: Run, place: Place, key: str, tmp_path: Path
) -> None:
    told = export(run, place, tmp_path / "e.zip", *HOUR)
    assert told["records"] == 120
    assert told["sha256"] == hashlib.sha256((tmp_path / "e.zip").read_bytes()).hexdigest()
    ran = run("verify", str(tmp_path / "e.zip"), "--key", key, "-c", str(tmp_path / "nothing.yaml"))
    assert ran.code == 0, ran.out
    assert "requests  48 allowed, 12 denied, 0 refused" in ran.out
    assert "by the log's own clock the range is not shorter than it claims" in ran.out
    assert ran.out.splitlines()[-1] == "verified: 120 records"
    found = run("verify", str(tmp_path / "e.zip"), "--key", key, "--json").json()
    assert found["verified"] is True
    assert found["withheld"] == 0
    assert found["entries"] == {"Heartbeat": 60, "Record": 120}


def test_records_are_byte_for_byte_those_of_the_log(run: Run, place: Place, tmp_path: Path) -> None:
    export(run, place, tmp_path / "e.zip", *HOUR)
    reader = place.reader()
    lines = members(tmp_path / "e.zip")["records.jsonl"].splitlines()
    for line in lines:
        index = json.loads(line)["index"]
        assert line.endswith(b'"record":' + (reader.record(index) or b"") + b"}")
    assert len(lines) == 120


def test_two_exports_of_a_range_are_the_same_bytes_however_the_log_has_grown(run: Run, tmp_path: Path) -> None:
    place = Place(tmp_path / "acme")
    place.two_hours()
    export(run, place, tmp_path / "1.zip", *HOUR)
    place.write(lambda writer: writer.append([record.encode(decision(n)) for n in range(300, 900)]))
    export(run, place, tmp_path / "other.zip", "--since", at(0), "--until", at(100))
    export(run, place, tmp_path / "2.zip", *HOUR)
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()


def test_range_without_a_beginning_begins_with_the_log(run: Run, tmp_path: Path) -> None:
    """Its first records may have been made before it was there to take them."""
    place = Place(tmp_path / "acme")
    act = record.Admin(time_us=T0, action="key.create", actor="os:0")
    place.write(lambda writer: writer.append([record.encode(act), record.encode(decision(1))]))
    told = export(run, place, tmp_path / "e.zip")
    assert (told["first"], told["records"]) == (0, 2)
    found = run("verify", str(tmp_path / "e.zip"), "-c", str(place.config), "--json").json()
    assert any("begins with the log's first entry" in text for text in found["rests_on"])


def test_ranges_that_follow_each_other_leave_nothing_out(run: Run, place: Place, tmp_path: Path) -> None:
    ends = [
        (told["first"], told["end"])
        for n, (since, until) in enumerate([(10, 20), (20, 21), (21, 60)])
        for told in [export(run, place, tmp_path / f"{n}.zip", "--since", at(since), "--until", at(until))]
    ]
    assert ends[0][1] == ends[1][0]
    assert ends[1][1] == ends[2][0]


def test_bundle_of_nothing_says_that_it_proves_nothing(run: Run, place: Place, tmp_path: Path) -> None:
    asked = ("bundle", "-c", str(place.config), "-o")
    ran = run(*asked, str(tmp_path / "route.zip"), *HOUR, "--route", "nope")
    assert "none of the range's 120 records" in ran.err
    assert "no route 'nope' in the configuration" in ran.err
    ran = run(*asked, str(tmp_path / "before.zip"), "--since", "2001-01-01", "--until", "2001-02-01")
    assert "the log has no record of that range" in ran.err


def test_filter_discloses_what_matches_alone_and_says_how_much_is_left_out(
    run: Run, place: Place, key: str, tmp_path: Path
) -> None:
    told = export(run, place, tmp_path / "e.zip", *HOUR, "--verdict", "deny")
    assert (told["records"], told["withheld"]) == (24, 96)
    held = members(tmp_path / "e.zip")
    assert b'"verdict":"allow"' not in held["records.jsonl"]
    assert held["records.jsonl"].count(b'"kind":"outcome"') == 12
    ran = run("verify", str(tmp_path / "e.zip"), "--key", key)
    assert ran.code == 0
    assert "96 records are not disclosed: only verdict deny was asked for" in ran.out
    assert ran.out.splitlines()[-1] == "verified: 24 records, 96 of the range not disclosed"
    assert b"96 more of the range are not shown" in held["report.html"]


@pytest.mark.parametrize(
    ("option", "value", "records"),
    [
        ("--route", "read-order", 120),
        ("--route", "no-such", 0),
        ("--identity", "abababab", 120),
        ("--status", "4xx", 24),
        ("--reason", "no_rule", 24),
        ("--method", "get", 120),
    ],
)
def test_filters_are_those_of_the_log(
    run: Run, place: Place, key: str, tmp_path: Path, option: str, value: str, records: int
) -> None:
    assert export(run, place, tmp_path / "e.zip", *HOUR, option, value)["records"] == records
    assert run("verify", str(tmp_path / "e.zip"), "--key", key).code == 0


def test_configuration_that_decisions_name_is_in_it(run: Run, place: Place, tmp_path: Path) -> None:
    export(run, place, tmp_path / "e.zip", *HOUR)
    digest = place.configuration.digest().hex()
    assert members(tmp_path / "e.zip")[f"configurations/{digest}.json"] == place.configuration.effective()


def test_tiles_in_it_are_those_that_the_log_publishes(run: Run, place: Place, tmp_path: Path) -> None:
    export(run, place, tmp_path / "e.zip", *HOUR)
    held = members(tmp_path / "e.zip")
    tiles = [name for name in held if re.match(r"log/tile/\d", name)]
    assert tiles
    whole = place.paths.ledger
    for name in tiles:
        full = name.partition(".p/")[0]
        wider = [whole / full, *(whole / f"{full}.p").glob("*")]
        assert any(path.is_file() and path.read_bytes().startswith(held[name]) for path in wider), name
    assert list(held)[-1] == "manifest.json"  # it names the others


def test_time_in_which_nothing_happened_is_a_bundle_too(run: Run, place: Place, key: str, tmp_path: Path) -> None:
    since, until = at(200), at(300)
    assert export(run, place, tmp_path / "e.zip", "--since", since, "--until", until)["records"] == 0
    ran = run("verify", str(tmp_path / "e.zip"), "--key", key)
    assert ran.code == 0
    assert "no entry" in ran.out


def test_export_is_on_record_before_and_after(run: Run, tmp_path: Path) -> None:
    place = Place(tmp_path / "acme")
    place.two_hours()
    told = export(run, place, tmp_path / "e.zip", *HOUR, "--route", "read-order")
    acts = [
        json.loads(line)
        for line in run("log", "--all", "--json", "-c", str(place.config)).out.splitlines()
        if '"evidence.' in line
    ]
    assert [act["action"] for act in acts] == ["evidence.export", "evidence.exported"]
    assert acts[0]["detail"] == {"since": at(30), "until": at(90), "route": "read-order"}
    assert acts[1]["detail"]["sha256"] == told["sha256"]
    assert acts[1]["detail"]["records"] == 120


def test_name_that_is_looked_for_does_not_get_into_the_log_by_that(run: Run, tmp_path: Path) -> None:
    place = Place(tmp_path / "acme")
    place.two_hours()
    provider = next(iter(place.configuration.identity))
    for number, name in enumerate(["alice", provider, "abababab", "app"]):
        export(run, place, tmp_path / f"{number}.zip", *HOUR, "--identity", name)
    records = [data.decode() for _, data in place.reader().forwards()]
    assert not any("alice" in text for text in records)
    acts = [json.loads(text) for text in records if '"evidence.export' in text]
    named = [act["detail"]["identity"] for act in acts]
    assert named == ["(a name)"] * 2 + [provider] * 2 + ["abababab"] * 2 + ["(a name)", "app"]


def test_bundle_may_be_written_where_there_are_no_links(
    run: Run, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    export(run, place, tmp_path / "e.zip", *HOUR)
    assert [path.name for path in tmp_path.iterdir()] == ["e.zip"]


def test_export_that_cannot_be_written_puts_nothing_on_record(run: Run, place: Place, tmp_path: Path) -> None:
    before = place.reader().size
    (tmp_path / "there.zip").write_text("mine")
    assert run("bundle", "-o", str(tmp_path / "there.zip"), *HOUR, "-c", str(place.config)).code == 3
    assert run("bundle", "-o", str(tmp_path / "no" / "e.zip"), *HOUR, "-c", str(place.config)).code == 3
    assert place.reader().size == before
    assert (tmp_path / "there.zip").read_text() == "mine"


def test_range_that_is_not_over_is_refused(run: Run, place: Place, tmp_path: Path) -> None:
    ran = run("bundle", "-o", str(tmp_path / "e.zip"), "--until", "2999-01-01", "-c", str(place.config))
    assert ran.code == 2
    assert "still to come" in ran.err
    assert "leave --until out" in " ".join(ran.err.split())
    backwards = ("--since", at(90), "--until", at(30))
    assert run("bundle", "-o", str(tmp_path / "e.zip"), *backwards, "-c", str(place.config)).code == 2
    assert list(tmp_path.iterdir()) == []


def test_outcome_that_comes_after_the_range_belongs_to_its_request(run: Run, tmp_path: Path) -> None:
    place = Place(tmp_path / "acme")

    def make(writer: Any) -> None:
        writer.append_entry(beat(0))
        index = writer.append([record.encode(place.decision(1))])
        writer.append_entry(beat(1))
        writer.append([record.encode(decision(70))])
        writer.append([record.encode(outcome(1, index, time_us=T0 + 3 * MINUTE_US))])

    place.write(make)
    told = export(run, place, tmp_path / "e.zip", "--since", at(0), "--until", at(1))
    assert told["records"] == 2
    found = run("verify", str(tmp_path / "e.zip"), "-c", str(place.config), "--json").json()
    assert found["verified"] is True
    assert found["requests"]["allowed"] == 1


def test_clock_that_jumped_leaves_no_record_out(run: Run, tmp_path: Path) -> None:
    """One entry from the far future in the middle, and an hour that comes twice."""
    place = Place(tmp_path / "acme")

    def make(writer: Any) -> None:
        for n, minute in enumerate([0, 1, 2, 500_000, 3, 4, 1, 2, 3]):
            at_us = T0 + minute * MINUTE_US
            writer.append([record.encode(place.decision(n, time_us=at_us)), record.encode(unknown(0))][:1])

    place.write(make)
    told = export(run, place, tmp_path / "e.zip", "--since", at(1), "--until", at(4))
    records = members(tmp_path / "e.zip")["records.jsonl"].decode()
    for n in (1, 2, 4, 6, 7, 8):
        assert request_id(n) in records, n
    assert told["records"] == 8


def test_losses_and_unknown_outcomes_are_told_to_people_and_to_scripts(run: Run, tmp_path: Path) -> None:
    place = Place(tmp_path / "acme")

    def make(writer: Any) -> None:
        writer.append_entry(beat(0))
        index = writer.append([record.encode(place.decision(1))])
        writer.append([record.encode(record.Outcome(**_unknown(index)))])
        writer.append_entry(Loss(b"\0" * 7 + b"\1", 4, 5, LossReason.NO_LINE))
        writer.append_entry(beat(9))

    place.write(make)
    export(run, place, tmp_path / "e.zip", "--since", at(0), "--until", at(10))
    ran = run("verify", str(tmp_path / "e.zip"), "-c", str(place.config), "--json")
    assert ran.code == 13
    found = ran.json()
    assert found["outcome_unknown"] == 1
    said = [finding["what"] for finding in found["findings"]]
    assert any("LOSS" in text for text in said)
    assert any("no heartbeat for 540 s" in text for text in said)
    page = members(tmp_path / "e.zip")["report.html"].decode()
    assert "2 lines that the gateway" in page
    assert "no heartbeat for 540 s" in page


def _unknown(index: int) -> dict[str, Any]:
    return {
        "time_us": T0 + 2_000_000,
        "decision_index": index,
        "error": record.ErrorPart(source="gateway", detail="outcome_unknown"),
    }


def test_record_that_was_erased_is_told_from_one_that_is_missing(run: Run, tmp_path: Path) -> None:
    place = Place(tmp_path / "acme")
    place.two_hours()
    (dek, *_) = sorted(place.paths.deks.iterdir())
    dek.unlink()
    export(run, place, tmp_path / "missing.zip", *HOUR)
    ran = run("verify", str(tmp_path / "missing.zip"), "-c", str(place.config), "--json")
    assert ran.code == 13
    assert any("no ERASE entry says why" in each["consequence"] for each in ran.json()["findings"])
    none = bytes(32)
    place.write(lambda writer: writer.append_entry(Erase(3, bytes.fromhex(dek.stem), none, none, 2, none)))
    export(run, place, tmp_path / "erased.zip", *HOUR)
    ran = run("verify", str(tmp_path / "erased.zip"), "-c", str(place.config), "--json")
    assert ran.json()["findings"] == []
    assert ran.json()["erased"] == 118  # when the last minute's were made, only their frame could say
    assert ran.code == 0


def test_redacted_record_is_gone_and_accounted_for(run: Run, tmp_path: Path) -> None:
    place = Place(tmp_path / "acme")
    place.two_hours()
    export(run, place, tmp_path / "before.zip", *HOUR)
    ran = run("redact", request_id(41), "--reason", "secret", "-c", str(place.config))
    assert ran.code == 0, ran.err + ran.out
    told = export(run, place, tmp_path / "after.zip", *HOUR)
    assert told["records"] == 118
    held = members(tmp_path / "after.zip")
    assert request_id(41).encode() not in held["records.jsonl"]
    found = run("verify", str(tmp_path / "after.zip"), "-c", str(place.config), "--json").json()
    assert found["erased"] == 2
    assert [each for each in found["findings"] if "without their content" in each["what"]] == []
    assert b"2 that were erased on purpose" in held["report.html"] or b"Erased on purpose" in held["report.html"]


HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}'


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links |= {value or "" for name, value in attrs if name in ("href", "src")}


def test_html_in_what_clients_sent_is_text_in_the_report(run: Run, tmp_path: Path) -> None:
    place = Place(tmp_path / "acme")

    def make(writer: Any) -> None:
        made = place.decision(
            1,
            request=RequestPart(method="GET", path=f"/{HOSTILE}", route=HOSTILE, headers={"user-agent": HOSTILE}),
            identity=IdentityPart(provider=HOSTILE, method="oidc", subject=HOSTILE, client=HOSTILE),
        )
        writer.append([record.encode(made)])
        detail = {HOSTILE: HOSTILE}
        act = record.Admin(time_us=T0 + 2_000_000, action=HOSTILE, actor=HOSTILE, detail=detail)
        writer.append([record.encode(act)])

    place.write(make)
    export(run, place, tmp_path / "e.zip", "--since", at(0), "--until", at(1))
    page = members(tmp_path / "e.zip")["report.html"].decode()
    assert "&lt;script&gt;" in page
    assert "{{7*7}}" in page
    found = _Tags()
    found.feed(page)
    assert not found.tags & {"script", "img", "iframe", "object", "embed", "link", "form", "base"}
    assert not {name for name in found.attributes if name.startswith("on")} | ({"style"} & found.attributes)
    assert found.links <= {"#gaps"}


def test_report_lets_the_browser_load_nothing_but_its_own_style(run: Run, place: Place, tmp_path: Path) -> None:
    export(run, place, tmp_path / "e.zip", *HOUR)
    page = members(tmp_path / "e.zip")["report.html"].decode()
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src &#39;none&#39;; style-src &#39;sha256-{digest}&#39;" in page
    assert "http:" not in page
    assert "https:" not in page


def test_bundle_name_is_where_clients_of_the_standard_look() -> None:
    assert bundle_name(1234, 1234 * 256 + 7) == "log/tile/entries/x001/234.p/7"
