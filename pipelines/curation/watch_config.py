"""What the watch pass measures, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipelines.config import setting
from pipelines.curation.borders import BordersConfig
from pipelines.curation.overlay_text import TextMeasureConfig
from pipelines.curation.shots import ShotsConfig
from pipelines.sandbox.calls import SandboxConfig


@dataclass(frozen=True)
class WatchConfig:
    """What is measured, and how. A change means that footage is watched again."""

    analysis_px: int = setting(
        160, "longer side of the frames that cuts and motion are found on", unit="px", low=32
    )
    sample_px: int = setting(
        384, "longer side of the frames the models see", unit="px", low=64, high=1024
    )
    jpeg_quality: int = setting(90, "of the frames the models see", low=1, high=100)
    max_pixels: int = setting(
        8192 * 4320, "larger pictures are refused before decoding", unit="px", low=1
    )
    loop_filter: Literal["skip", "keep"] = setting(
        "skip",
        "skip: a fifth faster, the frames judged differ from the encoder's by 34 dB or more",
    )
    shots: ShotsConfig = field(default_factory=ShotsConfig)
    borders: BordersConfig = field(default_factory=BordersConfig)
    text: TextMeasureConfig = field(default_factory=TextMeasureConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
