"""Is a shot really one shot? A second opinion, by a method that shares nothing with the first.

The boundary detector compares neighbouring frames pixel by pixel. Here the frames looked at
closely, fractions of a second apart, are compared by the colours in each part of the picture,
whatever moves where. A cut that was missed parts them in two: every picture before it differs from
every picture after it, and far more than pictures elsewhere in the shot differ from the next.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from pipelines.config import setting
from pipelines.records import Clip

_BINS = (8, 6, 6)  # luma, blue, red
_GRID = 2  # parts along each side of the picture
_USUAL = 0.04  # distance that compression and small motion give


@dataclass(frozen=True)
class SingleShotConfig:
    """How sure it must be that a clip holds one shot."""

    min_single_shot: float = setting(
        0.5, "less, and the clip holds a cut or a transition", unit="score", low=0, high=1
    )


def judge(clip: Clip, config: SingleShotConfig) -> Clip:
    """Drops shots that hold a cut, and the rows that are a transition (their score is 0)."""
    if clip.single_shot is not None and clip.single_shot < config.min_single_shot:
        return clip.dropped("single_shot", "not_single_shot")
    return clip


def colour_signature(yuv_planes: Sequence[np.ndarray]) -> np.ndarray:
    """Share of each colour in each part of the picture, (parts * colours,) float32.

    Planes are luma and the two half-size chroma planes, uint8.
    """
    luma, u, v = yuv_planes
    small = cv2.resize(luma, (u.shape[1], u.shape[0]), interpolation=cv2.INTER_AREA)
    picture = cv2.GaussianBlur(np.dstack([small, u, v]), (5, 5), 0)
    height, width = picture.shape[:2]
    parts = []
    for row in range(_GRID):
        for column in range(_GRID):
            part = picture[
                row * height // _GRID : (row + 1) * height // _GRID,
                column * width // _GRID : (column + 1) * width // _GRID,
            ]
            counts = cv2.calcHist(
                [part], [0, 1, 2], None, list(_BINS), [0, 256, 64, 192, 64, 192]
            ).reshape(_BINS)
            parts.append(_softened(counts).reshape(-1) / max(1.0, float(counts.sum())))
    return np.sqrt(np.concatenate(parts) / _GRID**2)


def single_shot_score(signatures: Sequence[np.ndarray]) -> float | None:
    """1 for certainly one shot, 0 for certainly more, from its pictures' signatures in order.

    0.5 where the step at the best split is 0.35 and three times what is usual in the shot. None
    with fewer than three pictures.
    """
    if len(signatures) < 3:
        return None
    steps = [_split_distance(signatures, at) for at in range(1, len(signatures))]
    neighbours = [_distance(a, b) for a, b in itertools.pairwise(signatures)]
    worst = 0.0
    for at, step in enumerate(steps):
        others = neighbours[max(0, at - 6) : at] + neighbours[at + 1 : at + 7]
        usual = _USUAL + (float(np.median(others)) if others else 0.0)
        worst = max(worst, min(step / 0.35, step / (3.0 * usual)))
    return float(1.0 / (1.0 + worst**4))


def _split_distance(signatures: Sequence[np.ndarray], at: int) -> float:
    """Least distance of the (up to two) pictures before a split from those after it.

    The least, because a flash differs from both sides while the sides are alike.
    """
    before, after = signatures[max(0, at - 2) : at], signatures[at : at + 2]
    return min(_distance(a, b) for a in before for b in after)


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Hellinger distance, 0 to 1, of signatures that hold square roots of shares."""
    return float(np.sqrt(max(0.0, 1.0 - float(a @ b))))


def _softened(counts: np.ndarray) -> np.ndarray:
    """Each count shared with the neighbouring bins, so that a shade's drift is no jump."""
    for axis in range(3):
        padded = np.pad(counts, [(1, 1) if i == axis else (0, 0) for i in range(3)], mode="edge")
        low = np.take(padded, range(counts.shape[axis]), axis=axis)
        high = np.take(padded, range(2, counts.shape[axis] + 2), axis=axis)
        counts = 0.5 * counts + 0.25 * (low + high)
    return counts
