from __future__ import annotations

import pytest

from pipelines.curation.language import (
    count_words,
    is_refusal,
    language_of,
    repeated_share,
    script_share,
)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("a dog runs on the beach with a ball", "en"),
        ("ein Hund läuft mit dem Ball über den Strand und das Gras", "de"),
        ("un chien court sur la plage avec une balle dans la bouche", "fr"),
        ("un perro corre por la playa con una pelota en el agua", "es"),
        ("a red circle", None),
        ("", None),
    ],
)
def test_little_words_tell_the_language(text: str, language: str | None) -> None:
    assert language_of(text) == language


def test_words_are_counted_in_scripts_without_spaces_too() -> None:
    assert count_words("a red circle - ...") == 3
    assert count_words("一只狗在海滩上奔跑") == 5
    assert count_words("собака бежит") == 2
    assert count_words("") == 0


def test_scripts() -> None:
    assert script_share("a red circle 12", ("latin",)) == 1.0
    assert script_share("собака dog", ("latin",)) == pytest.approx(1 / 3)
    assert script_share("собака dog", ("Latin", "cyrillic")) == 1.0
    assert script_share("123", ("latin",)) == 1.0


def test_a_captioner_in_a_loop_repeats_itself() -> None:
    assert repeated_share("a man and a woman and a man and a woman and a man and a woman") > 0.5
    assert repeated_share("a red circle over a textured background with a blue star") < 0.2
    assert repeated_share("dog") == 0.0


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I cannot describe this.", True),
        ("As an AI, I do not see pictures.", True),
        ("Sorry, no.", True),
        ("A sorry looking dog sits in the rain", False),
        ("I can see a dog on a beach", False),
    ],
)
def test_a_refusal_is_no_caption(text: str, refused: bool) -> None:
    assert is_refusal(text) is refused
