"""The miniature's footage: a first frame tells the motion in one kind of it, not in the other."""

from __future__ import annotations

import itertools

import numpy as np

from pipelines.evaluation import object_track
from pipelines.world.scenes import object_placement
from tests.benchmarks.findings_world import (
    FREE_SHOT_TICKS,
    MOTIONS,
    free_frames,
    free_shift,
    plan_film,
)


def test_films_are_drawn_from_their_seed_and_neighbours_differ_in_colour() -> None:
    plan = plan_film(3, 1, 12)
    assert plan == plan_film(3, 1, 12) != plan_film(3, 2, 12)
    colours = [shot.scene.colour for shot in plan.shots]
    assert all(a != b for a, b in itertools.pairwise(colours))


def test_free_starts_keep_the_object_in_the_picture() -> None:
    plan = plan_film(0, 5, 3)
    frames = np.stack(list(free_frames(plan)))
    assert len(frames) == 3 * FREE_SHOT_TICKS
    for number, shot in enumerate(plan.shots):
        span_FHWC = frames[number * FREE_SHOT_TICKS : (number + 1) * FREE_SHOT_TICKS]
        look = object_track.look_of(span_FHWC[0], shot.scene.caption)
        assert look is not None
        found = object_track.track(span_FHWC, look)
        assert found.kept_share == 1 and np.ptp(found.areas_F) < 0.25 * found.areas_F[0]
        assert object_track.moved_as_said(found.travel(), shot.scene.motion)


def test_where_an_object_begins_says_less_of_its_motion_with_free_starts() -> None:
    rng = np.random.default_rng(0)
    bound, free = ({motion: [] for motion in MOTIONS} for _ in range(2))
    for number in range(20):
        for shot in plan_film(number, 7, 12).shots:
            place = object_placement(shot.scene, 0.0)
            bound[shot.scene.motion].append(place.x)
            free[shot.scene.motion].append(place.x + free_shift(shot.scene, rng)[0])
    assert max(bound["right"]) < min(bound["left"])
    overlapping = np.mean(np.array(free["right"]) > np.quantile(free["left"], 0.1))
    assert overlapping > 0.3
