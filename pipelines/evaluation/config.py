"""The configuration of jobs/evaluate.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipelines.config import TrackingConfig, required, setting


@dataclass(frozen=True)
class EvaluateConfig:
    """jobs/evaluate.py"""

    base: str = required("base checkpoint (a checkpoint, or the folder of them)")
    refine: str = required("refinement checkpoint (a checkpoint, or the folder of them)")
    dataset: str = required("dataset whose clips give the first frames and the prompts")
    out: str = required("folder for evaluation.json, plots and videos")
    clips: int = setting(4, "clips to animate", unit="clips", low=1)
    frames: int = setting(16, "frames of each video", unit="frames", low=2)
    fps: int = setting(8, "frame rate of each video", unit="frames/s", low=1)
    seeds: int = setting(1, "videos made of each clip", low=1)
    seed: int = setting(0, "first seed", low=0)
    base_steps: int = setting(25, "sampling steps of the base stage", unit="steps", low=1)
    refine_steps: int = setting(10, "sampling steps of the refinement", unit="steps", low=1)
    threads: int = setting(2, "threads on the CPU", low=1)
    device: Literal["cpu", "cuda"] = setting("cpu", "where to sample")
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def paper() -> EvaluateConfig:
    return EvaluateConfig(clips=256, base_steps=50, refine_steps=30, device="cuda")


PRESETS = {"demo": EvaluateConfig, "paper": paper}
