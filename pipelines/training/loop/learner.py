"""The part of a trainer that learns: network, optimizer, averaged weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from model.unet import UNetConfig, VideoUNet
from pipelines.training.checkpoints import saved_state
from pipelines.training.checkpoints.checkpoint import open_checkpoint
from pipelines.training.checkpoints.saved_state import Place
from pipelines.training.feed.feed import Batch
from pipelines.training.loop.accumulation import exchange_of_gradients, passes_of
from pipelines.training.loop.network_start import new_network
from pipelines.training.loop.objective import NOISE_BINS, Objective
from pipelines.training.loop.optimization import (
    AveragedWeights,
    clip_gradients,
    held_gradients,
    make_optimizer,
    set_learning_rates,
)
from pipelines.training.loop.sharding import is_sharded
from pipelines.training.loop.workers import Workers
from pipelines.training.randomness import stream
from pipelines.training.train_job import TrainJob


class SavedFiles(Protocol):
    """Where a learner's state can be had from: a checkpoint."""

    def local_directory(self) -> AbstractContextManager[Path]: ...


@dataclass(frozen=True)
class StepFigures:
    """What one step gave, over all workers. `bins` maps a noise level's name to its mean loss;
    `stop_asked` says whether any worker was asked to stop."""

    loss: float
    bins: dict[str, float]
    grad_norm: float
    rates: dict[str, float]
    stop_asked: bool = False

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


class Learner:
    """What a checkpoint holds, and the step that changes it.

    `place` is how far the checkpoint was that it was loaded from; None for a new network.
    `unet` holds the weights; under FSDP this worker's share of each.
    """

    def __init__(self, job: TrainJob, workers: Workers, parent: SavedFiles | None) -> None:
        self.job, self.workers = job, workers
        self.place: Place | None = None
        if parent is None:
            self._begin(_first_network(job))
            self.averaged = AveragedWeights(self.unet)
        else:
            with parent.local_directory() as folder:
                self._load(folder)

    def _begin(self, unet: VideoUNet) -> None:
        job = self.job
        unet.set_activation_checkpointing(job.loop.activation_checkpointing)
        if job.loop.compile:
            unet.compile_layers()
        self.unet = unet.train()
        self.network = self.workers.parallel(unet, job.loop.parallel, job.loop.precision)
        self.optimizer = make_optimizer(unet, job.regimen)

    def _load(self, folder: Path) -> None:
        """The whole state of a checkpoint, whatever number of workers saved it, sharded or not."""
        unet = VideoUNet(UNetConfig.from_json(self.job.model))
        averages = saved_state.read_weights(folder, unet)
        self._begin(unet)
        saved_state.read_optimizer(folder, self.unet, self.optimizer)
        self.averaged = AveragedWeights(self.unet, averages)
        self.place = saved_state.read_place(folder)

    # --- learning ------------------------------------------------------------------------

    def learn(
        self, objective: Objective, batch: Batch, step: int, stop_asked: bool = False
    ) -> StepFigures:
        """One optimizer step on this worker's share of the step's samples; none of it is kept
        when the loss or the gradient is not finite. All workers get equal figures."""
        job = self.job
        rates = set_learning_rates(self.optimizer, job.regimen, job.phase_at(step)[1])
        # Only the network's dropout draws from this; noise and conditions have their own streams.
        torch.manual_seed(stream(job.seed, "dropout", step, self.workers.rank))
        loss, bins = self._accumulate(objective, batch, step)
        gradients = held_gradients(self.unet)
        norm = torch.nn.utils.get_total_norm(gradients)
        sums, norm = self._sums(loss, norm, stop_asked, bins)
        figures = StepFigures(
            float(sums[0]), _means_of_bins(sums[3:]), float(norm), rates, bool(sums[2] > 0)
        )
        if figures.is_finite:
            clip_gradients(gradients, norm, job.regimen.clip_norm)
            self.optimizer.step()
            self.averaged.update(self.unet, job.regimen, step)
        self.optimizer.zero_grad(set_to_none=True)
        return figures

    def _accumulate(self, objective: Objective, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """Gradients of the batch, averaged over the workers; this worker's part of the mean loss,
        float64; and its (2, bins) sums of losses and counts."""
        workers = self.workers
        passes = passes_of(batch, self.job.loop.micro_frames, workers.count)
        loss = torch.zeros((), dtype=torch.float64, device=workers.device)
        bins = torch.zeros(2, len(NOISE_BINS), dtype=torch.float64)
        for number, part in enumerate(passes, start=1):
            with exchange_of_gradients(self.network, wanted=number == len(passes)):
                losses = objective.losses(self.network, part, step)
                # Averaged over workers: weigh by share, so that every sample counts once.
                local = losses.loss_B.mean() * part.share
                (local * workers.count).backward()
            loss += local.detach()
            bins += losses.sums_of_bins(part.share)
        return loss, bins

    def _sums(
        self, loss: Tensor, norm: Tensor, stop_asked: bool, bins: Tensor
    ) -> tuple[Tensor, Tensor]:
        """[loss, squared norm, wishes to stop, *bins] added up over the workers, and the norm of
        the whole gradient: one exchange for all of it."""
        squared = norm.double().square().to(loss.device)
        asked = torch.tensor(float(stop_asked), dtype=torch.float64, device=loss.device)
        head = torch.stack([loss, squared, asked])
        sums = self.workers.sum(torch.cat([head, bins.flatten().to(loss.device)]))
        if is_sharded(self.unet):
            norm = sums[1].sqrt().to(norm)
        return sums.cpu(), norm

    # --- averages and saving -------------------------------------------------------------

    @contextlib.contextmanager
    def averages_in(self) -> Iterator[None]:
        """Inside, the network has the averaged weights. By all workers alike."""
        self.averaged.swap(self.unet)
        try:
            yield
        finally:
            self.averaged.swap(self.unet)

    def save(self, folder: Path | None, place: Place, random_states: Mapping[str, Tensor]) -> None:
        """Writes the whole state into `folder`. Called by all workers; those that do not write
        have no folder. `random_states`: see `Workers.random_states`.

        Raises OSError, on the worker that writes, when it cannot; the others then return as usual.
        """
        saved_state.write_state(
            folder,
            self.unet,
            self.averaged,
            self.optimizer,
            place,
            self.job.seed,
            random_states,
        )


def _means_of_bins(values: Tensor) -> dict[str, float]:
    sums, counts = values.reshape(2, -1).tolist()
    named = zip(NOISE_BINS, sums, counts, strict=True)
    return {name: total / count for name, total, count in named if count}


def _first_network(job: TrainJob) -> VideoUNet:
    model = UNetConfig.from_json(job.model)
    if job.start["from"] != "base":
        return new_network(job.start, model, job.seed)
    base = open_checkpoint(job.base["uri"], "base", "--base")
    with base.local_directory() as folder:
        start = {"from": "base", "directory": str(folder / "ema")}
        return new_network(start, model, job.seed)
