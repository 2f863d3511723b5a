"""The loss of a batch: noise it, drop some conditions, predict v, compare."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.conditioning import Conditions, unet_arguments
from model.diffusion import (
    DiffusionConfig,
    draw_noise,
    draw_timesteps,
    loss_weights,
    q_sample,
    v_target,
)
from model.dropping import DropMasks, DropRates, draw_drop_masks, drop_conditions, joined_masks
from pipelines.training.feed.feed import Batch
from pipelines.training.randomness import stream
from pipelines.training.stages import RegimenConfig

NOISE_BINS = ("low_noise", "mid_noise", "high_noise")


@dataclass(frozen=True)
class Losses:
    """Weighted squared error per sample, and the third of the noise range it was drawn from."""

    loss_B: Tensor
    bin_B: Tensor

    def sums_of_bins(self, share: float) -> Tensor:
        """(2, bins) float64 on the CPU: sum of losses and number of samples per bin; zeros for a
        worker whose batch does not count."""
        sums = torch.zeros(2, len(NOISE_BINS), dtype=torch.float64)
        if share > 0:
            loss_B = self.loss_B.detach().cpu().double()
            sums[0].index_add_(0, self.bin_B, loss_B)
            sums[1].index_add_(0, self.bin_B, torch.ones_like(loss_B))
        return sums


class Objective:
    """v-prediction on noisy latents under dropped conditions, for one stage."""

    def __init__(
        self,
        diffusion: DiffusionConfig,
        regimen: RegimenConfig,
        empty_text_LD: Tensor,
        *,
        seed: int,
        device: torch.device,
        precision: str = "float32",
    ) -> None:
        self.diffusion, self.seed, self.device = diffusion, seed, device
        self.empty_text_LD = empty_text_LD.to(device)
        self.rates = DropRates(
            text=regimen.drop_text,
            image_embedding=regimen.drop_image,
            latent=regimen.drop_detail,
            everything=regimen.drop_all,
            content=regimen.drop_content_alone,
            detail=regimen.drop_detail_alone,
            fps=regimen.drop_fps,
        )
        self.precision = precision

    def losses(self, network: nn.Module, batch: Batch, step: int) -> Losses:
        """Noise, noise level and dropped conditions of a sample depend on the seed, the step and
        the clip alone: not on the worker that trains it, nor on its neighbours in the batch."""
        generators = [
            torch.Generator().manual_seed(stream(self.seed, "sample", step, sample.clip_id))
            for sample in batch.samples
        ]
        shape = (1, *batch.latents_BCFHW.shape[1:])
        timesteps_B = torch.cat([draw_timesteps(1, self.diffusion, g) for g in generators])
        noise = torch.cat([draw_noise(shape, self.diffusion, g) for g in generators])
        masks = [draw_drop_masks(1, self.rates, g) for g in generators]
        joined = joined_masks(masks)
        clean = self._drawn_latents(batch, step)
        loss_B = self._loss(network, batch, clean, noise, timesteps_B, joined)
        bin_B = timesteps_B * len(NOISE_BINS) // self.diffusion.noise_range
        return Losses(loss_B, bin_B)

    def loss_at(self, network: nn.Module, batch: Batch, timestep: int) -> Tensor:
        """Mean loss at one noise level on the latents' means, all conditions given, with noise
        fixed per clip."""
        shape = (1, *batch.latents_BCFHW.shape[1:])
        seeds = [stream("validation", timestep, sample.clip_id) for sample in batch.samples]
        noise = [
            draw_noise(shape, self.diffusion, torch.Generator().manual_seed(seed)) for seed in seeds
        ]
        timesteps_B = torch.full((len(seeds),), timestep)
        clean = self._on_device(batch.latents_BCFHW)
        return self._loss(network, batch, clean, torch.cat(noise), timesteps_B, None).mean()

    def spread_timesteps(self, count: int) -> list[int]:
        """The middles of `count` equal parts of the noise range."""
        part = self.diffusion.noise_range / count
        return [int((i + 0.5) * part) for i in range(count)]

    def _drawn_latents(self, batch: Batch, step: int) -> Tensor:
        """What the autoencoder could have said: a sample where the feed gives its deviation,
        drawn anew at every step; else its mean."""
        mean = self._on_device(batch.latents_BCFHW)
        deviation = batch.latents_std_BCFHW
        if deviation is None:
            return mean
        seeds = [stream("latent", self.seed, step, sample.clip_id) for sample in batch.samples]
        eps = [
            torch.randn(mean.shape[1:], generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
        return mean + self._on_device(deviation) * torch.stack(eps).to(self.device)

    def _on_device(self, values: Tensor) -> Tensor:
        """In float32, whatever the feed carries: converted there, where it is cheap."""
        return values.to(self.device, non_blocking=True).float()

    def _loss(
        self,
        network: nn.Module,
        batch: Batch,
        x0: Tensor,
        noise_BCFHW: Tensor,
        timesteps_B: Tensor,
        masks: DropMasks | None,
    ) -> Tensor:
        noise = noise_BCFHW.to(self.device)
        conditions = conditions_of(batch).to(self.device, torch.float32)
        if masks is not None:
            conditions = drop_conditions(conditions, masks, self.empty_text_LD)
        noisy = q_sample(self.diffusion, x0, noise, timesteps_B)
        target = v_target(self.diffusion, x0, noise, timesteps_B)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            predicted = network(
                noisy,
                timesteps_B.to(self.device),
                **unet_arguments(conditions, x0.shape[2]),
            )
        error_B = (predicted.float() - target).square().flatten(1).mean(dim=1)
        return error_B * loss_weights(self.diffusion, timesteps_B).to(error_B)


def conditions_of(batch: Batch) -> Conditions:
    """What the batch's videos are generated from; the image conditions are the first frame's, its
    latent the autoencoder's mean."""
    if batch.image_embedding_BD is None:
        return Conditions(batch.text_BLD)
    first_frame_BCHW = batch.latents_BCFHW[:, :, 0]
    return Conditions(batch.text_BLD, batch.fps_B, batch.image_embedding_BD, first_frame_BCHW)
