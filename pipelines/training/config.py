"""The configurations of the training jobs and their presets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.config import ClusterConfig, TrackingConfig, required, setting
from pipelines.training import stages
from pipelines.training.feed.plan import MixtureConfig
from pipelines.training.stages import RegimenConfig


@dataclass(frozen=True)
class EncodersConfig:
    """The frozen networks whose features are kept."""

    vae: str = setting("embedded", "autoencoder: embedded, or a name or folder for diffusers")
    clip: str = setting("embedded", "CLIP: embedded, or open_clip's architecture:pretrained")


@dataclass(frozen=True)
class SizesConfig:
    """The pictures that latents are made from."""

    base_width_px: int = setting(112, "width of the base stage", unit="px", low=8)
    base_height_px: int = setting(64, "height of the base stage", unit="px", low=8)
    refine_width_px: int = setting(320, "width of the refinement stage", unit="px", low=8)
    refine_height_px: int = setting(180, "height of the refinement stage", unit="px", low=8)
    fps: int = setting(16, "rate that clips are stored at", unit="frames/s", low=1)
    max_frames: int = setting(64, "most frames kept of one clip", unit="frames", low=1)

    def of(self, stage: str) -> tuple[int, int]:
        """(width_px, height_px) of a stage."""
        if stage == "base":
            return self.base_width_px, self.base_height_px
        return self.refine_width_px, self.refine_height_px


@dataclass(frozen=True)
class EncodeWorkersConfig:
    """Where encoding runs. None of this changes the result on one kind of device."""

    actors: int = setting(0, "encoding actors; 0: one less than the cluster's cores", low=0)
    gpus: float = setting(0.0, "GPUs of each actor", low=0)
    decoders: int = setting(
        1, "clips that each actor decodes while its networks work on another", low=1, high=64
    )


@dataclass(frozen=True)
class EncodeConfig:
    """jobs/encode.py"""

    dataset: str = required("dataset written by jobs/curate.py")
    latents: str = required("where to write the latents")
    stage: Literal["base", "refine"] = setting("base", "which stage's size and clips")
    reuse: str = setting(
        "", "former latents, comma separated: clips and texts found there are not encoded again"
    )
    latent: Literal["mean", "moments"] = setting(
        "mean",
        "what is kept of the autoencoder's answer: its mean, or mean and standard deviation, so "
        "that training draws a sample",
    )
    pack_clips: int = setting(
        32, "most clips of one pack: the work of one task, and one commit", unit="clips", low=1
    )
    encoders: EncodersConfig = field(default_factory=EncodersConfig)
    sizes: SizesConfig = field(default_factory=SizesConfig)
    workers: EncodeWorkersConfig = field(default_factory=EncodeWorkersConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass(frozen=True)
class OnlineConfig:
    """How a small dataset is encoded on the way, where --latents of a training names a dataset."""

    latent: Literal["mean", "moments"] = setting("mean", "as of jobs/encode.py")
    encoders: EncodersConfig = field(default_factory=EncodersConfig)
    sizes: SizesConfig = field(default_factory=SizesConfig)


@dataclass(frozen=True)
class LoopConfig:
    """How the loop runs. Only `precision`, `compile` and `workers` can change the numbers, by
    rounding."""

    workers: int = setting(1, "training workers", low=1)
    gpus: float = setting(0.0, "GPUs of each worker (0: train on the CPU)", low=0)
    threads: int = setting(2, "threads of each worker on the CPU", low=1)
    precision: Literal["float32", "bfloat16"] = setting(
        "float32", "arithmetic of the forward pass; weights and optimizer stay float32"
    )
    parallel: Literal["ddp", "fsdp"] = setting(
        "ddp",
        "each worker holds the whole network (ddp), or its share of weights, gradients, optimizer "
        "and averages (fsdp: less memory, more traffic)",
    )
    micro_frames: int = setting(
        0,
        "most frames of one forward pass on a worker, the rest of its share follows and gradients "
        "add up; 0: the whole share at once",
        unit="frames",
        low=0,
    )
    activation_checkpointing: Literal["none", "selective", "full"] = setting(
        "none",
        "what the backward pass computes again: nothing; norms, activations and widening products; "
        "whole layers (least memory)",
    )
    compile: bool = setting(
        False, "compile the network's layers at the start: minutes, then faster steps on a GPU"
    )
    checkpoint_every: int = setting(50, "steps between checkpoints", unit="steps", low=1)
    keep_checkpoints: int = setting(3, "newest checkpoints kept; 0: all", low=0)
    validate_every: int = setting(100, "steps between validations", unit="steps", low=1)
    validation_clips: int = setting(4, "clips held out of training (at most a tenth of all)", low=0)
    sample_every: int = setting(
        100, "steps between sample videos in MLflow, and at the end; 0: none", unit="steps", low=0
    )
    sample_clips: int = setting(2, "held-out clips that sample videos are made of", low=0)
    log_every: int = setting(5, "steps between points of a curve in MLflow", unit="steps", low=1)
    max_failures: int = setting(3, "lost workers that a run survives by itself", low=0)
    explosion: float = setting(
        100.0, "stop when a step's loss is this many times the mean of the last 20; 0: never", low=0
    )
    check_latents: bool = setting(
        True, "compare every pack with its hash before the first step, not only when it is used"
    )
    save_patience_s: float = setting(
        120.0, "how long to try again where a checkpoint cannot be written", unit="s", low=0
    )


@dataclass(frozen=True)
class TrainBaseConfig:
    """jobs/train_base.py"""

    latents: str = required(
        "latents of the base stage, from jobs/encode.py --stage base; or a small dataset"
    )
    checkpoints: str = required("folder for checkpoints; training goes on from its latest")
    steps: int = setting(100, "steps to train to", unit="steps", low=1)
    init: str = setting(
        "auto",
        "weights to start from: fresh, embedded, auto (embedded where it fits, else fresh), or a "
        "UNet: a folder in diffusers' layout (SD 2.1, I2VGen-XL, or a checkpoint of ours) or a "
        ".safetensors or VGen's .pth file",
    )
    seed: int = setting(0, "seed of every random choice", low=0)
    model: str = setting("demo", "network: demo, small or paper (model/presets.py)")
    image_integration: Literal["concatenate", "add"] = setting(
        "concatenate",
        "how the image joins the network: concatenate (public code: own context tokens, detail as "
        "input channels) or add (paper's text: onto the CLIP vector, detail onto the first frame)",
    )
    mixture: MixtureConfig = field(default_factory=lambda: stages.demo_base().mixture)
    regimen: RegimenConfig = field(default_factory=lambda: stages.demo_base().learning)
    loop: LoopConfig = field(default_factory=LoopConfig)
    online: OnlineConfig = field(default_factory=OnlineConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass(frozen=True)
class TrainRefineConfig:
    """jobs/train_refine.py"""

    latents: str = required(
        "latents of the refinement stage, from jobs/encode.py --stage refine; or a small dataset"
    )
    checkpoints: str = required("folder for checkpoints; training goes on from its latest")
    base: str = required("base checkpoint to start from (a checkpoint, or the folder of them)")
    steps: int = setting(30, "steps on all high-resolution clips", unit="steps", low=0)
    premium_steps: int = setting(10, "steps on premium clips alone, after", unit="steps", low=0)
    seed: int = setting(0, "seed of every random choice", low=0)
    mixture: MixtureConfig = field(default_factory=lambda: stages.demo_refine().mixture)
    regimen: RegimenConfig = field(default_factory=lambda: stages.demo_refine().learning)
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(validation_clips=2))
    online: OnlineConfig = field(default_factory=OnlineConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


# --- presets -------------------------------------------------------------------------------

_PAPER_ENCODERS = EncodersConfig(
    vae="stabilityai/stable-diffusion-2-1", clip="ViT-H-14:laion2b_s32b_b79k"
)
_PAPER_LOOP = LoopConfig(
    workers=8,
    gpus=1.0,
    precision="bfloat16",
    activation_checkpointing="selective",
    compile=True,
    checkpoint_every=1000,
    validate_every=1000,
    validation_clips=256,
    sample_every=5000,
    sample_clips=8,
    log_every=50,
)


_PAPER_SIZES = SizesConfig(448, 256, 1280, 720, max_frames=512)
_PAPER_ONLINE = OnlineConfig(encoders=_PAPER_ENCODERS, sizes=_PAPER_SIZES)


def paper_encode() -> EncodeConfig:
    return EncodeConfig(
        pack_clips=128,
        encoders=_PAPER_ENCODERS,
        sizes=_PAPER_SIZES,
        workers=EncodeWorkersConfig(gpus=1.0, decoders=8),
    )


def paper_train_base() -> TrainBaseConfig:
    regimen = stages.paper_base()
    return TrainBaseConfig(
        steps=300_000,
        model="paper",
        init="stabilityai/stable-diffusion-2-1",
        mixture=regimen.mixture,
        regimen=regimen.learning,
        loop=_PAPER_LOOP,
        online=_PAPER_ONLINE,
    )


def paper_train_refine() -> TrainRefineConfig:
    regimen = stages.paper_refine()
    return TrainRefineConfig(
        steps=100_000,
        premium_steps=20_000,
        mixture=regimen.mixture,
        regimen=regimen.learning,
        loop=_PAPER_LOOP,
        online=_PAPER_ONLINE,
    )


ENCODE_PRESETS: dict[str, Any] = {"demo": EncodeConfig, "paper": paper_encode}
TRAIN_BASE_PRESETS: dict[str, Any] = {"demo": TrainBaseConfig, "paper": paper_train_base}
TRAIN_REFINE_PRESETS: dict[str, Any] = {"demo": TrainRefineConfig, "paper": paper_train_refine}
