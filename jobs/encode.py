"""Dataset -> latents: VAE, CLIP and text features of each kept clip, once per stage."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.cluster.connection import connect
from pipelines.config import parse_request
from pipelines.job import run, say
from pipelines.training.config import ENCODE_PRESETS, EncodeConfig

EXAMPLES = """examples:
  python jobs/encode.py --dataset data/set --latents data/latents-base --stage base
  python jobs/encode.py --dataset data/set --latents data/latents-refine --stage refine
  python jobs/encode.py --dataset data/set-2 --latents data/latents-2 --reuse data/latents-base
"""


def main(argv: Sequence[str]) -> dict[str, Any] | None:
    """Keys: latents, digest, clips, reused, frames, packs, run_id, seconds."""
    request = parse_request(
        EncodeConfig,
        ENCODE_PRESETS,
        argv,
        prog="encode.py",
        description=__doc__ or "",
        examples=EXAMPLES,
    )
    from pipelines.training.latents.encode import encode
    from pipelines.training.latents.encode_plan import dry_run_report, prepare

    prepared = prepare(request.config)
    if request.dry_run:
        say(dry_run_report(prepared))
        return None
    with connect(request.config.cluster):
        return encode(prepared)


if __name__ == "__main__":
    run(main)
