"""The loss on clips that are never trained on, at fixed noise levels: comparable at every step."""

from __future__ import annotations

import torch
from torch import nn

from pipelines.training.feed import Feed, Sample
from pipelines.training.objective import Objective
from pipelines.training.plan import strides_of

NOISE_LEVELS = 3


@torch.no_grad()
def validate(network: nn.Module, feed: Feed, objective: Objective) -> float:
    """Mean loss over the held-out clips and noise levels; all conditions given, no dropout."""
    was_training = network.training
    network.eval()
    levels = objective.spread_timesteps(NOISE_LEVELS)
    losses = []
    for row in feed.validation_rows:
        sample = validation_sample(feed, row)
        batch = feed.batch_of((sample,), step=0, epoch=0, share=1.0)
        for level in levels:
            losses.append(objective.loss_at(network, batch, level))
    network.train(was_training)
    return float(torch.stack(losses).mean())


def validation_sample(feed: Feed, row: int) -> Sample:
    """The clip from its start, as long as the mixture allows, at the fastest rate."""
    mixture, stored = feed.mixture, feed.latents.header.fps
    stride = int(strides_of(mixture, stored).min())
    frames_there = feed.rows.num_frames[row]
    lengths = [n for n in mixture.frames if (n - 1) * stride + 1 <= frames_there]
    return feed.sample(row, max(lengths), stride, 0)
