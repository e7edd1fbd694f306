"""`python -m bench.faults --seed 0`: plants every fault of the list and counts what parity makes of it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from bench.faults.run import Result, run_all
from bench.faults.table import aims, show


def main() -> int:
    """Run a seed; 0 only if the aims hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of nets, weights, batches and places of faults")
    parser.add_argument(
        "--only", default="*", metavar="GLOB", help="cases whose id fits, such as 'bn-*' or '*@residual'"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every result, one a line, as they come")
    options = parser.parse_args()
    start = time.perf_counter()
    results: list[Result] = []
    held = options.json.open("w") if options.json else None
    for result in run_all(options.seed, options.only, options.jobs):
        results.append(result)
        if held:
            print(json.dumps(asdict(result)), file=held, flush=True)
        if sys.stderr.isatty():
            print(f"\r{len(results)} {result.id:<70.70}", end="", file=sys.stderr, flush=True)
    results.sort(key=lambda r: r.id)
    if held:
        held.close()
    show(results, options.seed, time.perf_counter() - start)
    return 0 if aims(results) else 1


if __name__ == "__main__":
    sys.exit(main())
