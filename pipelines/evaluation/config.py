"""The configuration of jobs/evaluate.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipelines.config import TrackingConfig, required, setting


@dataclass(frozen=True)
class EvaluateConfig:
    """jobs/evaluate.py"""

    base: str = required("base checkpoint (a checkpoint, or the folder of them)")
    refine: str = required("refinement checkpoint; none: judge the base stage alone")
    dataset: str = required("dataset whose clips give the first frames and the prompts")
    out: str = required("folder for evaluation.json, plots and videos")
    clips: int = setting(4, "clips to animate", unit="clips", low=1)
    only_moving: bool = setting(False, "only clips whose caption names a direction of motion")
    frames: int = setting(16, "frames of each video", unit="frames", low=2)
    fps: int = setting(8, "frame rate of each video", unit="frames/s", low=1)
    seeds: int = setting(1, "videos made of each clip", low=1)
    seed: int = setting(0, "first seed", low=0)
    batch: int = setting(1, "videos sampled at once: more are faster, and take memory", low=1)
    base_steps: int = setting(25, "sampling steps of the base stage", unit="steps", low=1)
    refine_steps: int = setting(10, "sampling steps of the refinement", unit="steps", low=1)
    base_guidance: float | None = setting(
        None, "guidance of the base stage; none: the preset's", low=0, high=100
    )
    refine_guidance: float | None = setting(
        None, "guidance of the refinement; none: the preset's", low=0, high=100
    )
    withhold: tuple[str, ...] = setting(
        (), "conditions not given to the base stage: text, image (CLIP), content, detail"
    )
    turn_prompts: bool = setting(
        False, "turn the direction in each prompt by 90 degrees: shows whether the prompt decides"
    )
    refine_truth: bool = setting(
        False, "also refine the true clips, made small, against bicubic upscaling"
    )
    i3d: str = setting(
        "",
        "TorchScript file of I3D, (B,3,T,224,224) in [-1,1] to logits: adds the Frechet video "
        "distance; loading it runs code from the file, so name only one you trust",
    )
    threads: int = setting(2, "threads on the CPU", low=1)
    device: Literal["cpu", "cuda"] = setting("cpu", "where to sample")
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def paper() -> EvaluateConfig:
    return EvaluateConfig(clips=256, base_steps=50, refine_steps=30, device="cuda")


PRESETS = {"demo": EvaluateConfig, "paper": paper}
