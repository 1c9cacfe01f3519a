"""One deployment for the tests that leave it as it was, and fresh ones for those that break it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.deployment import Deployment


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = Deployment(tmp_path_factory.mktemp("running"))
    try:
        made.start()
        yield made
        made.verify()  # whatever the tests did, the ledger holds
    finally:
        made.close()


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Deployment]:
    """Not yet started, so that a test may change its configuration."""
    made = Deployment(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def fresh(stopped: Deployment) -> Deployment:
    stopped.start()
    return stopped
