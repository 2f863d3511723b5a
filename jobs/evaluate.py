"""Checkpoints and a dataset -> what the cascade can do, as numbers, plots and videos."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.config import parse_request
from pipelines.evaluation.config import PRESETS, EvaluateConfig
from pipelines.job import run, say

EXAMPLES = """examples:
  python jobs/evaluate.py --base models/base --refine models/refine --dataset data/set --out eval
  python jobs/evaluate.py --base models/base --refine none --withhold text --dataset D --out eval
"""


def main(argv: Sequence[str]) -> dict[str, Any] | None:
    """Keys: evaluation, videos, the mean of each measure that applies, frechet_video_distance
    (with --i3d), tracking_uri, run_id, seconds."""
    request = parse_request(
        EvaluateConfig,
        PRESETS,
        argv,
        prog="evaluate.py",
        description=__doc__ or "",
        examples=EXAMPLES,
    )
    from pipelines.evaluation.evaluate import evaluate, prepare

    prepared = prepare(request.config)
    if request.dry_run:
        unseen = sum(clip.clip_id not in prepared.seen for clip in prepared.clips)
        say(f"would animate {len(prepared.clips)} clips ({unseen} unseen in training):")
        for clip in prepared.clips:
            say(f"  {clip.clip_id}  {clip.caption}")
        return None
    return evaluate(prepared)


if __name__ == "__main__":
    run(main)
