"""The future of a source or a clip: datasets, latents, checkpoints, videos it went into.

Every function takes a catalog (what exists) and returns plain values, ready for JSON. Nothing is
estimated: exposures are sums over the ledgers (`lineage.parquet`) that training wrote.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.config import RequestError
from pipelines.lineage import manifest
from pipelines.lineage.catalog import INDEX_TABLE, Catalog, Entry, checkpoints_of, name_of
from pipelines.lineage.decisions import decisions_of
from pipelines.lineage.exposures import exposures_of
from pipelines.lineage.tables import Choice
from pipelines.records import source_id_of
from pipelines.storage import sha256_of_file

ID = re.compile(r"[0-9a-f]{32}")
SOURCE_COLUMNS = (
    "source_id, uris, size_bytes, container, codec, width_px, height_px, rotation_deg, fps, "
    "duration_s, num_frames, license, consent, status, reason"
)
CLIP_COLUMNS = (
    "clip_id, source_id, kind, shot_index, start_frame, end_frame, start_s, end_s, caption, "
    "clip_score, verdict, reason_stage, reason, duplicate_of, tiers, shard, key, license, consent"
)


def source_ids_of(catalog: Catalog, file_or_id: str) -> list[str]:
    """The ids that a file's bytes, an id, or the name of a file seen at curation stand for.

    Raises RequestError when nothing is known by it.
    """
    datasets = catalog.of("dataset")
    if not datasets:
        raise _unknown(catalog, "source", file_or_id)
    wanted, parameters = "source_id = ?", [file_or_id]
    if Path(file_or_id).is_file():
        parameters = [source_id_of(sha256_of_file(file_or_id))]
    elif not ID.fullmatch(file_or_id):
        wanted = "len(list_filter(uris, lambda uri: uri = $1 OR ends_with(uri, '/' || $1))) > 0"
    scan = catalog.tables.scan([(dataset.uri, manifest.SOURCES_TABLE) for dataset in datasets])
    query = f"SELECT DISTINCT source_id FROM {scan} WHERE {wanted} ORDER BY source_id"
    known = [row["source_id"] for row in catalog.tables.rows(query, parameters)]
    if not known:
        raise _unknown(catalog, "source", file_or_id)
    return known


def trace_source(catalog: Catalog, source_id: str) -> dict[str, Any]:
    """A source's rows and clips in every dataset, and every checkpoint that saw them."""
    choice, tables = Choice(source_ids=frozenset([source_id])), catalog.tables
    uris, chosen = [dataset.uri for dataset in catalog.of("dataset")], tables.where(choice)
    sources = tables.rows_by_place(uris, manifest.SOURCES_TABLE, SOURCE_COLUMNS, chosen)
    order = "shot_index, start_frame"
    clips = tables.rows_by_place(sources, manifest.CLIPS_TABLE, CLIP_COLUMNS, chosen, order)
    datasets = [
        {
            **name_of(dataset),
            "source": sources[dataset.uri][0],
            "clips": clips.get(dataset.uri, []),
        }
        for dataset in catalog.of("dataset")
        if dataset.uri in sources
    ]
    return {
        "source_id": source_id,
        "datasets": datasets,
        "latents": _latents_with(catalog, choice),
        **who_saw(catalog, choice),
    }


def trace_clip(catalog: Catalog, clip_id: str) -> dict[str, Any]:
    """A clip's row in every dataset with every decision, and where it was used. Raises
    RequestError when unknown."""
    choice, tables = Choice(clip_ids=frozenset([clip_id])), catalog.tables
    datasets = {dataset.uri: dataset for dataset in catalog.of("dataset")}
    columns = "* EXCLUDE (embedding, filename)"
    rows = tables.rows_by_place(datasets, manifest.CLIPS_TABLE, columns, tables.where(choice))
    found = []
    for uri, dataset in datasets.items():
        for row in rows.get(uri, ()):
            decisions = decisions_of(dataset.header, row)
            uris = _uris_of(catalog, dataset, row["source_id"])
            found.append({**name_of(dataset), "row": row, "uris": uris, "decisions": decisions})
    if not found:
        raise _unknown(catalog, "clip", clip_id)
    return {
        "clip_id": clip_id,
        "datasets": found,
        "latents": _latents_with(catalog, choice),
        **who_saw(catalog, choice),
    }


def _uris_of(catalog: Catalog, dataset: Entry, source_id: str) -> list[str]:
    scan = catalog.tables.scan([(dataset.uri, manifest.SOURCES_TABLE)])
    rows = catalog.tables.rows(f"SELECT uris FROM {scan} WHERE source_id = ?", [source_id])
    return rows[0]["uris"] if rows else []


def _unknown(catalog: Catalog, kind: str, wanted: str) -> RequestError:
    datasets = len(catalog.of("dataset"))
    if not datasets:
        return RequestError(
            f"{kind} {wanted}: no dataset is known here; give --under FOLDER, or the tracking "
            "store of the runs (--tracking.uri)"
        )
    return RequestError(f"{kind} {wanted}: not in any of the {datasets} datasets looked at")


def _latents_with(catalog: Catalog, choice: Choice) -> list[dict[str, Any]]:
    tables, every = catalog.tables, catalog.of("latents")
    rows = tables.rows_by_place(
        [latents.uri for latents in every],
        INDEX_TABLE,
        "clip_id, pack, first_row, num_frames",
        tables.where(choice),
        "clip_id",
    )
    return [
        {**name_of(latents), "stage": latents.header.get("stage"), "clips": rows[latents.uri]}
        for latents in every
        if latents.uri in rows
    ]


def who_saw(catalog: Catalog, choice: Choice, *, each_clip: bool = True) -> dict[str, Any]:
    """{"checkpoints": those that saw the chosen clips, "clean_checkpoints": those that did not,
    "videos": what the former made}.

    A checkpoint's row holds `clips_seen`, `times` and `first_step` over its whole training and,
    with `each_clip`, `clips`: the same of every clip.
    """
    checkpoints = catalog.of("checkpoint")
    seen_by = exposures_of(catalog, checkpoints, choice)
    saw, clean = [], []
    for checkpoint in checkpoints:
        seen = seen_by[checkpoint.uri]
        through_base = [b.uri for b in catalog.ancestry(checkpoint)[1:] if seen_by[b.uri]]
        row = {
            **name_of(checkpoint),
            "stage": checkpoint.header.get("stage"),
            "step": checkpoint.step,
        }
        if not seen and not through_base:
            clean.append(row)
            continue
        row |= {
            "clips_seen": len(seen),
            "times": sum(times for _, times in seen.values()),
            "first_step": min((first_step for first_step, _ in seen.values()), default=None),
            "through_base": through_base,
        }
        if each_clip:
            row["clips"] = [
                {"clip_id": clip_id, "first_step": first_step, "times": times}
                for clip_id, (first_step, times) in sorted(seen.items())
            ]
        saw.append(row)
    return {
        "checkpoints": saw,
        "clean_checkpoints": clean,
        "videos": _videos_of(catalog, {str(row["digest"]) for row in saw}),
    }


def _videos_of(catalog: Catalog, digests: set[str]) -> list[dict[str, Any]]:
    """Videos that one of the checkpoints made. The same bytes elsewhere, as among the artifacts of
    a run, are `copies`: the file of the shortest path is taken for the original."""
    places: dict[str, list[Entry]] = defaultdict(list)
    for video in catalog.of("video"):
        if any(reference["digest"] in digests for reference in checkpoints_of(video).values()):
            places[video.digest or video.uri].append(video)
    found = []
    for entries in places.values():
        first, *others = sorted(entries, key=lambda e: (e.uri.count("/"), e.uri))
        found.append({**name_of(first), "copies": [entry.uri for entry in others]})
    return sorted(found, key=lambda row: row["uri"])


def last_clean_steps(
    saw: Sequence[dict[str, Any]], clean: Sequence[dict[str, Any]]
) -> dict[str, int | None]:
    """Per training that saw the clips: the step of its newest checkpoint that had not yet."""
    first_bad: dict[str, int] = {}
    for row in saw:
        folder = row["uri"].rpartition("/")[0]
        first_bad[folder] = min(row["step"], first_bad.get(folder, row["step"]))
    before: dict[str, list[int]] = defaultdict(list)
    for row in clean:
        folder = row["uri"].rpartition("/")[0]
        if row["step"] < first_bad.get(folder, 0):
            before[folder].append(row["step"])
    return {folder: max(before[folder], default=None) for folder in first_bad}
