"""The demo's API and provider as the demo runs them: processes of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from gatebook.demo.children import Children


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    with Children(tmp_path_factory.mktemp("logs")) as started:
        yield started


@pytest.fixture
def client() -> Iterator[httpx2.Client]:
    with httpx2.Client(trust_env=False) as made:
        yield made


@pytest.fixture(scope="module")
def api(children: Children) -> str:
    return children.start("demo API", sys.executable, "-m", "gatebook.demo.api").address()


@pytest.fixture(scope="module")
def issuer(children: Children) -> str:
    return children.start("demo provider", sys.executable, "-m", "gatebook.demo.provider").address()


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    return tmp_path
