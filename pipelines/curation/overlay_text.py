"""How much of the picture is covered by words that an editor laid over it.

Titles, captions and watermarks are lines of letters that stand still while the scene moves under
them (text_lines.py: two milliseconds a shot). A packaged text detector (RapidOCR) can be asked
instead: a quarter of a second a frame on one core, and it takes rings and squares for letters.

The default limit drops titles and captions; a watermark covers less of the picture than they do,
and is dropped by a limit near 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import cv2
import numpy as np

from pipelines.config import setting
from pipelines.curation.text_lines import text_lines
from pipelines.records import Clip


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
    covered = np.zeros(luma_frames[0].shape, np.uint8)
    for x, y, w, h in text_lines(luma_frames):
        covered[y : y + h, x : x + w] = 1
    return float(covered.mean())


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
