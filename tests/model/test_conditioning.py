"""Conditions are built as diffusers' pipeline builds them, and dropped one by one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.conditioning import (
    Conditions,
    DropMasks,
    DropRates,
    concatenate,
    draw_drop_masks,
    drop_conditions,
    image_latents_BCFHW,
    unconditional,
    unet_arguments,
)

EMPTY = torch.full((7, 32), 9.0)


def conditions(batch: int) -> Conditions:
    return Conditions(
        torch.randn(batch, 7, 32),
        torch.full((batch,), 8.0),
        torch.randn(batch, 32),
        torch.randn(batch, 4, 5, 6),
    )


def test_image_latents_are_the_first_frame_then_planes_of_growing_value():
    detail = torch.randn(2, 4, 5, 6)
    latents = image_latents_BCFHW(detail, 5)
    assert latents.shape == (2, 4, 5, 5, 6)
    torch.testing.assert_close(latents[:, :, 0], detail)
    for frame in range(1, 5):
        assert latents[:, :, frame].unique().tolist() == [frame / 4]
    assert image_latents_BCFHW(detail, 1).shape == (2, 4, 1, 5, 6)


@settings(max_examples=50, deadline=None)
@given(data=st.data(), batch=st.integers(1, 4))
def test_each_condition_is_dropped_for_itself(data, batch):
    flags = st.lists(st.booleans(), min_size=batch, max_size=batch)
    masks = DropMasks(*(torch.tensor(data.draw(flags)) for _ in range(3)))
    before = conditions(batch)
    after = drop_conditions(before, masks, EMPTY)
    assert after.fps_B is before.fps_B
    for i in range(batch):
        cases = [
            (masks.text_B[i], after.text_BLD[i], before.text_BLD[i], EMPTY),
            (masks.image_embedding_B[i], after.image_embedding_BD[i],
             before.image_embedding_BD[i], torch.zeros(32)),
            (masks.detail_B[i], after.detail_BCHW[i], before.detail_BCHW[i], torch.zeros(4, 5, 6)),
        ]  # fmt: skip
        for dropped, value, kept, replacement in cases:
            assert torch.equal(value, replacement if dropped else kept)


def test_drop_masks_are_independent_and_as_frequent_as_asked():
    rates = DropRates(text=0.2, image_embedding=0.3, detail=0.4, everything=0.1)
    masks = draw_drop_masks(100_000, rates, torch.Generator().manual_seed(0))
    expected = [rate + 0.1 - rate * 0.1 for rate in (0.2, 0.3, 0.4)]
    drawn = [masks.text_B, masks.image_embedding_B, masks.detail_B]
    for mask, rate in zip(drawn, expected, strict=True):
        assert mask.float().mean().item() == pytest.approx(rate, abs=0.01)
    together = (drawn[0] & drawn[1] & drawn[2]).float().mean().item()
    assert together == pytest.approx(0.1 + 0.9 * 0.2 * 0.3 * 0.4, abs=0.01)


def test_nothing_is_dropped_at_rate_zero_and_all_at_one():
    none = draw_drop_masks(50, DropRates(0, 0, 0, 0))
    everything = draw_drop_masks(50, DropRates(0, 0, 0, 1))
    for name in ("text_B", "image_embedding_B", "detail_B"):
        assert not getattr(none, name).any()
        assert getattr(everything, name).all()


def test_guidance_keeps_the_detail_on_both_sides():
    given_ = conditions(2)
    without = unconditional(given_, EMPTY)
    assert torch.equal(without.text_BLD, EMPTY.expand(2, -1, -1))
    assert without.image_embedding_BD.count_nonzero() == 0
    assert torch.equal(without.detail_BCHW, given_.detail_BCHW)


def test_text_only_conditions_stay_text_only():
    text = Conditions(torch.randn(1, 7, 32))
    both = concatenate(text, unconditional(text, EMPTY))
    arguments = unet_arguments(both, 4)
    assert arguments["encoder_hidden_states"].shape == (2, 7, 32)
    assert arguments["image_latents"] is None and arguments["image_embeddings"] is None


def test_moving_to_half_precision_keeps_the_frame_rate_exact():
    moved = conditions(1).to("cpu", torch.float16)
    assert moved.text_BLD.dtype == torch.float16
    assert moved.fps_B.dtype == torch.float32


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match="same tokenizer"):
        unconditional(conditions(1), torch.zeros(8, 32))
    with pytest.raises(ValueError, match="missing on one side"):
        concatenate(conditions(1), Conditions(torch.zeros(1, 7, 32)))
    with pytest.raises(ValueError, match="drop rate text"):
        DropRates(text=1.5)
