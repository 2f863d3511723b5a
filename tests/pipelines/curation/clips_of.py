"""Rows for the tests of the judges: a good clip, and what differs from it."""

from __future__ import annotations

from typing import Any

from pipelines.records import Clip, clip_id_of


def a_clip(number: int = 0, **changes: Any) -> Clip:
    """Clip `number`: two seconds of 1280x720 at 25 fps that nothing is wrong with."""
    source_id = changes.pop("source_id", f"{number:032x}")
    start, end = changes.pop("start_frame", 0), changes.pop("end_frame", 50)
    row: dict[str, Any] = {
        "clip_id": clip_id_of(source_id, start, end),
        "source_id": source_id,
        "kind": "video",
        "shot_index": 0,
        "start_frame": start,
        "end_frame": end,
        "start_s": start / 25,
        "end_s": end / 25,
        "fps": 25.0,
        "width_px": 1280,
        "height_px": 720,
        "crop_x_px": 0,
        "crop_y_px": 0,
        "crop_w_px": 1280,
        "crop_h_px": 720,
    }
    return Clip(**{**row, **changes})
