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
        0.8, "less, and the clip may hold a cut or a transition", unit="score", low=0, high=1
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
    small, u, v = (cv2.GaussianBlur(plane, (5, 5), 0) for plane in (small, u, v))
    colours = cv2.LUT(small, _LUMA_BIN) + cv2.LUT(u, _U_BIN) + cv2.LUT(v, _V_BIN)
    height, width = colours.shape
    parts = [
        colours[
            row * height // _GRID : (row + 1) * height // _GRID,
            column * width // _GRID : (column + 1) * width // _GRID,
        ]
        for row in range(_GRID)
        for column in range(_GRID)
    ]
    counts = np.stack([np.bincount(part.ravel(), minlength=_COLOURS) for part in parts])
    shares = counts.astype(np.float32) @ _SOFTENER
    shares /= np.maximum(1, counts.sum(axis=1, keepdims=True))
    return np.sqrt(shares.ravel() / len(parts))


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


def _softener(bins: int) -> np.ndarray:
    """(bins, bins): half stays, a quarter goes to either side; at an end it stays."""
    spread = 0.5 * np.eye(bins) + 0.25 * (np.eye(bins, k=1) + np.eye(bins, k=-1))
    spread[0, 0] += 0.25
    spread[-1, -1] += 0.25
    return spread.astype(np.float32)


def _bins_of(bins: int, low: int, high: int, weight: int) -> np.ndarray:
    """(256,) uint16: the bin of each level, times `weight`; levels outside go to the ends."""
    found = (np.arange(256) - low) * bins // (high - low)
    return (np.clip(found, 0, bins - 1) * weight).astype(np.uint16)


_COLOURS = _BINS[0] * _BINS[1] * _BINS[2]
_LUMA_BIN = _bins_of(_BINS[0], 0, 256, _BINS[1] * _BINS[2])
_U_BIN = _bins_of(_BINS[1], 64, 192, _BINS[2])
_V_BIN = _bins_of(_BINS[2], 64, 192, 1)
#: Each count is shared with the neighbouring bins, so that a shade's drift is no jump.
_SOFTENER = np.kron(np.kron(_softener(_BINS[0]), _softener(_BINS[1])), _softener(_BINS[2]))
