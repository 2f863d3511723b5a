from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import RequestError
from pipelines.training.plan import (
    ClipTable,
    MixtureConfig,
    StepPlan,
    held_out,
    plan_epoch,
    strides_of,
    usable,
)
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
    ids = [hex_id("clip", i) for i in range(len(lengths))]
    packs = np.arange(len(lengths)) // clips_per_pack
    return ClipTable(ids, ids, packs, np.array(lengths))


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
    fewer = ClipTable(
        [clips.clip_ids[i] for i in kept],
        [clips.source_ids[i] for i in kept],
        clips.pack_numbers[kept],
        clips.num_frames[kept],
    )

    def choices(table):
        plan = plan_epoch(table, MIXTURE, 16, seed, 3)
        drawn = zip(plan.num_frames, plan.strides, plan.starts, strict=True)
        return {table.clip_ids[r]: c for r, c in zip(plan.rows, drawn, strict=True)}

    all_choices = choices(clips)
    assert choices(fewer) == {clips.clip_ids[i]: all_choices[clips.clip_ids[i]] for i in kept}


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
    ids = [hex_id("clip", i) for i in range(100)]
    few = held_out(ids[:50], 5)
    more = held_out(ids, 5)
    assert len(few) == len(more) == 5
    # Of the old clips, whatever is held out later was among the lowest draws before.
    assert (more & set(ids[:50])) <= few
