"""What the workers commit for each source, and how it is read back.

Nothing but ids and places travels between workers: every stage reads what the one before it
committed. So a rerun, which finds some of it done, sees exactly what the first run saw.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.curation.captions import describe, tidy
from pipelines.curation.clip_score import Scores, with_scores
from pipelines.curation.commit_log import WORK_FOLDER, AttemptCap, CommitLog
from pipelines.curation.config import CurateConfig
from pipelines.curation.shards import extension_of
from pipelines.curation.verdicts import judge_measured, judge_scored
from pipelines.records import CLIP_SCHEMA, Clip, Source, from_row, from_table, to_row, to_table
from pipelines.storage import Store

Row = dict[str, Any]

SAMPLES = pa.field("samples", pa.list_(pa.binary()))
SOURCE_KEY, SECONDS_KEY, RUN_KEY = b"source", b"seconds", b"run"

#: Failures that may be the machine's, or the moment's: the next run tries such a file again.
PASSING_REASONS = frozenset(
    ("changed_while_read", "unreadable", "timed_out", "out_of_memory", "decoder_died")
)
CAPTIONS_SCHEMA = pa.schema([("clip_id", pa.string()), ("raw_caption", pa.string())])
SCORES_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("text", pa.string()),
        ("clip_score", pa.float32()),
        ("temporal_consistency", pa.float32()),
        ("aesthetic", pa.float32()),
        ("embedding", pa.list_(pa.float16())),
    ]
)
CUTS_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("size_bytes", pa.int64()),
        ("sha256", pa.string()),
        ("failed", pa.string()),
    ]
)


@dataclass(frozen=True)
class Work:
    """What every worker is told: the place, the configuration, and where results are committed."""

    dataset: str
    config: CurateConfig
    keys: Mapping[str, str]
    captioner_name: str
    run_id: str

    @cached_property
    def store(self) -> Store:
        return Store(self.dataset)

    def log(self, stage: str) -> CommitLog:
        return CommitLog(self.store, stage, self.keys[stage])

    @property
    def attempts(self) -> AttemptCap:
        return AttemptCap(self.store, self.run_id, self.config.resources.attempts)

    def cut_path(self, clip: Clip) -> str:
        folder = f"{WORK_FOLDER}/cuts/{self.keys['cuts']}/{clip.source_id}"
        return f"{folder}/{clip.clip_id}.{extension_of(clip)}"


def watched_table(
    source: Source,
    clips: Sequence[Clip],
    samples: Mapping[str, Sequence[bytes]],
    seconds: float,
    run_id: str,
) -> pa.Table:
    """A source's clips with their sampled frames; the source itself goes into the metadata."""
    column = pa.array([list(samples.get(c.clip_id, ())) for c in clips], type=SAMPLES.type)
    table = to_table(Clip, clips).append_column(SAMPLES, column)
    said = {SOURCE_KEY: json.dumps(to_row(source)), SECONDS_KEY: repr(seconds), RUN_KEY: run_id}
    return table.replace_schema_metadata(said)


def source_of(table: pa.Table) -> Source:
    return from_row(Source, json.loads(table.schema.metadata[SOURCE_KEY]))


def seconds_of(table: pa.Table) -> float:
    return float(table.schema.metadata[SECONDS_KEY])


def watched(work: Work, source_id: str) -> tuple[Source, list[Clip], float]:
    """The source, its clips as measured, and the seconds it took. It must be committed."""
    table = work.log("watch").read(source_id, columns=CLIP_SCHEMA.names)
    if table is None:
        raise RuntimeError(f"source {source_id} was not watched")
    return source_of(table), from_table(Clip, table), seconds_of(table)


def measured_clips(work: Work, source: Source) -> list[Clip]:
    """The clips as watched, under the rights that `source` states now."""
    clips = watched(work, source.source_id)[1]
    return [dataclasses.replace(c, license=source.license, consent=source.consent) for c in clips]


def settled(work: Work, source_id: str) -> bool:
    """True when the source needs no watching: it was seen, or failed for good or in this run."""
    table = work.log("watch").read(source_id, columns=["clip_id"])
    if table is None:
        return False
    passing = source_of(table).reason in PASSING_REASONS
    return not passing or table.schema.metadata[RUN_KEY].decode() == work.run_id


def samples_of(work: Work, source_id: str) -> dict[str, list[bytes]]:
    """JPEG bytes of each clip's sampled frames, in order of time."""
    table = work.log("watch").read(source_id, columns=["clip_id", SAMPLES.name])
    if table is None:
        return {}
    columns = (table["clip_id"].to_pylist(), table[SAMPLES.name].to_pylist())
    return dict(zip(*columns, strict=True))


def raw_captions(work: Work, source_id: str) -> dict[str, str]:
    table = work.log("captions").read(source_id)
    return {} if table is None else {r["clip_id"]: r["raw_caption"] for r in table.to_pylist()}


def scores_of(work: Work, source_id: str) -> dict[str, Row]:
    table = work.log("scores").read(source_id)
    return {} if table is None else {r["clip_id"]: r for r in table.to_pylist()}


def cuts_of(work: Work, source_id: str) -> dict[str, Row]:
    table = work.log("cuts").read(source_id)
    return {} if table is None else {r["clip_id"]: r for r in table.to_pylist()}


def judged_clips(work: Work, source: Source) -> list[Clip]:
    """The source's clips with all that is committed of them, and their verdicts so far."""
    captions, scores = raw_captions(work, source.source_id), scores_of(work, source.source_id)
    return [_judged(work, c, captions, scores) for c in measured_clips(work, source)]


def passed_clips(work: Work, source: Source) -> list[Clip]:
    """The clips that are worth a model's time: whatever was measured of them passes."""
    judged = (judge_measured(c, work.config) for c in measured_clips(work, source))
    return [c for c in judged if c.verdict == "kept"]


def _judged(work: Work, clip: Clip, captions: Mapping[str, str], scores: Mapping[str, Row]) -> Clip:
    clip = judge_measured(clip, work.config)
    if clip.verdict == "dropped" or clip.clip_id not in captions:
        return clip
    raw = captions[clip.clip_id]
    clip = describe(clip, raw, work.captioner_name, work.config.captions)
    row = scores.get(clip.clip_id)
    if clip.verdict == "dropped" or row is None or row["text"] != still_caption(work, raw):
        return clip
    fields = (f.name for f in dataclasses.fields(Scores))
    return judge_scored(with_scores(clip, Scores(**{n: row[n] for n in fields})), work.config)


def still_caption(work: Work, raw: str) -> str:
    """The words that are scored: as the captioner said them, tidied, without motion."""
    return tidy(raw, work.config.captions.max_words)


def scores_table(rows: Iterable[Row]) -> pa.Table:
    ordered = sorted(rows, key=lambda r: r["clip_id"])
    halves = [{**r, "embedding": np.asarray(r["embedding"], np.float16)} for r in ordered]
    return pa.Table.from_pylist(halves, schema=SCORES_SCHEMA)


def table_of(rows: Iterable[Row], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(sorted(rows, key=lambda r: r["clip_id"]), schema=schema)
