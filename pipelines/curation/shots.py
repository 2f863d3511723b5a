"""Where one shot ends and the next begins: hard cuts while the film is decoded, fades and
dissolves between them.

Hard cuts come from PySceneDetect's AdaptiveDetector (its score against the frames around it),
fed with our small frames. Its two cuts at either side of a photographer's flash are taken back.
A gradual transition becomes a span of its own between two shots, so that the shots beside it hold
nothing of each other; the spans of a source tile it exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from pipelines.config import setting
from pipelines.curation.gradual import GradualConfig, find_gradual

THUMB_W, THUMB_H = 32, 18
_SCAN_AT_FRAMES = 4096  # thumbnails held at most: without a cut, transitions are then looked for


@dataclass(frozen=True)
class ShotsConfig:
    """How shot boundaries are found."""

    adaptive_ratio: float = setting(
        3.0, "a cut's change over the mean change of the frames around it", unit="ratio", low=1
    )
    min_change: float = setting(
        12.0, "least change of a cut, mean over hue, saturation and value", unit="levels", low=0
    )
    window_frames: int = setting(2, "frames on each side that a cut is compared with", low=1)
    min_shot_frames: int = setting(
        5,
        "a change sooner after a cut is no second one (real film, 129 cuts: F1 .972 with 2, .996)",
        unit="frames",
        low=1,
    )
    dim_levels: float = setting(
        45.0, "below, a change like the ones beside it is a step of a fade", unit="levels of 255"
    )
    flash_s: float = setting(
        0.25, "a picture that comes back after less is a flash, not two cuts", unit="s", low=0
    )
    flash_levels: float = setting(
        20.0, "brightness a flash adds or takes", unit="levels of 255", low=0
    )
    gradual: GradualConfig = field(default_factory=GradualConfig)


@dataclass(frozen=True)
class Span:
    """Frames [start, end). `kind` is shot, or the transition they show: fade, dissolve."""

    start: int
    end: int
    kind: str = "shot"


class QuickAdaptiveDetector(AdaptiveDetector):
    """PySceneDetect's adaptive detector with its frame score computed by one call of OpenCV.

    The same number (mean of the absolute differences of hue, saturation and value) in a third of
    the time; a test holds it against the original. 0.07 ms a frame becomes 0.02 ms.
    """

    _hsv_before: np.ndarray | None = None

    def _calculate_frame_score(self, timecode: FrameTimecode, frame_img: np.ndarray) -> float:
        hsv = cv2.cvtColor(frame_img, cv2.COLOR_BGR2HSV)
        before, self._hsv_before = self._hsv_before, hsv
        return 0.0 if before is None else cv2.norm(hsv, before, cv2.NORM_L1) / hsv.size


class ShotFinder:
    """Takes the frames of a film in order; gives its spans, in order, as they become certain.

    What it decides after a hard cut depends on nothing before that cut but the half second that
    shows the cut to be one: so a film can be entered in the middle (film.py).

    `new_cut` is the frame at which the newest frame pushed showed a cut that may turn out to be a
    flash; None most of the time. `last_cut` is the newest cut that is certain.
    """

    def __init__(self, fps: float, config: ShotsConfig, first_frame: int = 0) -> None:
        self._fps, self._config = fps, config
        self.new_cut: int | None = None
        self.last_cut: int | None = None
        self._detector = QuickAdaptiveDetector(
            adaptive_threshold=config.adaptive_ratio,
            min_scene_len=1,  # flashes are told by both their changes; ours comes after that
            window_width=config.window_frames,
            min_content_val=config.min_change,
        )
        self._flash_frames = max(1, round(config.flash_s * fps))
        self._start = first_frame  # first frame not yet given away
        self._levels: list[float] = []  # mean level of the frames from self._start on
        self._thumbs: list[np.ndarray] = []  # of as many of the last frames as are still needed
        self._cuts: list[int] = []  # found, but the frames that would make them flashes may come

    @property
    def num_frames(self) -> int:
        return self._start + len(self._levels)

    @property
    def _first_thumb(self) -> int:
        """The frame that the oldest thumbnail is of."""
        return self.num_frames - len(self._thumbs)

    def push(self, bgr_HWC: np.ndarray) -> Iterator[tuple[Span, np.ndarray]]:
        """The next frame. Gives spans that are now certain, each with its frames' mean levels
        (n,).
        """
        timecode = FrameTimecode(self.num_frames, self._fps)
        thumb = cv2.resize(bgr_HWC, (THUMB_W, THUMB_H), interpolation=cv2.INTER_AREA)
        self._thumbs.append(thumb)
        self._levels.append(sum(cv2.mean(thumb)) / 3)
        found = self._detector.process_frame(timecode, bgr_HWC)
        self.new_cut = found[-1].frame_num if found else None
        self._cuts += [cut.frame_num for cut in found]
        while self._cuts and self._cuts[0] + self._flash_frames < self.num_frames:
            yield from self._settle(self._cuts[0])
        if len(self._thumbs) >= _SCAN_AT_FRAMES and not self._cuts:
            yield from self._scan()

    def finish(self) -> Iterator[tuple[Span, np.ndarray]]:
        """The spans that are left at the end of the film."""
        while self._cuts:
            yield from self._settle(self._cuts[0])
        if self._levels:
            yield from self._give(self.num_frames)

    def _settle(self, cut: int) -> Iterator[tuple[Span, np.ndarray]]:
        self._cuts.pop(0)
        if self._is_fade(cut):
            return
        if flash_end := self._flash_end(cut):
            self._cuts = [other for other in self._cuts if other > flash_end]
        elif cut >= self._start + self._config.min_shot_frames:
            yield from self._give(cut)
            self.last_cut = cut

    def _is_fade(self, cut: int) -> bool:
        """Whether the change is one step of a slide to or from black, where hues are noise."""
        at = cut - self._start
        light = self._levels[max(0, at - 2) : at + 2]
        here = min(at, 2)
        if here < 1 or min(light[here - 1], light[here]) > self._config.dim_levels:
            return False
        steps = np.diff(light)
        step = steps[here - 1]
        around = [s for i, s in enumerate(steps) if i != here - 1]
        return any(s * step > 0 and abs(s) > 0.4 * abs(step) for s in around)

    def _flash_end(self, cut: int) -> int | None:
        """The frame at which the picture from before the cut is back, if the cut is a flash."""
        thumbs, at = self._thumbs, cut - self._first_thumb
        if at < 1:
            return None
        before, lit = thumbs[at - 1], thumbs[at]
        change = _distance(before, lit)
        if abs(float(lit.mean()) - float(before.mean())) < self._config.flash_levels:
            return None
        for later in range(at + 1, min(at + 1 + self._flash_frames, len(thumbs))):
            if _distance(before, thumbs[later]) < 0.35 * change:
                return self._first_thumb + later
        return None

    def _scan(self) -> Iterator[tuple[Span, np.ndarray]]:
        """Gives away what lies before the last transition of a long stretch without cuts, and
        forgets thumbnails that have been looked through: memory has a bound, whatever the film.
        """
        first = self._first_thumb
        found = find_gradual(np.stack(self._thumbs), self._fps, self._config.gradual)
        settled = [end for _, end, _ in found if end < len(self._thumbs) - _SCAN_AT_FRAMES // 4]
        if settled:
            yield from self._give(first + settled[-1])
        else:
            self._thumbs = self._thumbs[-_SCAN_AT_FRAMES // 2 :]

    def _give(self, end: int) -> Iterator[tuple[Span, np.ndarray]]:
        """The frames up to `end`, split at the gradual transitions among them."""
        first_thumb, start = self._first_thumb, self._start
        thumbs, levels = self._thumbs[: end - first_thumb], np.array(self._levels[: end - start])
        at = 0
        spans: list[tuple[int, int, str]] = []
        for first, last, kind in find_gradual(np.stack(thumbs), self._fps, self._config.gradual):
            first, last = first + first_thumb - start, last + first_thumb - start
            spans += [(at, first, "shot"), (first, last, kind)]
            at = last
        spans.append((at, len(levels), "shot"))
        self._thumbs = self._thumbs[len(thumbs) :]
        self._levels = self._levels[len(levels) :]
        self._start = end
        for first, last, kind in spans:
            if last > first:
                yield Span(start + first, start + last, kind), levels[first:last]


def _distance(a_HWC: np.ndarray, b_HWC: np.ndarray) -> float:
    """Mean absolute difference, in levels."""
    return float(cv2.norm(a_HWC, b_HWC, cv2.NORM_L1)) / a_HWC.size
