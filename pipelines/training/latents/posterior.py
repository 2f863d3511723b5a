"""The autoencoder's answer with its uncertainty: mean and standard deviation of the posterior."""

from __future__ import annotations

from typing import Any

from model.autoencoder import VideoAutoencoder, frames_per_call


def encode_moments(vae: VideoAutoencoder, frames_BCHW: Any) -> tuple[Any, Any]:
    """Frames (B, 3, H, W) in [-1, 1] to (mean, std), each (B, C, ceil(H/f), ceil(W/f)), in the
    units of `vae.encode`: the mean is bit for bit what that gives, mean + std * noise a draw.
    """
    import torch
    from torch.nn import functional as F

    factor, scale = vae.downsample_factor, vae.scaling_factor
    height_px, width_px = frames_BCHW.shape[-2:]
    padding = (0, -width_px % factor, 0, -height_px % factor)
    means, stds = [], []
    with torch.no_grad():
        for frames in frames_BCHW.split(frames_per_call(height_px, width_px)):
            padded = F.pad(frames.to(vae.device, torch.float32), padding, mode="replicate")
            padded = padded.contiguous(memory_format=torch.channels_last)
            posterior = vae.vae.encode(padded).latent_dist
            means.append(posterior.mean)
            stds.append(posterior.std)
    return (torch.cat(means) * scale).contiguous(), (torch.cat(stds) * scale).contiguous()
