"""What the ledger costs: sealing, room, verification, recovery; and the same lines in a plain file beside it.

    python -m bench.ledger [--records 1000000] [--folder /tmp]

Records are shaped as the demo's: decisions of allowed and refused requests, then their outcomes, with everything
random that is random in life. Groups of 1,024 are synced one by one; a checkpoint is signed every 8,192 entries.
Rates are by CPU time (user and system) of the one process, so that others on the machine do not count; a wall
clock's figures stand beside them. Each phase runs in a process of its own, whose peak memory is told.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from tests.ledger.caller import READER, RECIPIENT, SIGNER, VERIFIER

from gatebook import record
from gatebook.access.pairing import Pairing
from gatebook.ledger.entry import Heartbeat
from gatebook.ledger.verify import Private, verify
from gatebook.ledger.writer import Writer

GROUP = 1024
CHECKPOINT_ENTRIES = 8192
POOL = 128 * GROUP  # different records; groups are compressed one by one, so that repeating them gains nothing
PER_S = 20_000  # by the ledger's own clock: at this rate a segment is full before it is old
T0_US = 1_700_000_000_000_000
NO_INDEX = b"4294967295"
PEOPLE, NETWORKS, ORDERS = 5000, 2000, 100_000


def requests(seed: int) -> Iterator[tuple[record.Decision, record.Outcome]]:
    chance = random.Random(seed)
    people = [(chance.randbytes(16).hex(), chance.randbytes(16).hex()) for _ in range(PEOPLE)]
    networks = [
        f"{chance.randrange(1, 224)}.{chance.randrange(256)}.{chance.randrange(256)}.0/24" for _ in range(NETWORKS)
    ]
    now = T0_US
    while True:
        now += chance.randrange(100)
        subject, credential = people[min(chance.randrange(PEOPLE), chance.randrange(PEOPLE))]
        allowed, took = chance.random() < 0.95, chance.randrange(2, 80) * 1000
        made = record.Decision(
            id=chance.randbytes(16).hex(),
            time_us=now,
            identity=record.IdentityPart(
                provider="staff",
                method="oidc",
                subject=subject,
                client=("web", "mobile", "batch")[chance.randrange(3)],
                credential=credential,
                roles=("reader",) if allowed else (),
                groups=(),
                scopes=(),
            ),
            request=record.RequestPart(
                method="GET",
                path=f"/orders/{chance.randrange(ORDERS)}",
                route="read-order",
                host="api.acme.example",
                protocol="1.1",
                headers={"user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
            ),
            client=record.ClientPart(address=networks[chance.randrange(NETWORKS)]),
            tls=record.TLSPart(version="1.3", cipher="TLS_AES_256_GCM_SHA384", group="X25519"),
            decision=record.DecisionPart(
                verdict="allow" if allowed else "deny",
                status=200 if allowed else 403,
                reason="rule" if allowed else "no_rule",
                configuration="fe1353e1db68a10fb65ca98f8ee7224dbbd081823c93e5fe286986a537aebda4",
                durability="before-access",
                rule="readers" if allowed else None,
            ),
            upstream="orders" if allowed else None,
            limit=record.LimitPart(name="per-caller", limit=20, remaining=chance.randrange(20), reset_s=1),
            connection=chance.randrange(1, 50_000),
            connection_request=chance.randrange(1, 100),
        )
        yield (
            made,
            record.Outcome(
                id=made.id,
                time_us=now + took,
                decision_index=int(NO_INDEX),
                response=record.ResponsePart(
                    status=made.decision.status,
                    bytes_in=chance.randrange(700, 1200),
                    bytes_out=chance.randrange(300, 9000),
                    duration_us=took,
                    complete=True,
                ),
                upstream=record.UpstreamPart(
                    name="orders",
                    address="10.0.0.7:8080",
                    status=200,
                    connect_us=0,
                    header_us=took - 1000,
                    response_us=took,
                )
                if allowed
                else None,
                error=None if allowed else record.ErrorPart(source="policy", detail="no_rule"),
            ),
        )


def pool() -> list[tuple[list[bytes], list[bytes]]]:
    """Groups of decisions, and their outcomes, in which NO_INDEX stands for the decision's index."""
    source = requests(1)
    groups = []
    for _ in range(POOL // GROUP // 2):
        pairs = [next(source) for _ in range(GROUP)]
        groups.append(([record.encode(each) for each, _ in pairs], [record.encode(each) for _, each in pairs]))
    return groups


class Load:
    """Groups for a ledger, one after the other: decisions, then their outcomes."""

    def __init__(self) -> None:
        self._pool = pool()
        self._turn = 0

    def decisions(self) -> list[bytes]:
        return self._pool[self._turn % len(self._pool)][0]

    def outcomes(self, first: int) -> list[bytes]:
        """Of the last decisions, whose first has index `first`."""
        made = self._pool[self._turn % len(self._pool)][1]
        self._turn += 1
        return [each.replace(NO_INDEX, b"%d" % index) for index, each in enumerate(made, first)]


class Clock:
    """The ledger's own: a second for each PER_S records."""

    def __init__(self, start: int = 0) -> None:
        self.us = T0_US + start * 1_000_000 // PER_S

    def passes(self, records: int) -> None:
        self.us += records * 1_000_000 // PER_S


def opened(root: Path, clock: Clock) -> Writer:
    return Writer.open(
        ledger=root / "ledger",
        lock=root / "lock",
        deks=root / "deks",
        signer=SIGNER,
        recipients=lambda: [RECIPIENT],
        boot_digest=bytes(32),
        restore=lambda _memos: None,
        snapshot=bytes,
        now_us=lambda: clock.us,
    )


class Spent:
    """CPU and wall clock time within it, added up."""

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = 0.0

    def __enter__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.cpu_s += time.process_time() - self._cpu
        self.wall_s += time.monotonic() - self._wall

    def told(self) -> dict[str, float]:
        return {"cpu_s": self.cpu_s, "wall_s": self.wall_s}


def sealing(root: Path, records: int) -> dict[str, float]:
    load, clock, spent = Load(), Clock(), Spent()
    writer = opened(root, clock)
    beat, counted, first = clock.us, 0, 0
    for at in range(records // GROUP):
        group = load.outcomes(first) if at % 2 else load.decisions()
        with spent:
            first = writer.append(group)
            writer.sync()
            if at * GROUP % CHECKPOINT_ENTRIES == 0:
                plan = writer.plan_checkpoint()
                if plan is not None:
                    plan.write()
        clock.passes(GROUP)
        counted += GROUP
        if at % 2 and clock.us - beat >= 59_000_000:
            writer.append_entry(Heartbeat(clock.us, counted // 2, counted // 2, 0, counted // 2, 0))
            beat, counted = clock.us, 0
    writer._let_go()  # as kill -9 does
    return spent.told()


def plain(root: Path, records: int) -> dict[str, float]:
    """The same lines, to a plain file, with the same syncs."""
    load, spent = Load(), Spent()
    path = root / "plain.jsonl"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for at in range(records // GROUP):
        group = load.outcomes(at) if at % 2 else load.decisions()
        with spent:
            os.write(descriptor, b"\n".join(group) + b"\n")
            os.fdatasync(descriptor)
    os.close(descriptor)
    size = path.stat().st_size
    path.unlink()
    return spent.told() | {"bytes": size}


def restart(root: Path, records: int) -> dict[str, float]:
    spent = Spent()
    with spent:
        writer = opened(root, Clock(records + 10_000_000))
    writer.close()
    return spent.told()


def restart_from_segments(root: Path, records: int) -> dict[str, float]:
    """All tiles are gone: everything is read and written again."""
    shutil.rmtree(root / "ledger" / "log" / "tile")
    return restart(root, records)


def latency(root: Path, records: int) -> dict[str, float]:
    """Of one record, and of a group, appended and synced."""
    group = Load().decisions()
    writer = opened(root, Clock(records + 20_000_000))
    found: dict[str, float] = {}
    for name, given in (("one_us", group[:1]), ("group_us", group)):
        took = []
        for _ in range(300):
            spent = Spent()
            with spent:
                writer.append(given)
                writer.sync()
            took.append(spent)
        found[name] = statistics.median(each.cpu_s for each in took) * 1e6
        found[f"{name}_wall"] = statistics.median(each.wall_s for each in took) * 1e6
    writer.close()
    return found


def verification(root: Path, records: int, private: Private | None) -> dict[str, float]:
    spent = Spent()
    with spent:
        report = verify(root / "ledger", VERIFIER, lock=root / "lock", private=private)
    assert report.size >= records, report
    assert not report.findings, report.findings
    return spent.told()


def keyless(root: Path, records: int) -> dict[str, float]:
    return verification(root, records, None)


def decrypted(root: Path, records: int) -> dict[str, float]:
    return verification(root, records, Private(root / "deks", READER))


def read(root: Path, records: int) -> dict[str, float]:
    return verification(root, records, Private(root / "deks", READER, Pairing()))


def _told(phase: Callable[[Path, int], dict[str, float]], root: Path, records: int) -> dict[str, float]:
    found = phase(root, records)
    return found | {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def alone(phase: Callable[[Path, int], dict[str, float]], root: Path, records: int) -> dict[str, float]:
    """In a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as one:
        return one.submit(_told, phase, root, records).result()


def room(root: Path) -> dict[str, int]:
    return {
        part: sum(
            path.stat().st_size for path in (root / part).rglob("*") if path.is_file() and path.name != "reserve"
        )
        for part in ("ledger/segments", "ledger/log", "deks")
    }


def line(what: str, found: dict[str, Any], n: float) -> None:
    print(
        f"{what:<42}{n / found['cpu_s']:>12,.0f}/s a core {found['cpu_s']:>9.2f} s CPU {found['wall_s']:>9.2f} s"
        f"{found['peak_mib']:>8.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    n = arguments.records // (2 * GROUP) * 2 * GROUP
    with tempfile.TemporaryDirectory(prefix="gatebook-bench-", dir=arguments.folder) as folder:
        root, empty = Path(folder) / "ledger", Path(folder) / "empty"
        root.mkdir()
        empty.mkdir()
        few = min(n, 1000 * GROUP)  # a plain file of ten million is a lot of gigabytes, and no different
        beside = alone(plain, root, few)
        sealed = alone(sealing, root, n)
        line(f"sealing {n:,} records", sealed, n)
        line("  the same lines in a plain file", beside, few)
        print(
            f"  sealing takes {sealed['cpu_s'] / beside['cpu_s'] * few / n:.1f} times the CPU, "
            f"{sealed['wall_s'] / beside['wall_s'] * few / n:.1f} times the time"
        )
        parts = room(root)
        print(
            f"room: {sum(parts.values()) / n:.1f} bytes a record ({parts['ledger/segments'] / n:.1f} in segments, "
            f"{parts['ledger/log'] / n:.1f} in the public tree); plain {beside['bytes'] / few:.0f}"
        )
        line("recovery after kill -9", alone(restart, root, n), n)
        line("keyless verification", alone(keyless, root, n), n)
        line("verification with decryption", alone(decrypted, root, n), n)
        line("verification with every record read", alone(read, root, n), n)
        line("recovery without any tile", alone(restart_from_segments, root, n), n)
        for where, name in ((empty, "at 0"), (root, f"at {n:,}")):
            found = alone(latency, where, n if where is root else 0)
            print(
                f"append and sync {name}: one record {found['one_us']:.0f} us CPU, {found['one_us_wall']:.0f} us; "
                f"a group of {GROUP} {found['group_us']:.0f} us CPU, {found['group_us_wall']:.0f} us; "
                f"{found['peak_mib']:.0f} MiB"
            )


if __name__ == "__main__":
    main()
