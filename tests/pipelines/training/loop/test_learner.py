"""The loss and the step: what depends on what."""

import dataclasses

import pytest
import torch

from model.diffusion import DiffusionConfig
from model.unet import VideoUNet, spatial_parameter_names
from pipelines.training.feed.feed import Feed
from pipelines.training.latents.on_disk import open_latents
from pipelines.training.loop.objective import Objective
from pipelines.training.loop.optimization import (
    AveragedWeights,
    clip_gradients,
    held_gradients,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    set_learning_rates,
)
from pipelines.training.loop.validation import validate
from pipelines.training.randomness import stream
from pipelines.training.stages import RegimenConfig
from tests.pipelines.training.synthetic_latents import write_latents
from tests.pipelines.training.tiny_jobs import TINY_MIXTURE, TINY_UNET
from tests.pipelines.training.worker_groups import alone

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


def test_latents_with_a_deviation_are_drawn_by_clip_and_step(feed, unet):
    """x0 = mean + std * eps, the eps of a clip and step; without a deviation x0 is the mean."""
    batch = batch_with_several(feed)
    mean = objective(feed).losses(unet, batch, 3).loss_B
    of_zero = dataclasses.replace(batch, latents_std_BCFHW=torch.zeros_like(batch.latents_BCFHW))
    assert torch.equal(objective(feed).losses(unet, of_zero, 3).loss_B, mean)

    spread = dataclasses.replace(
        batch, latents_std_BCFHW=torch.full_like(batch.latents_BCFHW, 0.5, dtype=torch.float16)
    )
    drawn = objective(feed).losses(unet, spread, 3).loss_B
    assert not torch.equal(drawn, mean)
    assert torch.equal(objective(feed).losses(unet, spread, 3).loss_B, drawn)
    seed = stream("latent", 1, 3, batch.samples[1].clip_id)
    eps = torch.randn(batch.latents_BCFHW.shape[1:], generator=torch.Generator().manual_seed(seed))
    latents = batch.latents_BCFHW.clone()
    latents[1] += 0.5 * eps
    # The image condition stays the mean's, so the same draw given as the mean differs by it alone.
    unconditioned = objective(feed, drop_detail=1.0)
    given = dataclasses.replace(batch, latents_BCFHW=latents)
    assert torch.allclose(
        unconditioned.losses(unet, spread, 3).loss_B[1],
        unconditioned.losses(unet, given, 3).loss_B[1],
        rtol=1e-5,
    )


def test_validation_looks_at_the_mean(feed, unet):
    batch = batch_with_several(feed)
    spread = dataclasses.replace(batch, latents_std_BCFHW=torch.ones_like(batch.latents_BCFHW))
    with torch.no_grad():
        losses = [objective(feed).loss_at(unet, b, 500) for b in (batch, spread)]
    assert torch.equal(*losses)


def test_batches_in_half_precision_are_trained_on_in_single(feed, unet):
    """The packs hold float16, so that nothing is lost."""
    batch = batch_with_several(feed)
    half = dataclasses.replace(
        batch,
        latents_BCFHW=batch.latents_BCFHW.half(),
        text_BLD=batch.text_BLD.half(),
        image_embedding_BD=batch.image_embedding_BD.half(),
    )
    single = objective(feed).losses(unet, batch, 3).loss_B
    assert torch.equal(objective(feed).losses(unet, half, 3).loss_B, single)


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
    load_optimizer_tensors(unet, other, tensors.items())
    again = optimizer_tensors(unet, other)
    assert tensors.keys() == again.keys()
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)


def test_the_optimizer_goes_on_from_a_state_of_the_plain_kernels(feed, unet):
    """States saved before it was fused: they had the same quantities, and the numbers agree."""
    learning = RegimenConfig(learning_rate=1e-3, weight_decay=0.0)
    settings = {"lr": 1e-3, "weight_decay": 0.0, "foreach": True}
    plain = torch.optim.AdamW(unet.parameters(), **settings)
    objective(feed).losses(unet, feed.read(0), 0).loss_B.mean().backward()
    plain.step()
    tensors = {name: t.clone() for name, t in optimizer_tensors(unet, plain).items()}
    weights = {name: p.detach().clone() for name, p in unet.named_parameters()}
    ends = []
    for fresh in (
        torch.optim.AdamW(unet.parameters(), **settings),
        make_optimizer(unet, learning),
    ):
        unet.load_state_dict(weights)
        load_optimizer_tensors(unet, fresh, tensors.items())
        fresh.step()
        ends.append([p.detach().clone() for p in unet.parameters()])
        assert {float(state["step"]) for state in fresh.state.values()} == {2.0}
    assert all(torch.allclose(a, b, rtol=0, atol=1e-6) for a, b in zip(*ends, strict=True))


def test_clipping_is_that_of_torch(unet):
    for parameter in unet.parameters():
        parameter.grad = torch.randn_like(parameter)
    gradients = held_gradients(unet)
    before = [gradient.clone() for gradient in gradients]
    norm = torch.nn.utils.get_total_norm(gradients)
    clip_gradients(gradients, norm, 0.5)
    ours = [gradient.clone() for gradient in gradients]
    for gradient, value in zip(gradients, before, strict=True):
        gradient.copy_(value)
    assert torch.equal(torch.nn.utils.clip_grad_norm_(unet.parameters(), 0.5), norm)
    assert all(torch.equal(a, b) for a, b in zip(ours, gradients, strict=True))


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
    assert validate(unet, feed, objective(feed), alone()) == validate(
        unet, feed, objective(feed), alone()
    )
    assert unet.training
    assert torch.equal(torch.get_rng_state(), state)
