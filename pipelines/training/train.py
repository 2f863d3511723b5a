"""Training, from the job's side: start Ray Train, show how far it is, say what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.config import RequestError
from pipelines.lineage.tracking import Run, Tracker
from pipelines.storage import Store
from pipelines.training.checkpoint import Checkpoint, latest_checkpoint
from pipelines.training.progress_board import shown_progress, start_board
from pipelines.training.request import TrainRequest
from pipelines.training.train_job import TrainJob


class TrainingFailed(Exception):
    """Training could not go on; the message says where, why, and what is left."""


def train(request: TrainRequest) -> dict[str, Any]:
    """Trains to the last step of the request. Needs Ray to be up.

    Returns the keys of the contract. Raises RequestError when the cluster is too small, and
    TrainingFailed when the loss is not finite or workers fail more often than allowed.
    """
    job, started_s = request.job, time.monotonic()
    _check_cluster(job)
    tracker = Tracker.open(job.tracking)
    base_model = tracker.find_model(job.base["digest"]) if job.base else None
    with tracker.run(f"train_{job.stage}", f"train {job.stage}", job.config, _tags(request)) as run:
        run.log_input_dataset("latents", job.latents["uri"], job.latents["digest"], "training")
        run.log_input_model(base_model)
        run.log_dict(job.config, "config.json")
        # Workers may run in another directory: what they are told must mean the same there.
        tracking = dataclasses.replace(job.tracking, uri=tracker.uri)
        _fit(dataclasses.replace(job, run_id=run.run_id, tracking=tracking), request.first_step)
        made = _finished_checkpoint(job)
        seconds = round(time.monotonic() - started_s, 1)
        _record_end(run, made, seconds)
        return {
            "checkpoint": made.store.uri,
            "digest": made.header.digest,
            "step": made.header.step,
            "loss": made.header.loss,
            "samples_seen": made.header.samples_seen,
            "run_id": run.run_id,
            "seconds": seconds,
        }


def _fit(job: TrainJob, first_step: int) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    from pipelines.training.worker import train_worker

    on_gpu = job.loop.gpus > 0
    resources = {"CPU": 1.0, **({"GPU": job.loop.gpus} if on_gpu else {})}
    board = start_board()
    with _ray_notes(job) as notes:
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"job": job.to_plain(), "board": board},
            torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=job.loop.workers, use_gpu=on_gpu, resources_per_worker=resources
            ),
            run_config=RunConfig(
                # A name used before would be "resumed" by Ray, in zero steps and with success.
                name=f"{job.stage}-{job.identity[:12]}-{uuid.uuid4().hex[:8]}",
                storage_path=notes,
                failure_config=FailureConfig(max_failures=job.loop.max_failures),
            ),
        )
        try:
            with shown_progress(board, first_step, job.total_steps, f"training ({job.stage})"):
                trainer.fit()
        except TrainingFailedError as error:
            raise TrainingFailed(_last_words(error, job)) from error
    import ray

    if reason := ray.get(board.stopped.remote()):
        raise TrainingFailed(f"training ({job.stage}) stopped at {reason}")


@contextlib.contextmanager
def _ray_notes(job: TrainJob) -> Iterator[str]:
    """A place for Ray Train's own bookkeeping: of no use after, our checkpoints are the truth."""
    checkpoints = Store.open(job.checkpoints)
    if checkpoints.is_local:
        folder = Path(checkpoints.path("_ray"))
    else:
        folder = Path(tempfile.mkdtemp(prefix="i2vgen-train-"))
    try:
        yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_cluster(job: TrainJob) -> None:
    """Ray Train would wait for ever for what the cluster does not have."""
    import ray

    have = ray.cluster_resources()
    wanted = {"CPU": float(job.loop.workers), "GPU": job.loop.workers * job.loop.gpus}
    for kind, amount in wanted.items():
        if have.get(kind, 0.0) < amount:
            raise RequestError(
                f"loop.workers {job.loop.workers}: they need {amount:g} {kind}, the cluster has "
                f"{have.get(kind, 0.0):g}; ask for fewer workers, or another --cluster.address"
            )


def _tags(request: TrainRequest) -> dict[str, str]:
    job = request.job
    tags = {
        "latents.digest": job.latents["digest"],
        "latents.uri": job.latents["uri"],
        "dataset.digest": job.dataset["digest"],
        "dataset.uri": job.dataset["uri"],
        "checkpoints.uri": job.checkpoints,
        "phases": ", ".join(f"{phase.name} {phase.steps}" for phase in job.phases),
    }
    if job.base:
        tags |= {"base.digest": job.base["digest"], "base.uri": job.base["uri"]}
    if request.parent:
        tags["resumed_from.digest"] = request.parent.header.digest
    return tags


def _finished_checkpoint(job: TrainJob) -> Checkpoint:
    made = latest_checkpoint(Store.open(job.checkpoints))
    if made is None or made.header.step != job.total_steps:
        raise TrainingFailed(
            f"--checkpoints {job.checkpoints}: training ended without the checkpoint of step "
            f"{job.total_steps}; run the same command again to go on"
        )
    return made


def _record_end(run: Run, made: Checkpoint, seconds: float) -> None:
    run.set_tags({"checkpoint.digest": made.header.digest, "checkpoint.uri": made.store.uri})
    run.log_metrics({"seconds": seconds}, made.header.step)


def _last_words(error: Exception, job: TrainJob) -> str:
    """The worker's own error in one line, and what is left."""
    failures = getattr(error, "worker_failures", None) or {0: error}
    rank, cause = sorted(failures.items())[0]
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    left = latest_checkpoint(Store.open(job.checkpoints))
    where = f"the last good checkpoint is {left.store.uri}" if left else "no checkpoint was made"
    said = lines[-1] if lines else repr(error)
    return (
        f"training ({job.stage}) failed on worker {rank}: {said}; {where}; "
        "run the same command again to go on from there"
    )
