"""What decides the stored features of a clip, apart from its bytes and the networks' weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipelines.training.config import EncodeConfig

#: Raised whenever equal clips would get other bytes: features made before are not taken over then.
ENCODING_VERSION = 1


@dataclass(frozen=True)
class Recipe:
    """Equal recipes, equal weights and equal clips give equal bytes, on one kind of device."""

    stage: str = "base"
    width_px: int = 0
    height_px: int = 0
    fps: int = 16
    max_frames: int = 0
    latent: str = "mean"
    device: str = "cpu"
    version: int = ENCODING_VERSION

    @property
    def with_image_embeddings(self) -> bool:
        return self.stage == "base"

    def of_text(self) -> Recipe:
        """What decides a text's features: neither the stage nor anything about pictures."""
        return Recipe(device=self.device, version=self.version)


def recipe_of(config: EncodeConfig) -> Recipe:
    width_px, height_px = config.sizes.of(config.stage)
    device = "cuda" if config.workers.gpus else "cpu"
    sizes = config.sizes
    return Recipe(
        config.stage, width_px, height_px, sizes.fps, sizes.max_frames, config.latent, device
    )


def recipe_from(plain: Mapping[str, Any]) -> Recipe | None:
    """The recipe of a header or a commit; None when it has none that this code knows."""
    try:
        return replace(Recipe(), **plain) if plain else None
    except TypeError:
        return None


def promised_frames(clip: Mapping[str, Any], recipe: Recipe) -> int | None:
    """Frames that a clip of this length is stored with: one for each k / fps before its end.

    `clip`: a row of clips.parquet. None where it gives no times.
    """
    if clip["kind"] == "image":
        return 1
    if clip["start_s"] is None or clip["end_s"] is None:
        return None
    frames = math.ceil((clip["end_s"] - clip["start_s"]) * recipe.fps - 1e-6)
    return min(recipe.max_frames, max(1, frames))
