"""Technical quality: black, flat, blurred, or broken up by flashes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.config import setting
from pipelines.records import Clip

_EDGE_PX = 6
_MIN_EDGE_LEVELS = 15.0


@dataclass(frozen=True)
class QualityConfig:
    """What a picture must at least show."""

    min_brightness: float = setting(
        10.0, "darker shots are black", unit="mean luma, levels of 255", low=0, high=255
    )
    min_contrast: float = setting(
        8.0, "less is one flat colour", unit="5th to 95th percentile of luma, levels", low=0
    )
    min_sharpness: float = setting(
        0.24, "less is out of focus", unit="steepest pixel's part of an edge", low=0
    )
    max_flashes: float = setting(
        0.5, "more is a strobe or a row of flashes", unit="flashes/s", low=0
    )


@dataclass(frozen=True)
class Look:
    """What one picture looks like: the columns `brightness`, `contrast`, `sharpness`."""

    brightness: float
    contrast: float
    sharpness: float


def judge(clip: Clip, config: QualityConfig) -> Clip:
    """Drops black, flat, blurred and flashing shots; what was not measured is not judged."""
    if clip.brightness is not None and clip.contrast is not None:
        dark = clip.brightness < config.min_brightness
        if dark and clip.contrast < 4 * config.min_contrast:
            return clip.dropped("quality", "black")
        if clip.contrast < config.min_contrast:
            return clip.dropped("quality", "flat")
    if clip.flashes is not None and clip.flashes > config.max_flashes:
        return clip.dropped("quality", "flashes")
    if clip.sharpness is not None and clip.sharpness < config.min_sharpness:
        return clip.dropped("quality", "blurred")
    return clip


def look_of(luma_HW: np.ndarray) -> Look:
    """Measures one uint8 luma picture."""
    low, high = np.percentile(luma_HW[::2, ::2], (5, 95))
    return Look(float(luma_HW.mean()), float(high - low), edge_sharpness(luma_HW))


def edge_sharpness(luma_HW: np.ndarray) -> float:
    """How steep the strongest edges are: the part of their height within one pixel of six.

    About 1 for a step, 1/6 for a ramp; 0 where there is no edge. Unlike the variance of the
    Laplacian it does not depend on how much there is to see, nor on noise: a sharp thing on a
    plain ground had a lower variance than a blurred forest.
    """
    luma = luma_HW.astype(np.float32)
    heights, steepest = [], []
    for picture in (luma, luma.T):
        steps = np.abs(np.diff(picture, axis=1))
        if steps.shape[1] < _EDGE_PX:
            return 0.0
        heights.append(np.abs(picture[:, _EDGE_PX:] - picture[:, :-_EDGE_PX]).ravel())
        windows = [steps[:, i : steps.shape[1] - _EDGE_PX + 1 + i] for i in range(_EDGE_PX)]
        steepest.append(np.maximum.reduce(windows).ravel())
    height, step = np.concatenate(heights), np.concatenate(steepest)
    strong = height >= max(_MIN_EDGE_LEVELS, float(np.percentile(height, 99.5)))
    return float(np.median(step[strong] / height[strong])) if strong.any() else 0.0


def median_look(looks: Sequence[Look]) -> Look | None:
    """The shot's look, None without pictures."""
    if not looks:
        return None
    values = np.median([(x.brightness, x.contrast, x.sharpness) for x in looks], axis=0)
    return Look(*(float(v) for v in values))


def count_flashes(levels: np.ndarray, fps: float, jump: float = 20.0, lasts_s: float = 0.2) -> int:
    """Flashes in a shot: mean luma per frame (n,) that jumps by `jump` levels and comes back.

    A flash begins and ends within a frame or two and lasts at most `lasts_s`.
    """
    reach = max(2, round(lasts_s * fps))
    count, at = 0, 1
    while at < len(levels):
        base = float(np.median(levels[max(0, at - reach) : at]))
        rise = float(levels[at]) - base
        ahead = levels[at + 1 : at + 1 + reach]
        back = np.flatnonzero(np.abs(ahead - base) < 0.35 * abs(rise))
        if abs(rise) >= jump and len(back):
            count += 1
            at += 1 + int(back[0])
        at += 1
    return count
