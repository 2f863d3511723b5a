"""The miniature's footage: films whose shots vary in few ways, so that little has to be learned.

Fixed: four shapes, a plain gradient behind them, a camera that stands still, hard cuts, one size
and rate. Varied: colour, shape, place, size, tints, and the direction the object travels in.

The world's scenes place an object where its travel has room: what moves right begins on the left,
so a first frame gives its motion away, and a network need not read the prompt to be right. With
`free_starts` shots are shorter and shifted at random as far as the object stays in the picture, so
that only the prompt tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from pipelines.media import write_video
from pipelines.world.encodings import ENCODINGS
from pipelines.world.films import write_film
from pipelines.world.plan import FilmPlan, ShotPlan
from pipelines.world.scenes import COLOURS, Scene, object_placement, render_frames

SHAPES = ("circle", "square", "ring", "cross")
MOTIONS = ("left", "right", "up", "down")
SIZE_PX, FPS = (224, 128), 16
SHOT_TICKS = 46  # 2.9 s: within the four seconds that a scene travels
FREE_SHOT_TICKS = 28  # a little over what a sample of four frames at 2 frames/s needs
_REACH = 0.62  # of an object from its middle, in its size


def write_footage(
    folder: Path, *, seed: int, films: int, shots: int, free_starts: bool = False
) -> None:
    """`films` films of `shots` shots each; equal arguments give equal bytes."""
    for number in range(films):
        plan = plan_film(number, seed, shots)
        if free_starts:
            path = folder / plan.file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, free_frames(plan), fps=plan.fps)
        else:
            write_film(plan, folder)


def free_frames(plan: FilmPlan) -> Iterator[np.ndarray]:
    """The film's scenes, each shifted for its whole shot; the ground goes on by reflection."""
    rng = np.random.default_rng([plan.seed, 61])
    for shot in plan.shots:
        shift_px = free_shift(shot.scene, rng) * SIZE_PX
        matrix = np.array([[1, 0, shift_px[0]], [0, 1, shift_px[1]]], dtype=np.float64)
        for frame in render_frames(shot.scene, FREE_SHOT_TICKS, *SIZE_PX, FPS):
            yield cv2.warpAffine(frame, matrix, SIZE_PX, borderMode=cv2.BORDER_REFLECT_101)


def free_shift(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """(2,) in frame widths and heights, uniform over what keeps the object in the picture."""
    ends = [object_placement(scene, ticks / FPS) for ticks in (0, FREE_SHOT_TICKS)]
    reach_y = _REACH * max(place.size for place in ends)
    reach = np.array([reach_y * SIZE_PX[1] / SIZE_PX[0], reach_y])
    places = np.array([(place.x, place.y) for place in ends])
    low, high = reach - places.min(axis=0), 1 - reach - places.max(axis=0)
    return rng.uniform(np.minimum(low, high), np.maximum(low, high))


def plan_film(number: int, seed: int, shots: int) -> FilmPlan:
    rng = np.random.default_rng([seed, 60, number])
    drawn: list[ShotPlan] = []
    for _ in range(shots):
        # Two neighbours differ in colour: a cut that no one can see is none.
        before = drawn[-1].scene.colour if drawn else ""
        colour = _pick(rng, tuple(c for c in COLOURS if c != before))
        shape, motion = _pick(rng, SHAPES), _pick(rng, MOTIONS)
        scene = Scene(shape, colour, motion, "gradient", "still", int(rng.integers(2**31)))
        drawn.append(ShotPlan("scene", scene, SHOT_TICKS))
    return FilmPlan(
        name=f"films/film-{number:04d}",
        seed=int(rng.integers(2**31)),
        width_px=SIZE_PX[0],
        height_px=SIZE_PX[1],
        fps=Fraction(FPS),
        encoding=ENCODINGS["h264"],
        shots=tuple(drawn),
    )


def _pick(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]
