"""The judges, in the order a clip meets them, and the thresholds the report draws.

A clip's verdict is a pure function of what was measured and of the configuration. So a changed
threshold needs no second look at the footage, and a rerun cannot decide otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from pipelines.curation import (
    clip_score,
    limits,
    motion,
    nsfw,
    overlay_text,
    quality,
    single_shot,
)
from pipelines.curation.config import CurateConfig
from pipelines.records import Clip

#: (stage, reason) of what was taken down before and must not come back.
TAKEN_DOWN = ("takedown", "taken_down")

#: (section of the config, judge, title in the report) of what needs no model.
JUDGES: tuple[tuple[str, Callable[[Clip, Any], Clip], str], ...] = (
    ("limits", limits.judge, "Long and large enough"),
    ("single_shot", single_shot.judge, "One shot only"),
    ("motion", motion.judge, "Moves"),
    ("quality", quality.judge, "Clean picture"),
    ("overlay_text", overlay_text.judge, "No overlay text"),
)

#: (reason_stage, title) of every place where a clip can leave, in order.
STAGES: tuple[tuple[str, str], ...] = (
    *((name, title) for name, _, title in JUDGES),
    ("captions", "Has a caption"),
    ("nsfw", "No nudity"),
    ("clip_score", "Caption matches picture"),
    ("cuts", "Could be cut"),
    ("duplicates", "No better copy"),
)


def judge_measured(clip: Clip, config: CurateConfig) -> Clip:
    """The verdict from what the watch stage measured. The first judge that rejects stands."""
    for section, judge, _ in JUDGES:
        clip = judge(clip, getattr(config, section))
    return clip


def shadows_of(clips: Iterable[Clip], config: CurateConfig) -> set[str]:
    """Ids of clips that were taken down but would pass the judges of what is measured: a worse
    copy of such a clip stays dropped, or the same picture would come back under another name."""
    gone = filter(is_taken_down, clips)
    fresh = (replace(c, verdict="kept", reason_stage=None, reason=None) for c in gone)
    return {c.clip_id for c in fresh if judge_measured(c, config).verdict == "kept"}


def stages_of(reasons: Collection[str]) -> tuple[tuple[str, str], ...]:
    """STAGES, after the takedown where that is among the reasons why clips were dropped."""
    gone = TAKEN_DOWN[1] in reasons
    return ((TAKEN_DOWN[0], "Not taken down"), *STAGES) if gone else STAGES


def is_taken_down(clip: Clip) -> bool:
    return (clip.reason_stage, clip.reason) == TAKEN_DOWN


def judge_scored(clip: Clip, config: CurateConfig) -> Clip:
    """The verdict from what the models said."""
    return clip_score.judge(nsfw.judge(clip, config.nsfw), config.clip_score)


def drawn_limits(config: CurateConfig) -> dict[str, Sequence[float]]:
    """Thresholds in force, by the column they apply to."""
    found: dict[str, list[float | None]] = {
        "duration_s": [config.limits.min_duration_s, config.limits.max_duration_s],
        "crop_h_px": [config.limits.min_height_px],
        "single_shot": [config.single_shot.min_single_shot],
        "motion": [config.motion.min_motion, config.motion.max_motion],
        "sharpness": [config.quality.min_sharpness],
        "brightness": [config.quality.min_brightness],
        "contrast": [config.quality.min_contrast],
        "flashes": [config.quality.max_flashes],
        "text_area": [config.overlay_text.max_text_area],
        "nsfw": [config.nsfw.max_score] if config.nsfw.method != "off" else [],
        "clip_score": [config.clip_score.min_score],
        "temporal_consistency": [config.clip_score.min_consistency],
    }
    return {name: [float(v) for v in values if v is not None] for name, values in found.items()}
