from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.curation import fingerprint_index
from pipelines.curation.config import demo
from pipelines.curation.duplicates import DuplicatesConfig, drop_duplicates, find_copies, rank
from pipelines.curation.phash import unpacked
from pipelines.curation.verdicts import shadows_of
from pipelines.records import Clip
from tests.pipelines.curation.clips_of import a_clip

CONFIG = DuplicatesConfig()
SIZE = 60


def hash_text(values: np.ndarray) -> str:
    """A grey fingerprint of these standing frequencies."""
    digits = np.clip(np.round(values * 7 / 3), -7, 7).astype(int) + 8
    return "8080" + "".join(f"{d:x}" for d in digits)


def drawn(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SIZE)


def near(values: np.ndarray, cosine: float, seed: int = 0) -> np.ndarray:
    """A picture at this cosine of another one, before it is rounded to digits."""
    noise = drawn(1000 + seed)
    noise -= values * (noise @ values) / (values @ values)
    noise *= np.linalg.norm(values) / np.linalg.norm(noise)
    return cosine * values + np.sqrt(1 - cosine**2) * noise


def likeness(a: Clip, b: Clip) -> float:
    one, other = (unpacked(c.phash or "").standing.astype(float) for c in (a, b))
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def verdicts(clips: list[Clip], config: DuplicatesConfig = CONFIG) -> dict[str, str | None]:
    return {
        c.clip_id: c.duplicate_of for c in drop_duplicates(clips, config) if c.verdict == "dropped"
    }


BASE = drawn(1)


def test_the_best_copy_stays_and_the_others_say_which_it_is() -> None:
    small = a_clip(1, phash=hash_text(BASE), crop_w_px=640, crop_h_px=360)
    large = a_clip(2, phash=hash_text(near(BASE, 0.95)))
    other = a_clip(3, phash=hash_text(drawn(2)))
    assert verdicts([small, large, other]) == {small.clip_id: large.clip_id}


def test_a_clip_beyond_the_limit_is_no_copy() -> None:
    one, other = a_clip(1, phash=hash_text(BASE)), a_clip(2)
    other = dataclasses.replace(other, phash=hash_text(near(BASE, 0.8)))
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
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=24), st.randoms())
def test_order_decides_nothing_and_every_copy_is_a_measured_match(
    picks: list[tuple[int, int]], shuffle: random.Random
) -> None:
    clips = [
        a_clip(i, phash=hash_text(near(drawn(root), 1 - 0.03 * steps, i)), sharpness=float(steps))
        for i, (root, steps) in enumerate(picks)
    ]
    found = verdicts(clips)
    reordered = list(clips)
    shuffle.shuffle(reordered)
    assert verdicts(reordered) == found
    by_id = {c.clip_id: c for c in clips}
    for copy, best in found.items():
        assert best is not None and best not in found
        assert rank(by_id[best]) < rank(by_id[copy])
        assert likeness(by_id[best], by_id[copy]) >= CONFIG.min_standing
    kept = [c for c in clips if c.clip_id not in found]
    assert all(likeness(a, b) < CONFIG.min_standing for a in kept for b in kept if a is not b)


def test_a_thousand_equal_pictures_are_one_comparison_each() -> None:
    clips = [a_clip(i, phash=hash_text(BASE)) for i in range(2000)]
    assert len(list(find_copies(sorted(clips, key=rank), CONFIG))) == 1999


def test_embeddings_of_two_models_are_not_compared() -> None:
    one = a_clip(1, phash=hash_text(BASE), embedding=list(np.ones(4)))
    other = a_clip(2, phash=hash_text(BASE), embedding=list(np.ones(8)))
    assert len(verdicts([one, other])) == 1


def test_a_blank_picture_is_a_copy_of_a_blank_one_alone() -> None:
    blanks = [a_clip(i, phash=hash_text(np.zeros(SIZE))) for i in (1, 2)]
    assert len(verdicts([*blanks, a_clip(3, phash=hash_text(BASE))])) == 1


def test_colour_and_motion_must_agree() -> None:
    standing = hash_text(BASE)[4:]
    moves = ["".join(np.random.default_rng(i).choice(list("2468ace"), 256)) for i in range(2)]
    clip = a_clip(1, phash="8080" + standing + moves[0])
    again = a_clip(2, phash="8381" + standing + moves[0])
    tinted = a_clip(3, phash="8680" + standing + moves[0])
    another_take = a_clip(4, phash="8080" + standing + moves[1])
    still = a_clip(5, phash="8080" + standing + "8" * 256)
    assert len(verdicts([clip, again])) == 1
    assert len(verdicts([clip, still])) == 1  # nothing says that it is another take
    assert verdicts([clip, tinted]) == verdicts([clip, another_take]) == {}


def test_many_clips_are_found_through_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    originals = [a_clip(i, phash=hash_text(drawn(i)), sharpness=1.0) for i in range(600)]
    copies = [
        a_clip(1000 + i, phash=hash_text(near(drawn(i), 0.97, i)), sharpness=0.0)
        for i in range(200)
    ]
    exact = verdicts([*originals, *copies])
    monkeypatch.setattr(fingerprint_index, "EXACT_COUNT", 100)
    assert verdicts([*originals, *copies]) == exact
    assert len(exact) == 200


def test_a_worse_copy_of_what_was_taken_down_stays_dropped_and_a_better_one_stays() -> None:
    worse, better = (
        a_clip(n, phash=hash_text(BASE), crop_w_px=width) for n, width in ((1, 640), (3, 1920))
    )
    gone = a_clip(2, phash=hash_text(near(BASE, 0.95))).dropped("takedown", "taken_down")
    shadows = shadows_of([worse, gone], demo())
    assert shadows == {gone.clip_id}
    dropped = drop_duplicates([worse, gone], CONFIG, shadows)
    assert [(c.reason, c.duplicate_of) for c in dropped] == [
        ("duplicate", gone.clip_id),
        ("taken_down", None),
    ]
    assert drop_duplicates([better, gone], CONFIG, shadows)[0].verdict == "kept"
    assert drop_duplicates([worse, gone], CONFIG)[0].verdict == "kept"
    unfit = dataclasses.replace(gone, end_s=0.1)  # would have been dropped anyway: hides nothing
    assert shadows_of([unfit, worse], demo()) == set()
