"""From what a film should contain to its plan: the only place where films are drawn by lot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from pipelines.world.dressing import CAPTIONS, WATERMARKS
from pipelines.world.encodings import ENCODINGS
from pipelines.world.plan import WIPE_DIRECTIONS, FilmPlan, ShotPlan, Transition
from pipelines.world.scenes import Scene, random_scene, render_frames
from pipelines.world.truth import ShotRef

#: How long a shot has the film to itself, in seconds. A whole scene shows 4 s of travel, so a
#: good shot and the transitions at its ends stay below that.
SHOT_SECONDS = {
    "scene": (2.3, 3.0),
    "short": (0.4, 0.6),
    "static": (1.6, 2.4),
    "black": (1.0, 1.6),
    "flat": (1.0, 1.5),
    "flashes": (2.0, 2.6),
    "blurred": (1.6, 2.2),
    "shaky": (1.6, 2.2),
    "captioned": (1.8, 2.4),
}
TRANSITION_SECONDS = {"dissolve": (0.4, 0.6), "fade": (0.6, 0.9), "wipe": (0.4, 0.6)}

#: Two scenes that meet at a cut differ by at least this, in grey levels averaged over a small
#: picture: a cut that no viewer could see is no ground truth.
_DISTINCT_LEVELS = 14.0


@dataclass(frozen=True)
class FilmSpec:
    """What a film should contain; everything it leaves open is drawn from the seed.

    `good_shots` take the `transitions` in turn; each of `defects` (a kind of shot that must be
    dropped) comes in somewhere between by hard cuts. `repeats` are (film, n): the n-th shot of
    an earlier film of the same size once more.
    """

    size_px: tuple[int, int] = (320, 180)
    fps: Fraction = Fraction(25)
    encoding: str = "h264"
    good_shots: int = 5
    transitions: tuple[str, ...] = ("cut",)
    defects: tuple[str, ...] = ()
    borders: str = "none"
    watermark: bool = False
    variable_frame_rate: bool = False
    rotation_deg: int = 0
    repeats: tuple[tuple[int, int], ...] = ()
    name: str = ""


def draw_film(
    spec: FilmSpec, name: str, seed: Sequence[int], earlier: Sequence[FilmPlan] = ()
) -> FilmPlan:
    """The plan of one film; equal arguments give equal plans."""
    rng = np.random.default_rng(list(seed))
    shots = [_draw_shot("scene", spec, rng) for _ in range(spec.good_shots)]
    for place in range(1, len(shots)):
        kind = spec.transitions[(place - 1) % len(spec.transitions)]
        shots[place] = replace(shots[place], lead_in=_draw_transition(kind, spec.fps, rng))
    for kind in spec.defects:
        _insert_by_cuts(shots, _draw_shot(kind, spec, rng), rng)
    for film, shot in spec.repeats:
        _insert_by_cuts(shots, _repeated(earlier[film], shot, spec), rng)
    return FilmPlan(
        name=name,
        seed=int(rng.integers(2**31)),
        width_px=spec.size_px[0],
        height_px=spec.size_px[1],
        fps=spec.fps,
        encoding=ENCODINGS[spec.encoding],
        shots=_told_apart(shots, rng),
        variable_frame_rate=spec.variable_frame_rate,
        rotation_deg=spec.rotation_deg,
        borders=spec.borders,
        bar_share=0.0 if spec.borders == "none" else float(rng.uniform(0.18, 0.28)),
        watermark=WATERMARKS[int(rng.integers(len(WATERMARKS)))] if spec.watermark else "",
    )


def draw_still(
    size_px: tuple[int, int], encoding: str, name: str, seed: Sequence[int], borders: str = "none"
) -> FilmPlan:
    """A still image: a film of one shot of one tick."""
    rng = np.random.default_rng(list(seed))
    shot = ShotPlan("scene", random_scene(rng), 1, seed=int(rng.integers(2**31)))
    return FilmPlan(
        name=name,
        seed=int(rng.integers(2**31)),
        width_px=size_px[0],
        height_px=size_px[1],
        fps=Fraction(1),
        encoding=ENCODINGS[encoding],
        shots=(shot,),
        borders=borders,
        bar_share=0.0 if borders == "none" else 0.22,
    )


def _draw_shot(kind: str, spec: FilmSpec, rng: np.random.Generator) -> ShotPlan:
    seconds = rng.uniform(*SHOT_SECONDS[kind])
    scene, seed = random_scene(rng), int(rng.integers(2**31))
    words = CAPTIONS[int(rng.integers(len(CAPTIONS)))] if kind == "captioned" else ""
    return ShotPlan(kind, scene, max(1, round(seconds * spec.fps)), words=words, seed=seed)


def _draw_transition(kind: str, fps: Fraction, rng: np.random.Generator) -> Transition:
    if kind == "cut":
        return Transition()
    num_ticks = max(3, round(rng.uniform(*TRANSITION_SECONDS[kind]) * fps))
    return Transition(kind, num_ticks, WIPE_DIRECTIONS[int(rng.integers(len(WIPE_DIRECTIONS)))])


def _insert_by_cuts(shots: list[ShotPlan], shot: ShotPlan, rng: np.random.Generator) -> None:
    """Puts the shot between two others, with a hard cut before and after it."""
    place = int(rng.integers(1, len(shots))) if len(shots) > 1 else len(shots)
    if place < len(shots):
        shots[place] = replace(shots[place], lead_in=Transition())
    shots.insert(place, shot)


def _repeated(film: FilmPlan, index: int, spec: FilmSpec) -> ShotPlan:
    if film.shown_px != spec.size_px:
        raise ValueError(f"{film.name} is not {spec.size_px}: its shots would be other pictures")
    shot = film.shots[index]
    num_ticks = max(1, round(shot.num_ticks / film.fps * spec.fps))
    reference = ShotRef(film.file_name, index)
    return replace(shot, num_ticks=num_ticks, lead_in=Transition(), duplicate_of=reference)


def _told_apart(shots: Sequence[ShotPlan], rng: np.random.Generator) -> tuple[ShotPlan, ...]:
    """The shots, with scenes drawn anew until each differs visibly from the one before it."""
    told: list[ShotPlan] = []
    for shot in shots:
        while told and not _differ(told[-1], shot) and not shot.duplicate_of:
            shot = replace(shot, scene=random_scene(rng))
        told.append(shot)
    return tuple(told)


def _differ(before: ShotPlan, after: ShotPlan) -> bool:
    if {before.kind, after.kind} & {"black", "flat"}:
        return True
    distance = np.abs(_thumbnail(before.scene) - _thumbnail(after.scene))
    return float(distance.mean()) >= _DISTINCT_LEVELS


def _thumbnail(scene: Scene) -> np.ndarray:
    (frame,) = render_frames(scene, 1, 48, 27, 1.0)
    return frame.astype(np.float32)
