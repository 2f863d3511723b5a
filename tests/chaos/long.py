"""The long form of the chaos tests: faults at random, for as long as there is time.

    python -m tests.chaos.long --runs 200 --seed 0 --minutes 30

Prints the seed, a line for each run, and in the end one JSON object. Equal seeds choose equal
faults at equal shares of a job's time; what they meet there is the machine's. Exit code 1 when
anything did not hold: what that run left is kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.chaos.jobs_under_faults import Outcome, World, many


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--folder", type=Path, help="default: a new one, removed when all held")
    given = parser.parse_args(argv)
    started_s = time.monotonic()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="i2vgen-chaos-"))
    os.environ["I2VGEN_HOME"] = str(folder / "home")
    print(f"seed {given.seed}, in {folder}", flush=True)
    world = World.make(folder / "world")
    faults: Counter[str] = Counter()
    violations: list[str] = []

    def tell(outcome: Outcome) -> None:
        faults[outcome.fault.kind] += outcome.struck
        violations.extend(f"{outcome.job}, {outcome.fault}: {v}" for v in outcome.violations)
        fault = {k: v for k, v in dataclasses.asdict(outcome.fault).items() if v}
        held = "held" if not outcome.violations else f"VIOLATED {outcome.violations}"
        met = "" if outcome.struck else ", not met"
        minutes = (time.monotonic() - started_s) / 60
        print(
            f"{minutes:5.1f} min  {outcome.job}: {fault}{met}, {outcome.codes}: {held}", flush=True
        )

    until_s = started_s + 60 * given.minutes
    runs = many(world, folder, given.seed, given.runs, until_s, tell)
    found = {
        "seed": given.seed,
        "runs": runs,
        "faults": dict(sorted(faults.items())),
        "violations": len(violations),
        "seconds": round(time.monotonic() - started_s, 1),
    }
    print(json.dumps(found), flush=True)
    if not violations and given.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
