"""The training loop as one Ray Train worker runs it.

Read `Trainer.run` first: load, then for each phase and step: learn, tell, and every so often
validate, show and save. All that is random or chosen is a function of the step (plan.py,
randomness.py), so a worker group that starts from a checkpoint does exactly what the one before
would have done.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from model.unet import UNetConfig
from pipelines import metrics
from pipelines.config import RequestError
from pipelines.lineage import fingerprint
from pipelines.lineage.tracking import Run, Tracker
from pipelines.storage import Store
from pipelines.training.checkpoints.checkpoint import latest_checkpoint
from pipelines.training.checkpoints.ledger import Ledger
from pipelines.training.checkpoints.saved_state import Place
from pipelines.training.checkpoints.saving import Saver
from pipelines.training.feed.feed import Batch, Feed, Sample
from pipelines.training.latents.online import open_stored_or_online
from pipelines.training.loop.curves import Curves, RecentLosses
from pipelines.training.loop.learner import Learner, StepFigures
from pipelines.training.loop.objective import Objective
from pipelines.training.loop.progress_board import BoardChannel, Channel
from pipelines.training.loop.sample_videos import SampleVideo, SampleVideos
from pipelines.training.loop.throughput import (
    Meter,
    StepTime,
    device_facts,
    flop_of_clips,
    memory_figures,
    peak_flop_per_s,
    timed,
)
from pipelines.training.loop.validation import validate
from pipelines.training.loop.workers import Workers
from pipelines.training.request import open_feed
from pipelines.training.train_job import TrainJob

LOOK_FOR_PREEMPTION_EVERY = 10  # steps: the question is a barrier of some milliseconds


class Ending(enum.Enum):
    """How a phase ended."""

    DONE = "done"
    STOPPED = "stopped: asked to, or the machine is to go; the last step is saved"
    FAILED = "failed: the reason is on the board"


def train_worker(config: dict[str, Any]) -> None:
    """Ray Train's loop function: {"job": plain TrainJob, "board": actor}."""
    from ray.train import get_preemption_info

    job = TrainJob.from_plain(config["job"])
    workers = Workers.of_ray()
    if workers.device.type == "cpu":
        torch.set_num_threads(job.loop.threads)
    # Only the first worker writes records; the others' go nowhere.
    tracking = dataclasses.replace(job.tracking, enabled=job.tracking.enabled and workers.is_first)
    tracker = Tracker.open(tracking)
    with contextlib.ExitStack() as stack:
        run, *phase_runs = (
            stack.enter_context((tracker if run_id else Tracker(None)).resume(run_id))
            for run_id in (job.run_id, *job.phase_run_ids)
        )
        channel = BoardChannel(config["board"])
        Trainer(
            job, workers, run, channel, phase_runs, lambda: get_preemption_info() is not None
        ).run()


class Trainer:
    """One worker's loop: what learns, how far it is, and whom it tells."""

    def __init__(
        self,
        job: TrainJob,
        workers: Workers,
        run: Run,
        channel: Channel,
        phase_runs: Sequence[Run] = (),
        is_preempted: Callable[[], bool] = lambda: False,
    ) -> None:
        """`phase_runs`: one for each phase, or none. `is_preempted` is called by all workers at
        the same steps: whether a machine under one of them is about to be taken away."""
        self.job, self.workers, self.run_record, self.channel = job, workers, run, channel
        self.phase_runs, self.is_preempted = phase_runs, is_preempted
        self.latents = open_stored_or_online(job.latents["uri"], job.stage, job.online)
        parent = latest_checkpoint(Store.open(job.checkpoints))
        self.learner = Learner(job, workers, parent)
        self.saver = Saver(job, workers, self.learner, parent, run, channel, self.latents.index)
        place = self.learner.place
        self.step = place.step if place else 0
        self.samples_seen = place.samples_seen if place else 0
        self.losses = RecentLosses(place.recent_losses if place else ())
        self.ledger = Ledger()
        self.curves = Curves(self._runs_of_step, channel, job.loop.log_every)
        header = self.latents.header
        self.flop_of_clip = flop_of_clips(
            UNetConfig.from_json(job.model), header.latent_shape, header.text_shape[0]
        )
        self._samples: SampleVideos | None = None

    # --- the loop ------------------------------------------------------------------------

    def run(self) -> None:
        """Trains to the last step, or until it is asked to stop, or cannot go on."""
        job = self.job
        peak = peak_flop_per_s(self.workers.device, job.loop.precision) * self.workers.count
        self._tell_environment(peak)
        ending = Ending.DONE
        while ending is Ending.DONE and self.step < job.total_steps:
            phase, first = job.phase_at(self.step)
            pin = self.workers.device.type == "cuda"
            with contextlib.closing(open_feed(self.latents, job, phase, pin=pin)) as feed:
                ending = self._run_phase(phase, first, feed, Meter(peak))
        # By all workers together. No checkpoint goes along: ours are the truth.
        self.workers.report({"step": self.step, "loss": self.losses.mean})

    def _run_phase(self, phase: int, first: int, feed: Feed, meter: Meter) -> Ending:
        """The phase's steps from `first` on."""
        job, workers = self.job, self.workers
        objective = self.open_objective(feed)
        batches = feed.batches(first, job.phases[phase].steps, workers.rank, workers.count)
        for batch, waited_s in timed(batches):
            started_s = time.monotonic()
            figures = self.learner.learn(objective, batch, self.step, self._wish_to_stop())
            _, samples = feed.samples(batch.step)
            if reason := self._why_not(figures):
                self._fail(samples, figures, reason)
                return Ending.FAILED
            self._count(samples, figures)
            seconds = time.monotonic() - started_s + waited_s
            step_time = StepTime(seconds, waited_s, len(samples), self._flop(samples))
            meter.add(step_time)
            self._tell(figures, meter)
            self._tell_monitoring(step_time, sum(sample.num_frames for sample in samples))
            self._look_closer(feed, objective)
            if (self._is_due(job.loop.checkpoint_every) or figures.stop_asked) and not self._save(
                feed, batch
            ):
                return Ending.FAILED
            if figures.stop_asked and self.step < job.total_steps:
                return Ending.STOPPED
        return Ending.DONE

    def open_objective(self, feed: Feed) -> Objective:
        job = self.job
        return Objective(
            job.diffusion,
            job.regimen,
            feed.empty_text_LD(),
            seed=job.seed,
            device=self.workers.device,
            precision=job.loop.precision,
        )

    def _wish_to_stop(self) -> bool:
        """This worker's; the step's figures say whether any worker has it."""
        wish = self.workers.is_first and self.channel.stop_asked
        if self.step % LOOK_FOR_PREEMPTION_EVERY == 0 and self.is_preempted():
            if self.workers.is_first:
                self.channel.say(f"a machine is about to go: saving step {self.step + 1}")
            wish = True
        return wish

    def _why_not(self, figures: StepFigures) -> str:
        """Why a step cannot count; empty when it can."""
        if not figures.is_finite:
            return "not finite"
        if self.losses.is_explosion(figures.loss, self.job.loop.explosion):
            return f"over {self.job.loop.explosion:g} times the mean of the last steps"
        return ""

    def _fail(self, samples: tuple[Sample, ...], figures: StepFigures, reason: str) -> None:
        """Ends training without an exception, which Ray would answer by starting over: the same
        step would give the same result."""
        ids = ", ".join(sample.clip_id for sample in samples)
        parent = self.saver.parent
        message = (
            f"step {self.step + 1}: loss {figures.loss}, gradient norm {figures.grad_norm}, "
            f"{reason}; clips of this step: {ids}; "
            f"last good checkpoint: {parent.store.uri if parent else 'none'}"
        )
        if self.workers.is_first:
            self.channel.fail(message)

    # --- telling -------------------------------------------------------------------------

    def _count(self, samples: tuple[Sample, ...], figures: StepFigures) -> None:
        """The step is done: its samples, of all workers, are seen."""
        self.step += 1
        self.samples_seen += len(samples)
        self.ledger.add(self.step, samples)
        self.losses.add(figures.loss)

    def _flop(self, samples: tuple[Sample, ...]) -> float:
        """Of the step, over all workers. Counting takes a moment, so only who tells does it."""
        if not self.workers.is_first:
            return 0.0
        return float(len(samples) * self.flop_of_clip(samples[0].num_frames))

    def _tell(self, figures: StepFigures, meter: Meter) -> None:
        if self.workers.is_first:
            extra = {"samples_seen": self.samples_seen, **memory_figures(self.workers.device)}
            last = self.step == self.job.total_steps
            self.curves.tell_step(self.step, figures, self.losses, meter, extra, last=last)

    def _tell_monitoring(self, step: StepTime, frames: int) -> None:
        if self.workers.is_first:
            metrics.tell_step(
                self.job.stage,
                seconds=step.seconds,
                waited_s=step.waited_s,
                clips=step.clips,
                frames=frames,
                loss=self.losses.mean,
            )

    def _tell_environment(self, peak: float) -> None:
        if self.workers.is_first:
            device = {**device_facts(self.workers.device), "workers": self.workers.count}
            facts = {**fingerprint.fingerprint(), **device, "peak_flop_per_s": peak}
            self.run_record.log_dict(facts, "environment.json")

    def _runs_of_step(self, step: int) -> list[Run]:
        phase, _ = self.job.phase_at(step - 1)
        return [self.run_record, *self.phase_runs[phase : phase + 1]]

    # --- validating, showing, saving -------------------------------------------------------

    def _is_due(self, every: int) -> bool:
        """At multiples of `every`, and at the last step."""
        return self.step % every == 0 or self.step == self.job.total_steps

    def _look_closer(self, feed: Feed, objective: Objective) -> None:
        """How good the held-out clips are: as a number, and for the eye."""
        loop = self.job.loop
        if not feed.validation_rows:
            return
        if self._is_due(loop.validate_every):
            self._validate(feed, objective)
        if loop.sample_every and loop.sample_clips and self._is_due(loop.sample_every):
            self._show(feed)

    def _validate(self, feed: Feed, objective: Objective) -> None:
        unet, workers = self.learner.unet, self.workers
        metrics = {"validation_loss": validate(unet, feed, objective, workers)}
        with self.learner.averages_in():
            metrics["validation_loss_ema"] = validate(unet, feed, objective, workers)
        if workers.is_first:
            self.curves.tell(self.step, metrics)

    def _show(self, feed: Feed) -> None:
        """Sample videos, by the first worker; where the network is in shares, sampled by all."""
        if not self.workers.is_first and self.job.loop.parallel == "ddp":
            return
        try:
            if self._samples is None:
                self._samples = SampleVideos(self.job, self.workers.device)
            with self.learner.averages_in():
                videos = self._samples.make(self.learner.unet, feed)
            if self.workers.is_first:
                self._record_videos(videos)
        except (RequestError, OSError) as error:
            # Training itself needs no pictures.
            if self.workers.is_first:
                self.channel.say(f"no sample videos at step {self.step}: {error}")

    def _record_videos(self, videos: list[SampleVideo]) -> None:
        with tempfile.TemporaryDirectory(prefix="i2vgen-samples-") as folder:
            for video in videos:
                self.run_record.log_artifact(video.write(Path(folder), self.step), "samples")

    def _save(self, feed: Feed, batch: Batch) -> bool:
        phase, step_in_phase = self.job.phase_at(self.step - 1)
        place = Place(
            self.step, self.samples_seen, phase, step_in_phase + 1,
            *feed.plan.position(batch.step), self.losses.values,
        )  # fmt: skip
        saved = self.saver.save(place, self.ledger, self.losses.mean)
        if saved:
            self.ledger = Ledger()
        return saved
