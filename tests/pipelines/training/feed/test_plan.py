from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import RequestError
from pipelines.training.feed.plan import (
    ClipTable,
    MixtureConfig,
    StepPlan,
    held_out,
    num_batches,
    plan_epoch,
    strides_of,
    uneven_lengths,
    usable,
)
from pipelines.training.randomness import keys_of, uniform
from tests.pipelines.training.synthetic_latents import hex_id

MIXTURE = MixtureConfig(
    frames=(1, 4, 8),
    frames_weights=(1.0, 1.0, 3.0),
    fps=(4, 8, 16),
    fps_weights=(1.0, 2.0, 1.0),
    frames_per_step=16,
    max_clips_per_step=8,
    packs_per_block=2,
)


def clip_table(lengths: list[int], clips_per_pack: int = 5) -> ClipTable:
    keys = np.sort(keys_of([hex_id("clip", i) for i in range(len(lengths))]))
    packs = np.arange(len(lengths)) // clips_per_pack
    return ClipTable(keys, packs, np.array(lengths))


lengths_lists = st.lists(st.integers(1, 70), min_size=1, max_size=60)


@given(lengths=lengths_lists, seed=st.integers(0, 9), epoch=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_an_epoch_shows_every_clip_once_and_inside_its_frames(lengths, seed, epoch):
    clips = clip_table(lengths)
    plan = plan_epoch(clips, MIXTURE, 16, seed, epoch)
    assert sorted(plan.rows.tolist()) == list(range(len(lengths)))
    last_frames = plan.starts + (plan.num_frames - 1) * plan.strides
    assert (plan.starts >= 0).all()
    assert (last_frames < clips.num_frames[plan.rows]).all()


@given(lengths=lengths_lists, seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_batches_are_equally_long_and_within_the_step_size(lengths, seed):
    plan = plan_epoch(clip_table(lengths), MIXTURE, 16, seed, 0)
    for first, end in zip(plan.batch_starts[:-1], plan.batch_starts[1:], strict=True):
        frames = set(plan.num_frames[first:end].tolist())
        assert len(frames) == 1
        assert 1 <= end - first <= MIXTURE.clips_per_batch(frames.pop())


@given(lengths=lengths_lists, seed=st.integers(0, 9), drop=st.integers(0, 59))
@settings(max_examples=40, deadline=None)
def test_a_clips_choices_do_not_depend_on_other_clips(lengths, seed, drop):
    clips = clip_table(lengths)
    kept = [i for i in range(len(lengths)) if i != drop % len(lengths)]
    if not kept:
        return
    fewer = ClipTable(clips.keys[kept], clips.pack_numbers[kept], clips.num_frames[kept])

    def choices(table):
        plan = plan_epoch(table, MIXTURE, 16, seed, 3)
        drawn = zip(plan.num_frames, plan.strides, plan.starts, strict=True)
        return {table.keys[r]: c for r, c in zip(plan.rows, drawn, strict=True)}

    all_choices = choices(clips)
    assert choices(fewer) == {clips.keys[i]: all_choices[clips.keys[i]] for i in kept}


def test_lengths_and_rates_follow_their_weights():
    plan = plan_epoch(clip_table([64] * 4000, 100), MIXTURE, 16, 0, 0)
    lengths, strides = Counter(plan.num_frames.tolist()), Counter(plan.strides.tolist())
    assert lengths[8] / 4000 == pytest.approx(0.6, abs=0.03)
    assert lengths[1] / 4000 == pytest.approx(0.2, abs=0.03)
    assert strides[2] / 4000 == pytest.approx(0.5, abs=0.03)


def test_epochs_differ_and_a_step_needs_no_history():
    clips = clip_table([33] * 40)
    walked, direct = StepPlan(clips, MIXTURE, 16, 1), StepPlan(clips, MIXTURE, 16, 1)

    def batch(plan, step):
        epoch, planned, span = plan.batch(step)
        return epoch, planned.rows[span].tolist(), planned.starts[span].tolist()

    forward = [batch(walked, step) for step in range(60)]
    assert batch(direct, 57) == forward[57]
    assert batch(direct, 3) == forward[3]
    assert forward[-1][0] > 0
    first_epoch = [row for epoch, rows, _ in forward if epoch == 0 for row in rows]
    second_epoch = [row for epoch, rows, _ in forward if epoch == 1 for row in rows]
    assert sorted(first_epoch) == sorted(second_epoch) == list(range(40))
    assert first_epoch != second_epoch


def test_few_packs_are_open_at_once():
    clips = clip_table([33] * 100, clips_per_pack=10)
    plan = plan_epoch(clips, MIXTURE, 16, 0, 0)
    packs = clips.pack_numbers[plan.rows]
    # Two packs a block: a window of one block's clips touches that block and a neighbour.
    for first in range(0, 100, 20):
        assert len(set(packs[first : first + 20].tolist())) <= 6


def test_clips_too_short_for_every_length_are_not_usable():
    mixture = MixtureConfig(frames=(8,), frames_weights=(1.0,), fps=(4, 16), fps_weights=(1.0, 1.0))
    assert usable(np.array([7, 8, 29]), mixture, 16).tolist() == [False, True, True]


def test_a_rate_that_does_not_divide_the_stored_one_is_refused():
    mixture = MixtureConfig(fps=(5,), fps_weights=(1.0,))
    with pytest.raises(RequestError, match=r"mixture\.fps 5"):
        strides_of(mixture, 16)


def test_held_out_clips_are_stable_when_clips_are_added():
    keys = np.sort(keys_of([hex_id("clip", i) for i in range(100)]))
    few = set(keys[::2][held_out(keys[::2], 5)].tolist())
    more = set(keys[held_out(keys, 5)].tolist())
    assert len(few) == len(more) == 5
    # Of the old clips, whatever is held out later was among the lowest draws before.
    assert (more & set(keys[::2].tolist())) <= few
    assert len(held_out(keys, 0)) == 0


@given(lengths=lengths_lists, seed=st.integers(0, 9), epoch=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_batches_are_counted_without_planning_them(lengths, seed, epoch):
    clips = clip_table(lengths)
    plan = plan_epoch(clips, MIXTURE, 16, seed, epoch)
    assert num_batches(clips, MIXTURE, 16, seed, epoch) == plan.num_batches


@given(lengths=lengths_lists, seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_a_batch_is_full_or_the_last_of_its_length_and_comes_when_its_last_clip_does(lengths, seed):
    clips = clip_table(lengths)
    plan = plan_epoch(clips, MIXTURE, 16, seed, 0)
    reading_order = {row: place for place, row in enumerate(_in_reading_order(clips, seed))}
    sizes, ends = {}, []
    for first, end in zip(plan.batch_starts[:-1], plan.batch_starts[1:], strict=True):
        places = [reading_order[row] for row in plan.rows[first:end].tolist()]
        assert places == sorted(places)
        ends.append(places[-1])
        sizes.setdefault(int(plan.num_frames[first]), []).append(int(end - first))
    assert ends == sorted(ends)
    for length, found in sizes.items():
        full = MIXTURE.clips_per_batch(length)
        assert all(size == full for size in found[:-1])


def _in_reading_order(clips: ClipTable, seed: int) -> list[int]:
    """Rows by (block of packs, draw, key), the slow and plain way."""
    packs = sorted(set(clips.pack_numbers.tolist()))
    draws = dict(
        zip(packs, uniform(np.array(packs, np.uint64), seed, 0, "packs").tolist(), strict=True)
    )
    rank = {pack: i for i, pack in enumerate(sorted(packs, key=draws.__getitem__))}
    draw = uniform(clips.keys, seed, 0, "order").tolist()
    block = [rank[pack] // MIXTURE.packs_per_block for pack in clips.pack_numbers.tolist()]
    return sorted(range(len(clips)), key=lambda row: (block[row], draw[row], clips.keys[row]))


# As `plan_epoch` gave them at its first version.
FROZEN_ROWS = [10, 11, 17, 14, 22, 21, 13, 18, 19, 23, 16, 15, 12, 4, 0, 3, 1, 20, 2, 9, 7, 8, 6, 5]
FROZEN_STARTS = [6, 18, 0, 0, 1, 0, 2, 3, 6, 23, 0, 29, 0, 0, 0, 22, 0, 0, 0, 0, 7, 0, 1, 7]
FROZEN_BATCHES = [0, 2, 4, 6, 10, 18, 20, 21, 24]


def test_the_plan_of_a_seed_is_what_it_always_was():
    """Frozen: a checkpoint goes on in the middle of an epoch that earlier code began."""
    plan = plan_epoch(clip_table([1, 9, 17, 33] * 6), MIXTURE, 16, 3, 1)
    assert plan.rows.tolist() == FROZEN_ROWS
    assert plan.starts.tolist() == FROZEN_STARTS
    assert plan.batch_starts.tolist() == FROZEN_BATCHES


@pytest.mark.parametrize(
    ("workers", "uneven"), [(1, []), (2, []), (4, [8]), (3, [1, 4, 8]), (16, [1, 4, 8])]
)
def test_lengths_whose_batches_do_not_divide_among_the_workers(workers, uneven):
    # Full batches of MIXTURE: 8 stills, 4 clips of 4 frames, 2 of 8.
    assert uneven_lengths(MIXTURE, workers) == uneven
