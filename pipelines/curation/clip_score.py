"""How well words and pictures agree, and how steady the pictures are, by a CLIP model.

`clip_score`: mean cosine of the sampled frames' embeddings with the caption's (the still caption,
before motion words: no single frame shows motion). `temporal_consistency`: mean cosine of
neighbouring sampled frames. `embedding`: the mean of the frames' unit embeddings, of unit length.

Floating-point results of a matrix product may depend on its shape. So frames go through the model
in batches of one fixed size, padded, and the scores are rounded: which clips happen to share a
batch decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.config import setting
from pipelines.records import Clip

SCORE_DIGITS = 5


@dataclass(frozen=True)
class ClipScoreConfig:
    """Which model scores, and the least scores that pass (none: score only)."""

    model: str = setting(
        "embedded", "open_clip model: embedded, or architecture:weights as in the preset paper"
    )
    min_score: float | None = setting(
        None,
        "least cosine of picture and caption; a model only judges pictures of its own world, "
        "so the embedded one must not reject real film",
        unit="cosine",
    )
    min_consistency: float | None = setting(
        None, "least cosine of neighbouring sampled frames", unit="cosine"
    )
    aesthetic_weights: str = setting(
        "", "safetensors of an aesthetic head on the embeddings; empty: aesthetic stays null"
    )
    frames_per_batch: int = setting(
        16, "frames in one pass; always padded to this", unit="frames", low=1
    )


@dataclass(frozen=True)
class Scores:
    """What the models measured of one clip."""

    clip_score: float | None
    temporal_consistency: float | None
    aesthetic: float | None
    embedding: list[float]
    subject_area: float | None = None
    nsfw: float | None = None


def score_clip(
    frames_FD: np.ndarray, text_D: np.ndarray | None, aesthetic: float | None = None
) -> Scores:
    """Scores from unit embeddings of the sampled frames (F, D) and of the caption (D,)."""
    mean_D = frames_FD.mean(axis=0)
    mean_D = mean_D / max(float(np.linalg.norm(mean_D)), 1e-12)
    steps = (frames_FD[1:] * frames_FD[:-1]).sum(axis=1)
    return Scores(
        clip_score=None if text_D is None else _rounded(float((frames_FD @ text_D).mean())),
        temporal_consistency=_rounded(float(steps.mean())) if len(steps) else None,
        aesthetic=None if aesthetic is None else _rounded(aesthetic),
        embedding=[float(v) for v in np.round(mean_D, SCORE_DIGITS).astype(np.float16)],
    )


def _rounded(value: float) -> float:
    return round(value, SCORE_DIGITS)


def unit_rows(values_BD: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(values_BD, axis=1, keepdims=True)
    return values_BD / np.maximum(norms, 1e-12)


def in_batches(count: int, batch_size: int) -> list[list[int]]:
    """Indices 0..count-1 in runs of exactly `batch_size`; the last repeats its final index."""
    runs = [list(range(i, min(i + batch_size, count))) for i in range(0, count, batch_size)]
    return [run + [run[-1]] * (batch_size - len(run)) for run in runs]


def with_scores(clip: Clip, scores: Scores) -> Clip:
    return replace(
        clip,
        clip_score=scores.clip_score,
        temporal_consistency=scores.temporal_consistency,
        aesthetic=scores.aesthetic,
        embedding=scores.embedding,
        subject_area=scores.subject_area,
        nsfw=scores.nsfw,
    )


def judge(clip: Clip, config: ClipScoreConfig) -> Clip:
    """Drops a clip whose words and pictures do not match, or whose pictures jump."""
    if _below(clip.clip_score, config.min_score):
        return clip.dropped("clip_score", "low_clip_score")
    if _below(clip.temporal_consistency, config.min_consistency):
        return clip.dropped("clip_score", "not_single_shot")
    return clip


def _below(value: float | None, least: float | None) -> bool:
    return value is not None and least is not None and value < least


def sample_frames(count: int, wanted: int) -> Sequence[int]:
    """`wanted` indices spread evenly over 0..count-1 (all of them when there are fewer)."""
    if count <= wanted:
        return range(count)
    return [round(i * (count - 1) / max(wanted - 1, 1)) for i in range(wanted)]
