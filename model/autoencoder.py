"""A frame autoencoder over video: chunked, and for sizes its factor does not divide."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_CHUNK_PIXELS = 16 * 320 * 180  # per call: bounds memory whatever the clip


class VideoAutoencoder:
    """diffusers' AutoencoderKL over frames of any size, in chunks; made by `load_vae`."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.scaling_factor = float(vae.config.scaling_factor)
        self.downsample_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.latent_channels = int(vae.config.latent_channels)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.vae.parameters()).device

    @torch.no_grad()
    def encode(
        self, frames_BCHW: Tensor, sample: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """Frames (B, 3, H, W) in [-1, 1] to latents (B, C, ceil(H/f), ceil(W/f)) of unit scale.

        The posterior's mean, or with `sample` a draw from it. Frames that the factor does not
        divide are continued by their last row and column.
        """
        factor = self.downsample_factor
        height_px, width_px = frames_BCHW.shape[-2:]
        right_px, bottom_px = -width_px % factor, -height_px % factor
        parts = []
        for frames in frames_BCHW.split(self._chunk(height_px, width_px)):
            frames = frames.to(self.device, torch.float32)
            frames = F.pad(frames, (0, right_px, 0, bottom_px), mode="replicate")
            frames = frames.contiguous(memory_format=torch.channels_last)
            posterior = self.vae.encode(frames).latent_dist
            parts.append(posterior.sample(generator) if sample else posterior.mean)
        return (torch.cat(parts) * self.scaling_factor).contiguous()

    @torch.no_grad()
    def decode(
        self, latents_BCHW: Tensor, height_px: int | None = None, width_px: int | None = None
    ) -> Tensor:
        """Latents to frames (B, 3, H, W) in [-1, 1]; given sizes crop what `encode` added."""
        factor = self.downsample_factor
        rows, columns = latents_BCHW.shape[-2:]
        parts = []
        for latents in latents_BCHW.split(self._chunk(rows * factor, columns * factor)):
            latents = latents.to(self.device, torch.float32) / self.scaling_factor
            latents = latents.contiguous(memory_format=torch.channels_last)
            parts.append(self.vae.decode(latents).sample[..., :height_px, :width_px])
        return torch.cat(parts).clamp(-1.0, 1.0).contiguous()

    def _chunk(self, height_px: int, width_px: int) -> int:
        return max(1, _CHUNK_PIXELS // (height_px * width_px))
