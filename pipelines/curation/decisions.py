"""Every quantity that the judges hold a clip to, with its limits: written into `dataset.json`.

From the judges' own settings and in their order. Each reason that a stage can give stands in one
entry (a test reads the judges for the reasons that they give).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from pipelines.curation.config import CurateConfig
from pipelines.decisions import Decision, Limit


def decisions_of(config: CurateConfig) -> list[Decision]:
    """In the order in which a clip meets them; the first that it fails is its reason."""
    return [
        Decision(
            stage="takedown",
            title="Not taken down before",
            column="clip_id",
            setting="tombstones",
            reasons=("taken_down",),
            rule="neither the clip nor a frame of it was taken down",
        ),
        *_of_limits(config),
        *_of_pictures(config),
        *_of_words(config),
        *_of_models(config),
        Decision(
            stage="cuts",
            title="Could be cut",
            column="content_sha256",
            setting="cuts.method",
            reasons=("cut_failed",),
            rule="its exact frames can be cut from the file",
        ),
        Decision(
            stage="duplicates",
            title="No better copy",
            column="duplicate_of",
            setting="duplicates.enabled",
            reasons=("duplicate",),
            rule="no better clip looks the same" if config.duplicates.enabled else "not looked for",
        ),
    ]


def _of_limits(config: CurateConfig) -> Iterator[Decision]:
    limits = config.limits
    rights = ("licenses", "refused_licenses", "require_consent", "honour_refusals")
    yield Decision(
        stage="limits",
        title="Licence and consent",
        column="license",
        setting=", ".join(f"limits.{name}" for name in rights),
        reasons=("licence_refused",),
        rule=_rights_rule(config),
    )
    yield _of_numbers(
        "Long enough, not too long",
        _limit(config, "limits", "duration_s", low="min_duration_s", high="max_duration_s"),
        ("too_short", "too_long"),
    )
    short, long = ("height", "width")
    if limits.min_width_px < limits.min_height_px:
        short, long = long, short
    yield _of_numbers(
        "Large enough inside its borders",
        _limit(config, "limits", "short_side_px", low=f"min_{short}_px"),
        ("too_small",),
        also=(_limit(config, "limits", "long_side_px", low=f"min_{long}_px"),),
    )


def _of_pictures(config: CurateConfig) -> Iterator[Decision]:
    yield _of_numbers(
        "One shot only",
        _limit(config, "single_shot", "single_shot", low="min_single_shot"),
        ("not_single_shot",),
    )
    yield _of_numbers(
        "Moves, but not too much",
        _limit(config, "motion", "motion", low="min_motion", high="max_motion"),
        ("too_still", "too_shaky"),
    )
    contrast = _limit(config, "quality", "contrast", low="min_contrast")
    yield _of_numbers(
        "Not black",
        _limit(config, "quality", "brightness", low="min_brightness"),
        ("black",),
        rule="a dark picture with strong contrast passes",
        also=(dataclasses.replace(contrast, at_least=4 * config.quality.min_contrast),),
        fails="all",
    )
    yield _of_numbers("Not one flat colour", contrast, ("flat",))
    flashes = _limit(config, "quality", "flashes", high="max_flashes")
    yield _of_numbers("No flashes", flashes, ("flashes",))
    sharpness = _limit(config, "quality", "sharpness", low="min_sharpness")
    yield _of_numbers("Sharp", sharpness, ("blurred",))
    text = _limit(config, "overlay_text", "text_area", high="max_text_area")
    yield _of_numbers("No overlay text", text, ("overlay_text",))


def _of_words(config: CurateConfig) -> Iterator[Decision]:
    """A caption is text: its words are counted, its row has no number for them."""
    captions = config.captions
    yield Decision(
        stage="captions",
        title="Has a caption",
        column="caption",
        setting="captions.backend",
        reasons=("caption_empty", "caption_refused"),
        rule="usable words, and no refusal to describe",
    )
    words = _limit(config, "captions", "caption", low="min_words")
    yield _of_numbers("Says enough", words, ("caption_short",))
    repeats = _limit(config, "captions", "caption", high="max_repeats")
    yield _of_numbers(
        "Does not repeat itself", repeats, ("caption_repeats",), rule="pairs of words said before"
    )
    yield Decision(
        stage="captions",
        title="Script and language",
        column="caption",
        setting="captions.scripts, captions.languages",
        reasons=("caption_language",),
        rule=f"scripts: {_listed(captions.scripts)}; languages: {_listed(captions.languages)}",
    )


def _of_models(config: CurateConfig) -> Iterator[Decision]:
    nudity = _limit(config, "nsfw", "nsfw", high="max_score")
    yield _of_numbers("No nudity", nudity, ("nsfw",))
    score = _limit(config, "clip_score", "clip_score", low="min_score")
    yield _of_numbers("Caption matches picture", score, ("low_clip_score",))
    steady = _limit(config, "clip_score", "temporal_consistency", low="min_consistency")
    yield _of_numbers("Steady over time", steady, ("not_single_shot",))


def _limit(
    config: CurateConfig, section: str, column: str, *, low: str = "", high: str = ""
) -> Limit:
    """What a column is held to by one or two settings of a section, with their unit."""
    settings = getattr(config, section)
    fields = {field.name: field for field in dataclasses.fields(settings)}
    names = [name for name in (low, high) if name]
    return Limit(
        column,
        at_least=_number(getattr(settings, low)) if low else None,
        at_most=_number(getattr(settings, high)) if high else None,
        unit=fields[names[0]].metadata["unit"],
        setting=", ".join(f"{section}.{name}" for name in names),
    )


def _of_numbers(title: str, limit: Limit, reasons: tuple[str, ...], **more: Any) -> Decision:
    stage = limit.setting.partition(".")[0]
    return Decision(stage=stage, title=title, reasons=reasons, **vars(limit), **more)


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _rights_rule(config: CurateConfig) -> str:
    limits = config.limits
    parts = [f"licence: {_listed(limits.licenses)}"]
    if limits.refused_licenses:
        parts.append(f"but not {_listed(limits.refused_licenses)}")
    if limits.require_consent:
        parts.append("a stated consent")
    if limits.honour_refusals:
        parts.append("nobody says no")
    return "; ".join(parts)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "any"
