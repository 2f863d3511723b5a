"""What would be trained, said beforehand."""

import dataclasses

import pytest

from pipelines.training.dry_run import dry_run_report, largest_pass, memory_of
from tests.pipelines.training.synthetic_latents import write_latents
from tests.pipelines.training.tiny_jobs import TINY_MIXTURE, base_request


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    return write_latents(tmp_path_factory.mktemp("latents") / "base")


def changed(request, **loop):
    job = request.job
    loop = dataclasses.replace(job.loop, **loop)
    return dataclasses.replace(request, job=dataclasses.replace(job, loop=loop))


def test_it_says_steps_clips_parameters_memory_and_work(latents, tmp_path):
    said = dry_run_report(base_request(latents, tmp_path, 9))
    assert "joint 9 steps" in said
    assert "22 an epoch" in said
    assert "parameters" in said and "GiB a worker" in said and "TFLOP a step" in said
    assert "note" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == []


def test_shares_of_fsdp_and_smaller_passes_take_less_memory(latents, tmp_path):
    request = base_request(latents, tmp_path, 9)
    whole = memory_of(request, 1_000_000)
    shared = memory_of(changed(request, parallel="fsdp", workers=4), 1_000_000)
    assert sum(shared.parts.values()) * 4 == sum(whole.parts.values()) == 20_000_000
    small = memory_of(changed(request, micro_frames=4), 1_000_000)
    assert small.activations < whole.activations
    full = memory_of(changed(request, activation_checkpointing="full"), 1_000_000)
    assert full.activations < 0.7 * whole.activations


def test_what_workers_would_wait_for_is_noted(latents, tmp_path):
    # 8 frames a step are 2 clips of 4 frames and 4 stills: three workers cannot share either.
    said = dry_run_report(changed(base_request(latents, tmp_path, 9), workers=3))
    assert "batches of 1 frames (4 clips), 4 frames (2 clips) do not divide among 3" in said


@pytest.mark.parametrize(
    ("workers", "micro_frames", "expected"),
    [(1, 0, (2, 4)), (2, 0, (1, 4)), (1, 4, (1, 4)), (1, 2, (1, 4))],
)
def test_the_largest_pass_follows_from_the_mixture(workers, micro_frames, expected):
    assert largest_pass(TINY_MIXTURE, workers, micro_frames) == expected
