"""Many videos at once out of a cascade, with any of its conditions withheld.

`Cascade.generate` makes one video under all conditions; an ablation is sampled as it was trained,
without the condition it lacks, and a batch costs less a video on few cores.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.cascade import Cascade
from model.conditioning import Conditions
from model.dropping import DropMasks, drop_conditions, unconditional
from model.frames import enlarge, fit_image, to_float, to_uint8
from model.samplers import draw_per_video, noise_to, sample, seeded_generators
from model.stage_sampling import StageSampling
from pipelines.evaluation.metrics import Frames

CONDITIONS = ("text", "image", "content", "detail")


@dataclass(frozen=True)
class Wanted:
    """One video to make."""

    image_HWC: Frames
    prompt: str
    short_prompt: str
    seed: int


def masks_without(withheld: Collection[str], batch: int) -> DropMasks:
    """text: the long caption; image: the CLIP vector; content: what the content encoder reads;
    detail: the latent that joins the noisy ones. Raises ValueError for another word."""
    if unknown := sorted(set(withheld) - set(CONDITIONS)):
        raise ValueError(f"unknown condition {unknown[0]!r}; known: {', '.join(CONDITIONS)}")
    return DropMasks(*(torch.full((batch,), name in withheld) for name in CONDITIONS))


@torch.no_grad()
def base_videos(
    cascade: Cascade,
    wanted: Sequence[Wanted],
    *,
    frames: int,
    fps: float,
    sampling: StageSampling,
    withheld: Collection[str] = (),
) -> list[Frames]:
    """The base stage, all in one batch: uint8 (F, H, W, 3) each, as `Cascade.generate` makes them
    up to rounding."""
    width_px, height_px = cascade.base_width_px, cascade.base_height_px
    images_BHWC = np.stack([fit_image(w.image_HWC, width_px, height_px) for w in wanted])
    detail_BCHW = cascade.vae.encode(to_float(images_BHWC))
    texts = cascade.clip.encode_text_tokens([*(w.prompt for w in wanted), ""])
    unet = cascade.base_unet.eval()
    device = unet.conv_in.weight.device
    given = Conditions(
        texts[:-1],
        torch.full((len(wanted),), float(fps)),
        cascade.clip.encode_image(cascade.clip.preprocess(images_BHWC)),
        detail_BCHW,
    ).to(device)
    empty_LD = texts[-1].to(device)
    given = drop_conditions(given, masks_without(withheld, len(wanted)), empty_LD)
    generators = seeded_generators([w.seed for w in wanted])
    noise = draw_per_video((detail_BCHW.shape[1], frames, *detail_BCHW.shape[2:]), generators)
    latents = sample(
        unet,
        cascade.base_diffusion,
        sampling,
        noise.to(device),
        cascade.base_diffusion.num_timesteps - 1,
        given,
        unconditional(given, empty_LD),
        generators,
    )
    return _pixels(cascade, latents, width_px, height_px)


@torch.no_grad()
def refined_videos(
    cascade: Cascade,
    videos: Sequence[Frames],
    short_prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: StageSampling,
) -> list[Frames]:
    """The refinement of videos of any one size, all in one batch. Raises ValueError when the
    cascade has no refinement network."""
    unet = cascade.refine_unet
    if unet is None:
        raise ValueError("this cascade has no refinement network")
    unet, config = unet.eval(), cascade.refine_diffusion
    device, size = unet.conv_in.weight.device, (cascade.refine_width_px, cascade.refine_height_px)
    enlarged_BCFHW = torch.stack(
        [cascade.vae.encode(enlarge(to_float(v), *size)).transpose(0, 1) for v in videos]
    ).to(device)
    texts = cascade.clip.encode_text_tokens([*short_prompts, ""]).to(device)
    given, generators = Conditions(texts[:-1]), seeded_generators(list(seeds))
    last = config.noise_range - 1
    latents = sample(
        unet,
        config,
        sampling,
        noise_to(enlarged_BCFHW, config, last, generators),
        last,
        given,
        unconditional(given, texts[-1]),
        generators,
    )
    return _pixels(cascade, latents, *size)


def _pixels(cascade: Cascade, latents_BCFHW: Tensor, width_px: int, height_px: int) -> list[Frames]:
    return [
        to_uint8(cascade.vae.decode(latents_CFHW.transpose(0, 1), height_px, width_px))
        for latents_CFHW in latents_BCFHW
    ]
