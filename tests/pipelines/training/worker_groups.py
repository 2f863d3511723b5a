"""Real groups of training workers on this machine: processes of one thread that talk by gloo."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing.connection
import tempfile
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from pipelines.training.checkpoints.saved_state import Place
from pipelines.training.feed.feed import Batch
from pipelines.training.latents.on_disk import open_latents
from pipelines.training.loop.learner import Learner, StepFigures
from pipelines.training.loop.objective import Objective
from pipelines.training.loop.workers import Workers
from pipelines.training.request import open_feed
from pipelines.training.train_job import TrainJob


class WorkerGroup:
    """Processes that wait for work to do together. Starting them takes longer than most work."""

    def __init__(self, count: int) -> None:
        spawned = torch.multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        meeting = f"file://{self._folder.name}/meeting"
        self._processes, self._lines = [], []
        for rank in range(count):
            ours, theirs = spawned.Pipe()
            process = spawned.Process(
                target=_member, args=(rank, count, meeting, theirs), daemon=True
            )
            process.start()
            theirs.close()
            self._processes.append(process)
            self._lines.append(ours)

    def run(self, work: Callable[..., None], *given: Any) -> None:
        """work(workers, *given) in all of them at once. Raises AssertionError with what any of
        them raised, after which the group is of no use: the others may wait for that one."""
        for line in self._lines:
            line.send((work, given))
        waiting = list(self._lines)
        while waiting:
            for line in multiprocessing.connection.wait(waiting):
                waiting.remove(line)
                if error := line.recv():
                    self.close()
                    raise AssertionError(error)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()
        self._folder.cleanup()


def _member(rank: int, count: int, meeting: str, line: Connection) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    workers = Workers(rank, count, torch.device("cpu"), lambda figures: None)
    while True:
        work, given = line.recv()
        try:
            work(workers, *given)
            line.send("")
        except BaseException:
            line.send(traceback.format_exc())


def alone() -> Workers:
    torch.set_num_threads(1)
    return Workers(0, 1, torch.device("cpu"), lambda figures: None)


@dataclasses.dataclass(frozen=True)
class SavedFolder:
    """A state that `save` wrote, as a learner asks for it."""

    folder: Path

    @contextlib.contextmanager
    def local_directory(self) -> Iterator[Path]:
        yield self.folder


def objective_and_batches(learner: Learner, first: int, end: int) -> tuple[Objective, list[Batch]]:
    """This worker's share of steps first..end-1 of the job's first phase."""
    job, workers = learner.job, learner.workers
    latents = open_latents(job.latents["uri"], job.stage)
    with contextlib.closing(open_feed(latents, job, 0)) as feed:
        objective = Objective(
            job.diffusion, job.regimen, feed.empty_text_LD(), seed=job.seed,
            device=workers.device, precision=job.loop.precision,
        )  # fmt: skip
        return objective, list(feed.batches(first, end, workers.rank, workers.count))


def learn(learner: Learner, first: int, end: int) -> list[StepFigures]:
    objective, batches = objective_and_batches(learner, first, end)
    return [learner.learn(objective, batch, batch.step) for batch in batches]


def save(learner: Learner, folder: Path, step: int, *, wait: bool = True) -> SavedFolder:
    """By all workers; the first one writes."""
    place = Place(step, 0, 0, step, 0, step)
    workers = learner.workers
    learner.save(folder if workers.is_first else None, place, workers.random_states())
    if wait and workers.count > 1:
        torch.distributed.barrier()
    return SavedFolder(folder)


def with_loop(job: TrainJob, **changes: Any) -> TrainJob:
    return dataclasses.replace(job, loop=dataclasses.replace(job.loop, **changes))
