"""Videos made while training goes on, always of the same held-out clips with the same noise.

base     the clip | the video sampled from its first frame, caption and rate
refine   the clip | the clip at the base stage's size, enlarged | its refinement (SDEdit)

Sampled with the averaged weights and the preset's sampler, steps and guidance.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from model.conditioning import Conditions
from model.dropping import unconditional
from model.frames import decode_in_groups, encode_enlarged, enlarge, to_uint8
from model.presets import PRESETS
from model.samplers import draw_per_video, noise_to, sample, seeded_generators
from model.unet import VideoUNet
from pipelines.config import RequestError
from pipelines.media import write_video
from pipelines.training.feed.feed import Batch, Feed
from pipelines.training.loop.objective import conditions_of
from pipelines.training.loop.validation import shown_sample
from pipelines.training.randomness import stream

if TYPE_CHECKING:
    from pipelines.training.train_job import TrainJob

SEED_NAME = "sample video"


@dataclass(frozen=True, eq=False)
class SampleVideo:
    """What is to be looked at: `frames_FHWC` uint8, the panels side by side."""

    clip_id: str
    fps: float
    frames_FHWC: np.ndarray

    def write(self, folder: Path, step: int) -> Path:
        """An .mp4 named by the step and the clip. Raises OSError."""
        path = folder / f"step-{step:08d}-{self.clip_id[:8]}.mp4"
        write_video(path, self.frames_FHWC, fps=self.fps)
        return path


class SampleVideos:
    """The frozen autoencoder of the latents, and what it takes to sample one stage."""

    def __init__(self, job: TrainJob, device: torch.device) -> None:
        """Raises RequestError when the autoencoder cannot be had, or is not the latents' own."""
        self.job, self.device = job, device
        self.preset = PRESETS[job.preset]()
        self.vae = _load_vae(job.encoders["vae"], device)

    def make(self, unet: VideoUNet, feed: Feed) -> list[SampleVideo]:
        """One for each of the first held-out clips; `unet` carries the averaged weights. Where it
        is in shares, by all workers together."""
        made = []
        for row in feed.validation_rows[: self.job.loop.sample_clips]:
            clip = shown_sample(feed, row)
            batch = feed.batch_of((clip,), step=0, epoch=0, share=1.0)
            panels = self._panels(unet, batch, feed.empty_text_LD())
            made.append(SampleVideo(clip.clip_id, clip.fps, side_by_side(panels)))
        return made

    @torch.no_grad()
    def _panels(self, unet: VideoUNet, batch: Batch, empty_LD: Tensor) -> list[np.ndarray]:
        was_training = unet.training
        unet.eval()  # also: no dropout, which would draw from the training's random state
        try:
            if self.job.stage == "base":
                return self._base_panels(unet, batch, empty_LD)
            return self._refine_panels(unet, batch, empty_LD)
        finally:
            unet.train(was_training)

    def _base_panels(self, unet: VideoUNet, batch: Batch, empty_LD: Tensor) -> list[np.ndarray]:
        generators = self._generators(batch)
        noise = draw_per_video(batch.latents_BCFHW.shape[1:], generators)
        made = self._sampled(unet, noise.to(self.device), batch, empty_LD, generators)
        return [self._pixels(batch.latents_BCFHW), self._pixels(made)]

    def _refine_panels(self, unet: VideoUNet, batch: Batch, empty_LD: Tensor) -> list[np.ndarray]:
        width_px, height_px = self.job.size_px
        clip_FCHW = self._floats(batch.latents_BCFHW)
        # What the base stage would hand over, had it made this very clip.
        small_FCHW = torch.nn.functional.interpolate(clip_FCHW, self._base_size_px(), mode="area")
        latents = encode_enlarged(self.vae, [small_FCHW], width_px, height_px).to(self.device)
        generators = self._generators(batch)
        last = self.job.diffusion.noise_range - 1
        noisy = noise_to(latents, self.job.diffusion, last, generators)
        made = self._sampled(unet, noisy, batch, empty_LD, generators)
        enlarged = to_uint8(enlarge(small_FCHW, width_px, height_px))
        return [to_uint8(clip_FCHW), enlarged, self._pixels(made)]

    def _sampled(
        self,
        unet: VideoUNet,
        start_BCFHW: Tensor,
        batch: Batch,
        empty_LD: Tensor,
        generators: list[torch.Generator],
    ) -> Tensor:
        base = self.job.stage == "base"
        sampling = self.preset.base_sampling if base else self.preset.refine_sampling
        given: Conditions = conditions_of(batch).to(self.device, torch.float32)
        without = unconditional(given, empty_LD.to(self.device))
        last = self.job.diffusion.noise_range - 1
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.job.loop.precision == "bfloat16"
        ):
            return sample(
                unet, self.job.diffusion, sampling, start_BCFHW, last, given, without, generators
            )

    def _generators(self, batch: Batch) -> list[torch.Generator]:
        return seeded_generators([stream(SEED_NAME, one.clip_id) for one in batch.samples])

    def _base_size_px(self) -> tuple[int, int]:
        """(height, width): as much smaller as the preset's base stage is."""
        width_px, height_px = self.job.size_px
        preset = self.preset
        return (
            max(1, round(height_px * preset.base_height_px / preset.refine_height_px)),
            max(1, round(width_px * preset.base_width_px / preset.refine_width_px)),
        )

    def _floats(self, latents_BCFHW: Tensor) -> Tensor:
        """(F, 3, H, W) in [-1, 1] of one video's latents."""
        width_px, height_px = self.job.size_px
        placed = latents_BCFHW.float().to(self.device)
        return torch.cat([*decode_in_groups(self.vae, placed, width_px, height_px)])

    def _pixels(self, latents_BCFHW: Tensor) -> np.ndarray:
        return to_uint8(self._floats(latents_BCFHW))


def side_by_side(panels_FHWC: list[np.ndarray]) -> np.ndarray:
    """(F, H, W, 3) uint8: the panels in one row, cut to the even size that H.264 wants."""
    row = np.concatenate(panels_FHWC, axis=2)
    return row[:, : row.shape[1] // 2 * 2, : row.shape[2] // 2 * 2]


def _load_vae(encoder: dict[str, str], device: torch.device) -> Any:
    from model.encoders import WeightsUnavailable, load_vae
    from pipelines.training.latents.clip_encoder import weights_digest

    try:
        vae = load_vae(encoder["name"], device)
    except WeightsUnavailable as error:
        raise RequestError(f"encoders: {error}") from error
    if weights_digest(vae.vae) != encoder["digest"]:
        raise RequestError(
            f"the autoencoder {encoder['name']!r} is not the one the latents were made with"
        )
    return vae
