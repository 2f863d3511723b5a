"""The frames of one shot, whatever is wrong with it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction

import cv2
import numpy as np

from pipelines.world.plan import ShotPlan
from pipelines.world.scenes import render_frames

FLASH_EVERY_S, FLASH_S = 0.55, 0.07
_SHAKE_HZ = (3.7, 5.3)
_SHAKE_PART = 0.05
_BLUR_PART = 0.03


def take(
    shot: ShotPlan, num_ticks: int, width_px: int, height_px: int, fps: Fraction
) -> Iterator[np.ndarray]:
    """`num_ticks` frames of the shot, uint8 (H, W, 3), without what an editor lays over it."""
    if shot.kind in ("black", "flat"):
        colour = (0, 0, 0) if shot.kind == "black" else _flat_colour(shot)
        for _ in range(num_ticks):
            yield np.full((height_px, width_px, 3), colour, dtype=np.uint8)
        return
    if shot.kind == "static":
        (still,) = render_frames(shot.scene, 1, width_px, height_px, float(fps))
        for _ in range(num_ticks):
            yield still.copy()
        return
    flashing = frozenset(flash_ticks(shot, num_ticks, fps))
    frames = render_frames(shot.scene, num_ticks, width_px, height_px, float(fps))
    for tick, frame in enumerate(frames):
        if tick in flashing:
            yield np.round(frame * np.float32(0.25) + np.float32(0.75 * 255)).astype(np.uint8)
        elif shot.kind == "blurred":
            yield cv2.GaussianBlur(frame, (0, 0), _BLUR_PART * height_px + 1)
        elif shot.kind == "shaky":
            yield _shaken(frame, shot.seed, float(tick / fps))
        else:
            yield frame


def flash_ticks(shot: ShotPlan, num_ticks: int, fps: Fraction) -> tuple[int, ...]:
    """The ticks of a take that a flash whitens: one or a few in a row, about twice a second."""
    if shot.kind != "flashes":
        return ()
    lasts = max(1, round(FLASH_S * fps))
    starts = itertools.takewhile(
        lambda tick: tick + lasts < num_ticks - 2,
        (round(FLASH_EVERY_S * (n + 0.6) * fps) for n in itertools.count()),
    )
    return tuple(tick for start in starts for tick in range(start, start + lasts))


def _shaken(frame_HWC: np.ndarray, seed: int, time_s: float) -> np.ndarray:
    """The view jerks about, a few times a second, by a twentieth of the frame."""
    phases = np.random.default_rng([seed, 3]).uniform(0, 2 * math.pi, 2)
    reach_px = _SHAKE_PART * frame_HWC.shape[1]
    dx, dy = (
        reach_px * math.sin(2 * math.pi * hz * time_s + phase)
        for hz, phase in zip(_SHAKE_HZ, phases, strict=True)
    )
    move = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]])
    size = (frame_HWC.shape[1], frame_HWC.shape[0])
    return cv2.warpAffine(frame_HWC, move, size, borderMode=cv2.BORDER_REFLECT_101)


def _flat_colour(shot: ShotPlan) -> tuple[int, ...]:
    return tuple(int(v) for v in np.random.default_rng([shot.seed, 4]).integers(60, 200, 3))
