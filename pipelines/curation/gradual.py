"""Transitions that take a while: fades through black, dissolves and wipes.

A stretch of film without hard cuts is looked at through thumbnails, at several time lags. Within
a shot, pictures a lag apart differ about as much now as a moment ago and a moment later, however
the camera moves. Across a transition they differ far more. What stands out like that is then
confirmed: its two ends must show different pictures, and what lies between must be a mixture of
the two, place by place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipelines.config import setting

_DETAIL = 1.4  # what a mixture leaves unexplained at full size, over the same at half
_QUICK_PICTURES = 12  # of a candidate, at the first look


@dataclass(frozen=True)
class GradualConfig:
    """How gradual transitions are told from movement."""

    min_change: float = setting(
        9.0, "least difference of the pictures at both ends", unit="levels of 255", low=0
    )
    ratio: float = setting(
        1.3, "difference across, over that within the shots beside it", unit="ratio", low=0
    )
    max_alike: float = setting(
        0.9, "most alike the two ends may be: correlation of their structure", low=-1, high=1
    )
    max_residual: float = setting(
        0.16, "what a mixture of the two ends may leave unexplained, over their difference", low=0
    )
    min_gain: float = setting(
        0.75, "part of the whole change that happens within the transition", unit="share", low=0
    )
    max_part: float = setting(
        0.7, "part of the time looked at that the transition takes", unit="share", low=0, high=1
    )
    max_s: float = setting(2.5, "longest transition looked for", unit="s", low=0.1)
    dark_levels: float = setting(12.0, "black, between a fade out and a fade in", unit="levels")
    guard_frames: int = setting(1, "frames added at both ends of a transition", unit="frames")


def find_gradual(
    thumbs_NHWC: np.ndarray, fps: float, config: GradualConfig
) -> list[tuple[int, int, str]]:
    """(start, end, kind) of each transition inside the frames, in order, not touching.

    Frames are uint8; numbers count from the first; kind is fade or dissolve (a wipe is one too).
    """
    if len(thumbs_NHWC) < 6:
        return []
    fades = _fades(thumbs_NHWC, fps, config)
    taken = np.zeros(len(thumbs_NHWC), dtype=bool)
    for start, end, _ in fades:
        taken[start:end] = True
    mixtures = _mixtures(thumbs_NHWC, fps, config, taken)
    return sorted(fades + mixtures)


# --- fades -----------------------------------------------------------------------------------


def _fades(thumbs: np.ndarray, fps: float, config: GradualConfig) -> list[tuple[int, int, str]]:
    """Every slide into black and out of it. A black stretch that lasts stays a shot between."""
    flat = thumbs.reshape(len(thumbs), -1)
    luma = flat.mean(axis=1)
    dark = luma < config.dark_levels
    dark[dark] = np.percentile(flat[dark], 98, axis=1) < 4 * config.dark_levels
    reach = max(3, round(config.max_s * fps))
    spans: list[tuple[int, int, str]] = []
    for start, end in _runs(dark):
        before = _slope(luma, start, -1, reach)
        after = _slope(luma, end - 1, +1, reach)
        if end - start > reach:
            spans += [(before, start + 1, "fade")] if start - before >= 2 else []
            spans += [(end - 1, after + 1, "fade")] if after - end >= 1 else []
        elif start - before >= 2 or after - end >= 1:
            spans.append((before, after + 1, "fade"))
    return _widened(spans, len(thumbs), config.guard_frames)


def _slope(luma: np.ndarray, at: int, step: int, reach: int) -> int:
    """The last frame, going from the dark frame `at` in direction `step`, that still brightens."""
    now = at
    while 0 <= now + step < len(luma) and abs(now + step - at) <= reach:
        gain = luma[now + step] - luma[now]
        if gain < max(0.25, 0.006 * luma[now]):
            break
        now += step
    return now


# --- dissolves and wipes ---------------------------------------------------------------------


def _mixtures(
    thumbs: np.ndarray, fps: float, config: GradualConfig, taken: np.ndarray
) -> list[tuple[int, int, str]]:
    halved = _halved(thumbs)
    coarse = halved.reshape(len(thumbs), -1)
    candidates: list[tuple[float, int, int]] = []
    for half in _half_lags(fps, config.max_s, len(thumbs)):
        across, beside = _differences(coarse, half)
        score = across / (beside + 3.0)
        # Not the local peaks only: that was cheaper, and missed 5 of 14 unseen ones.
        step = max(1, half // 4)
        for at in np.flatnonzero((score > config.ratio) & (across > config.min_change)):
            if at % step == 0:
                candidates.append((float(score[at]), int(at), half))
    found: list[tuple[int, int, str]] = []
    free = ~taken
    for _, centre, half in sorted(candidates, reverse=True):
        first, last = centre - half, centre + half
        if not free[first : last + 1].all():
            continue
        if not _may_be_one(halved, first, last, config):
            continue
        # Two sizes must agree: the smaller takes some movement for a transition, the larger some
        # noise of the compression (and leaves more of the picture's detail unexplained).
        span = _confirmed(halved, first, last, config, config.max_residual)
        span = span and _confirmed(thumbs, first, last, config, _DETAIL * config.max_residual)
        if span is None:
            continue
        found.append((*span, "dissolve"))
        free[first : last + 1] = False
    return _widened(found, len(thumbs), config.guard_frames)


def _half_lags(fps: float, max_s: float, num_frames: int) -> list[int]:
    seconds = (0.1, 0.16, 0.25, 0.36, 0.5, 0.7, 0.95, 1.25, 1.7)
    halves = {max(2, round(s * fps)) for s in seconds if 2 * s <= 1.4 * max_s}
    return sorted(h for h in halves if 2 * h + 3 < num_frames)


def _halved(thumbs: np.ndarray) -> np.ndarray:
    """Half the size, so that texture that moves weighs less than a picture that changes."""
    rows = thumbs[:, 0::2].astype(np.uint16) + thumbs[:, 1::2]
    return (rows[:, :, 0::2] + rows[:, :, 1::2]) * np.float32(0.25)


def _differences(flat: np.ndarray, half: int) -> tuple[np.ndarray, np.ndarray]:
    """Per frame t: |x(t+half) - x(t-half)|, and the larger of the same lag just before and after.

    Near the ends, where a whole lag does not fit, a shorter one stands for it; with fewer than
    three frames it says nothing (0).
    """
    count, lag = len(flat), 2 * half
    apart = np.abs(flat[lag:] - flat[:-lag]).mean(axis=1)  # apart[i]: of frames i and i + lag
    across = np.zeros(count, dtype=np.float32)
    across[half : count - half] = apart
    beside = np.zeros(count, dtype=np.float32)
    centres = np.arange(half, count - half)
    whole = centres[centres - half - lag >= 0]
    beside[whole] = apart[whole - half - lag]
    short = centres[(centres - half - lag < 0) & (centres - half >= 3)]
    beside[short] = np.abs(flat[short - half] - flat[0]).mean(axis=1)
    whole = centres[centres + half + lag < count]
    beside[whole] = np.maximum(beside[whole], apart[whole + half])
    short = centres[(centres + half + lag >= count) & (count - 1 - centres - half >= 3)]
    after = np.abs(flat[-1] - flat[short + half]).mean(axis=1)
    beside[short] = np.maximum(beside[short], after)
    return across, beside


def _may_be_one(halved: np.ndarray, first: int, last: int, config: GradualConfig) -> bool:
    """A quick look, at half the size and a few pictures: what fails it, `_confirmed` refuses too.

    Of film that moves, nearly every candidate is movement: it is told here, in a tenth of the time.
    """
    step = max(1, (last - first) // _QUICK_PICTURES)
    between = halved[first : last + 1 : step]
    before, after = halved[first], halved[last]
    direction = after - before
    apart = np.abs(direction).mean(axis=-1)
    changes = apart > config.min_change / 3
    if changes.mean() < 0.2:
        return False
    power = np.einsum("hwc,hwc->hw", direction, direction)
    share, residual = _mixed(between, before, direction, power)
    if residual > config.max_residual * float(apart.mean()):
        return False
    strong = power > 0.2 * power[changes].mean()
    progress = np.clip(share[:, strong], -0.5, 1.5).mean(axis=1)
    window = min(len(progress) - 1, math.ceil(config.max_part * (last - first) / step) + 1)
    return float((progress[window:] - progress[:-window]).max()) >= config.min_gain


def _confirmed(
    thumbs: np.ndarray, first: int, last: int, config: GradualConfig, max_residual: float
) -> tuple[int, int] | None:
    """The span of the transition between two frames, or None when it is not one.

    Both frames must lie outside it: a change as slow as the whole stretch is movement.
    """
    before, after = thumbs[[first, last]].astype(np.float32)
    direction = after - before
    apart = np.abs(direction).mean(axis=-1)
    changes = apart > config.min_change / 3
    if changes.mean() < 0.2 or _alike(before, after, changes) > config.max_alike:
        return None
    power = (direction**2).sum(axis=-1)
    share, residual = _mixed(thumbs[first : last + 1], before, direction, power)
    if residual > max_residual * float(apart.mean()):
        return None
    strong = power > 0.2 * power[changes].mean()
    progress = np.clip(share[:, strong], -0.5, 1.5).mean(axis=1)
    if not _lasts(thumbs, first, last, strong, config.min_gain):
        return None
    pace = np.convolve(np.diff(progress), (0.25, 0.5, 0.25), mode="same")
    middle = int(np.argmax(pace))
    enough = 0.2 * float(np.mean(np.sort(pace)[-max(2, len(pace) // 4) :]))
    start = end = middle
    while start > 0 and pace[start - 1] > enough:
        start -= 1
    while end < len(pace) - 1 and pace[end + 1] > enough:
        end += 1
    lasts = end - start + 1
    gained = progress[end + 1] - progress[start]
    if gained < config.min_gain or not 3 <= lasts <= config.max_part * len(pace):
        return None
    if start < 1 or end > len(pace) - 2:
        return None
    return first + start + 1, first + end + 1


def _mixed(
    thumbs_NHWC: np.ndarray, before: np.ndarray, direction: np.ndarray, power: np.ndarray
) -> tuple[np.ndarray, float]:
    """Each place's share of the way from `before` along `direction`, (n, h, w), and what mixtures
    leave unexplained, mean in levels.
    """
    moved = thumbs_NHWC - before
    share = np.einsum("nhwc,hwc->nhw", moved, direction) / np.maximum(power, 1e-3)
    moved -= np.clip(share, 0, 1)[..., None] * direction
    return share, float(np.abs(moved, out=moved).mean())


def _lasts(
    thumbs: np.ndarray, first: int, last: int, where_HW: np.ndarray, min_gain: float
) -> bool:
    """Whether the pictures before the two frames stay like the one, and those after like the other.

    A flash, or a camera that swings back, does not.
    """
    reach = max(3, (last - first) // 2)
    before, after = (thumbs[i][where_HW].astype(np.float32).ravel() for i in (first, last))
    direction = after - before
    power = float(direction @ direction)

    def progress(frames: np.ndarray) -> float:
        if not len(frames):
            return 0.0
        mean = frames[:, where_HW].mean(axis=0, dtype=np.float32).ravel()
        return float((mean - before) @ direction) / power

    earlier = progress(thumbs[max(0, first - reach) : first])
    later = progress(thumbs[last + 1 : last + 1 + reach]) if last + 1 < len(thumbs) else 1.0
    return later - earlier > min_gain


def _alike(a_HWC: np.ndarray, b_HWC: np.ndarray, where_HW: np.ndarray) -> float:
    """Correlation of two pictures' structure; 0 when one of them has none."""
    a, b = a_HWC.mean(axis=-1)[where_HW], b_HWC.mean(axis=-1)[where_HW]
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / norm if norm > a.size * 4.0 else 0.0


# --- spans -----------------------------------------------------------------------------------


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _widened(
    spans: list[tuple[int, int, str]], num_frames: int, by: int
) -> list[tuple[int, int, str]]:
    """The spans with a guard on both sides, kept apart from one another, in order."""
    wide: list[tuple[int, int, str]] = []
    for start, end, kind in sorted(spans):
        start = max(start - by, wide[-1][1] if wide else 0)
        if end > start:
            wide.append((start, min(end + by, num_frames), kind))
    return wide
