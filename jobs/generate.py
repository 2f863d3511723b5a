"""Image and prompt -> video: the base stage, then the refinement, to an .mp4."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.config import parse_request
from pipelines.generation.config import GENERATE_PRESETS, GenerateConfig
from pipelines.job import run, say

EXAMPLES = """examples:
  python jobs/generate.py --base models/base --refine models/refine --image cat.png \\
      --prompt "a red circle moving left over a textured background" --out cat-video.mp4
  ... --frames 64 --overlap 6                 a long video, in windows the networks know
  ... --refine_start inversion                a refinement that stays closer to the base video
  ... --preset paper --offload true --vae_tile_px 256     on a GPU with little memory
Beside the video: .json says what made it, .png shows some of its frames.
"""


def main(argv: Sequence[str]) -> dict[str, Any] | None:
    """Keys: video, frames, width_px, height_px, fps, run_id, seconds."""
    request = parse_request(
        GenerateConfig,
        GENERATE_PRESETS,
        argv,
        prog="generate.py",
        description=__doc__ or "",
        examples=EXAMPLES,
    )
    from pipelines.generation.generate import generate, prepare
    from pipelines.metrics import told_to_cluster

    prepared = prepare(request.config)
    if request.dry_run:
        for line in prepared.lines():
            say(line)
        return None
    with told_to_cluster():
        return generate(prepared)


if __name__ == "__main__":
    run(main)
