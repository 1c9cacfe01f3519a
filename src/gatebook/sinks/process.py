"""The follower's process: a thread for each sink, started, reloaded, stopped.

In: the state folder. SIGHUP reads the effective configuration anew; sinks that send, and whose settings are the
same, go on. One that cannot be made, for want of a secret or a certificate, is tried again while the others work.
Never in the path of a request, and of no consequence to one: a sink ends for no other reason than a stop.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from gatebook import ownlog
from gatebook.config import effective
from gatebook.config.model import Configuration
from gatebook.config.sinks import Sink
from gatebook.errors import GatebookError
from gatebook.ledger import keys
from gatebook.ledger.read import Reader
from gatebook.paths import Paths, check_private, make_private
from gatebook.sinks.cursor import Book, State
from gatebook.sinks.delivery import PAUSE_S, Delivery, Stopped, begin
from gatebook.sinks.make import make
from gatebook.sinks.stream import Place, Stream
from gatebook.sinks.wanted import wanted

STOP_S = 5.0

log = structlog.get_logger("follower")


class Following:
    """One sink's thread."""

    def __init__(
        self, name: str, settings: Sink, origin: str, paths: Paths, before: Following | None = None
    ) -> None:
        """`before`: the same sink under other settings, which may still be sending; never two at a time."""
        self.settings = settings
        self._before = before
        self._name = name
        self._origin = origin
        self._paths = paths
        self._book = Book(paths.sinks, name)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sink {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def sends(self) -> bool:
        """Otherwise a reload lets it begin anew: a secret under the same name may be another now."""
        state = self._book.state()
        return state is not None and state.doing == "sending"

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def ask_to_stop(self) -> None:
        self._stop.set()

    def join(self, timeout_s: float | None = None) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        if self._before is not None:
            self._before.join()
            self._before = None
        while not self._stop.is_set():
            try:
                self._follow()
            except Stopped:
                return
            except (GatebookError, OSError) as error:
                self._book.tell(State(doing="paused", why=str(error)))
                log.error("cannot begin", sink=self._name, error=str(error))
                self._stop.wait(PAUSE_S)
            except Exception as error:
                self._book.tell(State(doing="stuck", why=f"error of our own: {error!r}"))
                log.exception("error of our own; begins again", sink=self._name)
                self._stop.wait(PAUSE_S)

    def _follow(self) -> None:
        destination = make(self.settings)
        try:
            source = self._reader()
            cursor = begin(self._book, self._origin, source.size, self.settings.start)
            log.info("following", sink=self._name, next=cursor.place.next, behind=source.size - cursor.place.next)
            Delivery(
                self._name,
                destination,
                self._stream,
                self._book,
                cursor,
                wants=wanted(self.settings),
                stop=self._stop,
            ).run()
        finally:
            destination.close()

    def _reader(self) -> Reader:
        return Reader(self._paths.ledger, self._origin, self._paths.deks, keys.load_reader(self._paths.keys))

    def _stream(self, place: Place) -> Stream:
        return Stream(self._reader(), place, salts=self.settings.salts)


class Follower:
    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._following: dict[str, Following] = {}
        self._ending: dict[str, Following] = {}  # by name: one of that name begins when they have ended
        self.digest = ""

    def apply(self, configuration: Configuration) -> None:
        """Sinks that are gone or changed end; those that are new or changed begin, at their cursors."""
        old, self._following = self._following, {}
        for name, settings in configuration.sinks.items():
            before = old.pop(name, None) or self._ending.pop(name, None)
            if before is not None and not before.stopping and before.settings == settings and before.sends:
                self._following[name] = before
                continue
            if before is not None:
                before.ask_to_stop()
            made = Following(name, settings, configuration.origin, self._paths, before)
            self._following[name] = made
            made.start()
        for name, ended in old.items():
            ended.ask_to_stop()
            self._ending[name] = ended
        self.digest = configuration.digest().hex()

    def stop(self) -> None:
        """Each finishes the batch that it is sending, if that does not take long."""
        for one in self._following.values():
            one.ask_to_stop()
        until = time.monotonic() + STOP_S
        for name, one in (*self._ending.items(), *self._following.items()):
            if not one.join(max(0.0, until - time.monotonic())):
                log.warning("still sending; what is not noted will be sent again", sink=name)


def main(arguments: Sequence[str]) -> None:
    """`arguments`: the state folder."""
    ownlog.configure("follower")
    paths = Paths(Path(arguments[0]))
    asked = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, asked)  # before any thread: they are for `sigwait` below
    try:
        check_private(paths.state)
        make_private(paths.sinks)
        follower = Follower(paths)
        follower.apply(effective.read(paths.effective))
    except (GatebookError, OSError) as error:
        log.error("stopped", error=str(error))
        raise SystemExit(getattr(error, "exit_code", 1)) from error
    while signal.sigwait(asked) == signal.SIGHUP:
        try:
            follower.apply(effective.read(paths.effective))
            log.info("switched", configuration=follower.digest[:16])
        except (GatebookError, OSError) as error:
            log.error("kept the old configuration: the new one cannot be used", error=str(error))
    follower.stop()
    os._exit(0)  # a thread that hangs in a destination holds nothing that matters
