from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.portal.place import House, house


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """For tests that leave it as it was."""
    with house(tmp_path_factory.mktemp("portal")) as made:
        yield made


@pytest.fixture
def own(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as made:
        yield made
