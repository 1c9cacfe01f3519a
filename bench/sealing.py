"""What sealing costs the guard: microseconds and bytes a record, for each setting of `audit`.

    python -m bench.sealing [--records 20000]

Makes the `sealed` part of a decision and nothing else, with a key that is known already, as for every request of a
caller but the first. The bytes are those of the record, as JSON.
"""

from __future__ import annotations

import argparse
import timeit

from tests.test_redact import identity, redactor

from gatebook import record
from gatebook.redact import Known, Names

ROW = Known("ab" * 16, b"k" * 32)
SETTINGS: tuple[dict[str, str], ...] = ({}, {"address": "seal"}, {"subject": "seal", "address": "seal"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000)
    count: int = parser.parse_args().records
    who, names = identity(), Names(ROW, None)
    for audit in SETTINGS:
        made = redactor(**audit)

        def seal(made: object = made) -> record.SealedPart | None:
            return made.sealed("1" * 32, who, "192.0.2.7", names) if made.seals else None  # type: ignore[attr-defined]

        cost = min(timeit.repeat(seal, number=count, repeat=5)) / count
        part = seal()
        size = 0 if part is None else len(part.box) + len(part.under) + len(',"sealed":{"under":"","box":""}')
        print(f"{audit or 'nothing sealed'}: {cost * 1e6:.2f} us, {size} bytes a record")


if __name__ == "__main__":
    main()
