"""Near duplicates within and across sources: the best copy stays, the others say which it is.

Two clips are copies when their fingerprints agree (phash.py: the usual colour, what stands, what
moves), their image embeddings agree where both have one, and they last about as long. Embeddings
alone would call two scenes of one subject equal.

Clips are taken from best to worst, and each is compared with the copies already kept. So every
dropped clip is a measured match of the very clip named in `duplicate_of`. (Merging whatever is
connected, as union-find does, can drop a clip that resembles nothing that stays.)

Up to fingerprint_index.EXACT_COUNT clips all pairs are compared; beyond, an index finds those
worth comparing (what it may miss is said there), and cost grows with the number of clips, not with
its square. Embeddings, the bulk of a clip's row, are asked for only once all else agrees.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from pipelines.config import setting
from pipelines.curation.fingerprint_index import FingerprintIndex
from pipelines.curation.fingerprints import Fingerprints
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


@dataclass(frozen=True)
class Candidates:
    """Clips of one kind, best first: what is compared of each."""

    prints: Fingerprints
    durations_s_N: np.ndarray
    #: The image embedding of the clip with this number; None where it has none.
    embedding_of: Callable[[int], np.ndarray | None]
    is_video: bool


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
    for (kind, _), group in groups.items():
        candidates = Candidates(
            Fingerprints.of([clip.phash or "" for clip in group]),
            np.array([clip.duration_s for clip in group]),
            partial(_embedding_of, group),
            kind == "video",
        )
        for copy, original in copies_among(candidates, config):
            yield group[copy].clip_id, group[original].clip_id


def copies_among(candidates: Candidates, config: DuplicatesConfig) -> Iterator[tuple[int, int]]:
    """(number of a copy, number of the better clip it repeats)."""
    prints = candidates.prints
    index = FingerprintIndex(prints.standing_ND, config.min_standing)
    for number in range(len(prints.standing_ND)):
        near = index.near(number)
        if candidates.is_video:
            near = near[_equally_long(candidates.durations_s_N, number, near, config)]
        for kept in _alike(prints, number, near, config):
            if _look_alike(candidates, number, kept, config):
                yield number, kept
                break
        else:
            index.add(number)


def _equally_long(
    durations_s_N: np.ndarray, number: int, others: np.ndarray, config: DuplicatesConfig
) -> np.ndarray:
    one_s, others_s = durations_s_N[number], durations_s_N[others]
    return np.maximum(one_s, others_s) <= np.minimum(one_s, others_s) * config.max_duration_ratio


def _alike(
    prints: Fingerprints, number: int, others: np.ndarray, config: DuplicatesConfig
) -> list[int]:
    """Those of `others` whose fingerprints are alike: the most alike first, then the best."""
    apart = np.abs(prints.colour_N2[others] - prints.colour_N2[number]).max(axis=1, initial=0)
    others = others[apart <= config.max_colour_levels]
    standing = _cosines(prints.standing_ND[number], prints.standing_ND[others])
    near = standing >= config.min_standing
    others, standing = others[near], standing[near]
    if not len(others):
        return []
    moving_D, moving_OD = prints.moving(np.array([number]))[0], prints.moving(others)
    moves = moving_D.any() & moving_OD.any(axis=1)
    found = np.flatnonzero(~moves | (_cosines(moving_D, moving_OD) >= config.min_moving))
    order = np.lexsort((others[found], -standing[found]))
    return [int(other) for other in others[found][order]]


def _cosines(one_D: np.ndarray, others_OD: np.ndarray) -> np.ndarray:
    """Of one row with some others; 1 between two rows without any value."""
    row_D, others_OD = one_D.astype(np.float32), others_OD.astype(np.float32)
    row_square, squares = float(row_D @ row_D), (others_OD**2).sum(axis=1).astype(np.float64)
    products = (others_OD @ row_D) / np.sqrt(np.maximum(squares * row_square, 1))
    return np.where((squares == 0) & (row_square == 0), 1.0, products)


def unit_vector(values: Iterable[float]) -> np.ndarray:
    vector = np.asarray(values, dtype=np.float32)
    norm = float(np.linalg.norm(vector))
    return vector / norm if norm > 0 else vector


def _embedding_of(group: Sequence[Clip], number: int) -> np.ndarray | None:
    values = group[number].embedding
    return None if values is None else np.asarray(values, np.float32)


def _look_alike(candidates: Candidates, number: int, kept: int, config: DuplicatesConfig) -> bool:
    """By the image embeddings; true where one has none, or they are of two models."""
    one, other = candidates.embedding_of(number), candidates.embedding_of(kept)
    if one is None or other is None or one.shape != other.shape:
        return True
    return float(unit_vector(one) @ unit_vector(other)) >= config.min_cosine
