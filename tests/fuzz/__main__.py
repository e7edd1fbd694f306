"""`python -m tests.fuzz FAMILY --count N --seed S [--keep FOLDER] [--only INDEX]`; exit code 1 for wrong endings."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.fuzz.driver import Outcome, run
from tests.fuzz.suite import Suite
from tests.fuzz.suites import SUITES, family


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("family", help=f"all, or one of: {', '.join(SUITES)}, or the word before a hyphen")
    parser.add_argument("--count", type=int, default=1000, help="files in each suite")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="this case alone, in this process, with its traceback")
    parser.add_argument("--keep", type=Path, help="where to write the files that end wrongly")
    arguments = parser.parse_args()
    chosen = family(arguments.family)
    if not chosen:
        parser.error(f"no suite is called {arguments.family!r}")
    if arguments.only is not None:
        return _only(chosen, arguments.seed, arguments.only)
    failed = 0
    for suite in chosen:
        begun = time.perf_counter()
        outcome = run(suite, max(1, arguments.count // suite.cost), arguments.seed)
        _show(suite, outcome, time.perf_counter() - begun)
        failed += len(outcome.failures)
        if arguments.keep:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            for failure in outcome.failures:
                name = f"{suite.name}-{arguments.seed}-{failure.index}{suite.suffix}"
                (arguments.keep / name).write_bytes(suite.case(arguments.seed, failure.index))
    return 1 if failed else 0


def _show(suite: Suite, outcome: Outcome, seconds: float) -> None:
    slow, index = outcome.slowest
    print(
        f"{suite.name}: {outcome.opened} opened, {outcome.refused} refused in one line, "
        f"{len(outcome.failures)} failed; "
        f"{seconds:.0f} s, slowest {slow:.2f} s (case {index}), peak {outcome.peak / 2**20:.0f} MiB",
        flush=True,
    )
    for failure in outcome.failures[:20]:
        print(f"  case {failure.index}: {failure.what}")
    if len(outcome.failures) > 20:
        print(f"  … and {len(outcome.failures) - 20} more")


def _only(chosen: list[Suite], seed: int, index: int) -> int:
    import tempfile

    for suite in chosen:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"damaged{suite.suffix}"
            path.write_bytes(suite.case(seed, index))
            print(suite.open(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
