"""What is shown of a training, and when a loss is called an explosion."""

import math

from hypothesis import given
from hypothesis import strategies as st

from pipelines.training.loop.curves import LOSSES_SHOWN, LOSSES_TO_JUDGE, RecentLosses
from tests.pipelines.training.synthetic_latents import write_latents
from tests.pipelines.training.tiny_jobs import Heard, base_request, train_here

LOSS = st.floats(1e-3, 1e3)


@given(st.lists(LOSS, min_size=1, max_size=60), st.integers(0, 60))
def test_losses_taken_over_from_a_checkpoint_show_the_same(losses, cut):
    straight, first = RecentLosses(), RecentLosses()
    for loss in losses:
        straight.add(loss)
    for loss in losses[:cut]:
        first.add(loss)
    later = RecentLosses(first.values)
    for loss in losses[cut:]:
        later.add(loss)
    assert later.values == straight.values == tuple(losses[-LOSSES_SHOWN:])
    assert later.mean == straight.mean


def test_an_explosion_needs_a_past_to_be_measured_against():
    losses = RecentLosses()
    assert losses.mean == math.inf
    for _ in range(LOSSES_TO_JUDGE):
        assert not losses.is_explosion(1e9, 100)
        losses.add(1.0)
    assert losses.is_explosion(101.0, 100) and not losses.is_explosion(99.0, 100)
    assert not losses.is_explosion(1e9, 0)


def test_an_exploding_loss_ends_the_training_with_its_clips_named(tmp_path):
    latents = write_latents(tmp_path / "latents")
    request = base_request(latents, tmp_path / "c", 9, explosion=1e-3)
    (reason,) = train_here(request)
    assert reason.startswith(f"step {LOSSES_TO_JUDGE + 1}: loss ")
    assert "over 0.001 times the mean of the last steps" in reason
    assert "clips of this step: " in reason
    assert reason.endswith("c/step-00000004")


def test_the_progress_line_has_loss_speed_and_share_of_peak(tmp_path):
    latents = write_latents(tmp_path / "latents")
    heard = Heard()
    train_here(base_request(latents, tmp_path / "c", 2), heard)
    assert [post["step"] for post in heard.posts] == [1, 2]
    assert set(heard.posts[-1]) == {"step", "loss", "steps/s", "clips/s", "TFLOP/s"}
    assert heard.posts[-1]["TFLOP/s"].endswith("% of peak)")
