"""The future of a source or a clip: datasets, latents, checkpoints, videos it went into.

Every function takes a catalog (what exists) and returns plain values, ready for JSON. Nothing is
estimated: exposures are sums over the ledgers (`lineage.parquet`) that training wrote.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import RequestError
from pipelines.lineage import manifest
from pipelines.lineage.catalog import (
    INDEX_TABLE,
    LINEAGE_TABLE,
    Catalog,
    Entry,
    checkpoints_of,
    name_of,
)
from pipelines.records import source_id_of
from pipelines.storage import sha256_of_file

ID = re.compile(r"[0-9a-f]{32}")
CLIP_COLUMNS = [
    "clip_id",
    "source_id",
    "kind",
    "shot_index",
    "start_frame",
    "end_frame",
    "start_s",
    "end_s",
    "caption",
    "clip_score",
    "verdict",
    "reason_stage",
    "reason",
    "duplicate_of",
    "tiers",
    "shard",
    "license",
]

# {checkpoint uri: {clip_id: (first_step, times)}}, each ledger on its own
Ledgers = dict[str, dict[str, tuple[int, int]]]


def source_ids_of(catalog: Catalog, file_or_id: str) -> list[str]:
    """The ids that a file's bytes, an id, or the name of a file seen at curation stand for.

    Raises RequestError when nothing is known by it.
    """
    if Path(file_or_id).is_file():
        found = {source_id_of(sha256_of_file(file_or_id))}
        known = _known_sources(catalog, pc.is_in(pc.field("source_id"), pa.array(list(found))))
    elif ID.fullmatch(file_or_id):
        known = _known_sources(catalog, pc.field("source_id") == file_or_id)
    else:
        known = {
            row["source_id"]
            for dataset in catalog.of("dataset")
            for row in dataset.table(manifest.SOURCES_TABLE, ["source_id", "uris"]).to_pylist()
            if any(uri == file_or_id or uri.endswith(f"/{file_or_id}") for uri in row["uris"])
        }
    if not known:
        raise _unknown(catalog, "source", file_or_id)
    return sorted(known)


def trace_source(catalog: Catalog, source_id: str) -> dict[str, Any]:
    """A source's rows and clips in every dataset, and every checkpoint that saw them."""
    chosen = pc.field("source_id") == source_id
    datasets = []
    for dataset in catalog.of("dataset"):
        rows = dataset.table(manifest.SOURCES_TABLE, filters=chosen).to_pylist()
        clips = dataset.table(manifest.CLIPS_TABLE, CLIP_COLUMNS, chosen).to_pylist()
        if rows:
            datasets.append({**name_of(dataset), "source": rows[0], "clips": clips})
    return {
        "source_id": source_id,
        "datasets": datasets,
        "latents": _latents_with(catalog, chosen),
        **who_saw(catalog, chosen),
    }


def trace_clip(catalog: Catalog, clip_id: str) -> dict[str, Any]:
    """A clip's row in every dataset, and where it was used. Raises RequestError when unknown."""
    chosen = pc.field("clip_id") == clip_id
    rows = []
    for dataset in catalog.of("dataset"):
        for row in dataset.table(manifest.CLIPS_TABLE, filters=chosen).to_pylist():
            source = dataset.table(
                manifest.SOURCES_TABLE, ["uris"], pc.field("source_id") == row["source_id"]
            ).to_pylist()
            row.pop("embedding", None)
            uris = source[0]["uris"] if source else []
            rows.append({**name_of(dataset), "row": row, "uris": uris})
    if not rows:
        raise _unknown(catalog, "clip", clip_id)
    return {
        "clip_id": clip_id,
        "datasets": rows,
        "latents": _latents_with(catalog, chosen),
        **who_saw(catalog, chosen),
    }


def _known_sources(catalog: Catalog, chosen: pc.Expression) -> set[str]:
    found: set[str] = set()
    for dataset in catalog.of("dataset"):
        table = dataset.table(manifest.SOURCES_TABLE, ["source_id"], chosen)
        found.update(table["source_id"].to_pylist())
    return found


def _unknown(catalog: Catalog, kind: str, wanted: str) -> RequestError:
    datasets = len(catalog.of("dataset"))
    if not datasets:
        return RequestError(
            f"{kind} {wanted}: no dataset is known here; give --under FOLDER, or the tracking "
            "store of the runs (--tracking.uri)"
        )
    return RequestError(f"{kind} {wanted}: not in any of the {datasets} datasets looked at")


def _latents_with(catalog: Catalog, chosen: pc.Expression) -> list[dict[str, Any]]:
    found = []
    for latents in catalog.of("latents"):
        columns = ["clip_id", "pack", "first_row", "num_frames"]
        rows = latents.table(INDEX_TABLE, columns, chosen).to_pylist()
        if rows:
            stage = latents.header.get("stage")
            found.append({**name_of(latents), "stage": stage, "clips": rows})
    return found


def who_saw(catalog: Catalog, chosen: pc.Expression) -> dict[str, Any]:
    """{"checkpoints": those that saw the chosen clips, "clean": those that did not, "videos"}."""
    checkpoints = catalog.of("checkpoint")
    ledgers = read_ledgers(checkpoints, chosen)
    saw, clean = [], []
    for checkpoint in checkpoints:
        clips = exposures(catalog, checkpoint, ledgers)
        through_base = [
            base.uri
            for base in catalog.ancestry(checkpoint)[1:]
            if exposures(catalog, base, ledgers)
        ]
        row = {**name_of(checkpoint), "stage": checkpoint.header.get("stage")}
        row["step"] = checkpoint.step
        if clips or through_base:
            saw.append({**row, "clips": clips, "through_base": through_base})
        else:
            clean.append(row)
    tainted = {row["digest"] for row in saw}
    videos = [
        name_of(video)
        for video in catalog.of("video")
        if any(reference["digest"] in tainted for reference in checkpoints_of(video).values())
    ]
    return {"checkpoints": saw, "clean_checkpoints": clean, "videos": videos}


def read_ledgers(checkpoints: Iterable[Entry], chosen: pc.Expression | None = None) -> Ledgers:
    """Each checkpoint's own ledger: what was seen since its parent."""
    ledgers: Ledgers = {}
    for checkpoint in checkpoints:
        table = checkpoint.table(LINEAGE_TABLE, ["clip_id", "first_step", "times"], chosen)
        columns = (table[name].to_pylist() for name in table.column_names)
        ledgers[checkpoint.uri] = {
            clip_id: (first_step, times)
            for clip_id, first_step, times in zip(*columns, strict=True)
        }
    return ledgers


def exposures(catalog: Catalog, checkpoint: Entry, ledgers: Ledgers) -> list[dict[str, Any]]:
    """[{clip_id, first_step, times}] over the checkpoint's whole training, by clip_id."""
    seen: dict[str, tuple[int, int]] = {}
    for entry in catalog.history(checkpoint):
        for clip_id, (first_step, times) in ledgers.get(entry.uri, {}).items():
            before = seen.get(clip_id, (first_step, 0))
            seen[clip_id] = (min(first_step, before[0]), times + before[1])
    return [
        {"clip_id": clip_id, "first_step": first_step, "times": times}
        for clip_id, (first_step, times) in sorted(seen.items())
    ]


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
