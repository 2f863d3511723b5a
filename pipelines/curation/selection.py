"""Which clips are kept, and for what, decided over all of them at once on the driver's columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pipelines.curation.clip_ids import order_keys, places_in_order
from pipelines.curation.config import CurateConfig
from pipelines.curation.duplicates import Candidates, copies_among
from pipelines.curation.fingerprints import Fingerprints
from pipelines.curation.heaps import Heaps
from pipelines.curation.judged import CUT_FAILED, KEPT, Judged
from pipelines.curation.judged_parts import part_path
from pipelines.curation.mapped import full, mapped, zeros
from pipelines.curation.tiers import MERITS, TierColumns, is_high_res, premium_among
from pipelines.curation.work import Work

UNCUTTABLE, DUPLICATE = ("cuts", "cut_failed"), ("duplicates", "duplicate")
NO_CLIP = -1


@dataclass(frozen=True)
class Selection:
    """What becomes of each clip: columns beside those of `Judged`."""

    #: KEPT, or the number of a reason.
    reason_N: np.ndarray
    #: The clip that each copy repeats, or NO_CLIP.
    duplicate_of_N: np.ndarray
    is_high_res_N: np.ndarray
    is_premium_N: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """Numbers of the kept clips, rising."""
        return np.flatnonzero(self.reason_N == KEPT)


def select(work: Work, judged: Judged) -> Selection:
    """Drops what could not be cut, then all copies but the best; the rest get their tiers."""
    config = work.config
    reason_N = mapped(judged.reason_N)
    uncuttable = (reason_N == KEPT) & (judged.cut_state_N == CUT_FAILED)
    reason_N[uncuttable] = judged.reason_number(UNCUTTABLE)
    duplicate_of_N = full(len(judged), NO_CLIP, np.int64)
    if config.duplicates.enabled:
        takes_part = (reason_N == KEPT) | judged.numbers["is_shadow"]
        for copy, original in _copies(work, judged, takes_part):
            duplicate_of_N[copy] = original
        is_copy = duplicate_of_N != NO_CLIP
        reason_N[is_copy & (reason_N == KEPT)] = judged.reason_number(DUPLICATE)
    high_res_N, premium_N = _tiers(judged, reason_N == KEPT, config)
    return Selection(reason_N, duplicate_of_N, high_res_N, premium_N)


def _copies(work: Work, judged: Judged, takes_part: np.ndarray) -> Iterator[tuple[int, int]]:
    members = mapped(np.flatnonzero(takes_part & (judged.phash_digits_N > 0)))
    ranked = mapped(members[_best_first(judged, members)])
    kinds = judged.is_video_N[ranked] + 2 * judged.phash_digits_N[ranked]
    with Heaps(work) as heaps:
        for kind in np.unique(kinds):
            group = mapped(ranked[kinds == kind])
            candidates = Candidates(
                _prints(work, judged, group),
                mapped(judged.duration_s_of(group)),
                _embedding_reader(judged, group, heaps),
                bool(kind & 1),
            )
            for copy, original in copies_among(candidates, work.config.duplicates):
                yield int(group[copy]), int(group[original])


def _best_first(judged: Judged, clips: np.ndarray) -> np.ndarray:
    """As duplicates.rank: most pixels, longest, sharpest, then the smallest id."""
    numbers = judged.numbers
    width_px, height_px = (mapped(numbers[f"crop_{side}_px"][clips]) for side in "wh")
    keys = (
        *order_keys(judged.ids_NB, clips),
        mapped(-numbers["sharpness"][clips]),
        mapped(-judged.duration_s_of(clips)),
        mapped(-width_px.astype(np.int64) * height_px),
    )
    return np.lexsort(keys)


def _prints(work: Work, judged: Judged, group: np.ndarray) -> Fingerprints:
    """In the order of `group`, read part by part."""
    found = Fingerprints.room_for(len(group), int(judged.phash_digits_N[group[0]]))
    in_order = mapped(np.argsort(group))
    for part, clips in judged.rows_by_part(group[in_order]):
        path = part_path(work, judged.parts[part])
        texts = work.scratch.read_table(path, ["phash"])["phash"]
        texts = texts.take(clips - judged.starts[part]).to_pylist()
        rows = in_order[: len(clips)]
        in_order = in_order[len(clips) :]
        found.put(rows, texts)
    return found


def _embedding_reader(
    judged: Judged, group: np.ndarray, heaps: Heaps
) -> Callable[[int], np.ndarray | None]:
    starts, sizes = judged.numbers["embedding_at"], judged.numbers["embedding_bytes"]

    def read(number: int) -> np.ndarray | None:
        clip = group[number]
        if starts[clip] < 0:
            return None
        part = judged.parts[int(judged.part_of(clip))]
        data = heaps.read(part, int(starts[clip]), int(sizes[clip]))
        return np.frombuffer(data, np.float16).astype(np.float32)

    return read


def _tiers(
    judged: Judged, is_kept: np.ndarray, config: CurateConfig
) -> tuple[np.ndarray, np.ndarray]:
    kept, numbers = mapped(np.flatnonzero(is_kept)), judged.numbers
    high_res = is_high_res(numbers["crop_w_px"][kept], numbers["crop_h_px"][kept], config.tiers)
    columns = TierColumns(
        mapped(places_in_order(judged.ids_NB, kept)),
        judged.is_video_N[kept],
        high_res,
        {name: mapped(numbers[name][kept].astype(np.float64)) for name in MERITS},
    )
    high_res_N, premium_N = zeros(len(judged), bool), zeros(len(judged), bool)
    high_res_N[kept], premium_N[kept] = high_res, premium_among(columns, config.tiers)
    return high_res_N, premium_N
