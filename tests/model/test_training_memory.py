"""Counts made on shapes, against the paper's known cost and against real tensors."""

import pytest
import torch

from model.presets import demo, paper
from model.training_memory import forward_flop, kept_bytes, training_activation_bytes, training_flop
from model.unet import VideoUNet


def test_the_papers_base_stage_costs_what_is_known_of_it():
    """8.74 TFLOP for 16 frames of 448x256; ours makes the context's keys once per video."""
    assert forward_flop(paper().base_unet, 16, 32, 56, 77) / 1e12 == pytest.approx(8.74, rel=0.02)


def test_cost_is_linear_in_frames_and_three_times_for_training():
    config = demo().base_unet
    eight, sixteen = (forward_flop(config, frames, 16, 28, 32) for frames in (8, 16))
    assert sixteen / eight == pytest.approx(2, rel=0.1)
    assert training_flop(config, 8, 16, 28, 32) == 3 * eight


@pytest.mark.parametrize("stage", ["base", "refine"])
@pytest.mark.parametrize("checkpointing", ["none", "selective", "full"])
def test_fake_tensors_keep_what_real_ones_keep(stage, checkpointing):
    config = demo().base_unet if stage == "base" else demo().refine_unet
    counted = training_activation_bytes(config, 2, 4, 8, 14, 32, checkpointing=checkpointing)
    unet = VideoUNet(config).train()
    unet.set_activation_checkpointing(checkpointing)
    torch.manual_seed(0)
    given = {
        "sample": torch.randn(2, 4, 4, 8, 14),
        "timestep": torch.tensor([10, 20]),
        "encoder_hidden_states": torch.randn(2, 32, 128),
    }
    if config.image_conditioning:
        given |= {
            "fps": torch.tensor([8.0, 8.0]),
            "image_latents": torch.randn(2, 4, 4, 8, 14),
            "image_embeddings": torch.randn(2, 128),
        }
    assert counted == pytest.approx(kept_bytes(lambda: unet(**given)), rel=0.05)


def test_bfloat16_keeps_less_of_a_long_video_and_checkpointing_less_still():
    def of(**settings):
        return training_activation_bytes(demo().base_unet, 1, 16, 16, 28, 32, **settings)

    assert of(precision="bfloat16") < of()
    kept = [of(checkpointing=mode) for mode in ("none", "selective", "full")]
    assert kept == sorted(kept, reverse=True) and kept[0] > 2 * kept[2]
