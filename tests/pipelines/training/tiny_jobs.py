"""Training requests for networks small enough to train in a test, made by the real checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from model.unet import UNetConfig
from pipelines.config import TrackingConfig
from pipelines.lineage.tracking import Tracker
from pipelines.training.config import LoopConfig, TrainBaseConfig, TrainRefineConfig
from pipelines.training.feed.plan import MixtureConfig
from pipelines.training.loop.worker import Trainer
from pipelines.training.loop.workers import Workers
from pipelines.training.request import TrainRequest, prepare_base, prepare_refine
from pipelines.training.stages import demo_base, demo_refine

TINY_UNET = UNetConfig(
    block_out_channels=(16, 32),
    down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
    up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    layers_per_block=1,
    norm_num_groups=8,
    cross_attention_dim=128,
    attention_head_dim=8,
    temporal_dropout=0.1,
)
TINY_MIXTURE = MixtureConfig(
    frames=(1, 4),
    frames_weights=(1.0, 1.0),
    fps=(4, 8, 16),
    fps_weights=(1.0, 2.0, 1.0),
    frames_per_step=8,
    max_clips_per_step=4,
)
UNTRACKED = TrackingConfig(enabled=False)


def loop(**changes: Any) -> LoopConfig:
    given = {"checkpoint_every": 4, "validate_every": 1000, "validation_clips": 2, "threads": 1}
    given["sample_every"] = 0
    return LoopConfig(**{**given, **changes})


def base_request(latents: Path, checkpoints: Path, steps: int, **loop_changes: Any) -> TrainRequest:
    config = TrainBaseConfig(
        latents=str(latents),
        checkpoints=str(checkpoints),
        steps=steps,
        init="fresh",
        mixture=TINY_MIXTURE,
        regimen=dataclasses.replace(demo_base().learning, warmup_steps=3),
        loop=loop(**loop_changes),
        tracking=UNTRACKED,
    )
    return with_tiny_network(prepare_base(config))


def refine_request(
    latents: Path, checkpoints: Path, base: Path, steps: int, premium_steps: int
) -> TrainRequest:
    config = TrainRefineConfig(
        latents=str(latents),
        checkpoints=str(checkpoints),
        base=str(base),
        steps=steps,
        premium_steps=premium_steps,
        mixture=TINY_MIXTURE,
        regimen=dataclasses.replace(demo_refine().learning, warmup_steps=3),
        loop=loop(),
        tracking=UNTRACKED,
    )
    return prepare_refine(config)


def with_tiny_network(request: TrainRequest) -> TrainRequest:
    job = dataclasses.replace(request.job, model=TINY_UNET.to_json())
    return dataclasses.replace(request, job=job)


@dataclass
class Heard:
    """The job's side of a trainer in this process: keeps all it is told, and asks it to stop once
    `stop_after` steps are posted."""

    stop_after: int = 10**9
    posts: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def stop_asked(self) -> bool:
        return len(self.posts) >= self.stop_after

    def post(self, step: int, figures: dict[str, Any], *, at_once: bool = False) -> None:
        self.posts.append({"step": step, **figures})

    def say(self, line: str) -> None:
        self.lines.append(line)

    def fail(self, reason: str) -> None:
        self.failures.append(reason)


def train_here(
    request: TrainRequest,
    heard: Heard | None = None,
    is_preempted: Callable[[], bool] = lambda: False,
) -> list[str]:
    """The worker's loop in this process, as the only worker; returns why it failed, if it did."""
    heard = heard or Heard()
    torch.set_num_threads(1)
    workers = Workers(0, 1, torch.device("cpu"), lambda figures: None)
    tracker = Tracker.open(request.job.tracking)
    with tracker.resume(request.job.run_id) as run:
        Trainer(request.job, workers, run, heard, is_preempted=is_preempted).run()
    return heard.failures
