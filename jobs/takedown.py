"""A new version of a dataset without the sources or clips on a list; says who saw them.

python jobs/takedown.py --dataset FOLDER --list remove.txt --out FOLDER
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines import job
from pipelines.config import parse_request
from pipelines.job import say
from pipelines.lineage.takedown import (
    TakedownConfig,
    check_out,
    read_list,
    resolve_targets,
    take_down,
)


def main(argv: Sequence[str]) -> dict[str, Any] | None:
    request = parse_request(
        TakedownConfig,
        {"demo": TakedownConfig},
        argv,
        prog="takedown.py",
        description="Writes a new version of a dataset without the sources or clips on a list.",
        examples="example: python jobs/takedown.py --dataset D --list remove.txt --out D2",
    )
    from pipelines.lineage import catalog, trace, trace_text
    from pipelines.lineage.manifest import read_dataset
    from pipelines.lineage.tracking import Tracker

    started_s = time.monotonic()
    config = request.config
    dataset = read_dataset(config.dataset)
    targets = resolve_targets(dataset, read_list(config.list))
    out = check_out(dataset, config.out)
    tracker = Tracker.open(config.tracking)
    known = catalog.build((), tracker, near=(dataset.uri,))
    saw = trace.who_saw(known, targets.chosen())
    tainted = {row["digest"] for row in saw["checkpoints"]}
    runs = sorted({model.run_id for model in tracker.models() if model.digest in tainted})
    say("\n".join(trace_text.who_saw_lines(saw)))
    if request.dry_run:
        chosen = dataset.clips.filter(targets.chosen())
        say(f"would take {chosen.num_rows} clips out of {dataset.uri}")
        return None

    params = {"dataset": dataset.uri, "out": out.uri, "named": len(read_list(config.list))}
    tags = {"dataset.digest": dataset.digest, "dataset.uri": dataset.uri}
    with tracker.run("takedown", "take down", params, tags) as run:
        done = take_down(dataset, targets, out.uri)
        run.log_input_dataset("dataset", dataset.uri, dataset.digest, "takedown")
        run.log_input_dataset("dataset", out.uri, done.digest, "output")
        run.set_tags({"dataset.digest": done.digest, "dataset.uri": out.uri})
        run.log_dict(saw, "who_saw.json")
    say(
        f"took {len(done.removed)} kept clips out; {len(done.rewritten_shards)} shards rewritten, "
        f"{len(done.same_shards)} unchanged"
    )
    if done.copies_left:
        say(f"{len(done.copies_left)} near copies of other sources stay: {done.copies_left[:5]}")
    return {
        "dataset": out.uri,
        "digest": done.digest,
        "parent_digest": done.parent_digest,
        "sources": dataset.sources.num_rows,
        "clips": done.counts["clips"],
        "kept": done.counts["kept"],
        "dropped": done.counts["dropped"],
        "removed": len(done.removed),
        "shards_rewritten": len(done.rewritten_shards),
        "shards_unchanged": len(done.same_shards),
        "copies_left": done.copies_left,
        "checkpoints": [row["uri"] for row in saw["checkpoints"]],
        "runs": runs,
        "run_id": run.run_id,
        "seconds": round(time.monotonic() - started_s, 2),
    }


if __name__ == "__main__":
    job.run(main)
