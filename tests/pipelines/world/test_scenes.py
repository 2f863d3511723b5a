from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.world.scenes import (
    BACKGROUNDS,
    CAMERAS,
    COLOUR_RGB,
    COLOURS,
    MOTIONS,
    SCENE_SECONDS,
    SHAPES,
    Scene,
    object_placement,
    random_scene,
    render_frames,
)

scenes = st.builds(
    Scene,
    shape=st.sampled_from(SHAPES),
    colour=st.sampled_from(COLOURS),
    motion=st.sampled_from(MOTIONS),
    background=st.sampled_from(BACKGROUNDS),
    camera=st.sampled_from(CAMERAS),
    seed=st.integers(0, 2**31),
)


def _scene(**changes) -> Scene:
    base = {
        "shape": "circle",
        "colour": "red",
        "motion": "left",
        "background": "textured",
        "camera": "still",
        "seed": 5,
    }
    return Scene(**{**base, **changes})


def _frame(scene: Scene, time_s: float, width_px: int = 160, height_px: int = 90) -> np.ndarray:
    return list(render_frames(scene, 2, width_px, height_px, fps=1 / time_s))[1]


def test_captions_follow_the_grammar() -> None:
    assert _scene().caption == "a red circle moving left over a textured background"
    assert _scene().still_caption == "a red circle over a textured background"
    assert _scene(colour="orange", motion="grow").caption.startswith("an orange circle growing ")
    assert _scene(colour="white", shape="ring").short_caption == "a white ring"


@pytest.mark.parametrize(
    ("field", "value"), [("shape", "blob"), ("camera", "tilt"), ("seed", -1), ("motion", "")]
)
def test_a_scene_outside_the_world_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError):
        _scene(**{field: value})


@pytest.mark.parametrize("size", [(0, 90), (160, 8)])
def test_a_size_too_small_to_see_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot render"):
        next(render_frames(_scene(), 1, *size, 8))


def test_random_scenes_follow_the_generator_and_reach_everything() -> None:
    drawn = [random_scene(np.random.default_rng(3)) for _ in range(2)]
    assert drawn[0] == drawn[1]
    rng = np.random.default_rng(4)
    many = [random_scene(rng) for _ in range(400)]
    assert {s.shape for s in many} == set(SHAPES) and {s.motion for s in many} == set(MOTIONS)
    assert {s.colour for s in many} == set(COLOURS) and {s.camera for s in many} == set(CAMERAS)


@settings(max_examples=25, deadline=None)
@given(scene=scenes, width_px=st.integers(16, 200), height_px=st.integers(16, 200))
def test_frames_are_right_and_repeatable_at_any_size(
    scene: Scene, width_px: int, height_px: int
) -> None:
    first = list(render_frames(scene, 3, width_px, height_px, 8))
    again = list(render_frames(scene, 3, width_px, height_px, 8))
    assert len(first) == 3
    for one, other in zip(first, again, strict=True):
        assert one.shape == (height_px, width_px, 3) and one.dtype == np.uint8
        assert np.array_equal(one, other)


@settings(max_examples=60, deadline=None)
@given(scene=scenes, time_s=st.floats(0, 30))
def test_the_object_stays_mostly_in_a_wide_frame_and_recognisable(
    scene: Scene, time_s: float
) -> None:
    # Farthest out: a traveller's own offset, its travel and glide to a halt, and a pan with it.
    place = object_placement(scene, time_s)
    assert 0.085 < place.x < 0.915 and 0.1 < place.y < 0.9
    assert 0.2 < place.size < 0.67


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize(
    ("motion", "axis", "sign"),
    [("left", "x", -1), ("right", "x", 1), ("up", "y", -1), ("down", "y", 1)],
)
def test_travel_goes_its_way_on_the_screen_under_every_camera(
    motion: str, axis: str, sign: int, camera: str
) -> None:
    for seed in range(20):
        scene = _scene(motion=motion, camera=camera, seed=seed)
        path = [getattr(object_placement(scene, t), axis) for t in np.linspace(0, SCENE_SECONDS, 9)]
        assert sign * (path[-1] - path[0]) > 0.2


def test_growth_outweighs_the_zoom_against_it() -> None:
    for motion, camera in itertools.product(("grow", "shrink"), CAMERAS):
        scene = _scene(motion=motion, camera=camera)
        start, end = (object_placement(scene, t).size for t in (0.0, SCENE_SECONDS))
        assert (end / start > 1.5) if motion == "grow" else (start / end > 1.5)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_under_a_still_camera_only_the_object_changes(background: str) -> None:
    scene = _scene(background=background, motion="right", seed=9)
    first, last = _frame(scene, 1e-6), _frame(scene, 2.0)
    changed = np.abs(first.astype(int) - last).max(axis=2) > 0
    allowed = np.zeros_like(changed)
    for time_s in (0.0, 2.0):
        place = object_placement(scene, time_s)
        reach = place.size * 0.75 * 90 + 2
        x, y = place.x * 160, place.y * 90
        allowed[
            max(0, int(y - reach)) : int(y + reach) + 1, max(0, int(x - reach)) : int(x + reach) + 1
        ] = True
    assert changed.any() and not (changed & ~allowed).any()


@pytest.mark.parametrize("camera", [c for c in CAMERAS if c != "still"])
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_moving_camera_moves_the_background(camera: str, background: str) -> None:
    scene = _scene(camera=camera, background=background, motion="spin")
    first, later = _frame(scene, 1e-6), _frame(scene, 1.0)
    assert (first[:12] != later[:12]).mean() > 0.2


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_shows_that_it_spins(shape: str) -> None:
    scene = _scene(shape=shape, motion="spin", background="gradient")
    first, later = _frame(scene, 1e-6), _frame(scene, 0.9)
    assert np.abs(first.astype(int) - later).max() > 25


@settings(max_examples=30, deadline=None)
@given(scene=scenes)
def test_the_object_is_nearest_to_its_own_colour_and_far_from_the_background(
    scene: Scene,
) -> None:
    frame = _frame(scene, 2.0)
    palette = np.array([COLOUR_RGB[c] for c in COLOURS], dtype=float)
    nearest = np.linalg.norm(frame[:, :, None].astype(float) - palette, axis=3)
    object_px = np.argwhere(nearest.min(axis=2) < 32)
    named = nearest[object_px[:, 0], object_px[:, 1]].argmin(axis=1)
    assert len(object_px) > 40
    assert (named == COLOURS.index(scene.colour)).mean() > 0.9


def test_motion_looks_the_same_at_every_size_and_rate() -> None:
    scene = _scene(motion="down", background="gradient", seed=12)
    slow = list(render_frames(scene, 9, 128, 72, 4))[8]
    fast = list(render_frames(scene, 49, 512, 288, 24))[48]
    small = cv2.resize(fast, (128, 72), interpolation=cv2.INTER_AREA)
    assert np.abs(slow.astype(int) - small).mean() < 1.5
