"""The paper's findings as comparisons of two numbers of the same clip, and what came of them.

A finding compares a measure of one variant with a measure of another (or of the same) on the same
clips and sampling seeds. Differences are averaged per clip first: clips, not videos, are what the
error bar is over. A difference counts when it is larger than two standard errors.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
UNDECIDED, NOT_RUN = "not decided", "not run"
ERROR_BARS = 2.0  # standard errors that a difference must exceed

Rows = Sequence[Mapping[str, Any]]
Side = tuple[str, str]  # (variant, measure)


@dataclass(frozen=True)
class Finding:
    """`better` is expected above `worse` (`more`) or below it. With `size`, the absolute values
    are compared: how far a spectrum is off. With `kept_within`, `better` alone is expected to stay
    this close to zero, and `worse` is not used."""

    name: str
    topic: str
    claim: str
    better: Side
    worse: Side
    more: bool
    size: bool = False
    kept_within: float | None = None


def _pair(
    name: str, topic: str, claim: str, measure: str, better: str, worse: str, more: bool
) -> Finding:
    return Finding(name, topic, claim, (better, measure), (worse, measure), more)


def _refined(name: str, claim: str, measure: str, *, more: bool = False) -> Finding:
    """Of the cascade: the refined video against the base video enlarged."""
    before, after = measure.format("bicubic"), measure.format("refined")
    off = measure.endswith("_off")
    sides = ("cascade", after), ("cascade", before)
    return Finding(name, "refinement", claim, *sides, more, size=off)


# The variants are settings of the training jobs: tests/benchmarks/findings.py says which.
FINDINGS: tuple[Finding, ...] = (
    _pair("cascade_semantics", "cascade or single stage",
          "the cascade follows the motion of the prompt more often than one stage of equal cost",
          "object_direction_right", "cascade", "single", True),
    _pair("cascade_continuity", "cascade or single stage",
          "frames of the cascade follow from one another better",
          "warp_error", "cascade", "single", False),
    _pair("content_first_frame", "content kept",
          "with the content encoder the first frame is closer to the image",
          "first_frame_psnr_db", "full", "no_content", True),
    _pair("content_identity", "content kept",
          "with the content encoder the object keeps its shape longer",
          "object_identity", "full", "no_content", True),
    _pair("detail_first_frame", "content kept",
          "with the detail branch the first frame is closer to the image",
          "first_frame_psnr_db", "full", "no_detail", True),
    _pair("detail_identity", "content kept",
          "with the detail branch the object keeps its shape longer",
          "object_identity", "full", "no_detail", True),
    Finding("refinement_low_kept", "refinement", "low frequencies stay as the base made them",
            ("cascade", "refined_low_change"), ("cascade", "refined_low_change"), False,
            kept_within=0.1),
    Finding("refinement_high_raised", "refinement", "high frequencies are raised",
            ("cascade", "refined_spatial_high_off"), ("cascade", "bicubic_spatial_high_off"), True),
    _refined("refinement_middle", "middle frequencies come closer to the true clip's",
             "{}_spatial_middle_off"),
    _refined("refinement_temporal_high", "fast changes come closer to the true clip's",
             "{}_temporal_high_off"),
    _refined("refinement_true_psnr", "a true small clip refined is closer to the true large one",
             "true_{}_psnr_db", more=True),
    _refined("refinement_true_features", "and closer in the autoencoder's features",
             "true_{}_feature_distance"),
    _refined("refinement_made_features", "so is a generated clip", "made_{}_feature_distance"),
    _pair("text_beside_image", "image and text",
          "with the text beside the image, the motion of the prompt happens more often",
          "object_direction_right", "full", "image_only", True),
    _pair("image_beside_text", "image and text",
          "with the image beside the text, videos are closer to the true clip",
          "truth_feature_distance", "full", "text_only", False),
    _pair("gamma_first_frame", "spatial rate 0.2 or 1",
          "a slower rate of the spatial layers keeps pictures better",
          "first_frame_psnr_db", "full", "gamma_1", True),
    _pair("gamma_truth", "spatial rate 0.2 or 1", "and keeps videos closer to the true clip",
          "truth_feature_distance", "full", "gamma_1", False),
    _pair("joint_first_frame", "images beside videos",
          "stills in the training batches keep pictures better",
          "first_frame_psnr_db", "full", "video_only", True),
    _pair("joint_truth", "images beside videos", "and keep videos closer to the true clip",
          "truth_feature_distance", "full", "video_only", False),
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A mean of one variant that should reach `least`."""

    name: str
    claim: str
    side: Side
    least: float


TARGETS = (
    Target("direction", "the motion of the prompt happens", ("cascade", "object_direction_right"),
           0.95),
    Target("direction_turned", "it happens too where the prompt is turned from the clip's motion",
           ("turned", "object_direction_right"), 0.95),
    Target("first_frame", "the first frame is the image given, dB",
           ("full", "first_frame_psnr_db"), 28.0),
)  # fmt: skip


def judge(finding: Finding, rows: Mapping[str, Rows]) -> dict[str, Any]:
    """The finding's entry of findings.json; `rows` are the videos of evaluation.json by variant."""
    entry: dict[str, Any] = {"name": finding.name, "topic": finding.topic, "claim": finding.claim}
    entry |= {"better": list(finding.better), "worse": list(finding.worse), "more": finding.more}
    better = _by_clip_and_seed(rows.get(finding.better[0], ()), finding.better[1], finding.size)
    worse = _by_clip_and_seed(rows.get(finding.worse[0], ()), finding.worse[1], finding.size)
    kept = finding.kept_within is not None
    differences = {
        key: better[key] - (0.0 if kept else worse[key]) for key in better if key in worse
    }
    if not differences:
        return {**entry, "verdict": NOT_RUN}
    mean, error, clips = over_clips(differences)
    return {
        **entry,
        "mean_better": statistics.fmean(better[key] for key in differences),
        "mean_worse": statistics.fmean(worse[key] for key in differences),
        "difference": mean,
        "standard_error": error,
        "clips": clips,
        "videos": len(differences),
        "kept_within": finding.kept_within,
        "verdict": verdict(finding, mean, error),
    }


def verdict(finding: Finding, difference: float, standard_error: float) -> str:
    """What a mean difference with its standard error says of the finding."""
    bar = ERROR_BARS * standard_error
    if finding.kept_within is not None:
        if abs(difference) + bar <= finding.kept_within:
            return REPRODUCED
        return NOT_REPRODUCED if abs(difference) - bar > finding.kept_within else UNDECIDED
    if difference == 0 or abs(difference) <= bar:
        return UNDECIDED
    return REPRODUCED if (difference > 0) == finding.more else NOT_REPRODUCED


def over_clips(values: Mapping[tuple[str, int], float]) -> tuple[float, float, int]:
    """(mean, standard error, number of clips) of values by (clip, seed): clips are averaged over
    their seeds first, as videos of one clip are not independent. One clip alone has an infinite
    error."""
    by_clip: dict[str, list[float]] = {}
    for (clip, _), value in values.items():
        by_clip.setdefault(clip, []).append(value)
    means = [statistics.fmean(several) for several in by_clip.values()]
    if len(means) < 2:
        return means[0], math.inf, 1
    return statistics.fmean(means), statistics.stdev(means) / math.sqrt(len(means)), len(means)


def judge_target(target: Target, rows: Mapping[str, Rows]) -> dict[str, Any]:
    """The target's entry of findings.json."""
    entry: dict[str, Any] = {"name": target.name, "claim": target.claim, "side": list(target.side)}
    values = _by_clip_and_seed(rows.get(target.side[0], ()), target.side[1], False)
    if not values:
        return {**entry, "least": target.least, "verdict": NOT_RUN}
    mean, error, clips = over_clips(values)
    reached = "reached" if mean >= target.least else "not reached"
    figures = {"mean": mean, "standard_error": error, "clips": clips, "least": target.least}
    return {**entry, **figures, "verdict": reached}


def check_findings(record: Mapping[str, Any]) -> None:
    """Raises ValueError when the record lacks a finding or target, holds one that is not known, or
    calls one something that its own numbers do not say."""
    known = {finding.name: finding for finding in FINDINGS}
    found = {entry["name"]: entry for entry in record["findings"]}
    if set(known) != set(found):
        differing = sorted(set(known) ^ set(found))
        raise ValueError(f"findings.json: findings missing or unknown: {', '.join(differing)}")
    if {entry["name"] for entry in record["targets"]} != {target.name for target in TARGETS}:
        raise ValueError("findings.json: targets missing or unknown")
    for name, entry in found.items():
        if entry["verdict"] == NOT_RUN:
            continue
        said = verdict(known[name], entry["difference"], entry["standard_error"])
        if said != entry["verdict"]:
            raise ValueError(f"findings.json: {name} is called {entry['verdict']}, it is {said}")
    for entry in record["targets"]:
        if entry["verdict"] != NOT_RUN:
            said = "reached" if entry["mean"] >= entry["least"] else "not reached"
            if said != entry["verdict"]:
                raise ValueError(f"findings.json: target {entry['name']} is {said}")


def _by_clip_and_seed(rows: Rows, measure: str, size: bool) -> dict[tuple[str, int], float]:
    values = {}
    for row in rows:
        if measure in row["measures"]:
            value = float(row["measures"][measure])
            values[row["clip_id"], int(row["seed"])] = abs(value) if size else value
    return values
