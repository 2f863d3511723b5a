"""What a kept clip is good enough for: base training, high resolution, the last fine-tuning.

The refinement model is first tuned on high-resolution clips, then on the best of them, sorted by
aesthetic score, motion and the share of the picture its subject takes (I2VGen-XL, section 3.2).
So premium clips are taken from the high-resolution ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipelines.config import setting
from pipelines.records import Clip


@dataclass(frozen=True)
class TiersConfig:
    """Which kept clips join which training phase."""

    high_res_width_px: int = setting(1280, "least width inside the borders", unit="px", low=1)
    high_res_height_px: int = setting(720, "least height inside the borders", unit="px", low=1)
    premium_share: float = setting(
        0.25, "best share of the candidates that are premium", unit="share", low=0, high=1
    )
    premium_max_clips: int = setting(1_000_000, "premium clips, at most", unit="clips", low=0)
    premium_from: Literal["high_res", "base"] = setting("high_res", "tier that premium is part of")
    aesthetic_weight: float = setting(1.0, "weight of the aesthetic score's rank", low=0)
    motion_weight: float = setting(1.0, "weight of the motion's rank", low=0)
    subject_weight: float = setting(1.0, "weight of the subject's share of the picture", low=0)
    clip_score_weight: float = setting(0.5, "weight of the text-picture score's rank", low=0)


def assign_tiers(clips: Sequence[Clip], config: TiersConfig) -> list[Clip]:
    """The same clips in the same order with `tiers` set; dropped clips are in none."""
    premium = _premium_ids([c for c in clips if c.verdict == "kept"], config)
    return [replace(c, tiers=_tiers_of(c, premium, config)) for c in clips]


def is_high_res(clip: Clip, config: TiersConfig) -> bool:
    """Both sides must do: an upright picture, cut to the wide target, loses most of its height."""
    return (
        clip.crop_w_px >= config.high_res_width_px and clip.crop_h_px >= config.high_res_height_px
    )


def _tiers_of(clip: Clip, premium: set[str], config: TiersConfig) -> list[str]:
    if clip.verdict != "kept":
        return []
    tiers = ["base"]
    if is_high_res(clip, config):
        tiers.append("high_res")
    if clip.clip_id in premium:
        tiers.append("premium")
    return tiers


def _premium_ids(kept: Sequence[Clip], config: TiersConfig) -> set[str]:
    """At least one clip where any qualifies and the share is not zero; only moving pictures."""
    candidates = [c for c in kept if c.kind == "video"]
    if config.premium_from == "high_res":
        candidates = [c for c in candidates if is_high_res(c, config)]
    wanted = min(math.ceil(len(candidates) * config.premium_share), config.premium_max_clips)
    merit = merit_of(candidates, config)
    best = sorted(candidates, key=lambda c: (-merit[c.clip_id], c.clip_id))
    return {c.clip_id for c in best[:wanted]}


def merit_of(clips: Sequence[Clip], config: TiersConfig) -> dict[str, float]:
    """Weighted mean of each clip's ranks in [0, 1] among `clips`, by clip_id.

    Ranks, not values: the scores have no common unit. A score that a clip lacks counts as the
    middle, one that all lack counts for nothing.
    """
    weights = {
        "aesthetic": config.aesthetic_weight,
        "motion": config.motion_weight,
        "subject_area": config.subject_weight,
        "clip_score": config.clip_score_weight,
    }
    total = dict.fromkeys((c.clip_id for c in clips), 0.0)
    for name, weight in weights.items():
        ranks = _ranks({c.clip_id: getattr(c, name) for c in clips})
        for clip_id, rank in ranks.items():
            total[clip_id] += weight * rank
    whole = sum(weights.values()) or 1.0
    return {clip_id: round(value / whole, 6) for clip_id, value in total.items()}


def _ranks(values: dict[str, float | None]) -> dict[str, float]:
    """Share of the other known values that are lower (ties count half), by key."""
    known = sorted(v for v in values.values() if v is not None)
    if not known:
        return {}
    ranks = {}
    for key, value in values.items():
        if value is None or len(known) == 1:
            ranks[key] = 0.5
        else:
            low, high = _span(known, value)
            ranks[key] = (low + high - 1) / 2 / (len(known) - 1)
    return ranks


def _span(ordered: list[float], value: float) -> tuple[int, int]:
    from bisect import bisect_left, bisect_right

    return bisect_left(ordered, value), bisect_right(ordered, value)
