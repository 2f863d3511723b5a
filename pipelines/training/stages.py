"""What each stage is trained on and how: the regimens, as data to read.

    base     one phase: images and videos together, all kept clips, all noise levels; conditions
             are the first frame (semantics, content, detail), the long caption and the rate
    refine   from the base's weights, text only (the short caption), only the noise levels below
             T_r, where detail is decided:
             phase 1 "high_res" on all high-resolution clips, phase 2 "premium" on the best ones

The paper's numbers are `paper_*`; the demo's are the same with what two cores allow.
A third stage would be one more regimen here and one more preset of the model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipelines.config import setting
from pipelines.training.feed.plan import MixtureConfig


@dataclass(frozen=True)
class RegimenConfig:
    """How a stage learns."""

    learning_rate: float = setting(8e-5, "AdamW's rate for the new, temporal parameters", low=0)
    spatial_rate: float = setting(
        0.2, "rate of the parameters an image model has, relative to learning_rate (paper: γ)",
        low=0, high=1,
    )  # fmt: skip
    beta1: float = setting(0.9, "AdamW's first momentum", low=0, high=1)
    beta2: float = setting(0.999, "AdamW's second momentum", low=0, high=1)
    weight_decay: float = setting(0.0, "AdamW's decoupled weight decay", low=0)
    warmup_steps: int = setting(1000, "steps of linear warm-up", unit="steps", low=0)
    clip_norm: float = setting(1.0, "largest gradient norm; more is scaled down", low=0)
    ema_decay: float = setting(0.9999, "decay of the averaged weights", low=0, high=1)
    noise_range: int = setting(
        1000, "noise levels trained on are 0..noise_range-1 of 1000 (paper: T_r)", low=1, high=1000
    )
    offset_noise: float = setting(0.1, "noise shared by a whole frame and channel", low=0)
    drop_text: float = setting(0.1, "how often the caption is dropped", low=0, high=1)
    drop_image: float = setting(0.1, "how often the CLIP vector is dropped", low=0, high=1)
    drop_detail: float = setting(
        0.1, "how often the image's latent is dropped, content and detail both", low=0, high=1
    )
    drop_all: float = setting(0.1, "how often all of these are dropped", low=0, high=1)
    drop_content_alone: float = setting(
        0.0, "how often the content tokens are dropped, the detail kept", low=0, high=1
    )
    drop_detail_alone: float = setting(
        0.0, "how often the detail is dropped, the content tokens kept", low=0, high=1
    )
    drop_fps: float = setting(
        0.0, "how often the frame rate is dropped: 0 frames/s then means unknown", low=0, high=1
    )


@dataclass(frozen=True)
class Phase:
    """A stretch of steps over the clips of one tier."""

    name: str
    tier: str
    steps: int


@dataclass(frozen=True)
class Regimen:
    """A stage's recipe: what batches are made of, how it learns, which captions it reads."""

    mixture: MixtureConfig
    learning: RegimenConfig
    text: str


def paper_base() -> Regimen:
    """Frames and rates: facts from the paper; learning rates from VGen's code."""
    return Regimen(MixtureConfig(), RegimenConfig(), text="text")


def paper_refine() -> Regimen:
    learning = RegimenConfig(
        learning_rate=3e-5, noise_range=600, drop_image=0.0, drop_detail=0.0, drop_all=0.0
    )
    return Regimen(MixtureConfig(frames_per_step=256), learning, text="short_text")


def demo_base() -> Regimen:
    """Minutes on two cores: short clips, small batches, faster averaging. The rate is the
    paper's, because the demo starts from weights that know this world (model/assets/unet)."""
    paper = paper_base()
    mixture = MixtureConfig(
        frames=(1, 8),
        frames_weights=(1.0, 3.0),
        fps=(4, 8, 16),
        fps_weights=(1.0, 4.0, 1.0),
        frames_per_step=16,
        max_clips_per_step=8,
    )
    learning = replace(paper.learning, warmup_steps=20, ema_decay=0.98)
    return replace(paper, mixture=mixture, learning=learning)


def demo_refine() -> Regimen:
    """T_r is 250, not 600: a network this small, taught for minutes, cannot make up again what
    600 takes away (signal .23 of 1 is left there, .71 at 250)."""
    paper = paper_refine()
    mixture = MixtureConfig(
        frames=(1, 4),
        frames_weights=(1.0, 3.0),
        fps=(4, 8, 16),
        fps_weights=(1.0, 4.0, 1.0),
        frames_per_step=4,
        max_clips_per_step=4,
    )
    learning = replace(
        paper.learning, learning_rate=1e-4, noise_range=250, warmup_steps=10, ema_decay=0.95
    )
    return replace(paper, mixture=mixture, learning=learning)


def base_phases(steps: int) -> tuple[Phase, ...]:
    return (Phase("joint", "base", steps),)


def refine_phases(steps: int, premium_steps: int) -> tuple[Phase, ...]:
    phases = (Phase("high_res", "high_res", steps), Phase("premium", "premium", premium_steps))
    return tuple(phase for phase in phases if phase.steps)


def total_steps(phases: tuple[Phase, ...]) -> int:
    return sum(phase.steps for phase in phases)


def phase_at(phases: tuple[Phase, ...], step: int) -> tuple[int, int]:
    """(number of the phase, step within it) of a global step, counted from 0."""
    for number, phase in enumerate(phases):
        if step < phase.steps:
            return number, step
        step -= phase.steps
    raise ValueError(f"step lies {step} steps behind the last phase")


def learning_rate_factor(learning: RegimenConfig, step_in_phase: int) -> float:
    """Linear warm-up from the first step of a phase, then constant."""
    if learning.warmup_steps == 0:
        return 1.0
    return min(1.0, (step_in_phase + 1) / learning.warmup_steps)


def ema_decay_at(learning: RegimenConfig, step: int) -> float:
    """Young averages forget faster, so that they do not remember the initial weights."""
    return min(learning.ema_decay, (1 + step) / (10 + step))
