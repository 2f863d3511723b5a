"""What the workers commit for each source, and how it is read back.

Nothing but ids and places travels between workers: every stage reads what the one before it
committed. So a rerun, which finds some of it done, sees exactly what the first run saw.

What equal work would find again is shared by all datasets of a work folder. What only this dataset
may go by is in its own `_work/` and goes when it is complete: cuts not yet in a shard, texts beside
the films, and failures that may have been the moment's.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.curation.captions import describe, tidy
from pipelines.curation.clip_score import Scores, with_scores
from pipelines.curation.verdicts import TAKEN_DOWN, judge_measured, judge_scored
from pipelines.curation.work import SIDECAR, LostWork, Row, Work
from pipelines.records import CLIP_SCHEMA, Clip, Source, from_row, from_table, to_row, to_table

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
        ("subject_area", pa.float32()),
        ("nsfw", pa.float32()),
    ]
)
CUTS_SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("size_bytes", pa.int64()),
        ("sha256", pa.string()),
        ("failed", pa.string()),
        ("method", pa.string()),
        ("leak_frames", pa.int32()),
        ("lost_frames", pa.int32()),
        ("cut_again", pa.bool_()),
    ]
)


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


def commit_watched(work: Work, source: Source, table: pa.Table) -> None:
    """What was seen is for everybody; a failure counts under equal limits, or in this run only."""
    if source.status == "ok":
        log = "watch"
    else:
        log = "passing" if source.reason in PASSING_REASONS else "failures"
    work.log(log).write(source.source_id, table)


def _seen(work: Work, source_id: str, columns: list[str]) -> pa.Table | None:
    """What this run goes by. Its own failures come first, or another job that does better at the
    same time would change the source under its hands."""
    if work.shared.is_local:
        return _found(work, source_id, columns)
    asked = (work.shared_uri, work.run_id, source_id)
    table = _last_seen.get(asked)
    if table is None:
        table = _found(work, source_id)
        _last_seen.clear()
        if table is None:
            return None
        _last_seen[asked] = table
    return table.select(columns)


#: Of an object store, what was read last in this process: a stage asks several times in a row.
_last_seen: dict[tuple[str, str, str], pa.Table] = {}


def _found(work: Work, source_id: str, columns: list[str] | None = None) -> pa.Table | None:
    table = work.log("passing").read(source_id, columns)
    if table is not None and table.schema.metadata[RUN_KEY].decode() == work.run_id:
        return table
    for log in ("failures", "watch"):
        table = work.log(log).read(source_id, columns)
        if table is not None:
            return table
    return None


def settled(work: Work, source_id: str) -> bool:
    """True when the source needs no watching: it was seen, or failed for good or in this run."""
    return _seen(work, source_id, ["clip_id"]) is not None


def watched(work: Work, source_id: str) -> tuple[Source, list[Clip], float]:
    """The source, its clips as measured, and the seconds it took. It must be committed."""
    table = _seen(work, source_id, CLIP_SCHEMA.names)
    if table is None:
        raise LostWork(work, source_id, "what was watched")
    return source_of(table), from_table(Clip, table), seconds_of(table)


def measured_clips(work: Work, source: Source) -> list[Clip]:
    """The clips as watched, under the rights that `source` states now."""
    clips = watched(work, source.source_id)[1]
    return [dataclasses.replace(c, license=source.license, consent=source.consent) for c in clips]


def samples_of(work: Work, source_id: str) -> dict[str, list[bytes]]:
    """JPEG bytes of each clip's sampled frames, in order of time."""
    table = _seen(work, source_id, ["clip_id", SAMPLES.name])
    if table is None:
        return {}
    columns = (table["clip_id"].to_pylist(), table[SAMPLES.name].to_pylist())
    return dict(zip(*columns, strict=True))


def raw_captions(work: Work, source_id: str) -> dict[str, str]:
    """The captioner's words by clip_id."""
    if work.texts_beside:
        table = work.log(SIDECAR).read(source_id)
        parts = [] if table is None else [table]
    else:
        parts = list(work.log("captions").read_parts(source_id))
    return {r["clip_id"]: r["raw_caption"] for part in parts for r in part.to_pylist()}


def commit_captions(work: Work, source_id: str, captions: Mapping[str, str]) -> None:
    rows = ({"clip_id": k, "raw_caption": v} for k, v in captions.items())
    table = table_of(rows, CAPTIONS_SCHEMA)
    if work.texts_beside:
        work.log(SIDECAR).write(source_id, table)
    else:
        work.log("captions").add(source_id, table)


def scores_of(
    work: Work, source_id: str, columns: list[str] | None = None
) -> dict[tuple[str, str], Row]:
    """By clip_id and the text that was scored with it: other captioners' scores stay of use."""
    parts = work.log("scores").read_parts(source_id, columns)
    return {(r["clip_id"], r["text"]): r for part in parts for r in part.to_pylist()}


def cuts_of(work: Work, source_id: str) -> dict[str, Row]:
    table = work.log("cuts").read(source_id)
    return {} if table is None else {r["clip_id"]: r for r in table.to_pylist()}


@dataclass(frozen=True)
class SourceCommits:
    """All that is committed of one source, every file of it opened once."""

    #: As it was seen, maybe by an earlier run, with its names and rights of today.
    source: Source
    #: Its clips as measured, under those rights.
    clips: Sequence[Clip]
    captions: Mapping[str, str]
    scores: Mapping[tuple[str, str], Row]

    def judged(self, work: Work) -> list[Clip]:
        """The clips with their verdicts so far."""
        return [_judged(work, c, self.captions, self.scores) for c in self.clips]

    def is_described(self, work: Work) -> bool:
        """True when nothing is left to caption or score. (Texts beside the films are always.)"""
        passed = [c.clip_id for c in self.clips if _judged_measured(work, c).verdict == "kept"]
        if work.texts_beside:
            return not passed
        return all(c in self.captions and self._is_scored(work, c) for c in passed)

    def _is_scored(self, work: Work, clip_id: str) -> bool:
        text = still_caption(work, self.captions[clip_id])
        return not text or (clip_id, text) in self.scores


def commits_of(work: Work, source: Source) -> SourceCommits | None:
    """None when the source was not watched, as far as this run goes by it."""
    table = _seen(work, source.source_id, CLIP_SCHEMA.names)
    if table is None:
        return None
    seen = dataclasses.replace(
        source_of(table), uris=source.uris, license=source.license, consent=source.consent
    )
    clips = [
        dataclasses.replace(c, license=source.license, consent=source.consent)
        for c in from_table(Clip, table)
    ]
    if not clips:
        return SourceCommits(seen, clips, {}, {})
    captions, scores = raw_captions(work, source.source_id), scores_of(work, source.source_id)
    return SourceCommits(seen, clips, captions, scores)


def judged_clips(work: Work, source: Source) -> list[Clip]:
    """The source's clips with all that is committed of them, and their verdicts so far."""
    return finished_commits(work, source).judged(work)


def finished_commits(work: Work, source: Source) -> SourceCommits:
    """What must be committed by now. Raises LostWork otherwise."""
    commits = commits_of(work, source)
    if commits is None:
        raise LostWork(work, source.source_id, "what was watched")
    return commits


def passed_clips(work: Work, source: Source) -> list[Clip]:
    """The clips that are worth a model's time: whatever was measured of them passes."""
    judged = (_judged_measured(work, c) for c in measured_clips(work, source))
    return [c for c in judged if c.verdict == "kept"]


def _judged_measured(work: Work, clip: Clip) -> Clip:
    """What was taken down leaves first of all, whatever it is worth."""
    if work.tombstones.covers(clip.clip_id, clip.source_id, clip.start_frame, clip.end_frame):
        return clip.dropped(*TAKEN_DOWN)
    return judge_measured(clip, work.config)


def _judged(
    work: Work, clip: Clip, captions: Mapping[str, str], scores: Mapping[tuple[str, str], Row]
) -> Clip:
    clip = _judged_measured(work, clip)
    if clip.verdict == "dropped" or clip.clip_id not in captions:
        return clip
    raw = captions[clip.clip_id]
    clip = describe(clip, raw, work.captioner_name, work.config.captions)
    row = scores.get((clip.clip_id, still_caption(work, raw)))
    if clip.verdict == "dropped" or row is None:
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
