"""Real Ray Train: workers die, join, and are too many."""

import dataclasses
import json
import threading
import time

import mlflow
import psutil
import pytest

from pipelines.config import RequestError, TrackingConfig
from pipelines.lineage.tracking import Tracker
from pipelines.storage import Store
from pipelines.training.checkpoints.checkpoint import latest_checkpoint
from pipelines.training.train import TrainingFailed, train
from tests.pipelines.training.synthetic_latents import write_latents
from tests.pipelines.training.tiny_jobs import base_request, refine_request, train_here

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    return write_latents(tmp_path_factory.mktemp("latents") / "base")


def digest(folder, step):
    return json.loads((folder / f"step-{step:08d}" / "checkpoint.json").read_text())["digest"]


def training_workers() -> list[psutil.Process]:
    """Ray Train's worker processes below this test, not anyone else's."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any("RayTrainWorker" in part for part in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
def test_a_killed_worker_changes_nothing_but_the_time(latents, tmp_path):
    """kill -9 in the middle: the run goes on by itself and ends with the same bytes."""
    steps = 40
    undisturbed = tmp_path / "undisturbed"
    train_here(base_request(latents, undisturbed, steps, keep_checkpoints=0))

    disturbed = tmp_path / "disturbed"
    killed_at: list[int] = []

    def kill_after_the_second_checkpoint() -> None:
        while not (disturbed / "step-00000008").is_dir():
            time.sleep(0.05)
        (worker,) = training_workers()
        worker.kill()
        killed_at.append(latest_checkpoint(Store(str(disturbed))).header.step)

    killer = threading.Thread(target=kill_after_the_second_checkpoint, daemon=True)
    killer.start()
    result = train(base_request(latents, disturbed, steps, keep_checkpoints=0))
    killer.join(timeout=10)

    assert killed_at and killed_at[0] < steps
    assert result["step"] == steps
    assert digest(disturbed, steps) == digest(undisturbed, steps)
    assert not (disturbed / "_ray").exists()


@pytest.mark.slow
def test_two_workers_resume_exactly_and_see_every_clip_once(latents, tmp_path):
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    train(base_request(latents, straight, 8, workers=2))
    train(base_request(latents, broken, 4, workers=2))
    train(base_request(latents, broken, 8, workers=2))
    assert digest(broken, 8) == digest(straight, 8)

    alone = tmp_path / "alone"
    train_here(base_request(latents, alone, 8))
    for step in (4, 8):
        lineage = [
            (folder / f"step-{step:08d}" / "lineage.parquet").read_bytes()
            for folder in (straight, alone)
        ]
        assert lineage[0] == lineage[1]
    losses = [latest_checkpoint(Store(str(f))).header.loss for f in (straight, alone)]
    # Same samples, noise and weights; dropout and the order of sums differ with the workers.
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_more_workers_than_the_cluster_has_are_refused(latents, tmp_path):
    with pytest.raises(RequestError, match=r"loop\.workers 99: they need 99 CPU"):
        train(base_request(latents, tmp_path, 4, workers=99))


@pytest.mark.slow
def test_damaged_latents_end_the_training_and_are_named(tmp_path):
    folder = write_latents(tmp_path / "latents")
    pack = folder / "packs" / "pack-00000.safetensors"
    request = base_request(folder, tmp_path / "checkpoints", 40, max_failures=0)
    data = bytearray(pack.read_bytes())
    data[-100] ^= 1
    pack.write_bytes(data)
    with pytest.raises(RequestError, match=r"pack-00000\.safetensors: damaged"):
        train(request)
    unchecked = dataclasses.replace(request.job.loop, check_latents=False)
    request = dataclasses.replace(request, job=dataclasses.replace(request.job, loop=unchecked))
    with pytest.raises(TrainingFailed, match=r"pack-00000\.safetensors is damaged"):
        train(request)


@pytest.mark.slow
def test_each_phase_is_a_run_nested_in_the_jobs(latents, tmp_path):
    train_here(base_request(latents, tmp_path / "base", 2))
    refine_latents = write_latents(tmp_path / "latents", "refine")
    request = refine_request(refine_latents, tmp_path / "c", tmp_path / "base", 2, 3)
    tracking = TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db")
    loop = dataclasses.replace(request.job.loop, log_every=1)
    job = dataclasses.replace(request.job, loop=loop, tracking=tracking)
    result = train(dataclasses.replace(request, job=job))

    tracker = Tracker.open(tracking)
    runs = {run.run_id: run for run in tracker.runs()}
    job = runs.pop(result["run_id"])
    assert (job.kind, job.status) == ("train_refine", "FINISHED")
    assert len(job.output_models) == 2  # the checkpoints of steps 4 and 5
    phases = {run.tags["phase"]: run for run in runs.values()}
    assert set(phases) == {"high_res", "premium"}
    client = mlflow.MlflowClient(tracking_uri=tracker.uri)
    for name, steps in (("high_res", {1, 2}), ("premium", {3, 4, 5})):
        run = phases[name]
        assert (run.kind, run.status) == ("phase", "FINISHED")
        assert run.tags["mlflow.parentRunId"] == job.run_id
        assert run.params["tier"] == name
        shown = {point.step for point in client.get_metric_history(run.run_id, "loss")}
        assert shown == steps
    both = {point.step for point in client.get_metric_history(job.run_id, "loss")}
    assert both == {1, 2, 3, 4, 5}
