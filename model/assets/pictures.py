"""Training pictures: frames of random scenes, spoiled the way real films spoil them."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from pipelines.world.scenes import SCENE_SECONDS, Scene, random_scene, render_frames

_ASPECTS = (16 / 9, 16 / 9, 4 / 3, 2.35, 1.0, 9 / 16)


def scene_frame(scene: Scene, rng: np.random.Generator, size_px: tuple[int, int]) -> np.ndarray:
    """One frame (H, W, 3) of a scene at a random time; `size_px` is (width, height)."""
    return _at(scene, rng.uniform(0.05, SCENE_SECONDS), size_px)


def _at(scene: Scene, time_s: float, size_px: tuple[int, int]) -> np.ndarray:
    # At a rate of 1 / time, the second frame is the one at `time`: nothing in between is drawn.
    return list(render_frames(scene, 2, *size_px, fps=1 / time_s))[1]


def random_size(rng: np.random.Generator, low_px: int, high_px: int) -> tuple[int, int]:
    """(width, height) of a common aspect, the shorter side between the bounds."""
    aspect = _ASPECTS[int(rng.integers(len(_ASPECTS)))]
    short_px = int(rng.integers(low_px, high_px + 1))
    if aspect < 1:
        return short_px, round(short_px / aspect)
    return round(short_px * aspect), short_px


def film_frame(rng: np.random.Generator) -> tuple[Scene, np.ndarray, np.ndarray]:
    """A random scene, a frame of it as a film would show it, and the object's mask there.

    The frame (H, W, 3) has bars, text, blur and artefacts; the mask (H, W) is 255 on the object.
    """
    scene = random_scene(rng)
    size_px, time_s = random_size(rng, 64, 180), rng.uniform(0.05, SCENE_SECONDS)
    frame = _at(scene, time_s, size_px)
    layers = np.dstack([frame, _mask(scene, time_s, size_px)])
    if rng.random() < 0.25:
        layers = _inner_crop(layers, rng)
    if rng.random() < 0.25:
        layers = _borders(layers, rng)
    frame, mask = np.ascontiguousarray(layers[..., :3]), layers[..., 3]
    if rng.random() < 0.2:
        frame = _caption_bar(frame, rng)
    if rng.random() < 0.2:
        frame = _watermark(frame, rng)
    if rng.random() < 0.4:
        frame = _tone(frame, rng)
    if rng.random() < 0.35:
        frame = _soften(frame, rng)
    if rng.random() < 0.7:
        frame = jpeg(frame, int(rng.integers(35, 96)))
    return scene, frame, mask


def _mask(scene: Scene, time_s: float, size_px: tuple[int, int]) -> np.ndarray:
    """Where the frame changes when only the object's colour does."""
    one, other = (
        _at(replace(scene, colour=colour, background="gradient"), time_s, size_px)
        for colour in ("white", "red")
    )
    return np.clip(cv2.absdiff(one, other)[..., 1].astype(np.int32) * 3 // 2, 0, 255).astype(
        np.uint8
    )


def jpeg(frame: np.ndarray, quality: int) -> np.ndarray:
    """The frame after one round of lossy compression."""
    _, encoded = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None, "a JPEG that was just written is readable"
    return np.ascontiguousarray(decoded[..., ::-1])


def _inner_crop(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Up to 6 % off each side, as a crop to another aspect or of detected borders takes."""
    height_px, width_px = frame.shape[:2]
    top, bottom = (int(rng.uniform(0, 0.06) * height_px) for _ in range(2))
    left, right = (int(rng.uniform(0, 0.06) * width_px) for _ in range(2))
    return np.ascontiguousarray(frame[top : height_px - bottom, left : width_px - right])


def _borders(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height_px, width_px = frame.shape[:2]
    rows = int(rng.uniform(0, 0.18) * height_px) if rng.random() < 0.6 else 0
    columns = int(rng.uniform(0, 0.2) * width_px) if rng.random() < 0.6 else 0
    black = [*[int(rng.integers(0, 17))] * 3, 0]
    return cv2.copyMakeBorder(frame, rows, rows, columns, columns, cv2.BORDER_CONSTANT, value=black)


def _caption_bar(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    frame = frame.copy()
    height_px, width_px = frame.shape[:2]
    top = int(height_px * rng.uniform(0.8, 0.9))
    shade = int(rng.integers(0, 60))
    frame[top:] = (frame[top:] * rng.uniform(0, 0.5)).astype(np.uint8) + shade // 2
    _write(frame, rng, (int(0.05 * width_px), int(0.5 * (top + height_px)) + 3))
    return frame


def _watermark(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height_px, width_px = frame.shape[:2]
    marked = frame.copy()
    x = int(width_px * rng.choice([0.03, 0.62]))
    y = int(height_px * rng.choice([0.12, 0.94]))
    _write(marked, rng, (x, y))
    return cv2.addWeighted(frame, 0.4, marked, 0.6, 0)


def _write(frame: np.ndarray, rng: np.random.Generator, at_px: tuple[int, int]) -> None:
    letters = "".join(chr(int(c)) for c in rng.integers(65, 91, int(rng.integers(4, 18))))
    scale = frame.shape[0] / 300
    ink = (int(rng.integers(170, 256)),) * 3
    cv2.putText(frame, letters, at_px, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)


def _tone(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gamma and level: films are graded, and fade."""
    curve = (np.arange(256) / 255.0) ** rng.uniform(0.75, 1.35) * rng.uniform(0.65, 1.0)
    return np.round(255 * curve).astype(np.uint8)[frame]


def _soften(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height_px, width_px = frame.shape[:2]
    if rng.random() < 0.5:
        return cv2.GaussianBlur(frame, (0, 0), rng.uniform(0.4, 1.4) * height_px / 100)
    small_px = max(40, round(height_px * rng.uniform(0.4, 0.9)))
    small = cv2.resize(
        frame, (round(width_px * small_px / height_px), small_px), interpolation=cv2.INTER_AREA
    )
    return cv2.resize(small, (width_px, height_px), interpolation=cv2.INTER_LINEAR)
