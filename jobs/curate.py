"""Footage -> dataset: watches every file once, judges every shot, cuts and shards what is kept.

With --what-if: how an existing --dataset would look at other thresholds; writes nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.config import parse_request, to_plain
from pipelines.curation.config import PRESETS, CurateConfig
from pipelines.job import run, say

if TYPE_CHECKING:
    from pipelines.curation.outcome import Curated
    from pipelines.lineage.tracking import Run

EXAMPLES = """examples:
  python jobs/curate.py --footage films --dataset data/set
  python jobs/curate.py --footage films --dataset data/set --preset paper --limits.min_duration_s 3
  python jobs/curate.py --footage films --dataset data/set --captions.backend sidecar --dry-run
  python jobs/curate.py --what-if --dataset data/set --motion.min_motion 0.05
  ray job submit --working-dir . -- python jobs/curate.py --footage /films --dataset /data/set

A job that was killed goes on where it stopped when the same command is given again. A new dataset
beside an old one (or with the same --work) watches, captions, scores and cuts only what is new.
"""


def main(argv: Sequence[str]) -> dict[str, Any] | None:
    """Keys: dataset digest sources clips kept dropped seconds done report tracking_uri run_id."""
    if "--what-if" in argv and not {"-h", "--help"} & set(argv):
        return simulate([word for word in argv if word != "--what-if"])
    argv = [word for word in argv if word != "--what-if"]
    request = parse_request(
        CurateConfig,
        PRESETS,
        argv,
        prog="curate.py",
        description=__doc__ or "",
        examples=EXAMPLES,
    )
    config = request.config
    if request.dry_run:
        from pipelines.curation.dry_run import plan_in_words

        say(plan_in_words(config))
        return None
    from pipelines.curation.curate import curate
    from pipelines.curation.prepared import prepare
    from pipelines.lineage.tracking import Tracker, job_identity

    prepared = prepare(config)
    tracker = Tracker.open(config.tracking)
    name = Path(config.dataset).name
    identity = job_identity(config.dataset, config)
    with tracker.run(
        "curate", name, params=to_plain(config), tags={}, identity=identity
    ) as tracked:
        curated = curate(prepared)
        record(tracked, name, curated)
    counts = curated.counts
    return {
        "dataset": curated.dataset,
        "digest": curated.digest,
        **{key: counts[key] for key in ("sources", "clips", "kept", "dropped")},
        "seconds": round(curated.seconds, 1),
        "done": dict(curated.done),
        "report": curated.report,
        "tracking_uri": tracker.uri,
        "run_id": tracked.run_id,
    }


def simulate(argv: Sequence[str]) -> dict[str, Any]:
    """Keys: dataset digest clips kept dropped seconds what_if."""
    from pipelines.curation.what_if import answer, read_question
    from pipelines.curation.what_if_text import result_of, table_of

    started_s = time.monotonic()
    question = read_question(argv)
    found = answer(question)
    say(table_of(question, found))
    return result_of(question, found, time.monotonic() - started_s)


def record(tracked: Run, name: str, curated: Curated) -> None:
    """The dataset as the run's output, its counts, and the report."""
    tracked.log_input_dataset(name, curated.dataset, curated.digest, context="output")
    tracked.set_tags({"dataset.digest": curated.digest, "dataset.uri": curated.dataset})
    tracked.log_metrics(curated.metrics(), step=0)
    with curated.local_report() as path:
        tracked.log_artifact(path)


if __name__ == "__main__":
    run(main)
