from __future__ import annotations

import dataclasses
import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.curation.duplicates import DuplicatesConfig, drop_duplicates, find_copies, rank
from pipelines.records import Clip
from tests.pipelines.curation.clips_of import a_clip

CONFIG = DuplicatesConfig()
BITS = 256
LIMIT = int(BITS * CONFIG.max_hash_distance)


def hash_text(value: int) -> str:
    return f"{value:0{BITS // 4}x}"


def flipped(value: int, bits: int, seed: int = 0) -> int:
    for bit in random.Random(seed).sample(range(BITS), bits):
        value ^= 1 << bit
    return value


def verdicts(clips: list[Clip], config: DuplicatesConfig = CONFIG) -> dict[str, str | None]:
    return {
        c.clip_id: c.duplicate_of for c in drop_duplicates(clips, config) if c.verdict == "dropped"
    }


BASE = random.Random(1).getrandbits(BITS)


def test_the_best_copy_stays_and_the_others_say_which_it_is() -> None:
    small = a_clip(1, phash=hash_text(BASE), crop_w_px=640, crop_h_px=360)
    large = a_clip(2, phash=hash_text(flipped(BASE, LIMIT)))
    other = a_clip(3, phash=hash_text(flipped(BASE, BITS // 2)))
    assert verdicts([small, large, other]) == {small.clip_id: large.clip_id}


def test_a_clip_beyond_the_limit_is_no_copy() -> None:
    one, other = a_clip(1, phash=hash_text(BASE)), a_clip(2)
    other = dataclasses.replace(other, phash=hash_text(flipped(BASE, LIMIT + 1)))
    assert verdicts([one, other]) == {}


def test_of_equal_copies_the_longest_then_the_sharpest_then_the_smallest_id_stays() -> None:
    clips = [
        a_clip(1, phash=hash_text(BASE), end_frame=50, sharpness=1.0),
        a_clip(2, phash=hash_text(BASE), end_frame=50, sharpness=9.0),
        a_clip(3, phash=hash_text(BASE), end_frame=60, sharpness=0.5),
    ]
    assert set(verdicts(clips).values()) == {clips[2].clip_id}
    assert set(verdicts(clips[:2]).values()) == {clips[1].clip_id}
    twins = [a_clip(n, phash=hash_text(BASE)) for n in (4, 5)]
    assert set(verdicts(twins).values()) == {min(c.clip_id for c in twins)}


def test_pictures_that_differ_in_colour_alone_are_told_apart_by_the_embedding() -> None:
    red = a_clip(1, phash=hash_text(BASE), embedding=[1.0, 0.0])
    blue = a_clip(2, phash=hash_text(BASE), embedding=[0.6, 0.8])
    again = a_clip(3, phash=hash_text(BASE), embedding=[0.6, 0.8])
    assert verdicts([red, blue]) == {}
    assert len(verdicts([red, blue, again])) == 1


def test_lengths_and_kinds_must_agree() -> None:
    clip = a_clip(1, phash=hash_text(BASE), end_frame=50)
    longer = a_clip(2, phash=hash_text(BASE), end_frame=80)
    still = a_clip(3, phash=hash_text(BASE), kind="image")
    assert verdicts([clip, longer, still]) == {}


def test_dropped_clips_and_clips_without_a_hash_take_no_part() -> None:
    gone = a_clip(1, phash=hash_text(BASE)).dropped("motion", "too_still")
    bare = a_clip(2)
    clip = a_clip(3, phash=hash_text(BASE))
    assert drop_duplicates([gone, bare, clip], CONFIG) == [gone, bare, clip]
    assert drop_duplicates([clip, clip], DuplicatesConfig(enabled=False)) == [clip, clip]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), max_size=24), st.randoms())
def test_order_decides_nothing_and_every_copy_is_a_measured_match(
    picks: list[tuple[int, int]], shuffle: random.Random
) -> None:
    roots = [random.Random(seed).getrandbits(BITS) for seed in range(4)]
    clips = [
        a_clip(i, phash=hash_text(flipped(roots[root], bits, seed=i)), sharpness=float(bits))
        for i, (root, bits) in enumerate(picks)
    ]
    found = verdicts(clips)
    reordered = list(clips)
    shuffle.shuffle(reordered)
    assert verdicts(reordered) == found
    by_id = {c.clip_id: c for c in clips}
    for copy, best in found.items():
        assert best is not None and best not in found
        assert rank(by_id[best]) < rank(by_id[copy])
        assert distance(by_id[best], by_id[copy]) <= LIMIT
    kept = [c for c in clips if c.clip_id not in found]
    assert all(distance(a, b) > LIMIT for a in kept for b in kept if a is not b)


def distance(a: Clip, b: Clip) -> int:
    return (int(a.phash or "", 16) ^ int(b.phash or "", 16)).bit_count()


def test_a_thousand_equal_pictures_are_one_comparison_each() -> None:
    clips = [a_clip(i, phash=hash_text(0)) for i in range(2000)]
    assert len(list(find_copies(sorted(clips, key=rank), CONFIG))) == 1999


def test_embeddings_of_two_models_are_not_compared() -> None:
    one = a_clip(1, phash=hash_text(BASE), embedding=list(np.ones(4)))
    other = a_clip(2, phash=hash_text(BASE), embedding=list(np.ones(8)))
    assert len(verdicts([one, other])) == 1
