"""Latents -> base checkpoint: the image- and text-conditioned stage."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.cluster.connection import connect
from pipelines.config import parse_request
from pipelines.job import run, say
from pipelines.training.config import TRAIN_BASE_PRESETS, TrainBaseConfig

EXAMPLES = """examples:
  python jobs/train_base.py --latents data/latents-base --checkpoints models/base
  python jobs/train_base.py --latents L --checkpoints C --steps 500 --init models/sd21/unet
The same command again goes on from the newest checkpoint.
"""


def main(argv: Sequence[str]) -> dict[str, Any] | None:
    """Keys: checkpoint, digest, step, loss, samples_seen, run_id, seconds."""
    request = parse_request(
        TrainBaseConfig,
        TRAIN_BASE_PRESETS,
        argv,
        prog="train_base.py",
        description=__doc__ or "",
        examples=EXAMPLES,
    )
    from pipelines.training.dry_run import dry_run_report
    from pipelines.training.request import prepare_base
    from pipelines.training.train import train

    prepared = prepare_base(request.config)
    if request.dry_run:
        say(dry_run_report(prepared))
        return None
    with connect(request.config.cluster):
        return train(prepared)


if __name__ == "__main__":
    run(main)
