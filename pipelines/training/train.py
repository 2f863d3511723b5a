"""Training, from the job's side: start Ray Train, show how far it is, say what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.config import RequestError
from pipelines.job import EXIT_TERMINATED, JobEnded, say
from pipelines.lineage.tracking import Run, Tracker, job_identity
from pipelines.storage import Store
from pipelines.storage.writer_lock import writer_lock
from pipelines.training.checkpoints.checkpoint import Checkpoint, latest_checkpoint
from pipelines.training.latents.pack_check import check_packs
from pipelines.training.loop.progress_board import failure_on, shown_progress, start_board
from pipelines.training.loop.stopping import asked_to_stop, missing_resources, resources_that_stay
from pipelines.training.request import RAY_NOTES, TrainRequest
from pipelines.training.train_job import TrainJob

# A step on the CPU frees and takes the same large blocks again and again; handing them back to the
# system each time costs its pages' faults, 7 % of a step (tests/benchmarks/train_step_speed.py).
KEEP_FREED_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(32 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}


class TrainingFailed(JobEnded):
    """Training could not go on; the message says where, why, and what is left."""


class ControllerLost(Exception):
    """The actor of Ray Train's that looks after the workers is gone, and they with it."""


class TrainingStopped(JobEnded):
    """Training was asked to end before its last step, and its state is saved."""

    exit_code = EXIT_TERMINATED


def train(request: TrainRequest) -> dict[str, Any]:
    """Trains to the last step of the request, alone in its folder. Needs Ray to be up.

    On SIGTERM the workers save the step they are at, and TrainingStopped is raised. When a machine
    announces that it will be taken away they do the same, and go on where the rest of the cluster
    has room for them.

    Returns the keys of the contract. Raises RequestError when the cluster is too small, a pack of
    the latents is damaged, or another job is training there,
    TrainingFailed when the loss is not finite, checkpoints cannot be written, or workers fail more
    often than allowed, and TrainingStopped.
    """
    job = request.job
    _check_cluster(job)
    if job.loop.check_latents:
        check_packs(request.latents)
    with writer_lock(Store(job.checkpoints), "--checkpoints"):
        _check_nothing_new(request)
        return _train(request)


def _train(request: TrainRequest) -> dict[str, Any]:
    job, started_s = request.job, time.monotonic()
    tracker = Tracker.open(job.tracking)
    identity = job_identity(job.checkpoints, job.config, job.identity)
    with (
        tracker.run(
            f"train_{job.stage}",
            f"train {job.stage}",
            job.config,
            _tags(request),
            identity=identity,
        ) as run,
        contextlib.ExitStack() as phases,
        asked_to_stop() as stop,
    ):
        run.log_input_dataset("latents", job.latents["uri"], job.latents["digest"], "training")
        run.log_input_model(job.base.get("digest"))
        run.log_dict(job.config, "config.json")
        phase_runs = _phase_runs(tracker, request, run.run_id, identity)
        runs = [phases.enter_context(one) for one in phase_runs]
        # Workers may run in another directory: what they are told must mean the same there.
        tracking = dataclasses.replace(job.tracking, uri=tracker.uri)
        ids = tuple(one.run_id for one in runs)
        job = dataclasses.replace(job, run_id=run.run_id, phase_run_ids=ids, tracking=tracking)
        made = _train_to_the_end(job, request.first_step, stop)
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


def _phase_runs(
    tracker: Tracker, request: TrainRequest, run_id: str, identity: str
) -> Iterator[contextlib.AbstractContextManager[Run]]:
    """A run below the job's for each phase, so that phases can be laid beside each other; a run
    without a record for a phase that was over before."""
    job = request.job
    current, _ = job.phase_at(request.first_step)
    for number, phase in enumerate(job.phases):
        if number < current:
            yield Tracker(None).resume("")
            continue
        params = {"phase": phase.name, "tier": phase.tier, "steps": phase.steps, "stage": job.stage}
        tags = {
            "phase": phase.name,
            "checkpoints.uri": job.checkpoints,
            "dataset.digest": job.dataset["digest"],
            "latents.digest": job.latents["digest"],
        }
        name = f"{job.stage} phase {number + 1}: {phase.name}"
        one = f"{identity} phase {number + 1}"
        yield tracker.run("phase", name, params, tags, parent_run_id=run_id, identity=one)


def _train_to_the_end(job: TrainJob, first_step: int, stop: threading.Event) -> Checkpoint:
    """Starts workers until the last step is saved: once, and again after each machine that was
    taken away, or controller that was lost. Raises TrainingFailed and TrainingStopped."""
    controllers_lost = 0
    while True:
        try:
            _fit(job, first_step, stop)
        except ControllerLost as error:
            controllers_lost += 1
            if controllers_lost > job.loop.max_failures or stop.is_set():
                raise TrainingFailed(_last_words(error, job)) from error
            say(f"Ray Train's controller was lost ({error}); starting another")
            continue
        made = latest_checkpoint(Store.open(job.checkpoints))
        if made is not None and made.header.step >= job.total_steps:
            return made
        where = made.store.uri if made else "none"
        saved = f"the state is saved in {where}; run the same command again to go on from there"
        if stop.is_set():
            raise TrainingStopped(f"training ({job.stage}) stopped as asked; {saved}")
        if made is None or made.header.step <= first_step:
            raise TrainingFailed(f"training ({job.stage}) ended without a step; {saved}")
        first_step = made.header.step
        if lacking := missing_resources(job, resources_that_stay()):
            raise TrainingStopped(
                f"training ({job.stage}) stopped because a machine is taken away and the others "
                f"lack {lacking}; {saved}"
            )
        say(f"going on from step {first_step} on the machines that stay")


def _fit(job: TrainJob, first_step: int, stop: threading.Event) -> None:
    """One group of workers, until it ends. Raises TrainingFailed and ControllerLost."""
    from ray.exceptions import RayActorError
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError

    from pipelines.training.loop.meeting import MeetingConfig
    from pipelines.training.loop.trainer import Trainer
    from pipelines.training.loop.worker import train_worker

    on_gpu = job.loop.gpus > 0
    resources = {"CPU": 1.0, **({"GPU": job.loop.gpus} if on_gpu else {})}
    worker_environment = {} if on_gpu else {"env_vars": KEEP_FREED_MEMORY}
    board = start_board()
    with _ray_notes(job) as notes:
        trainer = Trainer(
            train_worker,
            train_loop_config={"job": job.to_plain(), "board": board},
            torch_config=MeetingConfig(backend="nccl" if on_gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=job.loop.workers, use_gpu=on_gpu, resources_per_worker=resources
            ),
            run_config=RunConfig(
                # A name used before would be "resumed" by Ray, in zero steps and with success.
                name=f"{job.stage}-{job.identity[:12]}-{uuid.uuid4().hex[:8]}",
                storage_path=notes,
                failure_config=FailureConfig(max_failures=job.loop.max_failures),
                # The type checker sees Train V1's class.
                worker_runtime_env=worker_environment,  # type: ignore[call-arg]
            ),
        )
        try:
            title = f"training ({job.stage})"
            with shown_progress(board, first_step, job.total_steps, title, stop):
                trainer.fit()
        except TrainingFailedError as error:
            raise TrainingFailed(_last_words(error, job)) from error
        except RayActorError as error:
            raise ControllerLost(str(error).splitlines()[0]) from error
    if reason := failure_on(board):
        raise TrainingFailed(f"training ({job.stage}) stopped at {reason}")


@contextlib.contextmanager
def _ray_notes(job: TrainJob) -> Iterator[str]:
    """A place for Ray Train's own bookkeeping: of no use after, our checkpoints are the truth."""
    checkpoints = Store.open(job.checkpoints)
    if checkpoints.is_local:
        folder = Path(checkpoints.path(RAY_NOTES))
    else:
        folder = Path(tempfile.mkdtemp(prefix="i2vgen-train-"))
    try:
        yield str(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_nothing_new(request: TrainRequest) -> None:
    """Raises RequestError when another job has trained there since the request was checked."""
    newest = latest_checkpoint(Store(request.job.checkpoints))
    if (newest.name if newest else None) != (request.parent.name if request.parent else None):
        raise RequestError(
            f"--checkpoints {request.job.checkpoints}: another job has trained there meanwhile; "
            "run the same command again to go on from where it ended"
        )


def _check_cluster(job: TrainJob) -> None:
    """Ray Train would wait for ever for what the cluster does not have."""
    import ray

    if lacking := missing_resources(job, ray.cluster_resources()):
        raise RequestError(
            f"loop.workers {job.loop.workers}: {lacking}; "
            "ask for fewer workers, or another --cluster.address"
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
