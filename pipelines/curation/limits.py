"""Duration, resolution and rights: what can be judged without looking at the picture."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.config import setting
from pipelines.curation.rights.policy import refuses
from pipelines.curation.rights.stated import Rights
from pipelines.records import Clip


@dataclass(frozen=True)
class LimitsConfig:
    """The smallest and longest clip worth keeping, and whose footage may be used."""

    min_duration_s: float = setting(2.0, "16 frames at 8 per second need this", unit="s", low=0)
    max_duration_s: float = setting(120.0, "longer shots rarely show one thing", unit="s", low=0)
    min_width_px: int = setting(256, "inside the borders", unit="px", low=1)
    min_height_px: int = setting(256, "inside the borders", unit="px", low=1)
    licenses: tuple[str, ...] = setting(
        (),
        "accepted licences, such as CC0-1.0,CC-BY-*; 'not stated': of files without; empty: any",
    )
    refused_licenses: tuple[str, ...] = setting(
        (), "licences refused even if accepted above, such as *-NC-*,not stated"
    )
    require_consent: bool = setting(False, "refuse footage without a stated consent")
    honour_refusals: bool = setting(
        True, "refuse footage of which somebody says no: table, file beside, or C2PA manifest"
    )

    def __post_init__(self) -> None:
        if self.min_duration_s > self.max_duration_s:
            raise ValueError("min_duration_s is above max_duration_s: no clip would be kept")


def judge(clip: Clip, config: LimitsConfig) -> Clip:
    """Drops clips that may not be used, are too short or long, or too small inside their borders.

    A still has no duration. The sides are compared as long and short, so that an upright clip is
    held to the same size as a lying one.
    """
    if refuses(Rights(clip.license, clip.consent), config):
        return clip.dropped("limits", "licence_refused")
    if clip.kind == "video":
        if clip.duration_s < config.min_duration_s - 1e-6:
            return clip.dropped("limits", "too_short")
        if clip.duration_s > config.max_duration_s + 1e-6:
            return clip.dropped("limits", "too_long")
    sides = sorted((clip.crop_w_px, clip.crop_h_px))
    least = sorted((config.min_width_px, config.min_height_px))
    if sides[0] < least[0] or sides[1] < least[1]:
        return clip.dropped("limits", "too_small")
    return clip
