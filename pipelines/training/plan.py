"""Which clips, frames and rates make up each step: a pure function of (seed, epoch, clip ids).

An epoch shows every clip exactly once. Each clip draws its number of frames, its rate and its
start from its own id; clips that drew equally many frames share batches. Nothing here knows how
many workers there are or what happened before, so any step can be planned alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipelines.config import RequestError, setting
from pipelines.training.randomness import keys_of, stream, uniform


@dataclass(frozen=True)
class MixtureConfig:
    """What a training batch is made of."""

    frames: tuple[int, ...] = setting((1, 8, 16, 32), "lengths of samples; 1 is a still image")
    frames_weights: tuple[float, ...] = setting((1.0, 1.0, 1.0, 5.0), "how often each is drawn")
    fps: tuple[int, ...] = setting((1, 4, 8, 16), "frame rates of samples", unit="frames/s")
    fps_weights: tuple[float, ...] = setting((1.0, 2.0, 4.0, 1.0), "how often each is drawn")
    frames_per_step: int = setting(
        512, "frames of all workers in one step; a batch holds this over the length", low=1
    )
    max_clips_per_step: int = setting(256, "most clips in one step (bounds image batches)", low=1)
    packs_per_block: int = setting(64, "packs whose clips are shuffled together", low=1)

    def __post_init__(self) -> None:
        for name in ("frames", "fps"):
            values, weights = getattr(self, name), getattr(self, f"{name}_weights")
            if len(values) != len(weights) or not values:
                raise ValueError(f"mixture.{name} and mixture.{name}_weights differ in length")
            if min(values) < 1 or min(weights) < 0 or sum(weights) <= 0:
                raise ValueError(f"mixture.{name}: values from 1, weights from 0, not all 0")

    def clips_per_batch(self, num_frames: int) -> int:
        return min(self.max_clips_per_step, max(1, self.frames_per_step // num_frames))


@dataclass(frozen=True)
class ClipTable:
    """The clips of a feed as columns, in a fixed order."""

    clip_ids: list[str]
    source_ids: list[str]
    pack_numbers: np.ndarray
    num_frames: np.ndarray

    def __len__(self) -> int:
        return len(self.clip_ids)


@dataclass(frozen=True)
class EpochPlan:
    """Samples in the order of the epoch; batch b is samples[batch_starts[b]:batch_starts[b+1]].

    `rows` points into the ClipTable; `strides` and `starts` are in stored frames.
    """

    rows: np.ndarray
    num_frames: np.ndarray
    strides: np.ndarray
    starts: np.ndarray
    batch_starts: np.ndarray

    @property
    def num_batches(self) -> int:
        return len(self.batch_starts) - 1


def strides_of(mixture: MixtureConfig, stored_fps: int) -> np.ndarray:
    """Stored frames per sampled frame. Raises RequestError for a rate that is no divisor."""
    for fps in mixture.fps:
        if stored_fps % fps:
            raise RequestError(
                f"mixture.fps {fps}: latents are stored at {stored_fps} frames/s; "
                f"give rates that divide {stored_fps}"
            )
    return np.array([stored_fps // fps for fps in mixture.fps], dtype=np.int64)


def usable(num_frames: np.ndarray, mixture: MixtureConfig, stored_fps: int) -> np.ndarray:
    """(n,) bool: clips long enough for at least one length and rate of the mixture."""
    spans, weights = _spans(mixture, stored_fps)
    return num_frames >= spans[weights > 0].min()


def plan_epoch(
    clips: ClipTable, mixture: MixtureConfig, stored_fps: int, seed: int, epoch: int
) -> EpochPlan:
    """Every clip once. All clips must be `usable`."""
    keys = keys_of(clips.clip_ids)
    lengths, strides = _draw_lengths_and_strides(clips, keys, mixture, stored_fps, seed, epoch)
    room = clips.num_frames - ((lengths - 1) * strides + 1)
    starts = np.floor(uniform(keys, seed, epoch, "start") * (room + 1)).astype(np.int64)
    order = _reading_order(clips, keys, mixture.packs_per_block, seed, epoch)
    batches = _batches(lengths[order], mixture)
    rows = order[np.concatenate(batches)] if batches else order[:0]
    sizes = [len(batch) for batch in batches]
    return EpochPlan(
        rows,
        lengths[rows],
        strides[rows],
        starts[rows],
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
    )


def _spans(mixture: MixtureConfig, stored_fps: int) -> tuple[np.ndarray, np.ndarray]:
    """Stored frames that each (length, rate) needs, and its weight; both (lengths, rates)."""
    lengths, strides = np.array(mixture.frames), strides_of(mixture, stored_fps)
    weights = np.outer(mixture.frames_weights, mixture.fps_weights)
    return (lengths[:, None] - 1) * strides[None] + 1, weights


def _draw_lengths_and_strides(
    clips: ClipTable,
    keys: np.ndarray,
    mixture: MixtureConfig,
    stored_fps: int,
    seed: int,
    epoch: int,
) -> tuple[np.ndarray, np.ndarray]:
    """A length among those that fit the clip, then a rate among those that fit with it."""
    spans, weights = _spans(mixture, stored_fps)
    fits = (spans[None] <= clips.num_frames[:, None, None]) & (weights[None] > 0)
    length_weights = np.array(mixture.frames_weights)[None] * fits.any(axis=2)
    length = _draw(length_weights, uniform(keys, seed, epoch, "length"))
    rate_weights = np.array(mixture.fps_weights)[None] * fits[np.arange(len(clips)), length]
    rate = _draw(rate_weights, uniform(keys, seed, epoch, "rate"))
    return np.array(mixture.frames)[length], strides_of(mixture, stored_fps)[rate]


def _draw(weights: np.ndarray, u: np.ndarray) -> np.ndarray:
    """(n,) column drawn per row in proportion to (n, k) weights; u (n,) in [0, 1)."""
    cumulative = np.cumsum(weights, axis=1, dtype=np.float64)
    return (cumulative <= (u * cumulative[:, -1])[:, None]).sum(axis=1)


def _reading_order(
    clips: ClipTable, keys: np.ndarray, packs_per_block: int, seed: int, epoch: int
) -> np.ndarray:
    """Packs in a random order, clips shuffled within blocks of packs: few packs are hot at once."""
    names, pack_of_clip = np.unique(clips.pack_numbers, return_inverse=True)
    # Ranks, not draws: the order of packs must be a permutation even for equal draws.
    pack_draws = uniform(names.astype(np.uint64), seed, epoch, "packs")
    rank_of_pack = np.argsort(np.argsort(pack_draws, kind="stable"), kind="stable")
    block = rank_of_pack[pack_of_clip] // packs_per_block
    return np.lexsort((keys, uniform(keys, seed, epoch, "order"), block))


def _batches(lengths: np.ndarray, mixture: MixtureConfig) -> list[np.ndarray]:
    """Places (into the reading order) of each batch, equal lengths within, in order of their last
    place. The last batch of a length may be short: nothing is dropped at the end of an epoch."""
    batches = []
    for length in np.unique(lengths):
        places = np.flatnonzero(lengths == length)
        size = mixture.clips_per_batch(int(length))
        batches += [places[i : i + size] for i in range(0, len(places), size)]
    return sorted(batches, key=lambda places: int(places[-1]))


class StepPlan:
    """Global step -> samples, over epochs, for one feed. Steps count from 0."""

    def __init__(
        self, clips: ClipTable, mixture: MixtureConfig, stored_fps: int, seed: int
    ) -> None:
        if not len(clips):
            raise ValueError("a feed needs at least one clip")
        self.clips, self.mixture, self.stored_fps, self.seed = clips, mixture, stored_fps, seed
        self._epoch = lru_cache(maxsize=2)(self._plan_epoch)
        self._first_steps = [0]

    def _plan_epoch(self, epoch: int) -> EpochPlan:
        return plan_epoch(self.clips, self.mixture, self.stored_fps, self.seed, epoch)

    def position(self, step: int) -> tuple[int, int]:
        """(epoch, batch within it) of a step."""
        while self._first_steps[-1] <= step:
            epoch = len(self._first_steps) - 1
            batches = self._epoch(epoch).num_batches
            self._first_steps.append(self._first_steps[-1] + batches)
        epoch = int(np.searchsorted(self._first_steps, step, side="right")) - 1
        return epoch, step - self._first_steps[epoch]

    def batch(self, step: int) -> tuple[int, EpochPlan, slice]:
        """(epoch, its plan, the samples of this step)."""
        epoch, number = self.position(step)
        plan = self._epoch(epoch)
        first, end = plan.batch_starts[number : number + 2]
        return epoch, plan, slice(int(first), int(end))


def held_out(clip_ids: Sequence[str], count: int, seed_name: str = "held out") -> set[str]:
    """The `count` clips that validation keeps for itself, chosen by id alone: the same clips
    whatever the seed of the training, and whatever is encoded after them as long as few are new."""
    draws = uniform(keys_of(list(clip_ids)), stream(seed_name))
    ranked = sorted(zip(draws.tolist(), clip_ids, strict=True))
    return {clip_id for _, clip_id in ranked[:count]}
