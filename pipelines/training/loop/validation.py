"""The loss on clips that are never trained on, at fixed noise levels: comparable at every step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from pipelines.training.feed.feed import Feed, Sample
from pipelines.training.feed.plan import strides_of
from pipelines.training.loop.objective import Objective
from pipelines.training.loop.workers import Workers

NOISE_LEVELS = 3


@torch.no_grad()
def validate(network: nn.Module, feed: Feed, objective: Objective, workers: Workers) -> float:
    """Mean loss over the held-out clips and noise levels; all conditions given, no dropout.

    Called by all workers: each takes its share of the clips. Needs at least one held-out clip.
    """
    was_training = network.training
    network.eval()
    levels = objective.spread_timesteps(NOISE_LEVELS)
    total = torch.zeros(2, dtype=torch.float64, device=workers.device)
    for row, weight in shares(feed.validation_rows, workers.rank, workers.count):
        batch = feed.batch_of((validation_sample(feed, row),), step=0, epoch=0, share=1.0)
        for level in levels:
            loss = objective.loss_at(network, batch, level)
            total += torch.stack([weight * loss.double(), loss.new_tensor(weight).double()])
    network.train(was_training)
    loss_sum, count = workers.sum(total).tolist()
    return float(loss_sum / count)


def shares(rows: list[int], rank: int, count: int) -> Iterator[tuple[int, float]]:
    """A worker's rows with weight 1; workers with fewer take one more with weight 0, so that all
    run the network equally often (sharded networks move only together)."""
    for first in range(0, len(rows), count):
        mine = first + rank
        yield (rows[mine], 1.0) if mine < len(rows) else (rows[first], 0.0)


def validation_sample(feed: Feed, row: int) -> Sample:
    """The clip from its start, as long as the mixture allows, at the fastest rate."""
    mixture, stored = feed.mixture, feed.latents.header.fps
    stride = int(strides_of(mixture, stored).min())
    frames_there = int(feed.rows.num_frames[row])
    lengths = [n for n in mixture.frames if (n - 1) * stride + 1 <= frames_there]
    return feed.sample(row, max(lengths), stride, 0)


def shown_sample(feed: Feed, row: int) -> Sample:
    """The clip for the eye: as long as the mixture allows, at the most usual rate that it is long
    enough for."""
    mixture, stored = feed.mixture, feed.latents.header.fps
    usual = sorted(zip(mixture.fps_weights, strides_of(mixture, stored), strict=True), reverse=True)
    frames_there = int(feed.rows.num_frames[row])
    length = validation_sample(feed, row).num_frames
    fitting = [int(s) for _, s in usual if (length - 1) * int(s) + 1 <= frames_there]
    return feed.sample(row, length, fitting[0], 0)
