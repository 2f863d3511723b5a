"""Several passes of a step: each clip once, the same number for all workers, the same gradient."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelines.training.feed.feed import Batch, Sample
from pipelines.training.loop.accumulation import passes_of
from pipelines.training.loop.learner import Learner, StepFigures
from tests.pipelines.training.synthetic_latents import write_latents
from tests.pipelines.training.tiny_jobs import TINY_UNET, base_request
from tests.pipelines.training.worker_groups import alone, objective_and_batches, with_loop


def share_of_step(clips: int, num_frames: int, rank: int, workers: int) -> Batch:
    """One worker's batch, dealt out as the feed does it."""
    everyone = [Sample(f"{n:032x}", "source", n, num_frames, 1, 0, 8.0) for n in range(clips)]
    mine = everyone[rank::workers]
    held = tuple(mine or everyone[:1])
    latents = torch.tensor([float(sample.row) for sample in held])
    return Batch(
        step=0,
        epoch=0,
        samples=held,
        share=len(mine) / clips,
        latents_BCFHW=latents[:, None, None, None, None].expand(-1, 4, num_frames, 2, 2),
        text_BLD=latents[:, None, None],
        image_embedding_BD=None,
        fps_B=latents,
    )


@given(
    clips=st.integers(1, 40),
    num_frames=st.sampled_from([1, 8, 32]),
    workers=st.integers(1, 9),
    micro_frames=st.integers(1, 100),
)
def test_passes_of_all_workers(clips, num_frames, workers, micro_frames):
    passes = [
        passes_of(share_of_step(clips, num_frames, rank, workers), micro_frames, workers)
        for rank in range(workers)
    ]
    assert len({len(mine) for mine in passes}) == 1
    seen = [s.row for mine in passes for part in mine if part.share for s in part.samples]
    assert sorted(seen) == list(range(clips))
    for part in (part for mine in passes for part in mine):
        assert len(part.samples) == 1 or len(part.samples) * num_frames <= micro_frames
        rows = [sample.row for sample in part.samples]
        assert part.fps_B.tolist() == rows == part.latents_BCFHW[:, 0, 0, 0, 0].tolist()
        assert part.share in (0.0, pytest.approx(len(rows) / clips))


def test_without_a_limit_the_share_goes_at_once():
    batch = share_of_step(5, 8, 0, 1)
    assert passes_of(batch, 0, 1) == [batch]


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    latents = write_latents(tmp_path_factory.mktemp("latents") / "base")
    job = base_request(latents, latents.parent / "checkpoints", 8).job
    return dataclasses.replace(
        job, model=dataclasses.replace(TINY_UNET, temporal_dropout=0.0).to_json()
    )


def one_step(job, micro_frames: int) -> tuple[StepFigures, torch.Tensor, int]:
    """Its figures, the gradient it was made with, and its number of clips. With a beta of zero
    the optimizer's first moment is the gradient."""
    regimen = dataclasses.replace(job.regimen, beta1=0.0, clip_norm=1e9)
    job = with_loop(dataclasses.replace(job, regimen=regimen), micro_frames=micro_frames)
    learner = Learner(job, alone(), None)
    torch.manual_seed(0)
    torch.nn.init.normal_(learner.unet.conv_out.weight, std=0.02)  # at zero nothing else matters
    objective, batches = objective_and_batches(learner, 0, 8)
    batch = max(batches, key=lambda batch: len(batch.samples))
    figures = learner.learn(objective, batch, 0)
    moments = [learner.optimizer.state[p]["exp_avg"] for p in learner.unet.parameters()]
    return figures, torch.cat([moment.flatten() for moment in moments]), len(batch.samples)


def test_several_passes_give_the_step_of_one(job):
    whole, gradient, clips = one_step(job, 0)
    assert clips >= 3
    for micro_frames in (1, 2):
        parts, added_up, _ = one_step(job, micro_frames)
        assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
        assert parts.grad_norm == pytest.approx(whole.grad_norm, rel=1e-6)
        assert parts.bins == pytest.approx(whole.bins, rel=1e-6)
        # Number by number what is left is the rounding of sums in another order (1.4e-6 here).
        assert (added_up - gradient).norm() <= 5e-6 * gradient.norm()
