"""FSDP against DDP against one process: the same training, and states that go both ways."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.training.loop.learner import Learner
from pipelines.training.loop.sharding import is_sharded
from tests.pipelines.training.synthetic_latents import write_latents
from tests.pipelines.training.tiny_jobs import TINY_UNET, base_request
from tests.pipelines.training.worker_groups import (
    SavedFolder,
    WorkerGroup,
    alone,
    learn,
    save,
    with_loop,
)

pytestmark = pytest.mark.slow

WEIGHTS = ("unet/diffusion_pytorch_model.safetensors", "ema/diffusion_pytorch_model.safetensors")
STEPS, HALFWAY = 6, 3


def tiny_job(latents, **loop_changes):
    """Without dropout, whose draws depend on the number of workers."""
    job = base_request(latents, latents.parent / "checkpoints", STEPS, **loop_changes).job
    regimen = dataclasses.replace(job.regimen, learning_rate=1e-3, spatial_rate=1.0)
    model = dataclasses.replace(TINY_UNET, temporal_dropout=0.0).to_json()
    return dataclasses.replace(job, model=model, regimen=regimen)


def train_both_ways(workers, job, folder: Path) -> None:
    """What two workers save: under ddp and fsdp, without and with a break halfway."""
    for how in ("ddp", "fsdp"):
        learner = Learner(with_loop(job, parallel=how), workers, None)
        assert is_sharded(learner.unet) == (how == "fsdp")
        figures = learn(learner, 0, HALFWAY)
        halfway = save(learner, folder / f"{how}-halfway", HALFWAY)
        figures += learn(learner, HALFWAY, STEPS)
        save(learner, folder / how, STEPS)
        torch.save([dataclasses.asdict(f) for f in figures], folder / f"{how}-{workers.rank}.pt")

        resumed = Learner(with_loop(job, parallel=how), workers, halfway)
        learn(resumed, HALFWAY, STEPS)
        save(resumed, folder / f"{how}-resumed", STEPS)
    for how, other in (("ddp", "fsdp"), ("fsdp", "ddp")):
        taken = Learner(with_loop(job, parallel=other), workers, SavedFolder(folder / how))
        save(taken, folder / f"{how}-taken-by-{other}", STEPS)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return tiny_job(write_latents(tmp_path_factory.mktemp("latents") / "base"))


@pytest.fixture(scope="module")
def saved(job, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    learner = Learner(job, alone(), None)
    figures = learn(learner, 0, STEPS)
    save(learner, folder / "alone", STEPS)
    torch.save([dataclasses.asdict(f) for f in figures], folder / "alone-0.pt")
    group = WorkerGroup(2)
    group.run(train_both_ways, job, folder)
    group.close()
    return folder


def same_bytes(a: Path, b: Path) -> bool:
    names = (*WEIGHTS, "trainer.safetensors", "trainer.json")
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in names)


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_two_workers_learn_what_one_does(saved, how):
    for name in WEIGHTS:
        ours, theirs = load_file(saved / how / name), load_file(saved / "alone" / name)
        assert list(ours) == list(theirs)
        for tensor, value in theirs.items():
            assert torch.allclose(ours[tensor], value, rtol=0, atol=1e-5), tensor
    moved = load_file(saved / f"{how}-halfway" / WEIGHTS[0])
    assert not torch.equal(moved["conv_in.weight"], ours["conv_in.weight"])


def test_workers_agree_on_the_figures_of_a_step(saved):
    alone_, *others = [
        torch.load(saved / f"{name}.pt") for name in ("alone-0", "ddp-0", "ddp-1", "fsdp-0")
    ]
    for figures in others:
        for ours, theirs in zip(figures, alone_, strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
    assert torch.load(saved / "fsdp-0.pt") == torch.load(saved / "fsdp-1.pt")


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_a_resumed_run_ends_with_the_bytes_of_one_without_a_break(saved, how):
    assert same_bytes(saved / f"{how}-resumed", saved / how)


@pytest.mark.parametrize(("how", "other"), [("ddp", "fsdp"), ("fsdp", "ddp")])
def test_a_state_is_taken_over_bit_by_bit_sharded_or_not(saved, how, other):
    for name in (*WEIGHTS, "trainer.safetensors"):
        ours, theirs = (
            load_file(saved / how / name),
            load_file(saved / f"{how}-taken-by-{other}" / name),
        )
        assert list(ours) == list(theirs)
        # Where generators are is of no use to another run: every step draws from its own streams.
        kept = [tensor for tensor in ours if not tensor.startswith("random.")]
        assert all(torch.equal(ours[tensor], theirs[tensor]) for tensor in kept)


def test_one_process_goes_on_from_two_sharded_ones(job, saved):
    learner = Learner(job, alone(), SavedFolder(saved / "fsdp-halfway"))
    learn(learner, HALFWAY, STEPS)
    theirs = load_file(saved / "alone" / WEIGHTS[0])
    for name, parameter in learner.unet.named_parameters():
        assert torch.allclose(parameter, theirs[name], rtol=0, atol=1e-5), name
