"""Near duplicates within and across sources: the best copy stays, the others say which it is.

Two clips are copies when their perceptual hashes are close *and*, where both have one, their
image embeddings agree, and they last about as long. The hash alone calls two different plain
scenes equal; the embedding alone calls two scenes of one subject equal.

Clips are taken from best to worst, and each is compared with the copies already kept. So every
dropped clip is a measured match of the very clip named in `duplicate_of`. (Merging whatever is
connected, as union-find does, can drop a clip that resembles nothing that stays.)
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.config import setting
from pipelines.records import Clip


@dataclass(frozen=True)
class DuplicatesConfig:
    """When two clips are copies of one another."""

    enabled: bool = setting(True, "drop near duplicates, keeping the best copy")
    max_hash_distance: float = setting(
        0.12, "differing bits of the perceptual hash; unrelated pictures: about half", unit="share"
    )
    min_cosine: float = setting(
        0.97, "least cosine of the two image embeddings", unit="cosine", low=-1, high=1
    )
    max_duration_ratio: float = setting(1.25, "longer over shorter duration, at most", low=1)


def rank(clip: Clip) -> tuple[float, float, float, str]:
    """Sort key, best copy first: most pixels, longest, sharpest, then the smallest id."""
    return (
        -float(clip.crop_w_px * clip.crop_h_px),
        -clip.duration_s,
        -(clip.sharpness or 0.0),
        clip.clip_id,
    )


def drop_duplicates(clips: Sequence[Clip], config: DuplicatesConfig) -> list[Clip]:
    """The same clips in the same order, copies dropped with reason `duplicate`.

    Only clips not dropped before take part. The outcome depends on the set of clips, not on
    their order.
    """
    if not config.enabled:
        return list(clips)
    candidates = sorted((c for c in clips if c.verdict == "kept" and c.phash), key=rank)
    original = dict(find_copies(candidates, config))
    return [
        replace(c.dropped("duplicates", "duplicate"), duplicate_of=original[c.clip_id])
        if c.clip_id in original
        else c
        for c in clips
    ]


def find_copies(ranked: Sequence[Clip], config: DuplicatesConfig) -> Iterator[tuple[str, str]]:
    """(clip_id of a copy, clip_id of the better clip it repeats); `ranked` best first."""
    index = _HashIndex(config.max_hash_distance)
    embeddings = {c.clip_id: unit_vector(c.embedding) for c in ranked if c.embedding is not None}
    for clip in ranked:
        bits = _hash_of(clip)
        matches = (
            (distance, kept)
            for distance, kept in index.near(bits)
            if _agree(clip, kept, embeddings, config)
        )
        best = min(matches, key=lambda match: (match[0], rank(match[1])), default=None)
        if best is None:
            index.add(bits, clip)
        else:
            yield clip.clip_id, best[1].clip_id


def unit_vector(values: Iterable[float]) -> np.ndarray:
    vector = np.asarray(values, dtype=np.float32)
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm > 0 else vector


def _agree(
    clip: Clip, kept: Clip, embeddings: dict[str, np.ndarray], config: DuplicatesConfig
) -> bool:
    if clip.kind != kept.kind:
        return False
    shorter, longer = sorted((clip.duration_s, kept.duration_s))
    if clip.kind == "video" and longer > shorter * config.max_duration_ratio:
        return False
    a, b = embeddings.get(clip.clip_id), embeddings.get(kept.clip_id)
    if a is None or b is None or a.shape != b.shape:
        return True
    return float(a @ b) >= config.min_cosine


@dataclass(frozen=True)
class _Bits:
    value: int
    length: int


def _hash_of(clip: Clip) -> _Bits:
    text = clip.phash or ""
    return _Bits(int(text, 16), 4 * len(text))


class _HashIndex:
    """Finds every stored hash within a share of differing bits, without comparing all pairs.

    Pigeonhole: cut a hash into d + 1 bands; two hashes that differ in at most d bits agree
    exactly in one band at least. Equal hashes share one entry, so a thousand black pictures cost
    one comparison, not a thousand.
    """

    def __init__(self, max_share: float) -> None:
        self._max_share = max_share
        self._clips: dict[_Bits, list[Clip]] = defaultdict(list)
        self._buckets: dict[tuple[int, int, int], list[_Bits]] = defaultdict(list)

    def _bands(self, bits: _Bits) -> Iterator[tuple[int, int, int]]:
        """(length of the hash, number of the band, the band's bits)."""
        bands = min(int(bits.length * self._max_share) + 1, bits.length)
        edges = [bits.length * i // bands for i in range(bands + 1)]
        for band, (low, high) in enumerate(itertools.pairwise(edges)):
            yield bits.length, band, (bits.value >> low) & ((1 << (high - low)) - 1)

    def add(self, bits: _Bits, clip: Clip) -> None:
        if bits not in self._clips:
            for band in self._bands(bits):
                self._buckets[band].append(bits)
        self._clips[bits].append(clip)

    def near(self, bits: _Bits) -> Iterator[tuple[int, Clip]]:
        """(differing bits, clip) of every stored hash of the same length within the limit."""
        limit = int(bits.length * self._max_share)
        found = {other for band in self._bands(bits) for other in self._buckets.get(band, ())}
        for other in found:
            distance = (bits.value ^ other.value).bit_count()
            if distance <= limit:
                for clip in self._clips[other]:
                    yield distance, clip
