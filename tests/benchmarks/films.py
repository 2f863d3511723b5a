"""The films that the curation benchmarks run on: real clips, and a long montage of them at 720p."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipelines.media import read_clip_frames, write_video
from tests.pipelines.pictures import real_clip

WIDTH_PX, HEIGHT_PX, FPS = 1280, 720, 25


def montage(path: Path, seconds: float) -> Path:
    """1280x720 H.264 (x264 medium, B-frames): 1 to 4 s of two real clips in turn, hard cuts."""
    takes = [
        read_clip_frames(real_clip(name), fps=FPS, width_px=WIDTH_PX, height_px=HEIGHT_PX)
        for name in ("bigbuckbunny.mp4", "bikes.mp4")
    ]

    def frames() -> Iterator[np.ndarray]:
        rng = np.random.default_rng(0)
        left = round(seconds * FPS)
        while left > 0:
            take = takes[int(rng.integers(len(takes)))]
            length = min(left, int(rng.integers(FPS, 4 * FPS)), len(take) - 1)
            start = int(rng.integers(len(take) - length))
            yield from take[start : start + length]
            left -= length

    write_video(path, frames(), fps=FPS, options={"preset": "medium", "crf": "20"}, threads=2)
    return path
