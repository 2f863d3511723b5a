"""Saving a checkpoint by all workers together, with patience where its place cannot be written."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError

from pipelines.lineage.tracking import Run
from pipelines.storage import Store
from pipelines.training.checkpoints.checkpoint import SCHEMA_VERSION, Checkpoint, CheckpointHeader
from pipelines.training.checkpoints.ledger import Ledger
from pipelines.training.checkpoints.model_card import CARD_FILE, model_card
from pipelines.training.checkpoints.publishing import publish_checkpoint, thin_old_checkpoints
from pipelines.training.checkpoints.saved_state import Place
from pipelines.training.checkpoints.seen_clips import LEDGER_FILE, SeenClips, seen_until
from pipelines.training.loop.learner import Learner
from pipelines.training.loop.progress_board import Channel
from pipelines.training.loop.workers import Workers
from pipelines.training.train_job import TrainJob

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 15.0
SAVED, AGAIN, GIVEN_UP = 0, 1, 2


class Saver:
    """Publishes checkpoints; `parent` is the newest durable one.

    Training waits at the step that cannot be saved: going on would cost work that may be lost,
    and would leave a gap that an undisturbed run does not have.
    """

    def __init__(
        self,
        job: TrainJob,
        workers: Workers,
        learner: Learner,
        parent: Checkpoint | None,
        run: Run,
        channel: Channel,
        index: pa.Table,
    ) -> None:
        """`index`: of the latents trained on."""
        self.job, self.workers, self.learner, self.parent = job, workers, learner, parent
        self.run, self.channel, self.index = run, channel, index
        self.store = Store.open(job.checkpoints)

    def save(self, place: Place, ledger: Ledger, loss: float) -> bool:
        """By all workers. False when the checkpoint could not be written within
        `loop.save_patience_s`: the reason is said, the one before is whole."""
        states = self.workers.random_states()
        patient_until_s = time.monotonic() + self.job.loop.save_patience_s
        pause_s = FIRST_PAUSE_S
        while True:
            result = self._attempt(place, ledger, loss, states, patient_until_s)
            # Only the first worker knows; the others hear it here.
            told = torch.tensor([float(result)], device=self.workers.device)
            result = int(self.workers.sum(told)[0])
            if result != AGAIN:
                return result == SAVED
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _attempt(
        self,
        place: Place,
        ledger: Ledger,
        loss: float,
        states: Mapping[str, torch.Tensor],
        patient_until_s: float,
    ) -> int:
        if not self.workers.is_first:
            self.learner.save(None, place, states)
            return SAVED

        entered = False

        def fill(folder: Path) -> None:
            nonlocal entered
            entered = True
            self.learner.save(folder, place, states)
            ledger.write(folder / LEDGER_FILE)
            card = model_card(self.job, place, loss, self._seen(folder))
            (folder / CARD_FILE).write_text(card, encoding="utf-8")

        def header(files: dict[str, str], digest: str) -> CheckpointHeader:
            return self._header(place, loss, files, digest)

        try:
            self.parent = publish_checkpoint(self.store, place.step, fill, header)
        except Exception as error:
            if not self._is_storage_trouble(error):
                raise
            if not entered:
                self.learner.save(None, place, states)  # the others are in theirs, waiting
            return self._excuse(place.step, error, patient_until_s)
        self._thin()
        self._record(self.parent)
        return SAVED

    def _seen(self, folder: Path) -> SeenClips:
        ledger = pq.read_table(folder / LEDGER_FILE)
        return seen_until(self.store, self.parent.name if self.parent else None, ledger, self.index)

    def _is_storage_trouble(self, error: Exception) -> bool:
        """A full disk or a store out of reach, rather than a mistake of ours. Clients of object
        stores have errors of their own."""
        return isinstance(error, OSError | SafetensorError) or not self.store.is_local

    def _excuse(self, step: int, error: Exception, patient_until_s: float) -> int:
        left_s = patient_until_s - time.monotonic()
        reason = " ".join(str(error).split()) or type(error).__name__
        good = self.parent.store.uri if self.parent else "none"
        what = f"the checkpoint of step {step} could not be written ({reason})"
        if left_s <= 0:
            self.channel.fail(
                f"step {step}: {what}; last good checkpoint: {good}; make room, or reach the "
                "store, and run the same command again to go on from there"
            )
            return GIVEN_UP
        self.channel.say(f"{what}; trying again for {left_s:.0f} s; last good checkpoint: {good}")
        return AGAIN

    def _thin(self) -> None:
        try:
            thin_old_checkpoints(self.store, self.job.loop.keep_checkpoints)
        except OSError as error:
            self.channel.say(f"older checkpoints could not be thinned ({error})")

    def _header(
        self, place: Place, loss: float, files: dict[str, str], digest: str
    ) -> CheckpointHeader:
        job, parent = self.job, self.parent
        return CheckpointHeader(
            schema_version=SCHEMA_VERSION,
            digest=digest,
            stage=job.stage,
            step=place.step,
            phase=job.phases[place.phase].name,
            finished=place.step == job.total_steps,
            loss=loss,
            samples_seen=place.samples_seen,
            parent={"checkpoint": parent.name, "digest": parent.header.digest} if parent else None,
            base=job.base or None,
            latents=job.latents,
            dataset=job.dataset,
            encoders=job.encoders,
            size_px=job.size_px,
            preset=job.preset,
            model=job.model,
            diffusion=dataclasses.asdict(job.diffusion),
            phases=[dataclasses.asdict(phase) for phase in job.phases],
            config=job.config,
            config_hash=job.config_hash,
            identity=job.identity,
            files=files,
        )

    def _record(self, made: Checkpoint) -> None:
        header = made.header
        params = {
            "stage": header.stage,
            "step": header.step,
            "phase": header.phase,
            "samples_seen": header.samples_seen,
            "latents.digest": header.latents["digest"],
            "dataset.digest": header.dataset["digest"],
        }
        tags = {
            "dataset.digest": header.dataset["digest"],
            "latents.digest": header.latents["digest"],
        }
        name = f"{header.stage} {made.name}"
        self.run.log_output_model(name, made.store.uri, header.digest, header.step, params, tags)
