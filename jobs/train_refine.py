"""Latents and a base checkpoint -> refinement checkpoint: text only, high resolution."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.cluster.connection import connect
from pipelines.config import parse_request
from pipelines.job import run, say
from pipelines.training.config import TRAIN_REFINE_PRESETS, TrainRefineConfig

EXAMPLES = """examples:
  python jobs/train_refine.py --latents data/latents-refine --checkpoints models/refine \\
      --base models/base --steps 200 --premium-steps 50
The same command again goes on from the newest checkpoint.
"""


def main(argv: Sequence[str]) -> dict[str, Any] | None:
    """Keys: checkpoint, digest, step, loss, samples_seen, run_id, seconds."""
    request = parse_request(
        TrainRefineConfig,
        TRAIN_REFINE_PRESETS,
        argv,
        prog="train_refine.py",
        description=__doc__ or "",
        examples=EXAMPLES,
    )
    from pipelines.training.dry_run import dry_run_report
    from pipelines.training.request import prepare_refine
    from pipelines.training.train import train

    prepared = prepare_refine(request.config)
    if request.dry_run:
        say(dry_run_report(prepared))
        return None
    with connect(request.config.cluster):
        return train(prepared)


if __name__ == "__main__":
    run(main)
