"""What a group of workers must do alike: passes, figures, averages, failures. Three workers, so
that shares are uneven, some steps have fewer clips than workers, and some tensors fewer rows."""

import dataclasses

import pytest
import torch

from pipelines.training.loop.accumulation import exchange_of_gradients
from pipelines.training.loop.learner import Learner
from pipelines.training.loop.sharding import local, whole
from tests.pipelines.training.loop.test_sharding import tiny_job
from tests.pipelines.training.synthetic_latents import write_latents
from tests.pipelines.training.worker_groups import (
    WorkerGroup,
    learn,
    objective_and_batches,
    save,
    with_loop,
)

pytestmark = pytest.mark.slow

WORKERS = 3


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return tiny_job(write_latents(tmp_path_factory.mktemp("latents") / "base"))


@pytest.fixture(scope="module")
def group():
    group = WorkerGroup(WORKERS)
    yield group
    group.close()


def whole_weights(learner):
    return {n: whole(p.detach()).clone() for n, p in learner.unet.named_parameters()}


def largest_difference(weights, others):
    return max((weights[name] - others[name]).abs().max().item() for name in weights)


def held_state(learner):
    """Weights, averages and moments, as far as this worker holds them."""
    state = [local(p).detach().clone() for p in learner.unet.parameters()]
    state += [local(a).clone() for a in learner.averaged.tensors.values()]
    for moments in learner.optimizer.state.values():
        state += [local(value).clone() for value in moments.values()]
    return state


# --- the same numbers ----------------------------------------------------------------------


def train_in_every_way(workers, job):
    plain = Learner(job, workers, None)
    figures = learn(plain, 0, 5)
    expected = whole_weights(plain)
    for changes in (
        {"micro_frames": 1},
        {"parallel": "fsdp"},
        {"parallel": "fsdp", "micro_frames": 1},
        {"parallel": "fsdp", "activation_checkpointing": "full", "micro_frames": 4},
        {"parallel": "fsdp", "activation_checkpointing": "selective"},
    ):
        learner = Learner(with_loop(job, **changes), workers, None)
        for ours, theirs in zip(learn(learner, 0, 5), figures, strict=True):
            assert ours.loss == pytest.approx(theirs.loss, rel=1e-5), changes
            assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-4), changes
        assert largest_difference(whole_weights(learner), expected) < 1e-5, changes


def test_passes_shards_and_checkpointing_do_not_change_what_is_learned(job, group):
    group.run(train_in_every_way, job)


def exchange_gradients_last(workers, job):
    """The gradient of the last bias, at rank + 1 in every pass."""

    def give_gradient(learner):
        inputs = {
            "sample": torch.zeros(1, 4, 1, 4, 6),
            "timestep": torch.tensor([0]),
            "fps": torch.tensor([8.0]),
            "image_latents": torch.zeros(1, 4, 1, 4, 6),
            "image_embeddings": torch.zeros(1, 128),
            "encoder_hidden_states": torch.zeros(1, 5, 128),
        }
        (learner.network(**inputs).mean() * 4 * (workers.rank + 1)).backward()

    mean = sum(range(1, WORKERS + 1)) / WORKERS
    for how in ("ddp", "fsdp"):
        learner = Learner(with_loop(job, parallel=how), workers, None)
        with exchange_of_gradients(learner.network, wanted=False):
            give_gradient(learner)
        bias = learner.unet.conv_out.bias
        if how == "ddp":
            assert bias.grad.tolist() == pytest.approx([workers.rank + 1.0] * 4)
        else:  # the whole gradient waits inside
            assert bias.grad is None
        with exchange_of_gradients(learner.network, wanted=True):
            give_gradient(learner)
        bias = learner.unet.conv_out.bias
        assert whole(bias.grad).tolist() == pytest.approx([2 * mean] * 4)


def test_workers_exchange_gradients_in_the_last_pass_alone(job, group):
    group.run(exchange_gradients_last, job)


def hold_a_third(workers, job):
    learner = Learner(with_loop(job, parallel="fsdp"), workers, None)
    learn(learner, 0, 1)
    held = torch.tensor(float(sum(tensor.numel() for tensor in held_state(learner))))
    everywhere = float(workers.sum(held.clone()))
    parameters = list(learner.unet.parameters())
    numbers = sum(parameter.numel() for parameter in parameters)
    # Weights, averages and two moments, each once; and every worker's own count of steps.
    assert everywhere == 4 * numbers + WORKERS * len(parameters)
    assert held < 0.4 * everywhere


def test_sharded_workers_hold_a_third_of_weights_averages_and_moments_each(job, group):
    group.run(hold_a_third, job)


def train_in_bfloat16(workers, job):
    figures = {}
    for how in ("ddp", "fsdp"):
        learner = Learner(with_loop(job, precision="bfloat16", parallel=how), workers, None)
        figures[how] = learn(learner, 0, 4)
        assert all(p.dtype == torch.float32 for p in learner.unet.parameters())
        for state in learner.optimizer.state.values():
            assert state["exp_avg"].dtype == torch.float32
    for ours, theirs in zip(figures["fsdp"], figures["ddp"], strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=2e-2)


def test_sharded_weights_stay_float32_where_passes_are_in_bfloat16(job, group):
    group.run(train_in_bfloat16, job)


# --- averages ------------------------------------------------------------------------------


def look_through_the_averages(workers, job):
    losses = {}
    for how in ("ddp", "fsdp"):
        learner = Learner(with_loop(job, parallel=how), workers, None)
        learn(learner, 0, 5)
        objective, batches = objective_and_batches(learner, 0, 1)
        raw = whole_weights(learner)
        averages = {n: whole(a).clone() for n, a in learner.averaged.tensors.items()}

        @torch.no_grad()
        def loss(learner=learner, objective=objective, batch=batches[0]):
            return objective.loss_at(learner.unet, batch, 500).item()

        before = loss()
        with learner.averages_in():
            assert largest_difference(whole_weights(learner), averages) == 0
            inside = loss()
        assert largest_difference(whole_weights(learner), raw) == 0
        assert loss() == before != inside
        losses[how] = (before, inside)
    assert losses["fsdp"] == pytest.approx(losses["ddp"], rel=1e-5)


def test_the_network_computes_with_the_averages_inside_and_not_outside(job, group):
    group.run(look_through_the_averages, job)


# --- failures and wishes -------------------------------------------------------------------


def meet_a_clip_that_is_not_finite(workers, job):
    for how in ("ddp", "fsdp"):
        learner = Learner(with_loop(job, parallel=how), workers, None)
        learn(learner, 0, 2)
        objective, (batch,) = objective_and_batches(learner, 2, 3)
        kept = held_state(learner)
        bad = batch
        if workers.rank == 1:
            latents = torch.full_like(batch.latents_BCFHW, torch.inf)
            bad = dataclasses.replace(batch, latents_BCFHW=latents)
        assert not learner.learn(objective, bad, 2).is_finite
        after = held_state(learner)
        assert all(torch.equal(a, b) for a, b in zip(kept, after, strict=True))
        assert learner.learn(objective, batch, 2).is_finite
        assert not all(torch.equal(a, b) for a, b in zip(kept, held_state(learner), strict=True))


def test_no_worker_keeps_anything_of_a_step_that_is_not_finite_on_one(job, group):
    group.run(meet_a_clip_that_is_not_finite, job)


def ask_to_stop(workers, job):
    learner = Learner(job, workers, None)
    objective, (first, second) = objective_and_batches(learner, 0, 2)
    assert not learner.learn(objective, first, 0).stop_asked
    asked = workers.rank == 2
    assert learner.learn(objective, second, 1, stop_asked=asked).stop_asked


def test_one_workers_wish_to_stop_is_known_to_all(job, group):
    group.run(ask_to_stop, job)


def fail_to_save(workers, job, folder):
    learner = Learner(with_loop(job, parallel="fsdp"), workers, None)
    learn(learner, 0, 1)
    (folder / f"file-{workers.rank}").write_text("in the way")
    if workers.is_first:
        with pytest.raises(OSError):
            save(learner, folder / "file-0" / "state", 1, wait=False)
    else:
        save(learner, folder, 1, wait=False)
    assert learn(learner, 1, 2)[0].is_finite
    save(learner, folder / "state", 2)


def test_all_workers_go_on_when_the_first_cannot_write(job, group, tmp_path):
    group.run(fail_to_save, job, tmp_path)
    assert (tmp_path / "state" / "trainer.json").is_file()
