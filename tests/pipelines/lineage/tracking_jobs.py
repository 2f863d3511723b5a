"""Run as a process of its own: opens a tracking store and records one run (first-time creation
by several processes at once is what it is for)."""

from __future__ import annotations

import sys

from pipelines.config import TrackingConfig
from pipelines.lineage.tracking import Tracker

if __name__ == "__main__":
    tracker = Tracker.open(TrackingConfig(sys.argv[1]))
    with tracker.run("curate", sys.argv[2], {"who": sys.argv[2]}, {}) as run:
        for step in range(20):
            run.log_metrics({"clips": step}, step)
            run.flush()
    print(run.run_id)
