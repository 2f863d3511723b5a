"""A worker's share of a step in several passes, whose gradients add up to those of one.

Noise, noise levels and dropped conditions belong to the clip, so they do not change. The network's
own dropout draws in the order of the passes: with dropout, other passes give another (equally
random) result, as another number of workers does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from pipelines.training.feed.feed import Batch


def passes_of(batch: Batch, micro_frames: int, workers: int) -> list[Batch]:
    """The batch in parts of at most `micro_frames` frames, but of at least one clip; 0: whole.

    Their shares add up to the batch's. All workers get the same number of passes, because under
    FSDP each pass is a meeting: one that has a clip fewer than passes repeats a clip at share 0.
    """
    clips, frames = len(batch.samples), batch.samples[0].num_frames
    if micro_frames == 0:
        return [batch]
    count = math.ceil(_most_clips(batch, workers) / max(1, micro_frames // frames))
    cuts = [clips * number // count for number in range(count + 1)]
    parts = [_part(batch, a, b) for a, b in itertools.pairwise(cuts) if a < b]
    idle = dataclasses.replace(_part(batch, 0, 1), share=0.0)
    return [idle] * (count - len(parts)) + parts


@contextlib.contextmanager
def exchange_of_gradients(network: nn.Module, *, wanted: bool) -> Iterator[None]:
    """In a pass: whether its backward pass ends with the workers' gradients averaged, those of
    the passes before included, or keeps them here."""
    if isinstance(network, DistributedDataParallel) and not wanted:
        with network.no_sync():
            yield
        return
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(wanted)
    yield


def _most_clips(batch: Batch, workers: int) -> int:
    """That any worker has of the step: clips are dealt out in turn."""
    clips = len(batch.samples)
    if batch.share == 0.0:  # there are fewer clips than workers
        return 1
    return math.ceil(round(clips / batch.share) / workers)


def _part(batch: Batch, first: int, end: int) -> Batch:
    """Clips first..end-1, with their part of the share."""
    cut: dict[str, Any] = {
        field.name: value[first:end]
        for field in dataclasses.fields(batch)
        if isinstance(value := getattr(batch, field.name), (tuple, torch.Tensor))
    }
    share = batch.share * ((end - first) / len(batch.samples))
    return dataclasses.replace(batch, share=share, **cut)
