from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.curation.tiers import TiersConfig, assign_tiers, columns_of, merit_of
from pipelines.records import Clip
from tests.pipelines.curation.clips_of import a_clip

CONFIG = TiersConfig()


def tiers(clips: Sequence[Clip], config: TiersConfig = CONFIG) -> list[list[str]]:
    return [c.tiers for c in assign_tiers(clips, config)]


@pytest.mark.parametrize(
    ("size_px", "high_res"),
    [((1280, 720), True), ((1920, 1080), True), ((1280, 718), False), ((720, 1280), False)],
)
def test_high_resolution_is_measured_inside_the_borders(
    size_px: tuple[int, int], high_res: bool
) -> None:
    clip = a_clip(width_px=4000, height_px=4000, crop_w_px=size_px[0], crop_h_px=size_px[1])
    assert ("high_res" in tiers([clip], TiersConfig(premium_share=0.0))[0]) is high_res


def test_premium_is_the_best_share_of_the_high_resolution_clips() -> None:
    clips = [a_clip(i, motion=float(i)) for i in range(8)]
    small = a_clip(9, motion=99.0, crop_w_px=640, crop_h_px=360)
    found = tiers([*clips, small])
    assert [("premium" in t) for t in found] == [False] * 6 + [True] * 2 + [False]
    assert found[8] == ["base"]


def test_one_candidate_is_enough_and_a_share_of_zero_is_none() -> None:
    assert tiers([a_clip()]) == [["base", "high_res", "premium"]]
    assert tiers([a_clip()], TiersConfig(premium_share=0.0)) == [["base", "high_res"]]
    assert tiers([a_clip()], TiersConfig(premium_max_clips=0)) == [["base", "high_res"]]


def test_dropped_clips_are_in_no_tier_and_stills_are_not_premium() -> None:
    gone = a_clip(1).dropped("motion", "too_still")
    assert tiers([gone, a_clip(2, kind="image")]) == [[], ["base", "high_res"]]


def test_a_score_that_all_lack_counts_for_nothing_and_one_that_some_lack_is_the_middle() -> None:
    clips = [a_clip(1, motion=1.0), a_clip(2, motion=2.0), a_clip(3, motion=3.0), a_clip(4)]
    low, middle, high, unknown = merit_of(columns_of(clips, CONFIG).scores, CONFIG)
    assert low < middle == unknown < high


@given(st.lists(st.one_of(st.none(), st.floats(0, 10)), max_size=30))
def test_the_share_is_exact_and_order_decides_nothing(motions: list[float | None]) -> None:
    clips = [a_clip(i, motion=m) for i, m in enumerate(motions)]
    found = {c.clip_id: c.tiers for c in assign_tiers(clips, CONFIG)}
    assert found == {c.clip_id: c.tiers for c in assign_tiers(clips[::-1], CONFIG)}
    assert sum("premium" in t for t in found.values()) == -(-len(clips) // 4)
    assert all(dataclasses.replace(c, tiers=[]) == c for c in clips)
