"""What a generation would do, worked out and checked before a weight is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.config import RequestError
from pipelines.training.checkpoints.checkpoint import CheckpointHeader

if TYPE_CHECKING:
    from model.presets import CascadePreset
    from model.samplers import StageSampling
    from model.windows import Windowing
    from pipelines.generation.config import GenerateConfig

_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class SamplingPlan:
    """All numbers of one generation. `refine` is None for the base stage alone; then, and when
    refinement starts from noise, `inversion_steps` is 0."""

    preset: CascadePreset
    frames: int
    fps: int
    windows: Windowing
    base: StageSampling
    refine: StageSampling | None
    inversion_steps: int

    @property
    def passes(self) -> int:
        """Windows of the video, in either stage."""
        return len(self.windows.spans(self.frames))

    @property
    def steps(self) -> int:
        """Steps that progress is reported of, over all stages."""
        refine = self.refine.num_steps + self.inversion_steps if self.refine else 0
        return self.base.num_steps * self.passes + refine


def plan_sampling(config: GenerateConfig, preset: CascadePreset, refines: bool) -> SamplingPlan:
    """The request's numbers, the preset's where it gives none. Raises RequestError for what cannot
    be: an overlap as long as its window, more steps than noise levels, too small a tile."""
    _check_device(config)
    base = _stage(config, "base", preset.base_sampling, preset.base_diffusion.num_timesteps)
    refine, inversion_steps = None, 0
    if refines:
        levels = preset.refine_diffusion.noise_range
        refine = _stage(config, "refine", preset.refine_sampling, levels)
        if config.refine_start == "inversion":
            inversion_steps = config.inversion_steps
            _check_steps("inversion_steps", inversion_steps, levels)
    frames, fps = config.frames or preset.num_frames, config.fps or preset.fps
    windows = _windows(config, preset)
    return SamplingPlan(preset, frames, fps, windows, base, refine, inversion_steps)


def _check_device(config: GenerateConfig) -> None:
    from model.autoencoder import check_tile

    try:
        check_tile(config.vae_tile_px)
    except ValueError as error:
        raise RequestError(f"--vae_tile_px: {error}") from error
    if config.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise RequestError("--device cuda: PyTorch finds no GPU here; take --device cpu")


def _stage(
    config: GenerateConfig, stage: str, default: StageSampling, levels: int
) -> StageSampling:
    from model.samplers import StageSampling

    steps = getattr(config, f"{stage}_steps") or default.num_steps
    _check_steps(f"{stage}_steps", steps, levels)
    sampler, guidance = getattr(config, f"{stage}_sampler"), getattr(config, f"{stage}_guidance")
    if sampler == "preset":
        sampler = default.sampler
        if stage == "refine" and config.refine_start == "inversion":
            sampler = "ddim"  # fresh noise would drown what the inversion found
    guidance = default.guidance if guidance is None else guidance
    return StageSampling(sampler, steps, guidance, default.guidance_rescale)


def _check_steps(name: str, steps: int, levels: int) -> None:
    if steps > levels:
        raise RequestError(f"--{name} {steps}: there are {levels} noise levels; take fewer steps")


def _windows(config: GenerateConfig, preset: CascadePreset) -> Windowing:
    from model.windows import Windowing

    frames = config.window or preset.num_frames
    if config.overlap >= frames:
        raise RequestError(
            f"--overlap {config.overlap}: must be less than the window's {frames} frames; "
            "take a smaller overlap or a larger --window"
        )
    return Windowing(frames, config.overlap, config.windows_at_once)


# --- in words ------------------------------------------------------------------------------


def described(
    plan: SamplingPlan, config: GenerateConfig, networks: dict[str, CheckpointHeader]
) -> list[str]:
    """Lines for a dry run: sizes, windows, steps, evaluations, memory. `networks` by stage."""
    preset = plan.preset
    window = min(plan.windows.frames, plan.frames)
    seconds = plan.frames / plan.fps
    lines = [f"{plan.frames} frames at {plan.fps} frames/s ({seconds:.3g} s)"]
    if plan.passes > 1:
        lines[0] += (
            f", in {plan.passes} windows of {window} frames that share {plan.windows.overlap} or "
            "more"
        )
    size = f"{preset.base_width_px}x{preset.base_height_px} px"
    lines.append(_stage_line("base", size, plan.base, plan.base.num_steps * plan.passes))
    if plan.refine:
        size = f"{preset.refine_width_px}x{preset.refine_height_px} px"
        if plan.inversion_steps:
            evaluations = plan.inversion_steps * plan.passes
            lines.append(f"inversion at {size}: {plan.inversion_steps} steps, {evaluations} network"
                         " evaluations, unguided")  # fmt: skip
        lines.append(_stage_line("refine", size, plan.refine, plan.refine.num_steps * plan.passes))
    lines += memory_lines(plan, config, networks)
    return lines


def _stage_line(stage: str, size: str, sampling: StageSampling, evaluations: int) -> str:
    sides = "unguided" if sampling.guidance == 1 else f"guidance {sampling.guidance:g}, both sides"
    return (
        f"{stage} at {size}: {sampling.sampler}, {sampling.num_steps} steps, {evaluations} network "
        f"evaluations ({sides})"
    )


def memory_lines(
    plan: SamplingPlan, config: GenerateConfig, networks: dict[str, CheckpointHeader]
) -> list[str]:
    """About what each network and the autoencoder take; see model/memory_estimate.py."""
    from model.memory_estimate import unet_activation_bytes, unet_parameters
    from model.unet_config import UNetConfig

    item_bytes = _ITEM_BYTES[config.precision]
    window = min(plan.windows.frames, plan.frames)
    weights, working = {}, {}
    for stage, header in networks.items():
        network = UNetConfig.from_json(header.model)
        weights[stage] = unet_parameters(network) * item_bytes
        sampling: Any = plan.base if stage == "base" else plan.refine
        together = min(plan.windows.at_once, plan.passes) if stage == "refine" else 1
        videos = together * (1 if sampling.guidance == 1 else 2)
        size = plan.preset.latent_size(stage)
        working[stage] = unet_activation_bytes(network, videos, window, *size, item_bytes)
    decoding = _decoding_bytes(plan, config, networks["base"])
    lines = [
        f"memory of {stage}: about {_size(weights[stage])} of weights and {_size(working[stage])} "
        "while it runs"
        for stage in networks
    ]
    lines.append(f"memory of the autoencoder: about {_size(decoding)} while it runs")
    if config.offload:
        most = max(decoding, *(weights[stage] + working[stage] for stage in networks))
    else:
        most = sum(weights.values()) + max(decoding, *working.values())
    where = "GPU" if config.device == "cuda" else "CPU"
    lines.append(f"together about {_size(most)} on the {where}, and the encoders' weights")
    return lines


def _decoding_bytes(plan: SamplingPlan, config: GenerateConfig, header: CheckpointHeader) -> int:
    """Of one call of the autoencoder on the largest frames."""
    from model.autoencoder import frames_per_call
    from model.encoders import EMBEDDED, VAE_DIRECTORY
    from model.memory_estimate import STABLE_DIFFUSION_CHANNELS, decoder_activation_bytes

    channels: Any = STABLE_DIFFUSION_CHANNELS
    if header.encoders["vae"]["name"] == EMBEDDED:
        channels = json.loads((VAE_DIRECTORY / "config.json").read_text())["block_out_channels"]
    stage = "refine" if plan.refine else "base"
    width_px = getattr(plan.preset, f"{stage}_width_px")
    height_px = getattr(plan.preset, f"{stage}_height_px")
    frames = min(plan.frames, frames_per_call(height_px, width_px, config.vae_tile_px))
    pixels = frames * height_px * width_px
    if config.vae_tile_px and config.device == "cuda":  # elsewhere the maps stay in this memory
        pixels = min(pixels, config.vae_tile_px**2)
    return decoder_activation_bytes(tuple(channels), pixels)


def _size(count_bytes: float) -> str:
    for unit, power in (("GB", 1e9), ("MB", 1e6)):
        if count_bytes >= power:
            return f"{count_bytes / power:.3g} {unit}"
    return f"{count_bytes / 1e3:.3g} kB"
