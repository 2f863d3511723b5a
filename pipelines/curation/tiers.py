"""What a kept clip is good enough for: base training, high resolution, the last fine-tuning.

The refinement model is first tuned on high-resolution clips, then on the best of them, sorted by
aesthetic score, motion and the share of the picture its subject takes (I2VGen-XL, section 3.2).
So premium clips are taken from the high-resolution ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pipelines.config import setting
from pipelines.curation.mapped import full, mapped, stretches, zeros
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


#: The scores that make a clip premium, and the setting that says how much each weighs.
MERITS = {
    "aesthetic": "aesthetic_weight",
    "motion": "motion_weight",
    "subject_area": "subject_weight",
    "clip_score": "clip_score_weight",
}


@dataclass(frozen=True)
class TierColumns:
    """What tiers are decided by: of kept clips, a row each. A score that is not known is NaN."""

    #: Places of the ids in their order: of equal merit the smaller id is better.
    id_places_N: np.ndarray
    is_video_N: np.ndarray
    is_high_res_N: np.ndarray
    scores: Mapping[str, np.ndarray]


def assign_tiers(clips: Sequence[Clip], config: TiersConfig) -> list[Clip]:
    """The same clips in the same order with `tiers` set; dropped clips are in none."""
    kept = [c for c in clips if c.verdict == "kept"]
    columns = columns_of(kept, config)
    premium = premium_among(columns, config)
    tiers = {
        clip.clip_id: tiers_named(bool(high_res), bool(best))
        for clip, high_res, best in zip(kept, columns.is_high_res_N, premium, strict=True)
    }
    return [replace(c, tiers=tiers[c.clip_id] if c.verdict == "kept" else []) for c in clips]


def columns_of(clips: Sequence[Clip], config: TiersConfig) -> TierColumns:
    ids = np.array([c.clip_id for c in clips], dtype=np.str_)
    places = np.empty(len(clips), np.int64)
    places[np.argsort(ids, kind="stable")] = np.arange(len(clips))
    return TierColumns(
        places,
        np.array([c.kind == "video" for c in clips], bool),
        is_high_res(
            np.array([c.crop_w_px for c in clips]), np.array([c.crop_h_px for c in clips]), config
        ),
        {name: np.array([getattr(c, name) for c in clips], np.float64) for name in MERITS},
    )


def is_high_res(width_px: np.ndarray, height_px: np.ndarray, config: TiersConfig) -> np.ndarray:
    """Both sides must do: an upright picture, cut to the wide target, loses most of its height."""
    return (width_px >= config.high_res_width_px) & (height_px >= config.high_res_height_px)


def tiers_named(high_res: bool, premium: bool) -> list[str]:
    """The tiers of a kept clip, in the order in which they are trained on."""
    return ["base"] + ["high_res"] * high_res + ["premium"] * premium


def premium_among(columns: TierColumns, config: TiersConfig) -> np.ndarray:
    """True for the best share; at least one clip where any qualifies and the share is not zero.
    Only moving pictures."""
    can_be = columns.is_video_N
    if config.premium_from == "high_res":
        can_be = can_be & columns.is_high_res_N
    candidates = mapped(np.flatnonzero(can_be))
    wanted = min(math.ceil(len(candidates) * config.premium_share), config.premium_max_clips)
    scores = {name: mapped(scores[candidates]) for name, scores in columns.scores.items()}
    merit = merit_of(scores, config)
    order = np.lexsort((mapped(columns.id_places_N[candidates]), mapped(-merit)))
    premium = np.zeros(len(can_be), bool)
    premium[candidates[order[:wanted]]] = True
    return premium


def merit_of(scores: Mapping[str, np.ndarray], config: TiersConfig) -> np.ndarray:
    """Weighted mean of each clip's ranks in [0, 1] among them all.

    Ranks, not values: the scores have no common unit. A score that a clip lacks counts as the
    middle, one that all lack counts for nothing.
    """
    weights = {name: getattr(config, setting) for name, setting in MERITS.items()}
    total = zeros(len(next(iter(scores.values()))), np.float64)
    for name, weight in weights.items():
        ranks = _ranks(scores[name])
        if ranks is not None:
            total += weight * ranks
    whole = sum(weights.values()) or 1.0
    for some in stretches(len(total)):
        total[some] = [round(value, 6) for value in (total[some] / whole).tolist()]
    return total


def _ranks(values: np.ndarray) -> np.ndarray | None:
    """Share of the other known values that are lower (ties count half); None: none is known."""
    known = mapped(values[~np.isnan(values)])
    known.sort()
    if not len(known):
        return None
    ranks = full(len(values), 0.5, np.float64)
    if len(known) > 1:
        for some in stretches(len(values)):
            of_some = values[some]
            low, high = (np.searchsorted(known, of_some, side=side) for side in ("left", "right"))
            middle = (low + high - 1) / 2 / (len(known) - 1)
            ranks[some] = np.where(np.isnan(of_some), 0.5, middle)
    return ranks
