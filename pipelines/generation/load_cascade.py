"""The cascade out of two checkpoints: averaged weights, their encoders, sizes and noise."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from pipelines.config import RequestError
from pipelines.training.checkpoints.checkpoint import Checkpoint, CheckpointHeader

if TYPE_CHECKING:
    import torch


def load_cascade(
    base: Checkpoint,
    refine: Checkpoint | None,
    device: str,
    *,
    precision: str = "float32",
    offload: bool = False,
    vae_tile_px: int = 0,
) -> tuple[Any, Any]:
    """(model.cascade.Cascade with both stages' averaged weights, its CascadePreset).

    precision is of the two networks, a name of torch's; the encoders stay in float32. Raises
    RequestError when the checkpoints do not belong together, or an encoder is not the one that
    the latents were made with.
    """
    import torch

    from model.cascade import Cascade
    from model.placement import Placement

    if refine is not None:
        check_pair(base, refine)
    used = torch.device(device)
    # Offloaded, everything is loaded into main memory and visits the device in its phase.
    home = torch.device("cpu") if offload else used
    preset = preset_of(base, refine)
    vae, clip = _load_encoders(base.header, home)
    vae.tile(vae_tile_px)
    clip = dataclasses.replace(clip, device=used)
    dtype = getattr(torch, precision)
    refine_unet = _load_averaged(refine, home, dtype) if refine else None
    unet = _load_averaged(base, home, dtype)
    placement = Placement(used if offload else None)
    return Cascade.from_preset(preset, unet, refine_unet, vae, clip, placement), preset


def preset_of(base_checkpoint: Checkpoint, refine_checkpoint: Checkpoint | None) -> Any:
    """The preset that the base was trained from, with the noise and sizes both were trained at."""
    from model.presets import PRESETS

    base = base_checkpoint.header
    if base.preset not in PRESETS:
        raise RequestError(f"--base: its network preset {base.preset!r} is unknown to this code")
    preset = dataclasses.replace(
        PRESETS[base.preset](),
        base_diffusion=_diffusion_of(base_checkpoint, "--base"),
        base_width_px=base.size_px[0],
        base_height_px=base.size_px[1],
    )
    if refine_checkpoint is None:
        return preset
    refine = refine_checkpoint.header
    return dataclasses.replace(
        preset,
        refine_diffusion=_diffusion_of(refine_checkpoint, "--refine"),
        refine_width_px=refine.size_px[0],
        refine_height_px=refine.size_px[1],
    )


def check_pair(base: Checkpoint, refine: Checkpoint) -> None:
    """Raises RequestError when the refinement cannot go on from this base."""
    for flag, checkpoint in (("--base", base), ("--refine", refine)):
        if lacking := {"vae", "clip"} - set(checkpoint.header.encoders):
            where = checkpoint.store.uri
            raise RequestError(f"{flag} {where}: damaged header (no {min(lacking)} in encoders)")
    if base.header.encoders["vae"]["digest"] != refine.header.encoders["vae"]["digest"]:
        raise RequestError(
            "--refine: trained on latents of another autoencoder than --base; give a pair"
        )
    if base.header.preset != refine.header.preset:
        raise RequestError(
            f"--refine: of network preset {refine.header.preset}, --base is of "
            f"{base.header.preset}; give a pair"
        )


def _diffusion_of(checkpoint: Checkpoint, flag: str) -> Any:
    from model.diffusion import DiffusionConfig

    try:
        return DiffusionConfig(**checkpoint.header.diffusion)
    except (TypeError, ValueError) as error:
        raise RequestError(f"{flag} {checkpoint.store.uri}: damaged header ({error})") from error


def _load_averaged(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> Any:
    from model.unet import VideoUNet

    with checkpoint.local_directory() as folder:
        return VideoUNet.load(folder / "ema").to(device, dtype).eval()


def _load_encoders(header: CheckpointHeader, device: torch.device) -> tuple[Any, Any]:
    """The encoders that the latents were made with, by name and by content."""
    from model.encoders import WeightsUnavailable, load_clip, load_vae
    from pipelines.training.latents.clip_encoder import weights_digest

    names = {role: encoder["name"] for role, encoder in header.encoders.items()}
    try:
        vae, clip = load_vae(names["vae"], device), load_clip(names["clip"], device)
    except WeightsUnavailable as error:
        raise RequestError(f"encoders: {error}") from error
    for role, module in (("vae", vae.vae), ("clip", clip.model)):
        if weights_digest(module) != header.encoders[role]["digest"]:
            raise RequestError(
                f"--base: trained on latents of another {role} than {names[role]!r} is now; "
                "encode and train again, or restore those weights"
            )
    return vae, clip
