"""The presets say what they promise: sizes, numbers of parameters, the paper's recipe."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from diffusers import I2VGenXLUNet

from model import presets
from model.unet import VideoUNet

pytestmark = pytest.mark.usefixtures("one_thread")


def parameters(config) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in VideoUNet(config).parameters())


@pytest.mark.parametrize(
    ("name", "base", "refine"),
    [
        ("paper", 1_420_469_224, 1_411_233_860),
        ("small", 67_802_856, 65_788_740),
        ("demo", 3_682_984, 3_413_892),
    ],
)
def test_parameters(name, base, refine):
    preset = presets.PRESETS[name]()
    assert preset.name == name
    assert (parameters(preset.base_unet), parameters(preset.refine_unet)) == (base, refine)


def test_refinement_is_the_base_without_image_conditioning():
    for build in presets.PRESETS.values():
        preset = build()
        assert preset.base_unet.image_conditioning
        assert replace(preset.base_unet, image_conditioning=False) == preset.refine_unet


def test_paper_is_the_papers_recipe():
    paper = presets.paper()
    assert (paper.base_width_px, paper.base_height_px) == (448, 256)
    assert (paper.refine_width_px, paper.refine_height_px) == (1280, 720)
    assert paper.latent_size("base") == (32, 56)
    assert paper.latent_size("refine") == (90, 160)
    assert (paper.base_diffusion.schedule, paper.base_diffusion.noise_range) == ("cosine", 1000)
    refine = paper.refine_diffusion
    assert (refine.schedule, refine.noise_range) == ("shifted_logsnr", 600)
    assert (paper.base_sampling.num_steps, paper.base_sampling.guidance) == (50, 9.0)
    assert (paper.refine_sampling.num_steps, paper.refine_sampling.guidance) == (30, 7.5)
    assert paper.refine_sampling.guidance_rescale == 0.2


def test_demo_is_a_quarter_and_its_refinement_is_odd_in_height():
    demo = presets.demo()
    assert demo.latent_size("base") == (16, 28)
    assert demo.latent_size("refine") == (45, 80)
    assert demo.base_unet.cross_attention_dim == 128
    with pytest.raises(ValueError, match="known: base, refine"):
        demo.latent_size("second")


def test_demo_loads_in_diffusers_class():
    """Its unusual order of blocks (no attention at the top) is one that the class can build."""
    config = presets.demo().base_unet
    values = {key: v for key, v in config.to_json().items() if not key.startswith("_")}
    for ours_only in ("image_conditioning", "temporal_dropout"):
        del values[ours_only]
    with torch.device("meta"):
        twin, unet = I2VGenXLUNet(**values), VideoUNet(config)
    theirs = {name: value.shape for name, value in twin.state_dict().items()}
    assert {name: value.shape for name, value in unet.state_dict().items()} == theirs


def test_demo_runs_at_its_sizes():
    """A frame or two through both networks at the sizes they will see."""
    demo = presets.demo()
    base, refine = VideoUNet(demo.base_unet).eval(), VideoUNet(demo.refine_unet).eval()
    text = torch.randn(1, 16, 128)
    with torch.no_grad():
        latents = torch.randn(1, 4, 2, *demo.latent_size("base"))
        v = base(latents, 999, torch.tensor([8]), latents, torch.randn(1, 1, 128), text)
        assert v.shape == latents.shape and v.isfinite().all()
        latents = torch.randn(1, 4, 1, *demo.latent_size("refine"))
        v = refine(latents, 599, encoder_hidden_states=text)
        assert v.shape == latents.shape and v.isfinite().all()


def test_presets_are_frozen():
    with pytest.raises(FrozenInstanceError):
        presets.demo().fps = 1  # type: ignore[misc]
