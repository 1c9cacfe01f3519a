from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.portal.place import House, house
from tests.portal.service import Asking, make_client


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """For tests that leave it as it was."""
    with house(tmp_path_factory.mktemp("portal")) as made:
        yield made


@pytest.fixture
def own(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path) as made:
        yield made


_addresses = itertools.count(1)


@pytest.fixture
def asking(shared: House) -> Asking:
    """A client of its own with an address of its own."""
    return Asking(shared, make_client(shared), f"198.51.{next(_addresses)}.1")


@pytest.fixture
def alone(own: House) -> Asking:
    """One in a house that a test may break."""
    return Asking(own, make_client(own), "198.51.100.1")
