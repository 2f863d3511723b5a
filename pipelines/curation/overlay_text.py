"""How much of the picture is covered by words that an editor laid over it.

Titles, captions and watermarks stand still while the scene moves under them, and letters are
rows of strong, close, upright strokes. Both are measured on a few frames, in about a millisecond.
A packaged text detector (RapidOCR) can be asked instead: a quarter of a second a frame on one
core, and it takes rings and squares for letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import cv2
import numpy as np

from pipelines.config import setting
from pipelines.records import Clip

_STROKE_LEVELS = 70.0  # how much a letter differs from its ground, at least
_LINE_W, _LINE_H = 17, 5  # gaps between strokes that still are one line of text, px


@dataclass(frozen=True)
class OverlayTextConfig:
    """How much overlay text is too much."""

    max_text_area: float = setting(
        0.04, "more is a title or a caption", unit="share of the picture", low=0, high=1
    )


@dataclass(frozen=True)
class TextMeasureConfig:
    """How text is looked for."""

    method: Literal["strokes", "rapidocr", "off"] = setting(
        "strokes", "strokes: quick, standing text; rapidocr: any text, 0.3 s a shot; off: null"
    )


def judge(clip: Clip, config: OverlayTextConfig) -> Clip:
    """Drops clips with too much overlay text; what was not measured is not judged."""
    if clip.text_area is not None and clip.text_area > config.max_text_area:
        return clip.dropped("overlay_text", "overlay_text")
    return clip


def text_area(luma_frames: Sequence[np.ndarray], config: TextMeasureConfig) -> float | None:
    """Share of the picture under text, from frames (h, w) uint8 of one shot; None when off."""
    if config.method == "off" or not luma_frames:
        return None
    if config.method == "rapidocr":
        return _area_by_ocr(luma_frames[len(luma_frames) // 2])
    return float(sum(w * h for _, _, w, h in text_lines(luma_frames))) / luma_frames[0].size


def text_lines(luma_frames: Sequence[np.ndarray]) -> list[tuple[int, int, int, int]]:
    """Boxes (x, y, w, h) in px of lines of standing text."""
    strokes = np.min([_stroke_strength(luma) for luma in luma_frames], axis=0)
    mask = (strokes > _STROKE_LEVELS).astype(np.uint8)
    joined = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((_LINE_H, _LINE_W), np.uint8))
    count, _, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=4)
    lines = (tuple(int(v) for v in box[:4]) for box in boxes[1:count])
    return [line for line in lines if _reads_like_text(mask, line)]  # type: ignore[arg-type,misc]


def _stroke_strength(luma_HW: np.ndarray) -> np.ndarray:
    """How much a thin upright stroke stands out: the smaller of its two edges' heights."""
    wide = luma_HW.astype(np.int16)
    reach = 3
    left = np.zeros_like(wide)
    right = np.zeros_like(wide)
    left[:, reach:] = wide[:, reach:] - wide[:, :-reach]
    right[:, :-reach] = wide[:, :-reach] - wide[:, reach:]
    bright = np.minimum(left, right)
    dark = np.minimum(-left, -right)
    return np.maximum(bright, dark).astype(np.float32)


def _reads_like_text(mask: np.ndarray, box: tuple[int, int, int, int]) -> bool:
    """Wide, not tall, and crossed by many strokes, evenly."""
    x, y, w, h = box
    if w < 1.5 * h or h < 5 or w < 16 or h > mask.shape[0] // 4:
        return False
    inside = mask[y : y + h, x : x + w]
    filled = float(inside.mean())
    crossings = np.abs(np.diff(inside.astype(np.int8), axis=1)).sum(axis=1) / 2
    strokes_per_height = float(np.median(crossings[h // 4 : h - h // 4])) * h / w
    return 0.1 < filled < 0.75 and strokes_per_height > 0.6


@cache
def _ocr() -> Any:
    from rapidocr_onnxruntime import RapidOCR

    return RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)


def _area_by_ocr(luma_HW: np.ndarray) -> float:
    """Share of the picture inside the detector's boxes."""
    boxes, _ = _ocr().text_det(np.repeat(luma_HW[..., None], 3, axis=-1))
    covered = np.zeros(luma_HW.shape, np.uint8)
    for box in boxes if boxes is not None else ():
        cv2.fillPoly(covered, [np.asarray(box, dtype=np.int32)], 1)
    return float(covered.mean())
