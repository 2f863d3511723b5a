from __future__ import annotations

import pytest

from pipelines.config import RequestError
from pipelines.curation.captions import (
    CaptionsConfig,
    check_languages,
    describe,
    motion_words,
    shorten,
    tidy,
)
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


@pytest.mark.parametrize(
    ("raw", "config", "reason"),
    [
        ("dog", CONFIG, "caption_short"),
        ("a dog", CONFIG, None),
        ("a man and a man and a man and a man and a man", CONFIG, "caption_repeats"),
        ("I'm sorry, I can't help with that", CONFIG, "caption_refused"),
        ("собака бежит", CONFIG, None),
        ("собака бежит", CaptionsConfig(scripts=("latin",)), "caption_language"),
        (
            "ein Hund mit dem Ball auf dem Gras",
            CaptionsConfig(languages=("en",)),
            "caption_language",
        ),
        ("ein Hund mit dem Ball auf dem Gras", CaptionsConfig(languages=("en", "de")), None),
        ("red circle", CaptionsConfig(languages=("en",)), None),
    ],
)
def test_words_that_nobody_could_use_have_their_reason(
    raw: str, config: CaptionsConfig, reason: str | None
) -> None:
    found = describe(a_clip(), raw, "x", config)
    assert found.reason == reason
    assert (found.caption is None) == (reason == "caption_refused")


def test_an_unknown_language_is_refused_before_the_start() -> None:
    with pytest.raises(RequestError, match="tlh is not one of en"):
        check_languages(CaptionsConfig(languages=("en", "tlh")))


def test_how_models_like_to_begin_and_what_a_limit_leaves_hanging() -> None:
    assert tidy("The video shows a dog on a beach.", 60) == "a dog on a beach"
    assert tidy("In this clip, a dog runs", 60) == "a dog runs"
    assert tidy("The videos of a dog", 60) == "The videos of a dog"
    assert shorten("In a sunny park, a dog runs", 12) == "a dog runs"
    assert shorten("a dog and a cat and a bird", 5) == "a dog and a cat"
    assert shorten("a dog and a cat and a bird", 4) == "a dog"
