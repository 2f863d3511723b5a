from __future__ import annotations

import numpy as np
import pytest

from pipelines.curation.text_lines import text_lines
from pipelines.world.dressing import CAPTIONS, WATERMARKS, caption_layer, watermark_layer
from pipelines.world.scenes import random_scene, render_frames
from tests.benchmarks.text_corpus import PATTERNS, pattern_frames, real_lumas


def dressed(seed: int, style: str, still: bool = False) -> tuple[list[np.ndarray], tuple[int, ...]]:
    """Three frames of a scene with words over it, as luma, and the box of the words."""
    rng = np.random.default_rng(seed)
    if style == "watermark":
        layer = watermark_layer(WATERMARKS[seed % len(WATERMARKS)], seed % 4, 384, 216)
    else:
        layer = caption_layer(CAPTIONS[seed % len(CAPTIONS)], style, 384, 216)
    frames = list(render_frames(random_scene(rng), 3, 384, 216, 1.0))
    frames = frames[:1] * 3 if still else frames
    for frame in frames:
        layer.paste(frame)
    box = layer.overlay.text_box
    return [f.mean(axis=-1).astype(np.uint8) for f in frames], (box.x, box.y, box.w, box.h)


@pytest.mark.parametrize("style", ["caption_bar", "subtitle", "watermark"])
def test_words_are_found_where_they_are(style: str) -> None:
    hits = 0
    for seed in range(12):
        frames, (x, y, w, h) = dressed(seed, style, still=seed % 3 == 0)
        for box in (found := text_lines(frames)):
            assert x - 8 <= box[0] and box[0] + box[2] <= x + w + 8, (seed, box)
            assert y - 8 <= box[1] and box[1] + box[3] <= y + h + 8, (seed, box)
        hits += bool(found)
    assert hits >= 11


def test_standing_patterns_and_real_film_hold_no_words() -> None:
    wrong = 0
    for seed in range(10 * len(PATTERNS)):
        wrong += bool(text_lines(pattern_frames(np.random.default_rng([seed, 77]), 384, 216)))
    assert wrong <= 3
    for name in ("bikes.mp4", "bigbuckbunny.mp4"):
        lumas = real_lumas(name)
        assert not any(text_lines(lumas[i : i + 21 : 10]) for i in range(0, len(lumas) - 21, 9))


def test_a_picture_too_small_to_read_has_none() -> None:
    assert text_lines([np.zeros((12, 300), np.uint8)]) == []
