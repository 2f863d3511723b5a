"""Runs the models over sampled frames and captions (what the numbers mean: clip_score.py).

The subject's share and nudity come of the same frames, so they are measured here too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipelines.curation.aesthetic import load_head
from pipelines.curation.captioners import frame_from_jpeg
from pipelines.curation.clip_score import (
    SCORE_DIGITS,
    ClipScoreConfig,
    Scores,
    in_batches,
    score_clip,
    unit_rows,
)
from pipelines.curation.nsfw import NsfwConfig, NsfwDetector
from pipelines.curation.subject import subject_area

NO_NSFW = NsfwConfig()


class ClipScorer:
    """A loaded model; one per worker."""

    def __init__(self, config: ClipScoreConfig, nsfw: NsfwConfig = NO_NSFW) -> None:
        import torch

        from model.encoders import load_clip

        self._batch = config.frames_per_batch
        self._head = load_head(config.aesthetic_weights)
        self._nsfw = None if nsfw.method == "off" else NsfwDetector(nsfw)
        self._encoder: Any = load_clip(config.model, "cuda" if torch.cuda.is_available() else "cpu")

    def score(
        self, frames_of_clips: Sequence[Sequence[bytes]], texts: Sequence[str]
    ) -> list[Scores]:
        """Scores of each clip from the JPEG bytes of its sampled frames and its caption."""
        frames = [jpeg for frames in frames_of_clips for jpeg in frames]
        frames_ND = self._embed_frames(frames)
        texts_CD = self._embed_texts(texts)
        scores, first = [], 0
        for clip_frames, text_D in zip(frames_of_clips, texts_CD, strict=True):
            own_FD = frames_ND[first : first + len(clip_frames)]
            first += len(clip_frames)
            of_text = score_clip(own_FD, text_D, self._aesthetic(own_FD))
            scores.append(self._with_seen(of_text, clip_frames))
        return scores

    def _with_seen(self, scores: Scores, jpegs: Sequence[bytes]) -> Scores:
        area = subject_area([frame_from_jpeg(jpeg) for jpeg in jpegs])
        return replace(
            scores,
            subject_area=None if area is None else round(area, SCORE_DIGITS),
            nsfw=None if self._nsfw is None else self._nsfw.score(jpegs),
        )

    def _aesthetic(self, frames_FD: np.ndarray) -> float | None:
        if self._head is None:
            return None
        return float(np.mean([self._head.score(frame_D) for frame_D in frames_FD]))

    def _embed_frames(self, jpegs: Sequence[bytes]) -> np.ndarray:
        """Unit rows (N, D) float32."""
        import torch

        def encode(batch: Sequence[bytes]) -> Any:
            pictures = [self._encoder.preprocess(frame_from_jpeg(j)[None]) for j in batch]
            return self._encoder.encode_image(torch.cat(pictures))

        return self._in_fixed_batches(jpegs, encode)

    def _embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit rows (N, D) float32."""
        return self._in_fixed_batches(texts, self._encoder.encode_text)

    def _in_fixed_batches(self, items: Sequence[Any], encode: Any) -> np.ndarray:
        rows: dict[int, np.ndarray] = {}
        for batch in in_batches(len(items), self._batch):
            values_BD = encode([items[i] for i in batch]).cpu().numpy()
            rows.update(zip(batch, values_BD, strict=True))
        return unit_rows(np.stack(list(_ordered(rows))).astype(np.float32))


def _ordered(rows: dict[int, np.ndarray]) -> Iterator[np.ndarray]:
    return (rows[i] for i in sorted(rows))
