"""The embedded UNet: fits the demo's network, loads in diffusers, keeps the image it is given."""

from __future__ import annotations

import numpy as np
import torch

from model.cascade import Cascade, fit_image
from model.encoders import ASSETS, load_clip, load_vae
from model.presets import demo
from model.samplers import StageSampling
from model.unet import VideoUNet
from pipelines.world.scenes import random_scene, render_frames

DIRECTORY = ASSETS / "unet"


def test_it_is_the_demo_s_base_network() -> None:
    assert VideoUNet.load(DIRECTORY).config == demo().base_unet


def test_diffusers_loads_it() -> None:
    from diffusers import I2VGenXLUNet

    theirs = I2VGenXLUNet.from_pretrained(DIRECTORY)
    ours = VideoUNet.load(DIRECTORY).state_dict()
    assert theirs.state_dict().keys() == ours.keys()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, ours[name].to(tensor.dtype)), name


def test_a_video_looks_more_like_its_own_image_than_like_another() -> None:
    """Unseen scenes: each video's mean frame is nearest to the image it was made from."""
    preset = demo()
    unet = VideoUNet.load(DIRECTORY).float()
    cascade = Cascade.from_preset(preset, unet, None, load_vae(), load_clip())
    rng = np.random.default_rng(20_000_001)
    scenes = [random_scene(rng) for _ in range(4)]
    images = [next(iter(render_frames(s, 1, 448, 256, 8))) for s in scenes]
    videos = []
    for scene, image in zip(scenes, images, strict=True):
        frames_FCHW = cascade.base_frames(
            image, scene.caption, 0, 8, 8, StageSampling("ddim", 8, preset.base_sampling.guidance)
        )
        videos.append(frames_FCHW.mean(dim=0).permute(1, 2, 0).numpy())
    targets = [fit_image(i, 112, 64).astype(np.float32) / 127.5 - 1 for i in images]
    distances = np.array([[np.abs(v - t).mean() for t in targets] for v in videos])
    assert list(distances.argmin(axis=1)) == [0, 1, 2, 3], distances
