"""Does a finished clip hold its shot's frames, all of them and nothing else?

The clip is decoded and its frames near both ends are compared with the source's, found there by
their times, whatever way the clip was cut. A frame leaks when a frame from outside the span is
clearly more like it than the one that belongs in its place. Frames that do not differ (a still
scene) can't be told apart by anybody and count as right.

That costs a decode of the clip and, at each end, from the source's last keyframe; so it is done for
a share of the clips, chosen by their ids: the same ones in every run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from pipelines.media import (
    Crop,
    CutOrder,
    FrameSpan,
    MediaError,
    Picture,
    opened_pictures,
    pictures_between,
)
from pipelines.media.picture import even_size, shrunk

EDGE_FRAMES = 8  # compared at each end, on both sides of it
THUMB_PX = 160
FULL_SIZE_PX = 1 << 16
#: Mean difference of luma (of 255) that coding at a usual quality does not make in a thumbnail.
MARGIN = 0.5


@dataclass(frozen=True)
class Leak:
    """`leak_frames` of the clip are not the span's; `lost_frames` of the span are not where they
    belong in the clip."""

    leak_frames: int = 0
    lost_frames: int = 0

    @property
    def is_clean(self) -> bool:
        return not (self.leak_frames or self.lost_frames)


def is_chosen(clip_id: str, share: float) -> bool:
    """True for that share of all ids."""
    digest = hashlib.sha256(f"leak:{clip_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def measure_leak(source: Path, order: CutOrder) -> Leak:
    """Compares the clip, at `order.out`, with the source around its ends. Raises MediaError."""
    count = order.span.num_frames
    shown, thumbs = _thumbs_of_clip(order.out, count)
    leaks, lost = max(shown - count, 0), max(count - shown, 0)
    inside = _thumbs_inside(source, order)
    if not inside:
        raise MediaError("cut_failed", f"the source shows nothing from {order.span.start_s} s")
    own = {n: _difference(thumbs[n], inside[n]) for n in thumbs.keys() & inside.keys()}
    doubtful = [n for n, difference in own.items() if difference > MARGIN]
    outside = _thumbs_outside(source, order) if doubtful else []
    for number in doubtful:
        others = [thumb for place, thumb in inside.items() if place != number]
        from_outside = _least_difference(thumbs[number], outside)
        from_inside = _least_difference(thumbs[number], others)
        if 2 * min(from_outside, from_inside) + MARGIN < own[number]:
            leaks += from_outside <= from_inside
            lost += from_inside < from_outside
    return Leak(leaks, lost)


def _thumbs_of_clip(clip: Path, num_frames: int) -> tuple[int, dict[int, np.ndarray]]:
    """How many frames it has, and those near both ends if it should have `num_frames`."""
    thumbs, count = {}, 0
    with opened_pictures(clip) as stream:
        for timed in stream.pictures():
            count += 1
            if timed.index < EDGE_FRAMES or num_frames - EDGE_FRAMES <= timed.index < num_frames:
                thumbs[timed.index] = _thumb(timed.picture, None)
    return count, thumbs


def _thumbs_inside(source: Path, order: CutOrder) -> dict[int, np.ndarray]:
    """The source's frames near both ends of the span, by their number in the clip."""
    span, reach_s = order.span, _reach_s(order.span)
    early = (span.start_s, min(span.start_s + reach_s, span.end_s))
    late = (max(span.end_s - reach_s, span.start_s), span.end_s)
    begins, ends = _thumbs_between(source, (early, late), order.crop)
    first_of_ends = span.num_frames - len(ends)
    found = {number: thumb for number, thumb in enumerate(begins) if number < span.num_frames}
    return found | {first_of_ends + at: thumb for at, thumb in enumerate(ends)}


def _thumbs_outside(source: Path, order: CutOrder) -> list[np.ndarray]:
    """The source's frames just before and just after the span."""
    span, reach_s = order.span, _reach_s(order.span)
    before = (span.start_s - reach_s, span.start_s)
    after = (span.end_s, span.end_s + reach_s)
    return list(chain(*_thumbs_between(source, (before, after), order.crop)))


def _reach_s(span: FrameSpan) -> float:
    return EDGE_FRAMES * (span.end_s - span.start_s) / span.num_frames


def _thumbs_between(
    source: Path, ranges_s: Sequence[tuple[float, float]], crop: Crop | None
) -> list[list[np.ndarray]]:
    """One list for each range."""
    found: list[list[np.ndarray]] = [[] for _ in ranges_s]
    for number, _, picture in pictures_between(source, ranges_s):
        found[number].append(_thumb(picture, crop))
    return found


def _thumb(picture: Picture, crop: Crop | None) -> np.ndarray:
    """Upright luma (h, w) inside the crop, small; float32, 0 black .. 255 white."""
    small = picture.small(FULL_SIZE_PX if crop else THUMB_PX)
    luma_HW = np.rot90(small.luma, small.quarter_turns)
    if crop:
        # As a cut does it: from an even corner, of an even size.
        x, y, w, h = (side // 2 * 2 for side in (crop.x_px, crop.y_px, crop.w_px, crop.h_px))
        size_px = even_size(w, h, THUMB_PX)
        luma_HW = shrunk(np.ascontiguousarray(luma_HW[y : y + h, x : x + w]), *size_px)
    levels = luma_HW.astype(np.float32)
    return levels if small.full_range else (levels - 16) * (255 / 219)


def _least_difference(thumb: np.ndarray, others: Sequence[np.ndarray]) -> float:
    return min((_difference(thumb, other) for other in others), default=float("inf"))


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over the picture, in levels of 255."""
    return float(np.abs(a - b).mean())
