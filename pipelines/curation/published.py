"""The dataset's rows as they are published: the judged rows, part by part, with their outcome."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.curation.clip_ids import hex_ids
from pipelines.curation.judged import KEPT, Judged
from pipelines.curation.judged_parts import part_path
from pipelines.curation.mapped import full
from pipelines.curation.selection import DUPLICATE, Selection
from pipelines.curation.shard_plan import ShardPlan
from pipelines.curation.shards import shard_name
from pipelines.curation.tiers import tiers_named
from pipelines.curation.work import Work
from pipelines.records import CLIP_SCHEMA, SOURCE_SCHEMA

IN_NO_SHARD = -1


@dataclass(frozen=True)
class Outcome:
    """What became of every clip, in columns."""

    judged: Judged
    selection: Selection
    shard_N: np.ndarray

    @staticmethod
    def of(judged: Judged, selection: Selection, plan: ShardPlan) -> Outcome:
        shard_N = full(len(judged), IN_NO_SHARD, np.int64)
        shard_N[plan.clips_K] = plan.shard_K
        return Outcome(judged, selection, shard_N)


def source_tables(work: Work, parts: Iterable[str]) -> Iterator[pa.Table]:
    """Rows of sources.parquet, in order of their ids."""
    for part in parts:
        table = work.scratch.read_table(part_path(work, part, "sources.parquet"))
        yield pa.Table.from_arrays(table.columns, schema=SOURCE_SCHEMA)  # a read names lists anew


def clip_tables(work: Work, outcome: Outcome) -> Iterator[pa.Table]:
    """Rows of clips.parquet, in order of source and shot."""
    for number, part in enumerate(outcome.judged.parts):
        table = work.scratch.read_table(part_path(work, part), CLIP_SCHEMA.names)
        first, end = outcome.judged.starts[number : number + 2]
        yield _with_outcome(table, outcome, slice(first, end))


def _with_outcome(table: pa.Table, outcome: Outcome, rows: slice) -> pa.Table:
    """A kept clip's row has its place and the hash of its media. Of what was taken down the hash of
    its look goes too (it has done its work: copies are found)."""
    judged, selection = outcome.judged, outcome.selection
    reason_N = selection.reason_N[rows]
    is_kept = reason_N == KEPT
    is_copy = reason_N == judged.reason_number(DUPLICATE)
    is_down = judged.is_taken_down()[rows]
    why = [judged.reasons[number] for number in reason_N]
    original_N = selection.duplicate_of_N[rows]
    tiers = zip(selection.is_high_res_N[rows], selection.is_premium_N[rows], strict=True)
    ids = table["clip_id"].to_pylist()
    changed = {
        "phash": _unless(is_down, table["phash"].to_pylist()),
        "duplicate_of": _unless(~is_copy, hex_ids(judged.ids_NB[np.where(is_copy, original_N, 0)])),
        "verdict": ["kept" if kept else "dropped" for kept in is_kept],
        "reason_stage": [stage for stage, _ in why],
        "reason": [reason for _, reason in why],
        "tiers": [
            tiers_named(bool(high), bool(best)) if kept else []
            for kept, (high, best) in zip(is_kept, tiers, strict=True)
        ],
        "shard": _unless(~is_kept, [shard_name(int(n)) for n in outcome.shard_N[rows]]),
        "key": _unless(~is_kept, ids),
        "content_sha256": _unless(~is_kept, hex_ids(judged.cut_sha256_NB[rows])),
    }
    columns = [
        pa.array(changed[field.name], field.type) if field.name in changed else table[field.name]
        for field in CLIP_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=CLIP_SCHEMA)


def _unless(is_gone: np.ndarray, values: Sequence[str | None]) -> list[str | None]:
    return [None if gone else value for gone, value in zip(is_gone, values, strict=True)]
