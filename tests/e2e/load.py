"""Bounded load: some clients that ask over and over, and remember every answer."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator

import httpx2
from tests.e2e.deployment import Deployment, until

CLIENTS = 6
PAUSE_S = 0.002


class Load:
    """`statuses`: what came back, 0 for a broken connection. `receipts`: request id -> index of its decision."""

    def __init__(self, deployment: Deployment, most: int = 20_000) -> None:
        self._deployment = deployment
        self._most = most
        self._ending = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.receipts: dict[str, int] = {}
        self._threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(CLIENTS)]

    def _work(self, number: int) -> None:
        token = self._deployment.reader(f"client-{number}", lifetime_s=3000)
        headers = {"Authorization": f"Bearer {token}"}
        with self._deployment.client() as client:
            for count in range(self._most // CLIENTS):
                if self._ending.is_set():
                    return
                try:
                    answer = client.get(f"/orders/no-{count}", headers=headers)
                except httpx2.HTTPError:
                    self.statuses[0] += 1
                    time.sleep(PAUSE_S)
                    continue
                self.statuses[answer.status_code] += 1
                receipt = answer.headers.get("Gatebook-Receipt")
                if receipt:
                    self.receipts[answer.headers["X-Request-ID"]] = int(receipt.rpartition("/")[2])
                time.sleep(PAUSE_S)

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._ending.set()
            for thread in self._threads:
                thread.join()

    def passed(self) -> int:
        return self.statuses[200]

    def goes_on(self, count: int) -> None:
        """Wait until so many more requests have passed."""
        passed = self.passed()
        until(lambda: self.passed() >= passed + count, "load to go on")
