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
_SCAN_AT_FRAMES = 4096  # look for gradual transitions at least this often, to free memory


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
    min_shot_frames: int = setting(2, "shorter shots are not told apart", unit="frames", low=1)
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


class ShotFinder:
    """Takes the frames of a film in order; gives its spans, in order, as they become certain."""

    def __init__(self, fps: float, config: ShotsConfig) -> None:
        self._fps, self._config = fps, config
        self._detector = AdaptiveDetector(
            adaptive_threshold=config.adaptive_ratio,
            min_scene_len=config.min_shot_frames,
            window_width=config.window_frames,
            min_content_val=config.min_change,
        )
        self._flash_frames = max(1, round(config.flash_s * fps))
        self._start = 0  # first frame not yet given away
        self._thumbs: list[np.ndarray] = []  # of frames from self._start on
        self._cuts: list[int] = []  # found, but the frames that would make them flashes may come
        self._scan_at = _SCAN_AT_FRAMES

    @property
    def num_frames(self) -> int:
        return self._start + len(self._thumbs)

    def push(self, bgr_HWC: np.ndarray) -> Iterator[tuple[Span, np.ndarray]]:
        """The next frame. Gives spans that are now certain, each with its frames' thumbnails
        (n, THUMB_H, THUMB_W, 3) uint8.
        """
        timecode = FrameTimecode(self.num_frames, self._fps)
        self._thumbs.append(cv2.resize(bgr_HWC, (THUMB_W, THUMB_H), interpolation=cv2.INTER_AREA))
        found = self._detector.process_frame(timecode, bgr_HWC)
        self._cuts += [cut.frame_num for cut in found]
        while self._cuts and self._cuts[0] + self._flash_frames < self.num_frames:
            yield from self._settle(self._cuts[0])
        if len(self._thumbs) >= self._scan_at and not self._cuts:
            yield from self._scan()

    def finish(self) -> Iterator[tuple[Span, np.ndarray]]:
        """The spans that are left at the end of the film."""
        while self._cuts:
            yield from self._settle(self._cuts[0])
        if self._thumbs:
            yield from self._give(self.num_frames)

    def _settle(self, cut: int) -> Iterator[tuple[Span, np.ndarray]]:
        self._cuts.pop(0)
        if self._is_fade(cut):
            return
        if flash_end := self._flash_end(cut):
            self._cuts = [other for other in self._cuts if other > flash_end]
        elif cut > self._start:
            yield from self._give(cut)

    def _is_fade(self, cut: int) -> bool:
        """Whether the change is one step of a slide to or from black, where hues are noise."""
        at = cut - self._start
        light = [float(t.mean()) for t in self._thumbs[max(0, at - 2) : at + 2]]
        here = min(at, 2)
        if here < 1 or min(light[here - 1], light[here]) > self._config.dim_levels:
            return False
        steps = np.diff(light)
        step = steps[here - 1]
        around = [s for i, s in enumerate(steps) if i != here - 1]
        return any(s * step > 0 and abs(s) > 0.4 * abs(step) for s in around)

    def _flash_end(self, cut: int) -> int | None:
        """The frame at which the picture from before the cut is back, if the cut is a flash."""
        thumbs, at = self._thumbs, cut - self._start
        if at < 1:
            return None
        before, lit = thumbs[at - 1], thumbs[at]
        change = _distance(before, lit)
        if abs(float(lit.mean()) - float(before.mean())) < self._config.flash_levels:
            return None
        for later in range(at + 1, min(at + 1 + self._flash_frames, len(thumbs))):
            if _distance(before, thumbs[later]) < 0.35 * change:
                return self._start + later
        return None

    def _scan(self) -> Iterator[tuple[Span, np.ndarray]]:
        """Gives away what lies before the last transition of a long stretch without cuts."""
        self._scan_at *= 2
        found = find_gradual(np.stack(self._thumbs), self._fps, self._config.gradual)
        settled = [end for _, end, _ in found if end < len(self._thumbs) - _SCAN_AT_FRAMES // 4]
        if settled:
            self._scan_at = _SCAN_AT_FRAMES
            yield from self._give(self._start + settled[-1])

    def _give(self, end: int) -> Iterator[tuple[Span, np.ndarray]]:
        """The frames up to `end`, split at the gradual transitions among them."""
        thumbs = np.stack(self._thumbs[: end - self._start])
        at = 0
        spans: list[tuple[int, int, str]] = []
        for first, last, kind in find_gradual(thumbs, self._fps, self._config.gradual):
            spans += [(at, first, "shot"), (first, last, kind)]
            at = last
        spans.append((at, len(thumbs), "shot"))
        for first, last, kind in spans:
            if last > first:
                yield Span(self._start + first, self._start + last, kind), thumbs[first:last]
        self._thumbs = self._thumbs[len(thumbs) :]
        self._start = end


def _distance(a_HWC: np.ndarray, b_HWC: np.ndarray) -> float:
    """Mean absolute difference, in levels."""
    return float(cv2.norm(a_HWC, b_HWC, cv2.NORM_L1)) / a_HWC.size
