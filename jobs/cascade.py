"""Footage in, refined video out: curation, latents, both training stages and a generation.

python jobs/cascade.py --footage FOLDER --out FOLDER
ray job submit --working-dir . -- python jobs/cascade.py --footage FOLDER --out FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines import job
from pipelines.cascade.plan import CascadeConfig, check_request, footage_identity, plan_cascade
from pipelines.cascade.run import is_complete, run_cascade
from pipelines.cascade.runners import ChildRunner, JobFailed
from pipelines.cluster.connection import address_of, check_reachable
from pipelines.config import parse_request
from pipelines.job import say
from pipelines.storage import Store, absolute_uri, is_local


def main(argv: Sequence[str]) -> dict[str, Any] | None:
    request = parse_request(
        CascadeConfig,
        {"demo": CascadeConfig, "paper": CascadeConfig},
        argv,
        prog="cascade.py",
        description="Runs every job from raw footage to a refined video; skips what is done.",
        examples="example: python jobs/cascade.py --footage FOLDER --out outputs/mine",
    )
    config = request.config
    check_request(config)
    nodes = plan_cascade(config, request.preset, footage_identity(config.footage))
    if request.dry_run:
        for node in nodes:
            say(f"{'done ' if is_complete(node) else 'to do'}  {node.title}: {node.output}")
            say("         " + " ".join(node.command()))
        return None
    Store.open(config.out).check_writable()
    address = address_of(config.cluster)
    if address:
        check_reachable(address)
    runner = ChildRunner({"RAY_ADDRESS": address} if address else {})
    out = Path(absolute_uri(config.out)) if is_local(config.out) else Path.cwd() / "outputs"
    try:
        result = run_cascade(config, nodes, runner, out / "logs")
    except JobFailed as error:
        say(str(error))
        sys.exit(job.EXIT_FAILED)
    from pipelines.lineage.tracking import Tracker

    return {**result, "tracking_uri": Tracker.open(config.tracking).uri}


if __name__ == "__main__":
    job.run(main)
