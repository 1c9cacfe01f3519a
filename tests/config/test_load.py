"""From files to configurations: what is read, what relative paths mean, what is reported together."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatebook.config.load import examine, load, locate, parse, state_dir
from gatebook.config.model import Configuration
from gatebook.config.source import read
from gatebook.errors import ConfigError

GOOD = (Path(__file__).parent / "cases" / "accepted.case").read_text("utf-8").partition("----------\n")[0]


def test_relative_paths_count_from_the_files_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gatebook.yaml").write_text(GOOD)
    monkeypatch.chdir("/")
    configuration = load(tmp_path / "gatebook.yaml")
    assert configuration.state_dir == tmp_path / "state"
    tls = configuration.listen[0].tls
    assert tls is not None
    assert tls.certificate == tmp_path / "a.pem"


def test_a_relative_file_name_still_gives_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gatebook.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    assert load(Path("gatebook.yaml")).state_dir == tmp_path / "state"


def test_home_and_absolute_paths_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    configuration = parse(GOOD + "state_dir: ~/state\n", "f", Path("/etc"))
    assert configuration.state_dir == Path("/home/somebody/state")
    assert parse(GOOD + "state_dir: /var/lib/x\n", "f", Path("/etc")).state_dir == Path("/var/lib/x")


def test_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file.*gatebook init"):
        load(tmp_path / "gatebook.yaml")


def test_folder_in_place_of_the_file_is_a_problem_and_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a directory"):
        load(tmp_path)


def test_ten_megabytes_are_refused_without_being_read_to_the_end(tmp_path: Path) -> None:
    with (tmp_path / "big.yaml").open("wb") as stream:
        os.truncate(stream.fileno(), 10 << 20)
    with pytest.raises(ConfigError, match="more than 4 MiB"):
        load(tmp_path / "big.yaml")


def test_an_unknown_key_does_not_hide_what_else_can_be_checked() -> None:
    examined = examine_text(GOOD + "gatway: {}\n")
    assert len(examined[1]) == 1
    assert examined[0] is not None
    assert examined[0].name == "acme"


def test_with_a_wrong_value_there_is_no_configuration() -> None:
    assert examine_text(GOOD.replace("version: 1", "version: 9"))[0] is None


def examine_text(text: str) -> tuple[Configuration | None, list[str]]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "gatebook.yaml"
        path.write_text(text)
        configuration, _, problems = examine(path)
    return configuration, [str(p) for p in problems]


def test_problems_of_others_are_given_their_place() -> None:
    source = read(GOOD.encode(), "gatebook.yaml")
    (problem,) = locate([(("routes", 0, "allow", 0, "when"), "type error", "a CEL expression")], source)
    assert str(problem) == ("gatebook.yaml:18:9: routes[0].allow[0].when: type error; expected a CEL expression")


def test_effective_configuration_comes_back_the_same() -> None:
    configuration = parse(GOOD, "f", Path("/etc/gatebook"))
    again = Configuration.model_validate_json(configuration.effective())
    assert again == configuration
    assert again.effective() == configuration.effective()
    assert again.digest() == configuration.digest()


def test_same_text_gives_the_same_bytes_and_other_text_gives_others() -> None:
    one, two = (parse(GOOD, "f", Path("/etc")) for _ in range(2))
    assert one.effective() == two.effective()
    assert one.digest() != parse(GOOD.replace("reader", "admin"), "f", Path("/etc")).digest()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
_KEYS = st.sampled_from(
    ["version", "name", "listen", "identity", "upstreams", "routes", "audit", "gateway", "guard", "path", "type"]
)


@settings(deadline=None)
@given(st.dictionaries(_KEYS, _JSON | st.lists(st.dictionaries(_KEYS, _JSON, max_size=3), max_size=2), max_size=8))
def test_data_of_any_shape_gives_problems_with_places(data: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:  # no such configuration has a version, a name and the rest
        parse(json.dumps(data), "f", Path("/etc"))
    assert all(problem.file == "f" and problem.line > 0 for problem in caught.value.problems)
    assert not any("Input should" in problem.expected for problem in caught.value.problems)


def test_state_is_found_while_the_rest_of_the_file_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "gatebook.yaml"
    for text, expected in (
        ("version: 1\nstate_dir: ./elsewhere\nroutes: [oops", None),
        ("version: 1\nstate_dir: ./elsewhere\nroutes: nonsense\n", "elsewhere"),
        ("version: 9\n", "state"),
        ("state_dir: [1]\n", None),
        ("[]", None),
    ):
        path.write_text(text)
        if expected is None:
            with pytest.raises(ConfigError):
                state_dir(path)
        else:
            assert state_dir(path) == tmp_path / expected
    path.unlink()
    with pytest.raises(ConfigError, match="gatebook init"):
        state_dir(path)
