"""Everything that is measured on one shot, once it is known where it begins and ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipelines.curation.borders import BordersConfig, find_crop
from pipelines.curation.moments import Moment
from pipelines.curation.motion import Flow, summary
from pipelines.curation.overlay_text import TextMeasureConfig, text_area
from pipelines.curation.phash import FRAMES as HASHED_FRAMES
from pipelines.curation.phash import clip_hash
from pipelines.curation.quality import Look, count_flashes, look_of, median_look
from pipelines.curation.shots import Span
from pipelines.curation.single_shot import colour_signature, single_shot_score
from pipelines.media import Crop, jpeg_bytes

#: Where in a shot the frames are taken that the models see: not at its ends, where it may fade.
SAMPLE_SHARES = (0.15, 0.5, 0.85)
_LOOKS = 5  # frames that sharpness, brightness and contrast are the median of
_TRANSITION_SCORE = 0.0


@dataclass(frozen=True)
class Measured:
    """The signals of one shot; None where nothing was measured. `crop` None: the whole picture."""

    crop: Crop | None = None
    motion: Flow | None = None
    look: Look | None = None
    flashes_per_s: float | None = None
    text_area: float | None = None
    single_shot: float | None = None
    phash: str | None = None
    jpegs: list[bytes] = field(default_factory=list)


@dataclass(frozen=True)
class ShotMeasurer:
    """Measures shots of one source. `fps` 0: a still."""

    fps: float
    borders: BordersConfig
    text: TextMeasureConfig
    jpeg_quality: int

    def __call__(self, span: Span, levels_N: np.ndarray, moments: Sequence[Moment]) -> Measured:
        """`levels_N` is the mean level of each of the span's frames; `moments` lie inside it."""
        if span.kind != "shot":
            return Measured(single_shot=_TRANSITION_SCORE)
        if not moments:
            return Measured()
        crop = find_crop(
            [m.row_levels for m in moments], [m.column_levels for m in moments], self.borders
        )
        chosen = nearest(moments, span, SAMPLE_SHARES)
        looked_at = nearest(moments, span, _spread(_LOOKS))
        hashed = nearest(moments, span, _spread(HASHED_FRAMES))
        wanted = {m.index: m for m in (*chosen, *looked_at, *hashed)}
        lumas = {i: _cropped(m.picture.luma_HW(), crop, m) for i, m in wanted.items()}
        pictures = [_cropped(m.picture.rgb_HWC(), crop, m) for m in _distinct(chosen)]
        return Measured(
            crop=crop,
            motion=summary([m.flow for m in moments if m.flow is not None]),
            look=median_look([look_of(lumas[m.index]) for m in _distinct(looked_at)]),
            flashes_per_s=self._flashes_per_s(levels_N),
            text_area=text_area([lumas[m.index] for m in _distinct(chosen)], self.text),
            single_shot=self._single_shot(moments),
            phash=clip_hash([lumas[m.index] for m in hashed], pictures),
            jpegs=[jpeg_bytes(picture, quality=self.jpeg_quality) for picture in pictures],
        )

    def _flashes_per_s(self, levels_N: np.ndarray) -> float | None:
        if not self.fps:
            return None
        return count_flashes(levels_N, self.fps) * self.fps / len(levels_N)

    def _single_shot(self, moments: Sequence[Moment]) -> float | None:
        if not self.fps:
            return None
        return single_shot_score([colour_signature(m.picture.planes()) for m in moments])


def nearest(moments: Sequence[Moment], span: Span, shares: Sequence[float]) -> list[Moment]:
    """For each share of the span's length the moment nearest to it; one may serve several."""
    targets = [span.start + share * (span.end - 1 - span.start) for share in shares]
    return [min(moments, key=lambda m: (abs(m.index - at), m.index)) for at in targets]


def _spread(count: int) -> list[float]:
    return [(i + 0.5) / count for i in range(count)]


def _distinct(moments: Sequence[Moment]) -> list[Moment]:
    return list({m.index: m for m in moments}.values())


def _cropped(image: np.ndarray, crop: Crop, moment: Moment) -> np.ndarray:
    """The crop (displayed px) of a small picture, rounded inwards."""
    height, width = image.shape[:2]
    down, across = height / len(moment.row_levels), width / len(moment.column_levels)
    top, left = int(np.ceil(crop.y_px * down)), int(np.ceil(crop.x_px * across))
    bottom = int((crop.y_px + crop.h_px) * down)
    right = int((crop.x_px + crop.w_px) * across)
    return np.ascontiguousarray(image[top : max(bottom, top + 1), left : max(right, left + 1)])
