"""Black bars around the picture: found per shot, and cropped away, never a reason to drop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.config import setting
from pipelines.media import Crop

_STEP_LINES = 3  # a bar ends within this many lines; a picture that darkens takes longer


@dataclass(frozen=True)
class BordersConfig:
    """What counts as a bar."""

    black_levels: float = setting(
        20.0, "a bar is at most this bright in every frame looked at", unit="levels of 255", low=0
    )
    flat_levels: float = setting(
        2.5,
        "how far a bar may brighten from its outer lines to its inner ones",
        unit="levels of 255",
        low=0,
    )
    min_step_levels: float = setting(
        4.0, "the picture's first lines are brighter by this", unit="levels of 255", low=0
    )
    min_share: float = setting(0.01, "thinner bars stay", unit="share of the side", low=0)
    max_share: float = setting(0.4, "a thicker bar is a dark picture", unit="share of the side")


def find_crop(
    row_levels: Sequence[np.ndarray], column_levels: Sequence[np.ndarray], config: BordersConfig
) -> Crop:
    """The picture inside its bars, in displayed pixels, moved inwards to even numbers.

    Each frame gives the mean luma of its rows and columns. A bar is dark in all of them, even
    from its outer line to its inner one, ends in a clear step, and leaves most of the picture.
    So a night scene, or one with raised blacks, is parted from its bars as well as a bright one.
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
    least = max(2, int(np.ceil(config.min_share * len(levels))))
    black = float(np.median(levels[:least]))
    brighter = np.flatnonzero(levels > black + config.min_step_levels)
    if black > config.black_levels or not len(brighter):
        return 0
    edge = int(brighter[0])
    if not config.min_share * len(levels) <= edge <= config.max_share * len(levels):
        return 0
    inner = float(levels[max(0, edge - 4) : max(1, edge - 1)].mean())
    inside = float(levels[edge : edge + _STEP_LINES].max())
    is_flat = inner - black <= config.flat_levels
    return edge if is_flat and inside - inner >= config.min_step_levels else 0


def _even_up(value: int) -> int:
    return value + value % 2
