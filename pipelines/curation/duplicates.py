"""Near duplicates within and across sources: the best copy stays, the others say which it is.

Two clips are copies when their fingerprints agree (phash.py: the usual colour, what stands, what
moves), their image embeddings agree where both have one, and they last about as long. Embeddings
alone would call two scenes of one subject equal.

Clips are taken from best to worst, and each is compared with the copies already kept. So every
dropped clip is a measured match of the very clip named in `duplicate_of`. (Merging whatever is
connected, as union-find does, can drop a clip that resembles nothing that stays.)

Up to fingerprint_index.EXACT_COUNT clips all pairs are compared; beyond, an index finds those
worth comparing (what it may miss is said there), and cost grows with the number of clips, not with
its square.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.config import setting
from pipelines.curation.fingerprint_index import FingerprintIndex
from pipelines.curation.phash import unpacked
from pipelines.records import Clip


@dataclass(frozen=True)
class DuplicatesConfig:
    """When two clips are copies of one another."""

    enabled: bool = setting(True, "drop near duplicates, keeping the best copy")
    min_standing: float = setting(
        0.9, "least cosine of what stands in the pictures", unit="cosine", low=0.5, high=1
    )
    min_moving: float = setting(
        0.3,
        "least cosine of what moves, where both move; two takes of a scene: about 0",
        unit="cosine",
        low=-1,
        high=1,
    )
    max_colour_levels: float = setting(
        4.0, "how far the usual colours may differ", unit="levels of 255", low=0
    )
    min_cosine: float = setting(
        0.95, "least cosine of the two image embeddings", unit="cosine", low=-1, high=1
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


def drop_duplicates(
    clips: Sequence[Clip], config: DuplicatesConfig, still_there: Collection[str] = ()
) -> list[Clip]:
    """The same clips in the same order, copies dropped with reason `duplicate`.

    Only clips not dropped before take part, and those `still_there` (ids): clips that were taken
    down, of which a copy must not take the place. The outcome depends on the set of clips, not on
    their order.
    """
    if not config.enabled:
        return list(clips)
    takes_part = (c for c in clips if c.verdict == "kept" or c.clip_id in still_there)
    candidates = sorted((c for c in takes_part if c.phash), key=rank)
    original = dict(find_copies(candidates, config))
    return [
        replace(c.dropped("duplicates", "duplicate"), duplicate_of=original[c.clip_id])
        if c.clip_id in original
        else c
        for c in clips
    ]


def find_copies(ranked: Sequence[Clip], config: DuplicatesConfig) -> Iterator[tuple[str, str]]:
    """(clip_id of a copy, clip_id of the better clip it repeats); `ranked` best first.

    Videos and stills, and fingerprints of different lengths, are never compared.
    """
    groups: dict[tuple[str, int], list[Clip]] = defaultdict(list)
    for clip in ranked:
        groups[clip.kind, len(clip.phash or "")].append(clip)
    for group in groups.values():
        yield from _copies_in(group, config)


def _copies_in(group: Sequence[Clip], config: DuplicatesConfig) -> Iterator[tuple[str, str]]:
    prints = _Fingerprints.of(group)
    index = FingerprintIndex(prints.standing_ND, config.min_standing)
    embeddings: dict[int, np.ndarray] = {}
    for number, clip in enumerate(group):
        original = None
        for _, kept in prints.alike(number, index.near(number), config):
            if _agree(clip, group[kept], config) and _look_alike(
                group, embeddings, number, kept, config
            ):
                original = kept
                break
        if original is None:
            index.add(number)
        else:
            yield clip.clip_id, group[original].clip_id


@dataclass(frozen=True)
class _Fingerprints:
    """Of a group of clips, best first: whole numbers, so that no sum depends on the machine."""

    colour_N2: np.ndarray
    standing_ND: np.ndarray
    moving_ND: np.ndarray

    @staticmethod
    def of(group: Sequence[Clip]) -> _Fingerprints:
        prints = [unpacked(clip.phash or "") for clip in group]
        return _Fingerprints(
            np.stack([p.colour for p in prints]),
            np.stack([p.standing for p in prints]),
            np.stack([p.moving for p in prints]),
        )

    def alike(
        self, number: int, others: np.ndarray, config: DuplicatesConfig
    ) -> list[tuple[float, int]]:
        """(cosine, number) of those of `others` that are alike: the most alike first."""
        apart = np.abs(self.colour_N2[others] - self.colour_N2[number]).max(axis=1, initial=0)
        others = others[apart <= config.max_colour_levels]
        standing = _cosines(self.standing_ND, number, others)
        near = standing >= config.min_standing
        others, standing = others[near], standing[near]
        moves = self.moving_ND[number].any() & self.moving_ND[others].any(axis=1)
        moving = _cosines(self.moving_ND, number, others)
        found = np.flatnonzero(~moves | (moving >= config.min_moving))
        order = np.lexsort((others[found], -standing[found]))
        return [(float(standing[i]), int(others[i])) for i in found[order]]


def _cosines(values_ND: np.ndarray, number: int, others: np.ndarray) -> np.ndarray:
    """Of one row with some others; 1 between two rows without any value."""
    row_D, others_OD = values_ND[number].astype(np.float32), values_ND[others].astype(np.float32)
    row_square, squares = float(row_D @ row_D), (others_OD**2).sum(axis=1).astype(np.float64)
    products = (others_OD @ row_D) / np.sqrt(np.maximum(squares * row_square, 1))
    return np.where((squares == 0) & (row_square == 0), 1.0, products)


def unit_vector(values: Iterable[float]) -> np.ndarray:
    vector = np.asarray(values, dtype=np.float32)
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm > 0 else vector


def _agree(clip: Clip, kept: Clip, config: DuplicatesConfig) -> bool:
    shorter, longer = sorted((clip.duration_s, kept.duration_s))
    return clip.kind != "video" or longer <= shorter * config.max_duration_ratio


def _look_alike(
    group: Sequence[Clip],
    embeddings: dict[int, np.ndarray],
    number: int,
    kept: int,
    config: DuplicatesConfig,
) -> bool:
    """By the image embeddings; true where one has none, or they are of two models."""
    for each in (number, kept):
        values = group[each].embedding
        if values is None:
            return True
        if each not in embeddings:
            embeddings[each] = unit_vector(values)
    a, b = embeddings[number], embeddings[kept]
    return a.shape != b.shape or float(a @ b) >= config.min_cosine
