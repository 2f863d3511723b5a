from __future__ import annotations

import pytest

from pipelines.curation.captions import CaptionsConfig, describe, motion_words, shorten, tidy
from tests.pipelines.curation.clips_of import a_clip

CONFIG = CaptionsConfig()


@pytest.mark.parametrize(
    ("dx", "dy", "words"),
    [
        (0.3, 0.0, "moving right"),
        (-0.3, 0.05, "moving left"),
        (0.05, 0.3, "moving down"),
        (0.0, -0.3, "moving up"),
        (0.3, 0.2, None),  # neither direction is clear
        (0.01, 0.0, None),  # hardly moves
        (None, None, None),
    ],
)
def test_a_clear_direction_is_put_into_words(
    dx: float | None, dy: float | None, words: str | None
) -> None:
    assert motion_words(a_clip(motion_dx=dx, motion_dy=dy), CONFIG) == words


def test_a_still_has_no_motion() -> None:
    assert motion_words(a_clip(kind="image", motion_dx=1.0, motion_dy=0.0), CONFIG) is None


def test_motion_comes_after_the_subject_where_the_caption_names_a_setting() -> None:
    clip = a_clip(motion_dx=-0.5, motion_dy=0.0)
    found = describe(clip, "a red circle over a textured background", "coca:x", CONFIG)
    assert found.caption == "a red circle moving left over a textured background"
    assert found.short_caption == "a red circle" and found.captioner == "coca:x"
    found = describe(clip, "A dog on a beach.", "coca:x", CONFIG)
    assert found.caption == "A dog on a beach, moving left"
    assert found.short_caption == "A dog on a beach"


def test_motion_can_be_left_out() -> None:
    clip = a_clip(motion_dx=-0.5, motion_dy=0.0)
    assert describe(clip, "a dog", "x", CaptionsConfig(add_motion=False)).caption == "a dog"


@pytest.mark.parametrize("raw", [None, "", "  \n ", "...", '""'])
def test_no_words_is_a_reason_not_a_caption(raw: str | None) -> None:
    found = describe(a_clip(), raw, "x", CONFIG)
    assert (found.verdict, found.reason_stage, found.reason) == (
        "dropped",
        "captions",
        "caption_empty",
    )
    assert found.caption is None


def test_captions_are_one_line_of_bounded_length() -> None:
    assert tidy('  a "red"\n\tcircle. ', 60) == "a red circle"
    assert tidy("word " * 100, 3) == "word word word"
    assert shorten("one two three four over five", 3) == "one two three"
