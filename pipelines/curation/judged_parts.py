"""Judged clips in parts of a few hundred sources: written by workers, read by the driver.

A part is a parquet file with the whole row of every clip, and what the driver needs to know to
plan with it. Beside it lies a heap: the rows of clips that may be kept as JSON, and their
embeddings, each found by its place. So the driver holds a few numbers of each clip, and whoever
writes a shard reads the rows of that shard alone.

    DATASET/_work/judged/<run_id>/<part>.parquet  <part>.sources.parquet  <part>.heap
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Container, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.curation.committed import (
    CUTS_SCHEMA,
    SourceCommits,
    commits_of,
    cuts_of,
    finished_commits,
)
from pipelines.curation.shards import json_bytes
from pipelines.curation.verdicts import shadows_of
from pipelines.curation.work import LostWork, Row, Work
from pipelines.records import CLIP_SCHEMA, Clip, Source, from_row, to_row, to_table

PART_SOURCES = 256
JUDGED_FOLDER = "judged"
ROW_DIGEST_BYTES = 16

#: What is known beside the clip's own row: its places in the heap (null: it is not there), whether
#: it hides its copies though it was taken down, and what came of its cut, if it was cut before.
PLAN_SCHEMA = pa.schema(
    [
        ("row_at", pa.int64()),
        ("row_bytes", pa.int32()),
        ("row_digest", pa.binary(ROW_DIGEST_BYTES)),
        ("embedding_at", pa.int64()),
        ("embedding_bytes", pa.int32()),
        ("caption_bytes", pa.int32()),
        pa.field("is_shadow", pa.bool_(), nullable=False),
        *(f.with_name(f"cut_{f.name}") for f in CUTS_SCHEMA if f.name != "clip_id"),
    ]
)
PART_SCHEMA = pa.schema([*CLIP_SCHEMA, *PLAN_SCHEMA])
CUT_COLUMNS = tuple(f"cut_{name}" for name in CUTS_SCHEMA.names if name != "clip_id")


def part_path(work: Work, part: str, kind: str = "parquet") -> str:
    """Below `work.scratch`."""
    return f"{JUDGED_FOLDER}/{work.run_id}/{part}.{kind}"


def part_row(part: str, sources: Sequence[Source], may_be_done: Container[str] | None) -> Row:
    """What `judge_part` is told. `may_be_done` (ids): the others are not looked for; None: all
    must be done."""
    texts = [json.dumps(to_row(source)) for source in sources]
    known = [may_be_done is None or s.source_id in may_be_done for s in sources]
    return {"part": part, "sources": texts, "known": known, "must_be_done": may_be_done is None}


def judge_part(row: Row, work: Work) -> Row:
    """Judges some sources by all that is committed of them, and writes the part.

    Where one is not watched, captioned and scored yet nothing is written; `undone` names them.
    Raises LostWork for one that must be done.
    """
    sources = [from_row(Source, json.loads(text)) for text in row["sources"]]
    found = [
        _commits(work, source, known, row["must_be_done"])
        for source, known in zip(sources, row["known"], strict=True)
    ]
    undone = [s.source_id for s, commits in zip(sources, found, strict=True) if commits is None]
    done = [commits for commits in found if commits is not None]
    if not undone:
        _judge_and_write(work, row["part"], done)
    return {
        "part": row["part"],
        "written": not undone,
        "undone": undone,
        "clips": sum(len(c.clips) for c in done),
        "footage_s": sum(c.source.duration_s or 0.0 for c in done if c.source.status == "ok"),
    }


def _judge_and_write(work: Work, part: str, done: Sequence[SourceCommits]) -> None:
    clips: list[Clip] = []
    cuts: dict[str, Row] = {}
    for commits in done:
        clips += sorted(_judged(commits, work), key=lambda c: c.shot_index)
        if commits.clips:
            cuts |= cuts_of(work, commits.source.source_id)
    write_part(work, part, [commits.source for commits in done], clips, cuts)


def _commits(
    work: Work, source: Source, is_known: bool, must_be_done: bool
) -> SourceCommits | None:
    if source.status != "ok":  # refused when it was identified: there was nothing to watch
        return SourceCommits(source, [], {}, {})
    if must_be_done:
        return finished_commits(work, source)
    commits = commits_of(work, source) if is_known else None
    return commits if commits is not None and commits.is_described(work) else None


def _judged(commits: SourceCommits, work: Work) -> list[Clip]:
    clips = commits.judged(work)
    if any(c.verdict == "kept" and (c.caption is None or c.embedding is None) for c in clips):
        raise LostWork(work, commits.source.source_id, "a caption or a score")
    return clips


def write_part(
    work: Work,
    part: str,
    sources: Sequence[Source],
    clips: Sequence[Clip],
    cuts: dict[str, Row],
) -> None:
    """`clips` in order of source, then of shot; `cuts` by clip id. The table last: it names the
    rest."""
    shadows = shadows_of(clips, work.config)
    heap = _Heap()
    plans = [_plan(clip, clip.clip_id in shadows, heap, cuts.get(clip.clip_id)) for clip in clips]
    plan = pa.Table.from_pylist(plans, schema=PLAN_SCHEMA)
    table = pa.Table.from_arrays(
        [*to_table(Clip, clips).columns, *plan.columns], schema=PART_SCHEMA
    )
    scratch = work.scratch
    scratch.write_bytes(part_path(work, part, "heap"), b"".join(heap.pieces))
    scratch.write_table(part_path(work, part, "sources.parquet"), to_table(Source, sources))
    scratch.write_table(part_path(work, part), table)


@dataclasses.dataclass
class _Heap:
    pieces: list[bytes] = dataclasses.field(default_factory=list)
    end: int = 0

    def add(self, piece: bytes) -> int:
        """Where it begins."""
        self.pieces.append(piece)
        self.end += len(piece)
        return self.end - len(piece)


def row_digest(row: bytes) -> bytes:
    return hashlib.sha256(row).digest()[:ROW_DIGEST_BYTES]


def _plan(clip: Clip, is_shadow: bool, heap: _Heap, cut: Row | None) -> dict[str, Any]:
    found: dict[str, Any] = {"is_shadow": is_shadow}
    found |= {column: (cut or {}).get(column.removeprefix("cut_")) for column in CUT_COLUMNS}
    if clip.verdict == "kept":
        row = json_bytes(clip)
        found["row_at"], found["row_bytes"] = heap.add(row), len(row)
        found["row_digest"] = row_digest(row)
        found["caption_bytes"] = len((clip.caption or "").encode())
    if (clip.verdict == "kept" or is_shadow) and clip.embedding is not None:
        vector = np.asarray(clip.embedding, np.float16).tobytes()
        found["embedding_at"], found["embedding_bytes"] = heap.add(vector), len(vector)
    return found
