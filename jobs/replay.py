"""Sends to MLflow what waits on this machine since a tracking server did not take it.

python jobs/replay.py --dry-run
python jobs/replay.py --tracking.uri http://server:5000
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines import job
from pipelines.config import parse_request, setting
from pipelines.job import say

EXAMPLES = """examples:
  python jobs/replay.py --dry-run          what waits, and for which store
  python jobs/replay.py                    sends all of it
A job sends what earlier jobs left as well, when it has the same tracking URI and project. What a
store refused for ever is listed with the reason and stays in the spool folder until you remove it.
"""


@dataclass(frozen=True)
class PlaceConfig:
    """What of the spool is meant."""

    uri: str = setting("", "only what waits for this tracking URI; empty: for every one")
    project: str = setting("", "only what waits for this MLflow experiment; empty: for every one")


@dataclass(frozen=True)
class ReplayConfig:
    """Which waiting records to send."""

    tracking: PlaceConfig = field(default_factory=PlaceConfig)


def main(argv: Sequence[str]) -> dict[str, Any] | None:
    """Keys: sent files waiting refused stores seconds. Exit code 1 when something still waits."""
    request = parse_request(
        ReplayConfig,
        {"demo": ReplayConfig},
        argv,
        prog="replay.py",
        description=__doc__ or "",
        examples=EXAMPLES,
    )
    from pipelines.lineage.tracked import uri as tracking_uri
    from pipelines.lineage.tracked.replay import chosen_stores, list_store, replay_store

    started_s = time.monotonic()
    wanted = request.config.tracking
    uri = tracking_uri.resolve(wanted.uri) if wanted.uri else ""
    stores = chosen_stores(tracking_uri.spool_root(), uri, wanted.project)
    told = [list_store(store) if request.dry_run else replay_store(store) for store in stores]
    for line in (line for one in told for line in one.lines()):
        say(line)
    if not told:
        say("nothing waits")
    result = {
        "sent": sum(one.sent for one in told),
        "files": sum(one.files for one in told),
        "waiting": sum(one.waiting for one in told),
        "refused": sum(len(one.refused) for one in told),
        "stores": [one.to_plain() for one in told],
        "seconds": round(time.monotonic() - started_s, 1),
    }
    if result["waiting"] and not request.dry_run:
        print(json.dumps(result), flush=True)
        raise job.JobEnded(f"{result['waiting']} records and files still wait; try again later")
    return result


if __name__ == "__main__":
    job.run(main)
