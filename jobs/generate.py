"""Image and prompt -> video: the base stage, then the refinement, to an .mp4."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.config import parse_request
from pipelines.job import run, say
from pipelines.training.config import GENERATE_PRESETS, GenerateConfig

EXAMPLES = """examples:
  python jobs/generate.py --base models/base --refine models/refine --image cat.png \\
      --prompt "a red circle moving left over a textured background" --out cat.mp4
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
    from pipelines.training.generate import generate, prepare

    prepared = prepare(request.config)
    if request.dry_run:
        stages = [c.store.uri for c in (prepared.base, prepared.refine) if c]
        say(f"would generate {prepared.config.out} with {', then '.join(stages)}")
        return None
    return generate(prepared)


if __name__ == "__main__":
    run(main)
