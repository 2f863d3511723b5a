"""What a clip is called: a long caption with its motion, and a short one of a few words.

The words of a picture come from a captioner (`captioners.py`); this file turns them into the
clip's captions. A still picture cannot say where things move, but the watch stage measured it:
so the direction is put into words from the optical flow. The refinement model wants few words,
so the short caption keeps the subject and leaves the setting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipelines.config import setting
from pipelines.records import Clip

SETTING_WORD = " over "


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
    max_words: int = setting(60, "longest caption", unit="words", low=1)
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

    Without usable words the captions stay None and the clip is dropped as `caption_empty`.
    """
    still = tidy(raw_caption, config.max_words)
    if not still:
        return replace(clip, captioner=captioner).dropped("captions", "caption_empty")
    words = motion_words(clip, config) if config.add_motion else None
    return replace(
        clip,
        caption=with_motion(still, words),
        short_caption=shorten(still, config.short_words),
        captioner=captioner,
    )


def tidy(text: str | None, max_words: int) -> str:
    """One line, single spaces, no stray quotes, at most `max_words`; '' when no letter is left."""
    words = (text or "").replace('"', " ").split()[:max_words]
    line = " ".join(words).strip(" .,;:")
    return line if any(character.isalnum() for character in line) else ""


def shorten(caption: str, max_words: int) -> str:
    """The words before the setting ("a red circle over ..." -> "a red circle"), a few at most."""
    subject = caption.split(SETTING_WORD, 1)[0].split(", ", 1)[0]
    return " ".join(subject.split()[:max_words])


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
