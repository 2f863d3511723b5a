"""The loss and the step: what depends on what."""

import dataclasses

import pytest
import torch

from model.diffusion import DiffusionConfig
from model.unet import VideoUNet, spatial_parameter_names
from pipelines.training.feed import Feed
from pipelines.training.latents import open_latents
from pipelines.training.objective import Objective
from pipelines.training.optimization import (
    AveragedWeights,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    set_learning_rates,
)
from pipelines.training.stages import RegimenConfig
from pipelines.training.validation import validate
from tests.pipelines.training.synthetic_latents import write_latents
from tests.pipelines.training.tiny_jobs import TINY_MIXTURE, TINY_UNET

UNET = dataclasses.replace(TINY_UNET, temporal_dropout=0.0)


@pytest.fixture(scope="module")
def feed(tmp_path_factory):
    folder = write_latents(tmp_path_factory.mktemp("latents") / "base")
    latents = open_latents(str(folder), "base")
    return Feed(latents, TINY_MIXTURE, seed=0, tier="base", validation_clips=2)


@pytest.fixture
def unet():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    unet = VideoUNet(UNET)
    torch.nn.init.normal_(unet.conv_out.weight, std=0.02)  # at zero nothing else would matter
    return unet


def objective(feed, **changes):
    regimen = RegimenConfig(**changes)
    cpu = torch.device("cpu")
    return Objective(DiffusionConfig(), regimen, feed.empty_text_LD(), seed=1, device=cpu)


def batch_with_several(feed):
    return next(b for b in (feed.read(s) for s in range(30)) if len(b.samples) >= 2)


def test_a_samples_loss_does_not_depend_on_its_neighbours(feed, unet):
    batch = batch_with_several(feed)
    together = objective(feed).losses(unet, batch, 3)
    for number, sample in enumerate(batch.samples):
        single = feed.batch_of((sample,), step=batch.step, epoch=0, share=1.0)
        alone = objective(feed).losses(unet, single, 3)
        assert torch.allclose(alone.loss_B[0], together.loss_B[number], rtol=1e-4)
        assert alone.bin_B[0] == together.bin_B[number]


def test_gradients_of_all_shares_add_up_to_the_steps(feed, unet):
    """Two or three workers, with uneven shares or none, give the gradient of one."""
    step = next(s for s in range(30) if len(feed.samples(s)[1]) == 2)

    def gradient(world: int) -> torch.Tensor:
        total = torch.zeros(())
        for rank in range(world):
            batch = feed.read(step, rank, world)
            loss = objective(feed).losses(unet, batch, 0).loss_B.mean() * batch.share
            total = total + loss
        (gradient,) = torch.autograd.grad(total, [unet.conv_in.weight])
        return gradient

    alone = gradient(1)
    for world in (2, 3):
        assert torch.allclose(gradient(world), alone, rtol=1e-4, atol=1e-7)


def test_dropped_conditions_do_not_reach_the_network(feed, unet):
    batch = batch_with_several(feed)
    dropping = objective(feed, drop_all=1.0)
    before = dropping.losses(unet, batch, 0).loss_B
    other = dataclasses.replace(
        batch,
        text_BLD=torch.randn_like(batch.text_BLD),
        image_embedding_BD=torch.randn_like(batch.image_embedding_BD),
    )
    assert torch.equal(dropping.losses(unet, other, 0).loss_B, before)
    keeping = objective(feed, drop_all=0.0, drop_text=0.0, drop_image=0.0, drop_detail=0.0)
    assert not torch.equal(
        keeping.losses(unet, other, 0).loss_B, keeping.losses(unet, batch, 0).loss_B
    )


def test_the_first_step_moves_spatial_parameters_by_gamma(feed, unet):
    """AdamW's first step has the size of the rate, so the ratio of steps is γ itself."""
    learning = RegimenConfig(learning_rate=1e-3, spatial_rate=0.2, warmup_steps=0)
    optimizer = make_optimizer(unet, learning)
    rates = set_learning_rates(optimizer, learning, 0)
    assert rates == {"temporal": 1e-3, "spatial": pytest.approx(2e-4)}
    before = {name: p.detach().clone() for name, p in unet.named_parameters()}
    for parameter in unet.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    spatial = set(spatial_parameter_names(unet))
    for name, parameter in unet.named_parameters():
        moved = (before[name] - parameter).abs().max().item()
        assert moved == pytest.approx(2e-4 if name in spatial else 1e-3, rel=1e-2)


def test_optimizer_state_survives_as_named_tensors(feed, unet):
    learning = RegimenConfig()
    optimizer = make_optimizer(unet, learning)
    objective(feed).losses(unet, feed.read(0), 0).loss_B.mean().backward()
    optimizer.step()
    tensors = {name: t.clone() for name, t in optimizer_tensors(unet, optimizer).items()}
    other = make_optimizer(unet, learning)
    load_optimizer_tensors(unet, other, tensors)
    again = optimizer_tensors(unet, other)
    assert tensors.keys() == again.keys()
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)


def test_averages_swap_in_and_out(unet):
    averaged = AveragedWeights(unet)
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(1.0)
    averaged.update(unet, RegimenConfig(ema_decay=0.5), step=1000)
    averaged.swap(unet)
    for name, value in unet.state_dict().items():
        assert torch.allclose(value, before[name] + 0.5, atol=1e-5)
    averaged.swap(unet)
    for name, value in unet.state_dict().items():
        assert torch.allclose(value, before[name] + 1.0, atol=1e-5)


def test_validation_repeats_itself_and_leaves_the_network_in_training(feed, unet):
    unet.train()
    state = torch.get_rng_state()
    assert validate(unet, feed, objective(feed)) == validate(unet, feed, objective(feed))
    assert unet.training
    assert torch.equal(torch.get_rng_state(), state)
