"""The configuration in force, and each that was: kept by its hash, before it is in force."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from gatebook.config import effective
from gatebook.config.load import parse
from gatebook.config.model import Configuration

TEXT = """
version: 1
name: acme
listen: [{address: "127.0.0.1:8443", tls: {certificate: a.pem, key: a.key}}]
upstreams: {orders: {url: "http://127.0.0.1:9001"}}
routes: [{name: r, path: /r, methods: [GET], upstream: orders, identity: none}]
"""


def configuration(folder: Path, name: str = "acme") -> Configuration:
    return parse(TEXT.replace("acme", name), "gatebook.yaml", folder)


def test_each_that_was_in_force_is_kept_by_its_hash(tmp_path: Path) -> None:
    made = [configuration(tmp_path, name) for name in ("one", "two", "one")]
    for each in made:
        effective.write(each, tmp_path / "effective.json")
    assert sorted(path.name for path in (tmp_path / "configurations").iterdir()) == sorted(
        {f"{each.digest().hex()}.json" for each in made}
    )
    for each in made:
        assert effective.kept(tmp_path, each.digest().hex()) == each.effective()
    assert effective.read(tmp_path / "effective.json") == made[-1]
    assert (tmp_path / "configurations").stat().st_mode & 0o777 == 0o700


def test_kept_one_that_was_changed_counts_for_none_and_is_written_again(tmp_path: Path) -> None:
    made = configuration(tmp_path)
    effective.write(made, tmp_path / "effective.json")
    (path,) = (tmp_path / "configurations").iterdir()
    path.write_bytes(path.read_bytes() + b" ")
    assert effective.kept(tmp_path, made.digest().hex()) is None
    effective.write(made, tmp_path / "effective.json")
    assert effective.kept(tmp_path, made.digest().hex()) == made.effective()


@pytest.mark.parametrize("digest", ["", "../effective", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "/.."])
def test_path_in_the_place_of_a_hash_reads_nothing(tmp_path: Path, digest: str) -> None:
    effective.write(configuration(tmp_path), tmp_path / "effective.json")
    assert effective.kept(tmp_path, digest) is None


def test_in_force_is_never_what_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = configuration(tmp_path, "one"), configuration(tmp_path, "two")
    effective.write(first, tmp_path / "effective.json")
    (tmp_path / "configurations").chmod(0o700)
    real = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if target.parent.name == "configurations":
            raise OSError(28, "no space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="no space"):
        effective.write(second, tmp_path / "effective.json")
    assert hashlib.sha256((tmp_path / "effective.json").read_bytes()).digest() == first.digest()
