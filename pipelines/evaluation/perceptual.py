"""How far two pictures are apart in what the autoencoder's encoder sees of them.

In the manner of LPIPS (Zhang et al. 2018), without its learned weights: features of every
resolution, brought to unit length at each place, squared differences averaged over places and
resolutions. The network is the frozen VAE of the cascade, so the numbers mean something only
beside numbers of the same VAE.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.frames import to_float
from pipelines.evaluation.metrics import Frames

_FRAMES_AT_ONCE = 16


def feature_distance(vae: Any, a_FHWC: Frames, b_FHWC: Frames) -> float:
    """Mean over frames; 0 = equal. `vae` is a model.autoencoder.VideoAutoencoder.

    Raises ValueError on unequal shapes.
    """
    if a_FHWC.shape != b_FHWC.shape:
        raise ValueError(f"shapes differ: {a_FHWC.shape} and {b_FHWC.shape}")
    distances = []
    for start in range(0, len(a_FHWC), _FRAMES_AT_ONCE):
        span = slice(start, start + _FRAMES_AT_ONCE)
        pairs = zip(_features(vae, a_FHWC[span]), _features(vae, b_FHWC[span]), strict=True)
        layers = [(_unit(a) - _unit(b)).square().sum(dim=1).mean(dim=(1, 2)) for a, b in pairs]
        distances.append(torch.stack(layers).mean(dim=0))
    return float(torch.cat(distances).mean())


@torch.no_grad()
def _features(vae: Any, frames_FHWC: np.ndarray) -> list[Tensor]:
    """What each of the encoder's resolutions gives, (F, C, H, W) each."""
    found: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _module, _inputs, output: found.append(output))
        for block in vae.vae.encoder.down_blocks
    ]
    try:
        vae.vae.encoder(to_float(frames_FHWC).to(vae.device))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _unit(features_NCHW: Tensor) -> Tensor:
    return features_NCHW / features_NCHW.norm(dim=1, keepdim=True).clamp(min=1e-6)
