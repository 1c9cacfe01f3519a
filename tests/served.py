"""A log's folder as `gatebook serve-log` serves it, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PROGRAM = """
import sys
from pathlib import Path
from gatebook import serve_log

with serve_log.opened(Path(sys.argv[1])) as folder:
    listener = serve_log.bind("127.0.0.1", 0)
    print(listener.getsockname()[1], flush=True)
    serve_log.serve(folder, listener)
"""


@contextmanager
def serving(log: Path) -> Iterator[int]:
    """The port."""
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(log)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.terminate()
