"""Histograms as plain numbers in picture coordinates; the page's template only draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEFT_PX, RIGHT_PX, HEIGHT_PX = 8.0, 332.0, 92.0
BINS = 36
TICKS = 5


@dataclass(frozen=True)
class Bin:
    x_px: float
    width_px: float
    kept_px: float
    lost_px: float
    label: str


@dataclass(frozen=True)
class Mark:
    x_px: float
    label: str
    anchor: str = "middle"


@dataclass(frozen=True)
class Histogram:
    title: str
    unit: str
    count: int
    median: str
    bins: list[Bin]
    ticks: list[Mark]
    limits: list[Mark]


def histogram(
    title: str,
    unit: str,
    kept: Sequence[float] | np.ndarray,
    lost: Sequence[float] | np.ndarray,
    limits: Sequence[float] = (),
) -> Histogram | None:
    """Kept on the axis, dropped stacked above; None when no clip has the score.

    The axis spans the data's middle 99.5 % and every threshold near it; what lies outside is
    counted in the first or last bar, so that one wild value does not flatten the rest.
    """
    values = np.concatenate([np.asarray(kept, np.float64), np.asarray(lost, np.float64)])
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = _axis(values, limits)
    edges = np.linspace(low, high, BINS + 1)
    kept_counts = _counts(kept, edges)
    lost_counts = _counts(lost, edges)
    tallest = max(int((kept_counts + lost_counts).max()), 1)
    step_px = (RIGHT_PX - LEFT_PX) / BINS
    bins = [
        Bin(
            x_px=round(LEFT_PX + i * step_px + 0.5, 2),
            width_px=round(step_px - 1, 2),
            kept_px=round(HEIGHT_PX * int(k) / tallest, 2),
            lost_px=round(HEIGHT_PX * int(n) / tallest, 2),
            label=f"{_short(edges[i])} to {_short(edges[i + 1])}: {k} kept, {n} dropped",
        )
        for i, (k, n) in enumerate(zip(kept_counts, lost_counts, strict=True))
    ]
    shown = [x for x in limits if low <= x <= high]
    return Histogram(
        title=title,
        unit=unit,
        count=len(values),
        median=_short(float(np.median(values))),
        bins=bins,
        ticks=[_tick(x, low, high) for x in _round_ticks(low, high)],
        limits=[_limit(x, low, high) for x in shown],
    )


def _axis(values: np.ndarray, limits: Sequence[float]) -> tuple[float, float]:
    low, high = (float(v) for v in np.quantile(values, [0.0025, 0.9975]))
    span = (high - low) or abs(high) or 1.0
    near = [x for x in limits if low - span <= x <= high + span]
    low, high = min([low, *near]), max([high, *near])
    if high <= low:
        low, high = low - 0.5 * span, high + 0.5 * span
    margin = 0.03 * (high - low)
    floor = 0.0 if float(values.min()) >= 0 else -math.inf
    return max(low - margin, floor), high + margin


def _round_ticks(low: float, high: float) -> list[float]:
    """A few values that a person would choose: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _counts(values: Sequence[float] | np.ndarray, edges: np.ndarray) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    array = np.clip(array[np.isfinite(array)], edges[0], edges[-1])
    return np.histogram(array, bins=edges)[0]


def _x_px(value: float, low: float, high: float) -> float:
    return round(LEFT_PX + (RIGHT_PX - LEFT_PX) * (value - low) / (high - low), 2)


def _tick(value: float, low: float, high: float) -> Mark:
    at_px = _x_px(value, low, high)
    return Mark(min(max(at_px, LEFT_PX + 12), RIGHT_PX - 12), _short(value))


def _limit(value: float, low: float, high: float) -> Mark:
    at_px = _x_px(value, low, high)
    edge_px = 30
    anchor = "start" if at_px < LEFT_PX + edge_px else "end" if at_px > RIGHT_PX - edge_px else ""
    return Mark(at_px, _short(value), anchor or "middle")


def _short(value: float) -> str:
    """Three significant digits without an exponent where that is readable."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
        return "0" if text in ("-0", "0") else text
    return f"{value:.1e}"
