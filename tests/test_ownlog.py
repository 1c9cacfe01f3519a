"""What a process says of itself holds no credential, on a terminal neither."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

SECRET = "gbk_never_to_be_seen"
FAILING = """
import structlog
from gatebook import ownlog
ownlog.configure("guard 0")
def verify(credential):
    raise ValueError("no")
try:
    verify("gbk" + "_never_to_be_seen")
except ValueError:
    structlog.get_logger().exception("error while deciding")
"""


@pytest.mark.parametrize("terminal", [True, False])
def test_traceback_shows_no_local_variable(tmp_path: Path, terminal: bool) -> None:
    if terminal:
        ours, theirs = pty.openpty()
    else:
        path = tmp_path / "log"
        ours = theirs = os.open(path, os.O_RDWR | os.O_CREAT)
    subprocess.run([sys.executable, "-c", FAILING], stderr=theirs, check=True)
    said = os.read(ours, 1 << 16) if terminal else path.read_bytes()
    os.close(ours)
    if terminal:
        os.close(theirs)
    assert b"error while deciding" in said
    assert b"ValueError" in said
    assert SECRET.encode() not in said
