"""The configuration of jobs/generate.py and its presets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.config import TrackingConfig, required, setting


@dataclass(frozen=True)
class GenerateConfig:
    """jobs/generate.py"""

    base: str = required("base checkpoint (a checkpoint, or the folder of them)")
    refine: str = required("refinement checkpoint; none: stop after the base stage")
    image: str = required("picture to animate")
    prompt: str = required("what should happen")
    short_prompt: str = setting("", "a few words for the refinement; empty: the prompt's first")
    out: str = required("video to write, .mp4")
    seed: int = setting(0, "seed of the noise", low=0, high=2**63 - 1)
    frames: int = setting(
        0, "frames to make; 0: the network preset's", unit="frames", low=0, high=10_000
    )
    fps: int = setting(
        0, "frame rate to make; 0: the network preset's", unit="frames/s", low=0, high=240
    )
    base_steps: int = setting(0, "sampling steps of the base stage; 0: the network preset's", low=0)
    refine_steps: int = setting(0, "sampling steps of the refinement; 0: the preset's", low=0)
    base_guidance: float | None = setting(
        None, "guidance of the base stage; none: the preset's", low=0, high=100
    )
    refine_guidance: float | None = setting(
        None, "guidance of the refinement; none: the preset's", low=0, high=100
    )
    base_sampler: Literal["preset", "ddim", "dpmpp_2m", "dpmpp_2m_sde"] = setting(
        "preset", "sampler of the base stage; preset: the network preset's"
    )
    refine_sampler: Literal["preset", "ddim", "dpmpp_2m", "dpmpp_2m_sde"] = setting(
        "preset", "sampler of the refinement; preset: the network preset's, ddim after an inversion"
    )
    refine_start: Literal["noise", "inversion"] = setting(
        "noise", "what refinement starts from: fresh noise (SDEdit), or the base video's inversion"
    )
    inversion_steps: int = setting(30, "steps of the inversion", unit="steps", low=1)
    window: int = setting(
        0,
        "frames the networks see at once; 0: the network preset's",
        unit="frames",
        low=0,
        high=10_000,
    )
    overlap: int = setting(4, "frames that neighbouring windows share", unit="frames", low=1)
    windows_at_once: int = setting(1, "windows of the refinement in one batch", low=1)
    precision: Literal["float32", "bfloat16", "float16"] = setting(
        "float32", "arithmetic of the networks; what is sampled stays float32"
    )
    vae_tile_px: int = setting(
        0,
        "frames go through the autoencoder in bands of at most this, squared; 0: whole",
        unit="px",
        low=0,
    )
    offload: bool = setting(False, "keep on the GPU only the module in use, the others in memory")
    threads: int = setting(2, "threads on the CPU", low=1, high=1024)
    device: Literal["cpu", "cuda"] = setting("cpu", "where to sample")
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def paper_generate() -> GenerateConfig:
    return GenerateConfig(device="cuda", precision="bfloat16")


GENERATE_PRESETS: dict[str, Any] = {"demo": GenerateConfig, "paper": paper_generate}
