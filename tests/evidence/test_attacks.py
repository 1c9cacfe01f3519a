"""Bundles of evidence as an attacker changes them, who knows the format: each way to lie, and each way to hurt."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import shutil
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.cli.conftest import Run
from tests.evidence.once import once
from tests.evidence.place import Members, Place, at, forge, members, packed

from gatebook.errors import Damaged, LedgerError, Tampered
from gatebook.evidence import manifest
from gatebook.evidence.archive import Writer, opened
from gatebook.evidence.check import Checked, check
from gatebook.evidence.manifest import Manifest
from gatebook.evidence.tree import right_edge, tile_name
from gatebook.ledger.keys import load_verifier
from gatebook.ledger.note import Checkpoint, Signer, Verifier, sign_note
from gatebook.ledger.prove import tile_width
from gatebook.ledger.verify.public import fold, peak_roots

RECORDS = "records.jsonl"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(tmp_path_factory.mktemp("deployment") / "acme")
    made.two_hours()
    return made


@pytest.fixture(scope="module")
def genuine(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of an hour, made once."""
    out = tmp_path_factory.mktemp("bundle") / "e.zip"
    once("bundle", "-o", str(out), "-c", str(place.config), "--since", at(30), "--until", at(90))
    return out


@pytest.fixture
def bundle(genuine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(genuine, tmp_path / "e.zip"))


@pytest.fixture
def key(place: Place) -> Verifier:
    return load_verifier(place.paths.keys)


def checked(path: Path, key: Verifier | None) -> Checked:
    return check(path, key, lambda _done, _total: None)


def said(result: Checked) -> str:
    return "\n".join(f"{each.kind}: {each.place}: {each.what}" for each in result.report.findings)


def lines(held: Members) -> list[bytes]:
    return held[RECORDS].splitlines(keepends=True)


def on_lines(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Members], None]:
    def apply(held: Members) -> None:
        held[RECORDS] = b"".join(change(lines(held)))

    return apply


def resalted(line: bytes, salt: bytes) -> bytes:
    made = json.loads(line)["salt"].encode()
    return line.replace(made, base64.b64encode(salt))


def numbered(line: bytes, index: int) -> bytes:
    return b'{"index":%d,' % index + line.partition(b",")[2]


def index_of(line: bytes) -> int:
    return int(json.loads(line)["index"])


def test_genuine_bundle_has_nothing_wrong(bundle: Path, key: Verifier) -> None:
    result = checked(bundle, key)
    assert said(result) == ""
    assert result.examined.disclosed == 120
    assert checked(forge(bundle, lambda _held: None), key).report.worst is None  # the forger's tools are good


CHANGED_RECORDS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "verdict": lambda all_: [all_[0].replace(b'"verdict":"deny"', b'"verdict":"allow"'), *all_[1:]],
    "space": lambda all_: [all_[0].replace(b'"kind":', b'"kind": ', 1), *all_[1:]],
    "space at the end": lambda all_: [all_[0][:-2] + b" }\n", *all_[1:]],
    "order of fields": lambda all_: [
        all_[0].replace(b'{"v":1,"kind":"decision",', b'{"kind":"decision","v":1,'),
        *all_[1:],
    ],
    "unicode escape": lambda all_: [all_[0].replace(b"/orders", b"\\u002forders"), *all_[1:]],
    "doubled field": lambda all_: [all_[0][:-2] + b',"upstream":"x"}}\n', *all_[1:]],
    "another salt": lambda all_: [resalted(all_[0], bytes(32)), *all_[1:]],
    "the neighbour's place": lambda all_: [
        numbered(all_[1], index_of(all_[0])),
        numbered(all_[0], index_of(all_[1])),
        *all_[2:],
    ],
    "the neighbour's record": lambda all_: [numbered(all_[2], index_of(all_[0])), *all_[1:]],
}


@pytest.mark.parametrize("change", CHANGED_RECORDS)
def test_record_that_differs_from_the_logs_by_anything_is_tampering(
    bundle: Path, key: Verifier, change: str
) -> None:
    result = checked(forge(bundle, on_lines(CHANGED_RECORDS[change])), key)
    assert result.report.worst == "tampered"
    assert "is not the record that the log holds there" in said(result)
    assert result.report.exit_code == 12


BAD_LINES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a line twice": lambda all_: [all_[0], *all_],
    "lines in another order": lambda all_: [all_[1], all_[0], *all_[2:]],
    "a salt of 31 bytes": lambda all_: [resalted(all_[0], bytes(31)), *all_[1:]],
    "a salt of 33 bytes": lambda all_: [resalted(all_[0], bytes(33)), *all_[1:]],
    "base64 with bits left over": lambda all_: [_loose(all_[0]), *all_[1:]],
    "base64 of urls": lambda all_: [resalted(all_[0], b"\xff" * 32).replace(b"/", b"_"), *all_[1:]],
    "a leading zero": lambda all_: [all_[0].replace(b'"index":', b'"index":0', 1), *all_[1:]],
    "a sign": lambda all_: [all_[0].replace(b'"index":', b'"index":+', 1), *all_[1:]],
    "another field": lambda all_: [all_[0].replace(b'"salt"', b'"who":"x","salt"', 1), *all_[1:]],
    "spaces between": lambda all_: [all_[0].replace(b',"salt"', b', "salt"', 1), *all_[1:]],
    "no line": lambda all_: [b"\n", *all_],
    "no end": lambda all_: [*all_[:-1], all_[-1][:-1]],
    "line ends of Windows": lambda all_: [line.replace(b"\n", b"\r\n") for line in all_],
    "a line without end": lambda all_: [b'{"index":1,"salt":"', b"A" * (1 << 20)],
}


def _loose(line: bytes) -> bytes:
    """The salt's last digit before the padding changed in the bits that no byte is made of."""
    salt = json.loads(line)["salt"]
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    loose = salt[:-2] + digits[digits.index(salt[-2]) + 1] + "="
    assert base64.b64decode(loose) == base64.b64decode(salt)
    return line.replace(salt.encode(), loose.encode())


@pytest.mark.parametrize("line", BAD_LINES)
def test_records_that_are_spelt_otherwise_are_damaged(bundle: Path, key: Verifier, line: str) -> None:
    result = checked(forge(bundle, on_lines(BAD_LINES[line])), key)
    assert result.report.worst in ("damaged", "tampered")
    assert f"damaged: {RECORDS}" in said(result)


def test_record_left_out_is_missed(bundle: Path, key: Verifier) -> None:
    gone: list[int] = []

    def leave_out(all_: list[bytes]) -> list[bytes]:
        gone.append(index_of(all_[7]))
        return all_[:7] + all_[8:]

    result = checked(forge(bundle, on_lines(leave_out), disclosed=119, withheld=1), key)
    assert f"incomplete: entry {gone[0]}: are records without their content" in said(result)
    assert "tampered: report.html" in said(result)  # which still counts it


def test_records_left_out_under_the_name_of_a_filter_are_still_counted(bundle: Path, key: Verifier) -> None:
    """Whoever makes a bundle may choose what to show, but not how much there is."""
    path = forge(bundle, on_lines(lambda all_: all_[:20]), filters={"route": "x"}, disclosed=20, withheld=100)
    result = checked(path, key)
    assert result.examined.withheld == 100
    assert any("100 records are not disclosed" in text for text in result.report.rests_on)


@pytest.mark.parametrize(("disclosed", "withheld"), [(120, 5), (119, 0), (121, 0)])
def test_manifest_that_counts_otherwise_is_tampering(
    bundle: Path, key: Verifier, disclosed: int, withheld: int
) -> None:
    result = checked(forge(bundle, lambda _held: None, disclosed=disclosed, withheld=withheld), key)
    assert "tampered: manifest.json: claims" in said(result)


def test_range_that_is_made_shorter_is_found_by_the_heartbeats(bundle: Path, key: Verifier) -> None:
    """Ten minutes cut off at its end; the next heartbeat shows it, and without any nothing does, which is said."""
    claims = json.loads(members(bundle)["manifest.json"])
    end = claims["end"] - 30

    def cut(all_: list[bytes]) -> list[bytes]:
        return [line for line in all_ if index_of(line) < end]

    path = forge(bundle, on_lines(cut), end=end, after=end, disclosed=100)
    assert "has a time within it" in said(checked(path, key))
    honest = checked(forge(bundle, on_lines(cut), end=end, after=None, disclosed=100), key)
    assert any("nothing in here shows" in text and "end" in text for text in honest.report.rests_on)
    claimed = forge(bundle, on_lines(cut), end=end, after=end + 1, disclosed=100)
    assert "is not in the bundle" in said(checked(claimed, key))


@pytest.mark.parametrize(
    "claims",
    [
        {"first": 10, "end": 5},
        {"end": 10**9},
        {"size": 10**6},
        {"origin": "acme/node-2"},
        {"root": "00" * 32},
        {"since_us": 5},
        {"since": "yesterday"},
        {"first": -1},
        {"before": 10**9},
        {"end": 1 << 70},
    ],
)
def test_claims_that_contradict_themselves_or_the_log_are_refused(
    bundle: Path, key: Verifier, claims: dict[str, Any]
) -> None:
    held = members(bundle)
    held["manifest.json"] = json.dumps(json.loads(held["manifest.json"]) | claims, indent=2).encode() + b"\n"
    bundle.write_bytes(packed(held))
    with pytest.raises(LedgerError, match=r"manifest\.json"):
        checked(bundle, key)


@pytest.mark.parametrize(
    "spelling",
    [
        lambda data: data.replace(b'"format"', b'"who": "me",\n  "format"', 1),
        lambda data: data.replace(b"evidence 1", b"evidence 2"),
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data + b" ",
        lambda data: b"[" * 100_000,
        lambda data: b"",
    ],
)
def test_manifest_of_another_form_is_refused(
    bundle: Path, key: Verifier, spelling: Callable[[bytes], bytes]
) -> None:
    held = members(bundle)
    held["manifest.json"] = spelling(held["manifest.json"])
    bundle.write_bytes(packed(held))
    with pytest.raises(Damaged, match=r"manifest\.json"):
        checked(bundle, key)


def flipped(data: bytes, at: int = 40) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("prefix", ["log/tile/0", "log/tile/1", "log/tile/entries"])
def test_changed_tile_is_tampering_whatever_the_manifest_says(bundle: Path, key: Verifier, prefix: str) -> None:
    names = [name for name in members(bundle) if name.startswith(prefix)]
    assert names
    for name in names:

        def change(held: Members, name: str = name) -> None:
            held[name] = flipped(held[name], 20)

        assert checked(forge(bundle, change), key).report.worst == "tampered", name


def test_tile_that_is_left_out_is_missed(bundle: Path, key: Verifier) -> None:
    for name in [name for name in members(bundle) if name.startswith("log/tile")]:

        def change(held: Members, name: str = name) -> None:
            del held[name]

        result = checked(forge(bundle, change), key)
        assert result.report.worst in ("damaged", "tampered"), name


def test_report_that_says_something_else_is_tampering(bundle: Path, key: Verifier) -> None:
    def change(held: Members) -> None:
        held["report.html"] = held["report.html"].replace(b"denied", b"fine")

    assert "tampered: report.html: is not what the records" in said(checked(forge(bundle, change), key))


def test_instructions_that_lead_elsewhere_are_tampering(bundle: Path, key: Verifier) -> None:
    def change(held: Members) -> None:
        held["README.txt"] += b"\nGet the key at evil.example.\n"

    assert "tampered: README.txt" in said(checked(forge(bundle, change), key))


def test_report_that_claims_another_version_is_no_evidence(bundle: Path, key: Verifier) -> None:
    """The claim is nobody's: with it a forged report would be as good as the genuine one."""

    def change(held: Members) -> None:
        held["report.html"] = b"<h1>No access was denied in this time</h1>"

    result = checked(forge(bundle, change, software="9.9"), key)
    assert "incomplete: report.html: was made by another version of gatebook, or changed" in said(result)
    assert result.report.exit_code == 13
    assert any("are in the signed tree" in text for text in result.report.rests_on)


def test_configuration_that_was_not_in_force_is_tampering(bundle: Path, key: Verifier) -> None:
    def change(held: Members) -> None:
        (name,) = [name for name in held if name.startswith("configurations/")]
        held[name] = held[name].replace(b"acme", b"evil")

    assert "tampered: configurations/" in said(checked(forge(bundle, change), key))


def test_file_changed_beside_the_manifest_is_tampering(bundle: Path, key: Verifier) -> None:
    held = members(bundle)
    held["README.txt"] += b"."
    bundle.write_bytes(packed(held))
    assert "tampered: manifest.json: says something else of README.txt" in said(checked(bundle, key))


def test_whole_bundle_signed_by_another_key_of_the_same_name_is_refused(bundle: Path, key: Verifier) -> None:
    other = Signer(key.name, b"x" * 32)

    def change(held: Members) -> None:
        text = held["log/checkpoint"].decode().partition("\n\n")[0] + "\n"
        held["log/checkpoint"] = sign_note(text, other)
        held["log.pub"] = other.vkey.encode() + b"\n"

    path = forge(bundle, change)
    with pytest.raises(Tampered, match="nothing in the bundle is proven"):
        checked(path, key)
    result = checked(path, None)  # believed only as far as its own key is, and that is said
    assert any("log.pub came with the bundle" in text for text in result.report.rests_on)


def test_key_in_the_bundle_that_is_not_the_logs_is_tampering(bundle: Path, key: Verifier) -> None:
    def change(held: Members) -> None:
        held["log.pub"] = Signer(key.name, b"x" * 32).vkey.encode() + b"\n"

    assert "tampered: log.pub" in said(checked(forge(bundle, change), key))


def test_bundle_without_a_key_says_that_it_brought_its_own(bundle: Path) -> None:
    result = checked(bundle, None)
    assert result.own_key
    assert result.report.worst is None


# -- zips ---------------------------------------------------------------------------------------------------


def with_member(path: Path, name: str, data: bytes = b"x") -> Path:
    held = members(path)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for each, content in {**held, name: data}.items():
            info = zipfile.ZipInfo(each, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o100644 << 16
            archive.writestr(info, content)
    path.write_bytes(out.getvalue())
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/cron.d/x",
        "/etc/passwd",
        "log/../../x",
        "log\\..\\x",
        "C:\\x",
        "evil.html",
        "report.html ",
        "log/tile/8/000",
        "log/tile/0/0",
        "log/tile/0/",
        "configurations/x.json",
        "x\x00y",
        "a\u202etxt.exe",
    ],
)
def test_zip_slip_and_any_file_that_no_bundle_has_is_refused(bundle: Path, key: Verifier, name: str) -> None:
    before = sorted(bundle.parent.iterdir())
    with pytest.raises(Damaged):
        checked(with_member(bundle, name), key)
    assert sorted(bundle.parent.iterdir()) == before


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_name_that_comes_twice_is_refused(bundle: Path, key: Verifier) -> None:
    held = members(bundle)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in [*held, "report.html"]:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o100644 << 16
            archive.writestr(info, held[name])
    bundle.write_bytes(out.getvalue())
    with pytest.raises(Damaged, match="comes twice"):
        checked(bundle, key)


def bomb(bundle: Path, name: str, size: int) -> Path:
    """The member, but of `size` zeros, which deflate to a thousandth."""

    class Zeros(io.RawIOBase):
        def __init__(self) -> None:
            self.left = size

        def read(self, count: int = -1) -> bytes:
            taken = min(self.left, 1 << 20)
            self.left -= taken
            return bytes(taken)

    out = io.BytesIO()
    writer = Writer(out)
    for each, data in members(bundle).items():
        with writer.adding(each, large=each == RECORDS) as stream:
            shutil.copyfileobj(Zeros(), stream) if each == name else stream.write(data)
    writer.close()
    bundle.write_bytes(out.getvalue())
    return bundle


@pytest.mark.parametrize("name", [RECORDS, "manifest.json", "report.html", "log/checkpoint", "log.pub"])
def test_zip_bomb_is_refused_without_being_unpacked(bundle: Path, key: Verifier, name: str) -> None:
    path = bomb(bundle, name, 300 << 20)
    assert path.stat().st_size < 2 << 20
    tracemalloc.start()
    try:
        with contextlib.suppress(Damaged):
            assert checked(path, key).report.worst in ("damaged", "tampered")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 120 << 20


def test_bytes_before_between_or_behind_the_members_are_refused(bundle: Path, key: Verifier) -> None:
    data = bundle.read_bytes()
    for changed in (b"MZ" + data, data + b"x", data[:-1], data[: len(data) // 2], data + data):
        bundle.write_bytes(changed)
        with pytest.raises(Damaged):
            checked(bundle, key)


def test_member_that_hides_between_two_others_is_refused(bundle: Path, key: Verifier) -> None:
    """Another program that reads from the front would see it, one that goes by the directory would not."""
    with_member(bundle, "evil.html", b"<script>alert(1)</script>")
    data = bundle.read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        count = len(archive.infolist())
    entry = data.rindex(b"PK\x01\x02")
    end = data.rindex(b"PK\x05\x06")
    fields = list(struct.unpack("<4s4H2LH", data[end:]))
    fields[3] = fields[4] = count - 1
    fields[5] = entry - fields[6]
    bundle.write_bytes(data[:entry] + struct.pack("<4s4H2LH", *fields))
    with zipfile.ZipFile(bundle) as archive:
        assert "evil.html" not in archive.namelist()
    with pytest.raises(Damaged):
        checked(bundle, key)


def test_member_that_is_named_otherwise_in_its_own_head_is_refused(bundle: Path, key: Verifier) -> None:
    data = bytearray(bundle.read_bytes())
    at = data.index(b"report.html")
    data[at : at + 11] = b"rep0rt.html"
    bundle.write_bytes(bytes(data))
    with pytest.raises(Damaged):
        checked(bundle, key)


def test_directory_that_claims_a_billion_members_is_not_read(bundle: Path, key: Verifier) -> None:
    data = bytearray(bundle.read_bytes())
    for fields in ({3: 65535, 4: 65535}, {5: 0xFFFFFFF0}, {6: 0xFFFFFFF0}):
        end = list(struct.unpack("<4s4H2LH", bytes(data[-22:])))
        for number, value in fields.items():
            end[number] = value
        bundle.write_bytes(bytes(data[:-22]) + struct.pack("<4s4H2LH", *end))
        with pytest.raises(Damaged):
            checked(bundle, key)


def test_encrypted_member_is_refused(bundle: Path, key: Verifier) -> None:
    data = bytearray(bundle.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    bundle.write_bytes(bytes(data))
    with pytest.raises(Damaged):
        checked(bundle, key)


def test_empty_file_and_other_zips_are_no_bundles(tmp_path: Path, key: Verifier) -> None:
    path = tmp_path / "x.zip"
    for held in ({}, {"a": b"b"}, {"manifest.json": b"{}"}):
        path.write_bytes(packed(held))
        with pytest.raises(Damaged):
            checked(path, key)
    path.write_bytes(b"")
    with pytest.raises(Damaged), opened(path):
        pass


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "e.zip"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.data())
def test_flipped_byte_anywhere_never_changes_what_is_proven(
    genuine: Path, place: Place, scratch: Path, data: st.DataObject
) -> None:
    whole = genuine.read_bytes()
    where = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.integers(0, 7))
    scratch.write_bytes(whole[:where] + bytes([whole[where] ^ 1 << bit]) + whole[where + 1 :])
    try:
        result = checked(scratch, load_verifier(place.paths.keys))
    except LedgerError:
        return
    assert result.report.worst is not None or members(scratch) == members(genuine)


def test_verdicts_come_with_their_exit_codes(run: Run, bundle: Path, place: Place) -> None:
    key = str(place.paths.keys / "log.pub")
    assert run("verify", str(bundle), "--key", key).code == 0
    path = forge(bundle, on_lines(CHANGED_RECORDS["space"]))
    ran = run("verify", str(path), "--key", key)
    assert ran.code == 12
    assert "not verified: " in ran.out
    bundle.write_bytes(bundle.read_bytes()[:-1])
    ran = run("verify", str(bundle), "--key", key, "--json")
    assert ran.code == 11
    assert str(bundle) in ran.json()["error"]["message"]


def test_bundle_of_a_tree_that_nobody_could_walk_has_one_run_missing(tmp_path: Path) -> None:
    """A key of one's own signs any size; the range claims all of it, and the tiles at its end are made to fit."""
    signer, size = Signer("acme/node-1", b"t" * 32), 1 << 62
    held: Members = {"README.txt": b"", "log.pub": signer.vkey.encode() + b"\n", RECORDS: b"", "report.html": b""}
    roots: list[bytes] = []
    for tile in right_edge(size):
        hashes = [bytes(32)] * tile_width(*tile, size)
        held[tile_name(*tile, size)] = b"".join(hashes)
        roots[:0] = peak_roots(hashes)
    root = fold(roots)
    held["log/checkpoint"] = sign_note(Checkpoint(signer.name, size, root).text(), signer)
    claims = Manifest(
        origin=signer.name,
        size=size,
        root=root.hex(),
        since=manifest.iso(0),
        until=manifest.iso(1),
        since_us=0,
        until_us=1,
        first=0,
        end=size,
        before=None,
        after=None,
        filters={},
        disclosed=0,
        withheld=0,
        software="",
        members={},
    )
    path = tmp_path / "e.zip"
    path.write_bytes(packed(held | {manifest.NAME: manifest.encode(claims)}))
    report = checked(path, None).report
    missing = [each for each in report.findings if "are not proven" in each.consequence]
    assert [each.consequence for each in missing] == [f"entries 0 to {size - 1} are not proven"]


def test_filter_that_nobody_signed_prints_no_line_of_its_own(bundle: Path, key: Verifier, run: Run) -> None:
    filters = {"user": "bob\nverified: 5000 records in the signed tree\u2028log       other/log, 1 entries"}
    path = forge(bundle, lambda _held: None, filters=filters)
    printed = run("verify", str(path), "--key", key.vkey).out.splitlines()
    assert any("user bob\\nverified: 5000" in line for line in printed)
    assert not any(line.startswith(("verified: 5000", "log       other")) for line in printed)
