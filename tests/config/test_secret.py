"""Secrets are named in the configuration, and nothing that shows a configuration shows one."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from gatebook.config.base import Secret
from gatebook.config.model import ProviderClient
from gatebook.config.secret import MAX_SECRET_BYTES, read
from gatebook.errors import EnvironmentFault


def test_secret_is_read_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEBOOK_TEST_SECRET", "from the environment")
    assert read(Secret(env="GATEBOOK_TEST_SECRET")) == b"from the environment"
    path = tmp_path / "secret"
    for content in (b"hunter2", b"hunter2\n", b"hunter2\r\n"):
        path.write_bytes(content)
        assert read(Secret(file=path)) == b"hunter2"
    path.write_bytes(b" hunter2 \n\n")
    assert read(Secret(file=path)) == b" hunter2 \n"


def test_secret_that_is_not_there_is_named_by_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GATEBOOK_TEST_SECRET", raising=False)
    with pytest.raises(EnvironmentFault, match="GATEBOOK_TEST_SECRET: not set"):
        read(Secret(env="GATEBOOK_TEST_SECRET"))
    monkeypatch.setenv("GATEBOOK_TEST_SECRET", "")
    with pytest.raises(EnvironmentFault, match="empty"):
        read(Secret(env="GATEBOOK_TEST_SECRET"))
    path = tmp_path / "secret"
    with pytest.raises(EnvironmentFault, match="secret: no such file"):
        read(Secret(file=path))
    with pytest.raises(EnvironmentFault, match="is a directory"):
        read(Secret(file=tmp_path))
    for content, why in ((b"", "empty"), (b"x" * (MAX_SECRET_BYTES + 1), "more than")):
        path.write_bytes(content)
        with pytest.raises(EnvironmentFault, match=why):
            read(Secret(file=path))


@pytest.mark.parametrize("given", ["hunter2", {"env": "hunter2!"}, {"env": "hunter2", "file": "/hunter2"}, {}])
def test_secret_written_into_the_configuration_is_refused_and_not_repeated(given: object) -> None:
    with pytest.raises(ValidationError) as error:
        ProviderClient.model_validate({"id": "gateway", "secret": given})
    for each in error.value.errors():
        assert "hunter2" not in each["msg"]
