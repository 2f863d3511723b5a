"""The past of a dataset, a checkpoint or a generated video: all that it was made from."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import RequestError
from pipelines.lineage import manifest
from pipelines.lineage.catalog import (
    LINEAGE_TABLE,
    Catalog,
    Entry,
    base_of,
    checkpoints_of,
    name_of,
)
from pipelines.records import CLIP_SCHEMA, SOURCE_SCHEMA


def checkpoint_entry(catalog: Catalog, uri: str) -> Entry:
    """A step's directory, or the newest step of a checkpoints folder. Raises RequestError."""
    found = catalog.at("checkpoint", uri)
    if found is None:
        inside = [e for e in catalog.of("checkpoint") if e.folder == uri.rstrip("/")]
        found = max(inside, key=lambda e: e.step, default=None)
    if found is None:
        raise RequestError(f"checkpoint {uri}: no checkpoint.json there or one step below")
    return found


def trace_checkpoint(catalog: Catalog, checkpoint: Entry) -> dict[str, Any]:
    """What a checkpoint learned from: itself first, then the base checkpoints it grew from."""
    line = catalog.ancestry(checkpoint)
    lost = base_of(line[-1]) if catalog.find("checkpoint", base_of(line[-1])) is None else None
    return {"stages": [_past_of(catalog, stage) for stage in line], "base_not_found": lost}


def _past_of(catalog: Catalog, checkpoint: Entry) -> dict[str, Any]:
    header = checkpoint.header
    history = catalog.history(checkpoint)
    ledger = pa.concat_tables([entry.table(LINEAGE_TABLE) for entry in history])
    dataset = catalog.find("dataset", header.get("dataset"))
    sources = _sources_seen(ledger, dataset)
    oldest = history[-1]
    return {
        **name_of(checkpoint),
        "stage": header.get("stage"),
        "step": checkpoint.step,
        "finished": header.get("finished"),
        "samples_seen": pc.sum(ledger["times"]).as_py() or 0,
        "samples_claimed": header.get("samples_seen"),
        "clips_seen": len(pc.unique(ledger["clip_id"])),
        "history": [entry.step for entry in reversed(history)],
        "history_complete": oldest.header.get("parent") is None,
        "latents": header.get("latents"),
        "dataset": header.get("dataset"),
        "dataset_found": dataset.uri if dataset else None,
        "base": header.get("base"),
        "config": header.get("config"),
        "sources": sources,
        "licenses": dict(Counter(row["license"] or "not stated" for row in sources)),
    }


_SOURCES_SEEN = """
    WITH seen AS (
        SELECT source_id, clip_id, sum(times) AS times, min(first_step) AS first_step
        FROM ledger GROUP BY source_id, clip_id
    )
    SELECT seen.source_id, any_value(sources.uris) AS uris,
           any_value(coalesce(clips.license, sources.license)) AS license,
           any_value(sources.consent) AS consent,
           count(*) AS clips, sum(seen.times)::BIGINT AS times,
           min(seen.first_step) AS first_step,
           list([clips.start_s, clips.end_s] ORDER BY clips.start_s)
               FILTER (clips.start_s IS NOT NULL) AS spans_s
    FROM seen
    LEFT JOIN clips USING (clip_id)
    LEFT JOIN sources ON sources.source_id = seen.source_id
    GROUP BY seen.source_id ORDER BY times DESC, seen.source_id
"""


def _sources_seen(ledger: pa.Table, dataset: Entry | None) -> list[dict[str, Any]]:
    """A row per source: its files, licence, spans seen (seconds), clips, exposures."""
    import duckdb

    clip_columns = ["clip_id", "start_s", "end_s", "license"]
    source_columns = ["source_id", "uris", "license", "consent"]
    if dataset:
        clips = dataset.table(manifest.CLIPS_TABLE, clip_columns)
        sources = dataset.table(manifest.SOURCES_TABLE, source_columns)
    else:
        clips = CLIP_SCHEMA.empty_table().select(clip_columns)
        sources = SOURCE_SCHEMA.empty_table().select(source_columns)
    with duckdb.connect() as connection:
        for name, table in (("ledger", ledger), ("clips", clips), ("sources", sources)):
            connection.register(name, table)
        cursor = connection.execute(_SOURCES_SEEN)
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def video_entry(catalog: Catalog, path: str) -> Entry:
    """The record of a generated video: the JSON beside it, else the file's own metadata.

    Raises RequestError when neither says how it was made.
    """
    if found := catalog.at("video", path):
        return found
    header = recorded_in_file(path)
    if not header:
        raise RequestError(
            f"video {path}: nothing says how it was made (no {Path(path).stem}.json with its "
            "checkpoints beside it, no record in its metadata)"
        )
    return Entry("video", path, header)


def recorded_in_file(path: str) -> dict[str, Any]:
    """The JSON object with checkpoints that a tag of the video file holds; {} where none does."""
    from pipelines.media.errors import MediaError
    from pipelines.media.opening import opened_video

    try:
        with opened_video(path) as (container, _):
            tags = list(container.metadata.values())
    except (MediaError, OSError):
        return {}
    for text in tags:
        with contextlib.suppress(ValueError):
            header = json.loads(text)
            if isinstance(header, dict) and checkpoints_of(Entry("video", path, header)):
                return header
    return {}


def trace_video(catalog: Catalog, video: Entry) -> dict[str, Any]:
    """The prompt, seed and settings that made a video, its checkpoints and their whole past."""
    checkpoints: dict[str, Any] = {}
    stages: dict[str, Any] = {}
    for role, reference in checkpoints_of(video).items():
        found = catalog.find("checkpoint", reference)
        checkpoints[role] = {**reference, "uri": found.uri if found else None}
        if found:
            past = trace_checkpoint(catalog, found)["stages"]
            stages.update((stage["uri"], stage) for stage in past)
    made_with = {**video.header.get("settings", {}), **video.header}
    for name in ("settings", "checkpoints"):
        made_with.pop(name, None)
    return {
        "uri": video.uri,
        "made_with": made_with,
        "checkpoints": checkpoints,
        "stages": list(stages.values()),
    }


def trace_dataset(catalog: Catalog, dataset: manifest.Dataset) -> dict[str, Any]:
    """What a dataset holds, the version it came from, and what was made from it."""
    latents = [e for e in catalog.of("latents") if _comes_from(e, dataset)]
    checkpoints = [e for e in catalog.of("checkpoint") if _comes_from(e, dataset)]
    return {
        "uri": dataset.uri,
        "digest": dataset.digest,
        "parent_digest": dataset.parent_digest,
        "sources": dataset.sources.num_rows,
        **manifest.count_clips(dataset.clips),
        "licenses": _licenses_of_kept(dataset.clips),
        "taken_down": dataset.tombstones.num_rows if dataset.tombstones is not None else 0,
        "latents": [{**name_of(e), "stage": e.header.get("stage")} for e in latents],
        "checkpoints": [
            {**name_of(e), "stage": e.header.get("stage"), "step": e.step} for e in checkpoints
        ],
    }


def _comes_from(entry: Entry, dataset: manifest.Dataset) -> bool:
    return bool((entry.header.get("dataset") or {}).get("digest") == dataset.digest)


def _licenses_of_kept(clips: pa.Table) -> dict[str, int]:
    kept = clips.filter(pc.equal(clips["verdict"], "kept"))
    counted = Counter(name or "not stated" for name in kept["license"].to_pylist())
    return dict(sorted(counted.items()))
