"""Which clips, frames and rates make up each step: a pure function of (seed, epoch, clip ids).

An epoch shows every clip exactly once. Each clip draws its number of frames, its rate and its
start from its own id; clips that drew equally many frames share batches. Nothing here knows how
many workers there are or what happened before, so any step can be planned alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipelines.config import RequestError, setting
from pipelines.training.randomness import stream, uniform


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
    """The clips of a feed as columns, in the order of their ids; `keys` are `keys_of` the ids."""

    keys: np.ndarray
    pack_numbers: np.ndarray
    num_frames: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)


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
    length = _draw_lengths(clips, mixture, stored_fps, seed, epoch)
    stride = _draw_strides(clips, length, mixture, stored_fps, seed, epoch)
    lengths = np.array(mixture.frames)[length]
    strides = strides_of(mixture, stored_fps)[stride]
    room = clips.num_frames - ((lengths - 1) * strides + 1)
    starts = np.floor(uniform(clips.keys, seed, epoch, "start") * (room + 1)).astype(np.int64)
    order = _reading_order(clips, mixture.packs_per_block, seed, epoch)
    places, batch_starts = _batches(lengths[order], mixture)
    rows = order[places]
    return EpochPlan(rows, lengths[rows], strides[rows], starts[rows], batch_starts)


def num_batches(
    clips: ClipTable, mixture: MixtureConfig, stored_fps: int, seed: int, epoch: int
) -> int:
    """Of that epoch's plan, without making it."""
    length = _draw_lengths(clips, mixture, stored_fps, seed, epoch)
    counts: dict[int, int] = {}
    for number, clips_there in zip(mixture.frames, np.bincount(length).tolist(), strict=False):
        counts[number] = counts.get(number, 0) + clips_there
    return sum(-(-count // mixture.clips_per_batch(n)) for n, count in counts.items())


def uneven_lengths(mixture: MixtureConfig, workers: int) -> list[int]:
    """Lengths whose full batches do not divide evenly: some workers get a clip more than others,
    and those wait for them in every such step."""
    lengths = sorted(set(mixture.frames))
    return [n for n in lengths if mixture.clips_per_batch(n) % workers]


def _spans(mixture: MixtureConfig, stored_fps: int) -> tuple[np.ndarray, np.ndarray]:
    """Stored frames that each (length, rate) needs, and its weight; both (lengths, rates)."""
    lengths, strides = np.array(mixture.frames), strides_of(mixture, stored_fps)
    weights = np.outer(mixture.frames_weights, mixture.fps_weights)
    return (lengths[:, None] - 1) * strides[None] + 1, weights


def _draw_lengths(
    clips: ClipTable, mixture: MixtureConfig, stored_fps: int, seed: int, epoch: int
) -> np.ndarray:
    """(n,) index of a length among those that fit the clip at some rate."""
    spans, weights = _spans(mixture, stored_fps)
    fits = np.any(_fits_by_frames(spans, weights), axis=2)
    cumulative = np.cumsum(np.array(mixture.frames_weights) * fits, axis=1, dtype=np.float64)
    frames = np.minimum(clips.num_frames, len(fits) - 1)
    return _draw(cumulative, frames, uniform(clips.keys, seed, epoch, "length"))


def _draw_strides(
    clips: ClipTable,
    length: np.ndarray,
    mixture: MixtureConfig,
    stored_fps: int,
    seed: int,
    epoch: int,
) -> np.ndarray:
    """(n,) index of a rate among those that fit the clip at its length."""
    spans, weights = _spans(mixture, stored_fps)
    fits = _fits_by_frames(spans, weights)
    cumulative = np.cumsum(np.array(mixture.fps_weights) * fits, axis=2, dtype=np.float64)
    frames = np.minimum(clips.num_frames, len(fits) - 1)
    cases = frames * len(mixture.frames) + length
    flat = cumulative.reshape(-1, len(mixture.fps))
    return _draw(flat, cases, uniform(clips.keys, seed, epoch, "rate"))


def _fits_by_frames(spans: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(frames, lengths, rates) bool: what a clip of so many frames has room for. Clips longer than
    the last entry have room for as much as it."""
    frames = np.arange(spans.max() + 1)
    return (spans[None] <= frames[:, None, None]) & (weights[None] > 0)


def _draw(cumulative: np.ndarray, case: np.ndarray, u: np.ndarray) -> np.ndarray:
    """(n,) column drawn for each clip: `cumulative` (cases, columns) are sums of weights, `case`
    (n,) says which of them hold for a clip, u (n,) lies in [0, 1)."""
    drawn = np.zeros(len(u), dtype=np.int64)
    aim = u * cumulative[case, -1]
    for column in range(cumulative.shape[1]):
        drawn += cumulative[case, column] <= aim
    return drawn


def _reading_order(clips: ClipTable, packs_per_block: int, seed: int, epoch: int) -> np.ndarray:
    """Packs in a random order, clips shuffled within blocks of packs: few packs are hot at once."""
    packs = np.flatnonzero(np.bincount(clips.pack_numbers))
    # Ranks, not draws: the order of packs must be a permutation even for equal draws.
    pack_draws = uniform(packs.astype(np.uint64), seed, epoch, "packs")
    rank_of_pack = np.empty(int(packs[-1]) + 1, dtype=np.int64)
    rank_of_pack[packs[np.argsort(pack_draws, kind="stable")]] = np.arange(len(packs))
    # Sorted by (block, draw, key) as two stable sorts of one column each: keys rise already.
    shuffled = np.argsort(uniform(clips.keys, seed, epoch, "order"), kind="stable")
    block = rank_of_pack[clips.pack_numbers[shuffled]] // packs_per_block
    narrow = np.uint16 if len(packs) // packs_per_block < 2**16 else np.int64  # sorts by digits
    return shuffled[np.argsort(block.astype(narrow), kind="stable")]


def _batches(lengths: np.ndarray, mixture: MixtureConfig) -> tuple[np.ndarray, np.ndarray]:
    """Places (into the reading order) of all batches one after another, and where each begins.

    Lengths are equal within a batch; batches come in the order of their last place. The last batch
    of a length may be short: nothing is dropped at the end of an epoch.
    """
    places, firsts, sizes, before = [], [], [], 0
    for length in np.unique(lengths):
        of_length = np.flatnonzero(lengths == length)
        full = mixture.clips_per_batch(int(length))
        of_batches = np.arange(0, len(of_length), full)
        places.append(of_length)
        firsts.append(before + of_batches)
        sizes.append(np.minimum(full, len(of_length) - of_batches))
        before += len(of_length)
    place, first, size = np.concatenate(places), np.concatenate(firsts), np.concatenate(sizes)
    order = np.argsort(place[first + size - 1], kind="stable")
    first, size = first[order], size[order]
    starts = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
    within = np.arange(len(place)) - np.repeat(starts[:-1], size)
    return place[np.repeat(first, size) + within], starts


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

    def _num_batches(self, epoch: int) -> int:
        return num_batches(self.clips, self.mixture, self.stored_fps, self.seed, epoch)

    def position(self, step: int) -> tuple[int, int]:
        """(epoch, batch within it) of a step."""
        while self._first_steps[-1] <= step:
            epoch = len(self._first_steps) - 1
            batches = self._num_batches(epoch)
            self._first_steps.append(self._first_steps[-1] + batches)
        epoch = int(np.searchsorted(self._first_steps, step, side="right")) - 1
        return epoch, step - self._first_steps[epoch]

    def batch(self, step: int) -> tuple[int, EpochPlan, slice]:
        """(epoch, its plan, the samples of this step)."""
        epoch, number = self.position(step)
        plan = self._epoch(epoch)
        first, end = plan.batch_starts[number : number + 2]
        return epoch, plan, slice(int(first), int(end))


def held_out(keys: np.ndarray, count: int) -> np.ndarray:
    """Rows of the `count` clips that validation keeps for itself, chosen by id alone: the same
    clips whatever the seed of the training, and whatever is encoded after them as long as few are
    new. `keys`: of all clips, in the order of their ids; the rows rise."""
    if count == 0:
        return np.empty(0, np.int64)
    draws = uniform(keys, stream("held out"))
    return np.sort(np.argsort(draws, kind="stable")[:count])
