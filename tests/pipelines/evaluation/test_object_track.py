"""The object named in a caption is followed where it goes, and missed where it is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.evaluation import object_track
from pipelines.world.scenes import COLOURS, SHAPES, Scene, object_placement, render_frames

SIZE_PX = (112, 64)


def frames_of(scene: Scene, count: int = 4, fps: float = 2) -> np.ndarray:
    return np.stack(list(render_frames(scene, count, *SIZE_PX, fps)))


def tracked(scene: Scene, frames_FHWC: np.ndarray) -> object_track.Track:
    look = object_track.look_of(frames_of(scene)[0], scene.caption)
    assert look is not None
    return object_track.track(frames_FHWC, look)


@given(
    st.sampled_from(["circle", "square", "ring", "cross"]),
    st.sampled_from(COLOURS),
    st.sampled_from(["left", "right", "up", "down"]),
    st.integers(0, 10_000),
)
@settings(max_examples=40, deadline=None)
def test_the_travel_found_is_the_travel_filmed(
    shape: str, colour: str, motion: str, seed: int
) -> None:
    scene = Scene(shape, colour, motion, "gradient", "still", seed)
    dx, dy = tracked(scene, frames_of(scene)).travel()
    start, end = object_placement(scene, 0.0), object_placement(scene, 1.5)
    aspect = SIZE_PX[1] / SIZE_PX[0]
    assert dx == pytest.approx(end.x - start.x, abs=0.02)
    assert dy == pytest.approx((end.y - start.y) * aspect, abs=0.02)
    said = {d for d in ("left", "right", "up", "down") if object_track.moved_as_said((dx, dy), d)}
    assert said == {motion}


@pytest.mark.parametrize("shape", SHAPES)
def test_identity_is_near_one_for_the_same_shape_and_lower_for_another(shape: str) -> None:
    scene = Scene(shape, "red", "right", "gradient", "still", 4)
    other = Scene("star" if shape != "star" else "ring", "red", "right", "gradient", "still", 4)
    same = frames_of(scene)
    changed = np.concatenate([same[:1], frames_of(other)[1:]])
    kept, lost = (object_track.identity(tracked(scene, f)) for f in (same, changed))
    assert kept > 0.85 > lost


def test_an_object_that_goes_out_is_lost_and_moves_nowhere() -> None:
    scene = Scene("circle", "yellow", "left", "gradient", "still", 9)
    frames_FHWC = frames_of(scene)
    frames_FHWC[2:] = np.median(frames_FHWC[0], axis=(0, 1)).astype(np.uint8)
    found = tracked(scene, frames_FHWC)
    assert found.kept_share == 0.5
    assert not any(object_track.moved_as_said(found.travel(), d) for d in ("left", "right"))
    assert object_track.identity(found) < 0.5


def test_a_still_object_follows_no_direction() -> None:
    scene = Scene("square", "blue", "up", "gradient", "still", 2)
    still = np.stack([frames_of(scene)[0]] * 4)
    travel = tracked(scene, still).travel()
    assert not any(object_track.moved_as_said(travel, d) for d in ("left", "right", "up", "down"))


def test_captions_of_other_worlds_are_not_tracked() -> None:
    scene = Scene("square", "blue", "up", "gradient", "still", 2)
    image = frames_of(scene)[0]
    assert object_track.look_of(image, "a dog runs through a park") is None
    assert object_track.look_of(image, "a green square over a gradient background") is None
