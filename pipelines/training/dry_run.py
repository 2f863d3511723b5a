"""What a training would be, in a few lines for a person, without training."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from model.training_memory import training_activation_bytes, training_flop
from model.unet_config import UNetConfig
from pipelines.training.feed.plan import EpochPlan, MixtureConfig, uneven_lengths
from pipelines.training.request import TrainRequest, open_feed
from pipelines.training.train_job import TrainJob

BYTES_PER_PARAMETER = {"weights": 4, "gradients": 4, "optimizer": 8, "averages": 4}
GIB = 2**30


@dataclass(frozen=True)
class Memory:
    """Of one worker at its fullest, in bytes: `parts` for the parameters, and the activations of
    its largest forward pass: `clips` of `frames`."""

    parts: dict[str, int]
    activations: int
    clips: int
    frames: int

    @property
    def total(self) -> int:
        return sum(self.parts.values()) + self.activations


def dry_run_report(request: TrainRequest) -> str:
    """Parameters, memory, steps, clips and work. Raises RequestError where a phase has no clips."""
    job, header = request.job, request.latents.header
    parameters = parameters_of(job)
    lines = [
        f"stage          {job.stage}: {', '.join(f'{p.name} {p.steps} steps' for p in job.phases)}",
        f"network        {job.preset}, {parameters:,} parameters",
        f"memory         {_memory_in_words(memory_of(request, parameters))}",
        f"latents        {request.latents.store.uri}: {header.clips} clips, "
        f"{header.frames} frames, digest {header.digest}",
    ]
    for number, phase in enumerate(job.phases):
        feed = open_feed(request.latents, job, number)
        epoch = feed.plan.batch(0)[1]
        lines.append(
            f"clips          {phase.name}: {len(feed.train_rows)} an epoch in {epoch.num_batches} "
            f"steps, {len(feed.validation_rows)} held out, {feed.too_short} too short"
        )
        tflop = mean_step_flop(request, epoch) / 1e12
        epochs = phase.steps / epoch.num_batches
        lines.append(
            f"work           {phase.name}: {tflop:.3g} TFLOP a step, {tflop * phase.steps:.3g} in "
            f"all; {epochs:.2g} epochs"
        )
    lines += [f"note           {note}" for note in _notes(job)]
    lines.append(f"checkpoints    {job.checkpoints}, from step {request.first_step}")
    return "\n".join(lines)


def parameters_of(job: TrainJob) -> int:
    from model.memory_estimate import unet_parameters

    return unet_parameters(UNetConfig.from_json(job.model))


def memory_of(request: TrainRequest, parameters: int) -> Memory:
    """Under fsdp each worker holds its share of what belongs to the parameters."""
    job, header = request.job, request.latents.header
    owners = job.loop.workers if job.loop.parallel == "fsdp" else 1
    parts = {name: parameters * size // owners for name, size in BYTES_PER_PARAMETER.items()}
    clips, frames = largest_pass(job.mixture, job.loop.workers, job.loop.micro_frames)
    _, height, width = header.latent_shape
    activations = training_activation_bytes(
        UNetConfig.from_json(job.model),
        clips,
        frames,
        height,
        width,
        header.text_shape[0],
        precision=job.loop.precision,
        checkpointing=job.loop.activation_checkpointing,
    )
    return Memory(parts, activations, clips, frames)


def largest_pass(mixture: MixtureConfig, workers: int, micro_frames: int) -> tuple[int, int]:
    """(clips, frames of each) of the forward pass with the most frames that a worker may see."""

    def of(frames: int) -> tuple[int, int]:
        clips = math.ceil(mixture.clips_per_batch(frames) / workers)
        if micro_frames:
            clips = min(clips, max(1, micro_frames // frames))
        return clips, frames

    weighted = zip(mixture.frames, mixture.frames_weights, strict=True)
    return max((of(n) for n, weight in weighted if weight > 0), key=lambda p: (p[0] * p[1], p[1]))


def mean_step_flop(request: TrainRequest, epoch: EpochPlan) -> float:
    """Of all workers together, over one epoch."""
    config = UNetConfig.from_json(request.job.model)
    header = request.latents.header
    _, height, width = header.latent_shape
    flop = sum(
        count * training_flop(config, frames, height, width, header.text_shape[0])
        for frames, count in Counter(epoch.num_frames.tolist()).items()
    )
    return flop / epoch.num_batches


def _memory_in_words(memory: Memory) -> str:
    parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in memory.parts.items())
    return (
        f"{memory.total / GIB:.2f} GiB a worker: {parts}, activations of {memory.clips} x "
        f"{memory.frames} frames {memory.activations / GIB:.2f}"
    )


def _notes(job: TrainJob) -> list[str]:
    """What works, but perhaps not as meant."""
    notes = []
    uneven = [
        f"{frames} frames ({job.mixture.clips_per_batch(frames)} clips)"
        for frames in uneven_lengths(job.mixture, job.loop.workers)
    ]
    if uneven:
        notes.append(
            f"batches of {', '.join(uneven)} do not divide among {job.loop.workers} workers: some "
            "wait; change mixture.frames_per_step or mixture.max_clips_per_step"
        )
    if job.loop.parallel == "fsdp" and job.loop.workers == 1:
        notes.append("loop.parallel fsdp: one worker has nobody to share with")
    return notes
