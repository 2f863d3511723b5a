"""Films with a known truth for measuring the judges: dressed ones, and copies of one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from pipelines.curation.watch import Watched, watch_file
from pipelines.curation.watch_config import WatchConfig
from pipelines.media import write_video
from pipelines.records import Source
from pipelines.world.catalogue import draw_world
from pipelines.world.draft import FilmSpec, draw_film
from pipelines.world.dressing import framed, watermark_layer
from pipelines.world.encodings import ENCODINGS, Encoding
from pipelines.world.films import write_film
from pipelines.world.plan import FilmPlan
from pipelines.world.scenes import Scene, random_scene, render_frames
from pipelines.world.truth import Box, FilmTruth

SIZES_PX = (
    *((320, 180), (480, 270), (640, 360), (854, 480), (1280, 720), (360, 640), (400, 300)),
    (1280, 536),
)
CODINGS = ("h264", "h264_low", "vp9", "mpeg4", "hevc", "mjpeg", "h264_mkv")
COPY_FPS = 12.0
_VERY_LOW = Encoding("h264", "libx264", "mp4", options=(("preset", "veryfast"), ("crf", "38")))


def watched(path: Path) -> Watched:
    source = Source(path.name, [path.name], path.stat().st_size)
    return watch_file(source, str(path), WatchConfig())


# --- films as the world cuts them, and dressed ones --------------------------------------------


def world_films(folder: Path, seed: int, count: int) -> Iterator[tuple[FilmTruth, Watched]]:
    """Films of the generated world: every kind of shot, transition, size, rate and coding."""
    for plan in draw_world("large", seed, count).plans:
        if not plan.is_still:
            yield _filmed(folder, plan)


def dressed_films(folder: Path, seed: int, count: int) -> Iterator[tuple[FilmTruth, Watched]]:
    """Short films in all sizes with bars of any breadth, captions and watermarks, or without."""
    rng = np.random.default_rng([seed, 99])
    for number in range(count):
        borders = str(rng.choice(("none", "letterbox", "pillarbox")))
        spec = FilmSpec(
            SIZES_PX[rng.integers(len(SIZES_PX))],
            Fraction(8),
            CODINGS[rng.integers(len(CODINGS))],
            good_shots=2,
            defects=("captioned",) if rng.random() < 0.6 else (),
            borders=borders,
            watermark=bool(rng.random() < 0.35),
        )
        plan = draw_film(spec, f"dressed-{number}", (seed, 5, number))
        share = 0.0 if borders == "none" else float(rng.uniform(0.04, 0.5))
        yield _filmed(folder, replace(plan, bar_share=share))


def _filmed(folder: Path, plan: FilmPlan) -> tuple[FilmTruth, Watched]:
    truth = write_film(plan, folder)
    path = folder / plan.file_name
    found = watched(path)
    path.unlink()
    return truth, found


# --- copies ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Copy:
    """One film of a scene: `group` is the scene, `how` what was done to it."""

    group: int
    how: str
    found: Watched


Frames = list[np.ndarray]


def copied_films(folder: Path, seed: int, kinds: int, per_kind: int) -> Iterator[Copy]:
    """`kinds` draws of shape, colour, motion, ground and camera, `per_kind` scenes of each.

    Scenes of one kind differ in their seed alone: they are the hard negatives. Of the first of
    each all copies are made, of the others some.
    """
    rng = np.random.default_rng([seed, 55])
    for kind in range(kinds):
        like = random_scene(rng)
        for number in range(per_kind):
            scene: Scene = replace(like, seed=int(rng.integers(2**31)))
            size = SIZES_PX[rng.integers(3)]
            frames = list(
                render_frames(scene, int(COPY_FPS * rng.uniform(1.8, 3.0)), *size, COPY_FPS)
            )
            for how, make in COPIES.items():
                if number and how != "original" and rng.random() < 0.6:
                    continue
                made, fps, coding = make(frames, rng)
                path = folder / f"copy.{coding.extension}"
                write_video(
                    path, made, fps=fps, codec=coding.codec, pix_fmt=coding.pix_fmt,
                    options=dict(coding.options),
                )  # fmt: skip
                yield Copy(kind * per_kind + number, how, watched(path))
                path.unlink()


def _coded(name: str) -> Callable[[Frames, np.random.Generator], tuple[Frames, float, Encoding]]:
    coding = _VERY_LOW if name == "very low" else ENCODINGS[name]
    return lambda frames, rng: (frames, COPY_FPS, coding)


def _changed(
    change: Callable[[Frames, np.random.Generator], Frames], coding: str = "h264"
) -> Callable[[Frames, np.random.Generator], tuple[Frames, float, Encoding]]:
    return lambda frames, rng: (change(frames, rng), COPY_FPS, ENCODINGS[coding])


def _slower(frames: Frames, rng: np.random.Generator) -> tuple[Frames, float, Encoding]:
    chosen = [frames[min(len(frames) - 1, round(i * 1.5))] for i in range(len(frames) * 2 // 3)]
    return chosen, COPY_FPS / 1.5, ENCODINGS["hevc"]


def _resized(frames: Frames, width: int, height: int) -> Frames:
    return [cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in frames]


def _half(frames: Frames, rng: np.random.Generator) -> Frames:
    height, width = frames[0].shape[:2]
    return _resized(frames, width // 4 * 2, height // 4 * 2)


def _squeezed_into_bars(frames: Frames, rng: np.random.Generator) -> Frames:
    height, width = frames[0].shape[:2]
    inner = height * 4 // 10 * 2
    box = Box(0, (height - inner) // 4 * 2, width, inner)
    return [framed(f, box, width, height) for f in _resized(frames, width, inner)]


def _between_bars(frames: Frames, rng: np.random.Generator) -> Frames:
    height, width = frames[0].shape[:2]
    return [framed(f, Box(0, 40, width, height), width, height + 80) for f in frames]


def _watermarked(frames: Frames, rng: np.random.Generator) -> Frames:
    height, width = frames[0].shape[:2]
    layer = watermark_layer("SAMPLE TV", int(rng.integers(4)), width, height)
    marked = [frame.copy() for frame in frames]
    for frame in marked:
        layer.paste(frame)
    return marked


def _lit(frames: Frames, rng: np.random.Generator) -> Frames:
    gain, lift = float(rng.choice((0.8, 1.2))), float(rng.uniform(-12, 12))
    return [np.clip(f * np.float32(gain) + lift, 0, 255).astype(np.uint8) for f in frames]


def _enlarged(frames: Frames, rng: np.random.Generator) -> Frames:
    """Four hundredths cut off each side."""
    height, width = frames[0].shape[:2]
    y, x = height // 25, width // 25
    return _resized([f[y : height - y, x : width - x] for f in frames], width, height)


COPIES: dict[str, Callable[[Frames, np.random.Generator], tuple[Frames, float, Encoding]]] = {
    "original": _coded("h264"),
    "mpeg4": _coded("mpeg4"),
    "very low bitrate": _coded("very low"),
    "half size, vp9": _changed(_half, "vp9"),
    "two thirds of the frames, hevc": _slower,
    "start cut off": _changed(lambda frames, rng: frames[max(1, len(frames) // 12) :]),
    "both ends cut off": _changed(
        lambda frames, rng: frames[len(frames) // 20 + 1 : -(len(frames) // 20 + 1)]
    ),
    "squeezed between bars": _changed(_squeezed_into_bars),
    "between bars, low bitrate": _changed(_between_bars, "h264_low"),
    "watermark": _changed(_watermarked),
    "other brightness": _changed(_lit),
    "enlarged": _changed(_enlarged),
}
