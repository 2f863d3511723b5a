"""How much a shot moves, and where to.

Dense optical flow (DIS, Kroeger et al. 2016) between pairs of small frames about an eighth of a
second apart: motion in pixels of the analysis size becomes frame widths per second, which means
the same at every size and frame rate. What the camera does is taken to be the flow of most of the
picture (a shift and a scale, fitted robustly); what differs from it is the moving part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np

from pipelines.config import setting
from pipelines.records import Clip

_MOVING_PX = 0.4  # flow that differs from the camera's by more belongs to a moving thing
_MIN_MOVING_SHARE = 0.004  # of the picture


@dataclass(frozen=True)
class MotionConfig:
    """Which shots move too little, or too much."""

    min_motion: float = setting(
        0.0002,
        "less is a still picture; a small thing that moves before a still ground has 0.0005",
        unit="mean flow, frame widths/s",
        low=0,
    )
    max_motion: float = setting(
        0.45, "more is shaking or a whip pan", unit="mean flow, frame widths/s", low=0
    )

    def __post_init__(self) -> None:
        if self.min_motion > self.max_motion:
            raise ValueError("min_motion is above max_motion: no clip would be kept")


@dataclass(frozen=True)
class Flow:
    """Motion between two frames, in frame widths per second; right and down positive."""

    magnitude: float
    dx: float
    dy: float


def judge(clip: Clip, config: MotionConfig) -> Clip:
    """Drops shots that are too still or too shaky; what was not measured is not judged."""
    if clip.kind != "video" or clip.motion is None:
        return clip
    if clip.motion < config.min_motion:
        return clip.dropped("motion", "too_still")
    if clip.motion > config.max_motion:
        return clip.dropped("motion", "too_shaky")
    return clip


def flow_between(before_HW: np.ndarray, after_HW: np.ndarray, gap_s: float) -> Flow:
    """Motion from one gray uint8 picture to another of the same size, `gap_s` later."""
    before_HW, after_HW = np.ascontiguousarray(before_HW), np.ascontiguousarray(after_HW)
    # Neighbouring vectors say the same: every other one of every other row is enough.
    flow_HW2 = np.ascontiguousarray(_dis().calc(before_HW, after_HW, None)[::2, ::2])
    per_s = 1.0 / (before_HW.shape[1] * max(gap_s, 1e-3))
    # Not cv2.magnitude: its last bit depends on where in memory the pictures happen to lie.
    magnitude = float(np.sqrt(np.square(flow_HW2).sum(axis=-1)).mean()) * per_s
    difference = cv2.absdiff(flow_HW2, camera_flow(flow_HW2))
    own = cv2.max(difference[..., 0], difference[..., 1])
    # Flow fades into the plain parts of a thing and smears over its edges: the fastest part counts.
    rank = int(own.size * (1 - _MIN_MOVING_SHARE))
    fastest = float(np.partition(own.ravel(), rank)[rank])
    part = flow_HW2[own > 0.6 * fastest] if fastest > _MOVING_PX else flow_HW2.reshape(-1, 2)
    dx, dy = part.mean(axis=0) * per_s
    return Flow(magnitude, float(dx), float(dy))


def camera_flow(flow_HW2: np.ndarray) -> np.ndarray:
    """The flow that a shift and a change of scale of the whole picture explain, (H, W, 2).

    Median slopes and offsets over a coarse grid: up to about half the picture may move on its own.
    """
    height, width = flow_HW2.shape[:2]
    grid = flow_HW2[2::4, 2::4]
    x = np.arange(2, width, 4, dtype=np.float32) - width / 2
    y = np.arange(2, height, 4, dtype=np.float32) - height / 2
    columns = np.median(grid[..., 0], axis=0)
    rows = np.median(grid[..., 1], axis=1)
    scale = float(np.median(np.concatenate([_slopes(x, columns), _slopes(y, rows)])))
    shift_x = float(np.median(columns - scale * x))
    shift_y = float(np.median(rows - scale * y))
    all_x = np.arange(width, dtype=np.float32) - width / 2
    all_y = np.arange(height, dtype=np.float32) - height / 2
    camera = np.empty_like(flow_HW2)
    camera[..., 0] = shift_x + scale * all_x
    camera[..., 1] = shift_y + scale * all_y[:, None]
    return camera


def summary(flows: Sequence[Flow]) -> Flow | None:
    """The shot's motion: the mean of its flows, None without any."""
    if not flows:
        return None
    values = np.array([(f.magnitude, f.dx, f.dy) for f in flows]).mean(axis=0)
    return Flow(*(float(v) for v in values))


def _slopes(at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Slope between points half the range apart (Theil's estimator, thinned)."""
    half = max(1, len(at) // 2)
    if len(at) <= half:
        return np.zeros(1, dtype=np.float32)
    return (values[half:] - values[:-half]) / (at[half:] - at[:-half])


@cache
def _dis() -> Any:
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow.setFinestScale(1)  # the preset's 2 saw a quarter of a small thing's motion
    flow.setVariationalRefinementIterations(2)  # of 5: two thirds of the time, the same directions
    return flow
