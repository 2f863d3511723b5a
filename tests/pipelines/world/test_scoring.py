from __future__ import annotations

import itertools
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pipelines.world.real_clips import real_truth
from pipelines.world.scoring import Score, box_iou, matched_cuts, set_score, shot_f1
from pipelines.world.truth import Box, FilmTruth, GradualSpan

FILM = replace(real_truth("bikes.mp4"), cuts=(30, 76), gradual=(GradualSpan(100, 110, "dissolve"),))


def test_the_truth_itself_scores_one() -> None:
    score = shot_f1([30, 76, 105], FILM, found_gradual={105})
    assert score.all == Score(3, 0, 0)
    assert (score.hard.f1, score.gradual.f1) == (1.0, 1.0)


def test_a_boundary_counts_within_the_tolerance_and_once() -> None:
    assert shot_f1([28, 78], FILM).hard == Score(2, 0, 0)
    assert shot_f1([27, 78], FILM).hard == Score(1, 1, 1)
    assert shot_f1([30, 31, 76], FILM).hard == Score(2, 1, 0)


def test_both_ends_of_a_gradual_transition_are_one_find_and_a_third_is_wrong() -> None:
    assert shot_f1([100, 110], FILM).gradual == Score(1, 0, 0)
    assert shot_f1([100, 105, 110], FILM).all == Score(1, 1, 2)


def test_a_wrong_boundary_counts_against_what_the_finder_called_it() -> None:
    assert shot_f1([200], FILM).hard.found_wrong == 1
    assert shot_f1([200], FILM, found_gradual={200}).gradual.found_wrong == 1


def test_scores_of_films_add_up() -> None:
    total = shot_f1([30], FILM) + shot_f1([30, 76, 104], FILM)
    assert total.all == Score(4, 0, 2)
    assert total.all.recall == 4 / 6 and total.all.precision == 1.0


def test_nothing_found_where_nothing_is() -> None:
    bare: FilmTruth = real_truth("carphone_pristine.mp4")
    assert shot_f1([], bare).all.f1 == 1.0
    assert shot_f1([], FILM).all.f1 == 0.0


frames = st.lists(st.integers(0, 30), unique=True, max_size=6).map(sorted)


@given(frames, frames, st.integers(0, 3))
def test_matching_finds_as_many_pairs_as_there_can_be(
    found: list[int], cuts: list[int], tolerance: int
) -> None:
    pairs = matched_cuts(found, cuts, tolerance)
    assert all(abs(frame - cut) <= tolerance for frame, cut in pairs.items())
    assert len(set(pairs.values())) == len(pairs)
    assert len(pairs) == _largest_matching(found, cuts, tolerance)


def _largest_matching(found: list[int], cuts: list[int], tolerance: int) -> int:
    """By trying every choice of a cut, or none, for each found boundary in turn."""
    if not found:
        return 0
    best = _largest_matching(found[1:], cuts, tolerance)
    for cut in cuts:
        if abs(found[0] - cut) <= tolerance:
            rest = [c for c in cuts if c != cut]
            best = max(best, 1 + _largest_matching(found[1:], rest, tolerance))
    return best


def test_box_iou() -> None:
    whole, half = Box(0, 0, 10, 10), Box(0, 0, 5, 10)
    assert box_iou(whole, whole) == 1.0
    assert box_iou(whole, half) == 0.5
    assert box_iou(half, Box(5, 0, 5, 10)) == 0.0
    for a, b in itertools.combinations((whole, half, Box(3, 3, 4, 4)), 2):
        assert box_iou(a, b) == box_iou(b, a)


def test_set_score() -> None:
    assert set_score({"a", "b"}, {"b", "c"}) == Score(1, 1, 1)
