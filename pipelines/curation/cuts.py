"""KEEP: only what is kept is cut, frame-exact, in a child process that can be killed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipelines.config import setting
from pipelines.media import Crop, CutResult, cut_clip
from pipelines.records import Clip
from pipelines.sandbox import SandboxConfig, run_limited


@dataclass(frozen=True)
class CutsConfig:
    """How a kept clip is encoded."""

    crf: int = setting(
        18, "x264's constant rate factor; lower is better and larger", low=0, high=51
    )
    preset: str = setting("veryfast", "x264's preset")
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)


def cut_to(source: Path, out: Path, clip: Clip, config: CutsConfig) -> CutResult:
    """Writes the clip's frames, inside its borders, to `out`. Raises MediaError."""
    limits = config.sandbox.limits(source.stat().st_size)
    crop = Crop(clip.crop_x_px, clip.crop_y_px, clip.crop_w_px, clip.crop_h_px)
    whole = crop == Crop(0, 0, clip.width_px, clip.height_px)
    return run_limited(
        limits,
        cut_clip,
        source,
        out,
        start_frame=clip.start_frame,
        end_frame=clip.end_frame,
        start_s=clip.start_s,
        end_s=clip.end_s,
        crop=None if whole else crop,
        crf=config.crf,
        preset=config.preset,
    )
