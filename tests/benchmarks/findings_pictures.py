"""Frames of the miniature side by side: for a few clips, a row for the truth and each variant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipelines.evaluation.clips import true_frames
from pipelines.media import read_clip_frames, write_image
from pipelines.records import Clip, from_row
from pipelines.storage import Store

ROWS = ("cascade", "single", "full", "no_content", "no_detail", "text_only", "image_only", "turned")
CLIPS = 3
FRAME_PX = (112, 64)


def write_pictures(
    work: Path, held_set: Path, out: Path, frames: int, fps: float
) -> dict[str, Any]:
    """clip-0.png ... and what findings.json says of them: captions, and the rows from above."""
    there = [name for name in ROWS if _evaluation(work, name).exists()]
    videos = json.loads(_evaluation(work, there[0]).read_text())["videos"]
    first_seed = min(video["seed"] for video in videos)
    chosen = [video for video in videos if video["seed"] == first_seed][:CLIPS]
    dataset = Store.open(str(held_set))
    table = dataset.read_table("clips.parquet").drop_columns(["embedding"]).to_pylist()
    clips = {row["clip_id"]: from_row(Clip, row) for row in table}
    files = []
    for number, video in enumerate(chosen):
        truth_FHWC = true_frames(dataset, clips[video["clip_id"]], *FRAME_PX, fps, frames)
        rows = [truth_FHWC] if truth_FHWC is not None else []
        rows += [_frames(_evaluation(work, name).parent / video["video"], fps) for name in there]
        name = f"clip-{number}.png"
        write_image(out / name, _sheet(rows))
        files.append({"file": name, "caption": video["caption"], "truth": truth_FHWC is not None})
    return {"rows": there, "files": files}


def _evaluation(work: Path, name: str) -> Path:
    return work / "evaluations" / name / "evaluation.json"


def _frames(video: Path, fps: float) -> np.ndarray:
    return read_clip_frames(video, fps=fps, width_px=FRAME_PX[0], height_px=FRAME_PX[1])


def _sheet(rows: list[np.ndarray]) -> np.ndarray:
    """Frames from left to right, rows from above, with lines between."""
    bordered = [
        [cv2.copyMakeBorder(f, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for f in row]
        for row in rows
    ]
    return np.concatenate([np.concatenate(row, axis=1) for row in bordered], axis=0)
