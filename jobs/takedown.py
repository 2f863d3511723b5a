"""A new version of a dataset without what is on a list; says who saw it, marks them in MLflow.

python jobs/takedown.py --dataset FOLDER --list remove.txt --out FOLDER
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines import job
from pipelines.config import RequestError, parse_request
from pipelines.job import say
from pipelines.lineage.takedown import TakedownConfig

if TYPE_CHECKING:
    from pipelines.lineage.manifest import Dataset
    from pipelines.lineage.taken_rows import Affected

EXAMPLES = """examples:
  python jobs/takedown.py --dataset data/set --list remove.txt --out data/set-2 --dry-run
  python jobs/takedown.py --dataset data/set --list remove.txt --out data/set-2

remove.txt, a line each:
  films/beach.mp4                         a file, or the name it was curated under
  0f145c76a0500f2842f528b8adf637f7        a source or a clip
  license: CC-BY-NC*                      every source under such a licence
  consent: not stated                     every source without a stated consent
"""


def main(argv: Sequence[str]) -> dict[str, Any] | None:
    """Keys: dataset digest parent_digest sources clips kept dropped removed shards_rewritten
    shards_unchanged copies_left checkpoints
    unknown_checkpoints last_clean runs run_id report seconds."""
    request = parse_request(
        TakedownConfig,
        {"demo": TakedownConfig},
        argv,
        prog="takedown.py",
        description=__doc__ or "",
        examples=EXAMPLES,
    )
    from pipelines.lineage import catalog, trace, trace_text
    from pipelines.lineage.manifest import read_dataset
    from pipelines.lineage.takedown import check_out, take_down
    from pipelines.lineage.takedown_list import read_list, resolve_targets
    from pipelines.lineage.takedown_marks import everything_taken_down, mark_who_saw
    from pipelines.lineage.taken_rows import affected_by
    from pipelines.lineage.tracked.places import known_places
    from pipelines.lineage.tracked.values import job_identity
    from pipelines.lineage.tracking import Tracker

    started_s = time.monotonic()
    config = request.config
    dataset = read_dataset(config.dataset)
    named = read_list(config.list)
    choice = resolve_targets(dataset, named)
    out = check_out(dataset, config.out)
    places, trouble = known_places(config.tracking)
    if trouble:
        say(f"{trouble}; checkpoints that it alone knows of were not looked at")
    known = catalog.build((), places, near=(dataset.uri,))
    saw = trace.who_saw(known, choice, each_clip=False)
    affected = affected_by(dataset, choice)
    clean = trace.last_clean_steps(saw["checkpoints"], saw["clean_checkpoints"])
    say("\n".join(trace_text.who_saw_lines(saw)))
    if request.dry_run:
        say(_plan_in_words(dataset, affected))
        return None

    params = {"dataset": dataset.uri, "out": out.uri, "named": len(named)}
    # Named before anything is written: curation keeps out what an unfinished takedown names too.
    tags = {"dataset.digest": dataset.digest, "takedown.dataset": out.uri}
    tracker = Tracker.open(config.tracking)
    title = f"take down from {Path(dataset.uri).name}"
    identity = job_identity(config.out, config, dataset.digest)
    with tracker.run("takedown", title, params, tags, identity=identity) as run:
        done = take_down(dataset, choice, out.uri, _render)
        run.log_input_dataset("dataset", dataset.uri, dataset.digest, "takedown")
        run.log_input_dataset("dataset", out.uri, done.digest, "output")
        run.set_tags({"dataset.digest": done.digest, "dataset.uri": out.uri})
        run.log_dict({**saw, "last_clean": clean}, "who_saw.json")
        gone = everything_taken_down(dataset, choice, config.tracking)
        runs = mark_who_saw(tracker, known, gone, done.digest)
        has_report = out.exists("report.html")
        if has_report:
            with out.as_local_file("report.html") as page:
                run.log_artifact(page)
    say(
        f"took {len(done.removed)} kept clips out; {len(done.rewritten_shards)} shards rewritten, "
        f"{len(done.same_shards)} unchanged"
    )
    if done.copies_left:
        ids = ", ".join(done.copies_left[:5])
        say(f"{len(done.copies_left)} near copies in other sources stay as they were: {ids}")
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
        "unknown_checkpoints": [row["uri"] for row in saw["unknown_checkpoints"]],
        "last_clean": clean,
        "runs": runs,
        "run_id": run.run_id,
        "report": out.path("report.html") if has_report else None,
        "seconds": round(time.monotonic() - started_s, 2),
    }


def _plan_in_words(dataset: Dataset, affected: Affected) -> str:
    shards = len(affected.keys_of_shard)
    return (
        f"would take {len(affected.going)} kept clips ({affected.named} rows) out of {dataset.uri} "
        f"and rewrite {shards} of {dataset.shards.num_rows} shards; nothing was written"
    )


def _render(dataset: Dataset) -> str | None:
    """The new version's report; what has no settings to draw one with goes without."""
    from pipelines.curation.report_of_dataset import report_of

    try:
        return report_of(dataset)
    except RequestError as error:
        say(f"no report of the new version: {error}")
        return None


if __name__ == "__main__":
    job.run(main)
