"""What a training worker is told: everything, as one value that survives the trip as plain JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from model.diffusion import DiffusionConfig
from pipelines.config import TrackingConfig, from_plain, to_plain
from pipelines.training.config import LoopConfig, OnlineConfig
from pipelines.training.feed.plan import MixtureConfig
from pipelines.training.stages import Phase, RegimenConfig, phase_at, total_steps


@dataclass(frozen=True)
class TrainJob:
    """One stage's training, checked and complete.

    `preset` names the entry of model/presets.py that `model` (a UNet's config.json) and
    `diffusion` come from.

    `start` says where new weights come from: {"from": "fresh"} or {"from": "image_unet" |
    "unet" | "base", "directory": local path}. `latents`, `dataset` and `base` are {"uri",
    "digest"} (`base` empty in the base stage). `run_id` and `phase_run_ids` name the records of
    the whole job and of each phase, empty when nothing is recorded.
    """

    stage: Literal["base", "refine"]
    latents: dict[str, str]
    dataset: dict[str, str]
    base: dict[str, str]
    checkpoints: str
    phases: tuple[Phase, ...]
    seed: int
    preset: str
    model: dict[str, Any]
    diffusion: DiffusionConfig
    start: dict[str, str]
    text: str
    mixture: MixtureConfig
    regimen: RegimenConfig
    loop: LoopConfig
    online: OnlineConfig
    identity: str
    config: dict[str, Any]
    config_hash: str
    encoders: dict[str, dict[str, str]]
    size_px: tuple[int, int]
    run_id: str = ""
    phase_run_ids: tuple[str, ...] = ()
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    @property
    def total_steps(self) -> int:
        return total_steps(self.phases)

    def phase_at(self, step: int) -> tuple[int, int]:
        return phase_at(self.phases, step)

    def to_plain(self) -> dict[str, Any]:
        return to_plain(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> TrainJob:
        kinds: dict[str, type[Any]] = {
            "diffusion": DiffusionConfig,
            "mixture": MixtureConfig,
            "regimen": RegimenConfig,
            "loop": LoopConfig,
            "online": OnlineConfig,
            "tracking": TrackingConfig,
        }
        sections = {name: from_plain(kind, plain[name]) for name, kind in kinds.items()}
        phases = tuple(Phase(**phase) for phase in plain["phases"])
        tuples = {name: tuple(plain[name]) for name in ("size_px", "phase_run_ids")}
        return cls(**{**plain, **sections, "phases": phases, **tuples})
