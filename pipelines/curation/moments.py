"""Moments: the few frames of a film that are looked at closely, chosen while it is decoded.

At a shot's start moments are dense, later sparser, so that a shot of a second and one of a minute
both have enough. What a moment keeps is small; when a long stretch has collected too many, every
other one is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from pipelines.curation.motion import Flow, flow_between
from pipelines.media import SmallPicture, TimedPicture

MAX_MOMENTS = 160
#: Seconds between moments: at the start of a shot, at most, and per second of its age.
_DENSE_S, _SPARSE_S, _GROWTH = 0.16, 0.5, 0.12
_FLOW_S = 0.12  # seconds between the two frames that motion is measured on
_FLOW_EVERY_S = 0.3  # seconds between measurements of motion, which cost half of a moment


@dataclass
class Moment:
    """One frame, looked at closely.

    `row_levels`, `column_levels`: mean luma of every line of pixels at full size. `flow`: motion
    from this frame to frame `flow_index`, None until (or unless) that frame has come.
    """

    index: int
    time_s: float
    picture: SmallPicture
    row_levels: np.ndarray
    column_levels: np.ndarray
    gray_HW: np.ndarray = field(repr=False)
    flow: Flow | None = None
    flow_index: int = -1


class MomentCollector:
    """Picks moments out of the stream of frames, and hands over those of a span."""

    def __init__(self, fps: float, sample_px: int) -> None:
        self._sample_px = sample_px
        self._flow_frames = max(1, round(_FLOW_S * fps))
        self._moments: list[Moment] = []
        self._waiting: list[Moment] = []
        self._shot_start, self._shot_start_s = 0, 0.0
        self._next_s = self._next_flow_s = 0.0

    def new_shot(self, index: int, time_s: float) -> None:
        """Says that a shot began at that frame, a few frames ago: its moments are dense.

        Those of its frames that were already picked, by the age of the shot before, are let go:
        a shot's moments depend on its own frames only.
        """
        self._shot_start, self._shot_start_s = index, time_s
        self._moments = [m for m in self._moments if m.index < index]
        self._waiting = [m for m in self._waiting if m.index < index]
        self._next_s = self._next_flow_s = time_s

    def push(self, timed: TimedPicture, bgr_HWC: np.ndarray) -> None:
        """`bgr_HWC` is the frame at the analysis size."""
        gray_HW: np.ndarray | None = None
        while self._waiting and timed.index >= self._waiting[0].index + self._flow_frames:
            moment = self._waiting.pop(0)
            gray_HW = cv2.cvtColor(bgr_HWC, cv2.COLOR_BGR2GRAY) if gray_HW is None else gray_HW
            moment.flow = flow_between(moment.gray_HW, gray_HW, timed.time_s - moment.time_s)
            moment.flow_index = timed.index
        if timed.time_s < self._next_s - 1e-6:
            return
        if gray_HW is None:
            gray_HW = cv2.cvtColor(bgr_HWC, cv2.COLOR_BGR2GRAY)
        rows, columns = timed.picture.line_means()
        small = timed.picture.small(self._sample_px)
        moment = Moment(timed.index, timed.time_s, small, rows, columns, gray_HW)
        self._moments.append(moment)
        if timed.time_s >= self._next_flow_s - 1e-6:
            self._waiting.append(moment)
            self._next_flow_s = timed.time_s + _FLOW_EVERY_S
        age_s = timed.time_s - self._shot_start_s
        self._next_s = timed.time_s + min(max(_DENSE_S, _GROWTH * age_s), _SPARSE_S)
        self._thin_out()

    def _thin_out(self) -> None:
        if len(self._moments) <= MAX_MOMENTS:
            return
        before = [m for m in self._moments if m.index < self._shot_start]
        of_shot = self._moments[len(before) :]
        if len(of_shot) > MAX_MOMENTS:
            self._moments = before + of_shot[::2]

    def take(self, start: int, end: int) -> list[Moment]:
        """The moments of frames [start, end); these and all earlier ones are forgotten.

        A flow that leaves the span is dropped: it compares two shots.
        """
        taken = [m for m in self._moments if start <= m.index < end]
        self._moments = [m for m in self._moments if m.index >= end]
        for moment in taken:
            if moment.flow_index >= end:
                moment.flow = None
        return taken
