"""How much of the picture its main subject takes.

What surrounds a subject usually reaches the picture's edge, and the subject does not. So each pixel
is asked how much the colour must change on the way to it from the edge, along the best way: the
minimum barrier distance, the largest less the smallest value on the way. Flat or evenly textured
surroundings cost little, whatever their gradient; a subject costs its contrast. What lies above
the middle between the two groups of costs is subject. About 3 ms a picture.

It is a measure of composition, not of meaning: a subject that fills the edges is taken for
surroundings, and several things that stand out count together.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

_LONGEST_PX = 48
_ROUNDS = 2
_LEAST_COST = 18.0  # colour levels (CIELAB); less is texture or noise
_EDGE_OUTLIER = 2.5  # times the usual colour distance along one edge


def subject_area(frames_HWC: Sequence[np.ndarray]) -> float | None:
    """Median share of the picture over uint8 RGB frames of one clip, 0 to 1; None without any."""
    if not frames_HWC:
        return None
    return float(np.median([float(subject_mask(frame).mean()) for frame in frames_HWC]))


def subject_mask(frame_HWC: np.ndarray) -> np.ndarray:
    """(h, w) bool, the frame at most 48 px long: what is subject."""
    height, width = frame_HWC.shape[:2]
    scale = min(1.0, _LONGEST_PX / max(height, width))
    size = max(8, round(width * scale)), max(8, round(height * scale))
    small = cv2.resize(frame_HWC, size, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    cost = edge_cost(lab)
    top = float(np.percentile(cost, 99.6))
    if top < _LEAST_COST:
        return np.zeros(cost.shape, bool)
    levels = np.clip(cost * (255 / top), 0, 255).astype(np.uint8)
    middle, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    return cost > max(middle * top / 255, _LEAST_COST)


def edge_cost(lab_HWC: np.ndarray) -> np.ndarray:
    """(h, w) float32: the least sum over channels of the range of values on a way to the edge.

    Swept down, up, right and left a few times, a line at a time.
    """
    high, low = lab_HWC.copy(), lab_HWC.copy()
    cost = np.where(_is_surroundings(lab_HWC), np.float32(0), np.float32(1e6))
    for _ in range(_ROUNDS):
        for turned in (lambda a: a, lambda a: a[::-1], _flat, lambda a: _flat(a)[::-1]):
            _sweep(turned(lab_HWC), turned(cost), turned(high), turned(low))
    return cost


def _flat(values: np.ndarray) -> np.ndarray:
    """The same values seen with rows and columns exchanged (a view)."""
    return values.swapaxes(0, 1)


def _sweep(lab: np.ndarray, cost: np.ndarray, high: np.ndarray, low: np.ndarray) -> None:
    """Offers every line the ways that lead to the line before it; changes the last three."""
    for line in range(1, len(lab)):
        new_high = np.maximum(high[line - 1], lab[line])
        new_low = np.minimum(low[line - 1], lab[line])
        new_cost = (new_high - new_low).sum(axis=-1)
        known = cost[line - 1] < 1e6
        better = known & (new_cost < cost[line])
        cost[line][better] = new_cost[better]
        high[line][better] = new_high[better]
        low[line][better] = new_low[better]


def _is_surroundings(lab_HWC: np.ndarray) -> np.ndarray:
    """(h, w) bool: pixels of the four edges, less what stands out there (a subject that is cut)."""
    seeds = np.zeros(lab_HWC.shape[:2], bool)
    for edge in ((0, slice(None)), (-1, slice(None)), (slice(None), 0), (slice(None), -1)):
        line = lab_HWC[edge]
        apart = np.abs(line - np.median(line, axis=0)).sum(axis=-1)
        seeds[edge] |= apart <= max(_LEAST_COST, _EDGE_OUTLIER * float(np.median(apart)))
    return seeds
