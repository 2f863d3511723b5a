"""Black bars around the picture: found per shot, and cropped away, never a reason to drop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.config import setting
from pipelines.media import Crop


@dataclass(frozen=True)
class BordersConfig:
    """What counts as a bar."""

    black_levels: float = setting(
        10.0, "a line this dark in every frame looked at may be part of a bar", unit="levels of 255"
    )
    min_step_levels: float = setting(
        6.0, "the picture's first line is brighter by this", unit="levels of 255", low=0
    )
    min_share: float = setting(0.01, "thinner bars stay", unit="share of the side", low=0)
    max_share: float = setting(0.4, "a thicker bar is a dark picture", unit="share of the side")


def find_crop(
    row_levels: Sequence[np.ndarray], column_levels: Sequence[np.ndarray], config: BordersConfig
) -> Crop:
    """The picture inside its bars, in displayed pixels, moved inwards to even numbers.

    Each frame gives the mean luma of its rows and columns. A bar is dark in all of them, ends in
    a clear step, and leaves most of the picture.
    """
    rows = np.max(np.stack(row_levels), axis=0)
    columns = np.max(np.stack(column_levels), axis=0)
    top, bottom = _bar(rows, config), _bar(rows[::-1], config)
    left, right = _bar(columns, config), _bar(columns[::-1], config)
    y, x = _even_up(top), _even_up(left)
    h, w = (len(rows) - bottom - y) // 2 * 2, (len(columns) - right - x) // 2 * 2
    if not (top or bottom):
        y, h = 0, len(rows)
    if not (left or right):
        x, w = 0, len(columns)
    return Crop(x, y, w, h)


def _bar(levels: np.ndarray, config: BordersConfig) -> int:
    """Thickness of the bar at the start of the line levels, 0 when there is none."""
    bright = np.flatnonzero(levels > config.black_levels)
    if not len(bright):
        return 0
    edge = int(bright[0])
    if not config.min_share * len(levels) <= edge <= config.max_share * len(levels):
        return 0
    inside = float(levels[edge : edge + 3].max())
    outside = float(levels[max(0, edge - 4) : max(1, edge - 1)].mean())
    return edge if inside - outside >= config.min_step_levels else 0


def _even_up(value: int) -> int:
    return value + value % 2
