"""What a clip is called: a long caption with its motion, and a short one of a few words.

The words of a picture come from a captioner (`captioners.py`); this file turns them into the
clip's captions. A still picture cannot say where things move, but the watch stage measured it:
so the direction is put into words from the optical flow. The refinement model wants few words,
so the short caption keeps the subject and leaves the setting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from pipelines.config import RequestError, setting
from pipelines.curation.language import (
    LITTLE_WORDS,
    count_words,
    is_refusal,
    known_scripts,
    language_of,
    repeated_share,
    script_share,
)
from pipelines.records import Clip

SETTING_WORD = " over "
_LEAD_IN = re.compile(
    r"^(in )?(the|this) (video|clip|footage|scene|image|frames?|picture)( clip)?"
    r"( (shows|depicts|features|captures|is (of|about)|we see|presents)|,)\s+",
    re.IGNORECASE,
)
_PLACES = frozenset(("in", "on", "at", "under", "during", "against", "inside", "outside", "near"))
_HANGING = frozenset(("a", "an", "the", "and", "or", "of", "with", "in", "on", "at", "to", "its"))
_SCRIPT_SHARE = 0.8  # a name in another script does not make the text foreign


@dataclass(frozen=True)
class CaptionsConfig:
    """Who writes the captions, and how they are worded."""

    backend: str = setting(
        "coca:embedded",
        "coca:MODEL (open_clip CoCa), openai:BASE_URL (any OpenAI-compatible server), "
        "or sidecar (NAME.txt beside the film)",
    )
    model: str = setting("", "model name asked of an openai: server")
    prompt: str = setting(
        "Describe this video in one sentence: the subject, what it does, and the setting. "
        "Do not begin with 'The video'.",
        "instruction for an openai: server",
    )
    api_key_env: str = setting("OPENAI_API_KEY", "environment variable with the server's key")
    timeout_s: float = setting(120.0, "wait for an answer of the server", unit="s", low=0.1)
    tries: int = setting(3, "requests for one clip before the job stops", unit="requests", low=1)
    frames: int = setting(4, "sampled frames sent to an openai: server", unit="frames", low=1)
    clips_per_batch: int = setting(
        8, "pictures in one pass of a coca: model; always padded to this", unit="clips", low=1
    )
    min_words: int = setting(2, "a shorter caption says too little", unit="words", low=1)
    max_words: int = setting(60, "longest caption", unit="words", low=1)
    max_repeats: float = setting(
        0.5,
        "pairs of words that were there before; more: the captioner is in a loop",
        unit="share",
        low=0,
        high=1,
    )
    scripts: tuple[str, ...] = setting((), "accepted scripts, such as latin; empty: any")
    languages: tuple[str, ...] = setting(
        (), f"accepted languages ({', '.join(LITTLE_WORDS)}), where one is clear; empty: any"
    )
    short_words: int = setting(12, "longest short caption", unit="words", low=1)
    add_motion: bool = setting(True, "put the measured direction of motion into the caption")
    min_motion: float = setting(
        0.08,
        "least mean flow of the moving part that is put into words",
        unit="frame widths/s",
        low=0,
    )
    min_direction: float = setting(
        2.0, "how far one direction must outweigh the other to be named", unit="ratio", low=1
    )


def describe(clip: Clip, raw_caption: str | None, captioner: str, config: CaptionsConfig) -> Clip:
    """The clip with `caption`, `short_caption` and `captioner`.

    Without usable words, or with a refusal in their place, the captions stay None and the clip is
    dropped; words that are not good enough (`judge`) are kept in the row.
    """
    still = tidy(raw_caption, config.max_words)
    if not still or is_refusal(still):
        reason = "caption_refused" if still else "caption_empty"
        return replace(clip, captioner=captioner).dropped("captions", reason)
    words = motion_words(clip, config) if config.add_motion else None
    said = replace(
        clip,
        caption=with_motion(still, words),
        short_caption=shorten(still, config.short_words),
        captioner=captioner,
    )
    return judge(said, config)


def judge(clip: Clip, config: CaptionsConfig) -> Clip:
    """Drops a clip whose caption says too little, repeats itself, or is in another language."""
    text = clip.caption
    if text is None:
        return clip
    if count_words(text) < config.min_words:
        return clip.dropped("captions", "caption_short")
    if repeated_share(text) > config.max_repeats:
        return clip.dropped("captions", "caption_repeats")
    if config.scripts and script_share(text, config.scripts) < _SCRIPT_SHARE:
        return clip.dropped("captions", "caption_language")
    if config.languages and language_of(text) not in (None, *config.languages):
        return clip.dropped("captions", "caption_language")
    return clip


def check_languages(config: CaptionsConfig) -> None:
    """Raises RequestError for a language that cannot be told from others, or no known script."""
    unknown = sorted(set(config.languages) - set(LITTLE_WORDS))
    if unknown:
        raise RequestError(
            f"captions.languages: {', '.join(unknown)} is not one of {', '.join(LITTLE_WORDS)}"
        )
    strange = [name for name in config.scripts if name.lower() not in known_scripts()]
    if strange:
        raise RequestError(
            f"captions.scripts: {', '.join(strange)} is no script of Unicode; give names such as "
            "latin, cyrillic, greek, arabic, cjk, hangul"
        )


def tidy(text: str | None, max_words: int) -> str:
    """One line, single spaces, no stray quotes, at most `max_words`; '' when no letter is left.

    "The video shows", with which models like to begin, says nothing of the clip and goes.
    """
    line = " ".join((text or "").replace('"', " ").split())
    line = " ".join(_LEAD_IN.sub("", line).split()[:max_words]).strip(" .,;:")
    return line if any(character.isalnum() for character in line) else ""


def shorten(caption: str, max_words: int) -> str:
    """The words before the setting ("a red circle over ..." -> "a red circle"), a few at most.

    A clause of time or place in front ("In a park, a dog runs") gives way to the one behind it;
    what the limit leaves hanging at the end ("a dog and a") goes.
    """
    clauses = caption.split(SETTING_WORD, 1)[0].split(", ")
    while len(clauses) > 1 and clauses[0].split(" ", 1)[0].lower() in _PLACES:
        clauses.pop(0)
    words = clauses[0].split()
    short = words[:max_words]
    while len(short) < len(words) and len(short) > 1 and short[-1].lower() in _HANGING:
        short.pop()
    return " ".join(short)


def motion_words(clip: Clip, config: CaptionsConfig) -> str | None:
    """ "moving left|right|up|down" when one direction is clear; None when not, or for a still."""
    dx, dy = clip.motion_dx, clip.motion_dy
    if clip.kind != "video" or dx is None or dy is None:
        return None
    along, across = max(abs(dx), abs(dy)), min(abs(dx), abs(dy))
    if along < config.min_motion or along < across * config.min_direction:
        return None
    if abs(dx) >= abs(dy):
        return "moving right" if dx > 0 else "moving left"
    return "moving down" if dy > 0 else "moving up"


def with_motion(still: str, words: str | None) -> str:
    """The motion after the subject where the caption names a setting, else at its end."""
    if not words or words in still:
        return still
    if SETTING_WORD in still:
        subject, place = still.split(SETTING_WORD, 1)
        return f"{subject} {words}{SETTING_WORD}{place}"
    return f"{still}, {words}"
