"""The future of a source or a clip: datasets, latents, checkpoints, videos it went into.

Every function takes a catalog (what exists) and returns plain values, ready for JSON. Nothing is
estimated: exposures are sums over the ledgers (`lineage.parquet`) that training wrote.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from pipelines.config import RequestError
from pipelines.lineage import manifest
from pipelines.lineage.catalog import INDEX_TABLE, Catalog, Entry, checkpoints_of, name_of
from pipelines.lineage.decisions import decisions_of
from pipelines.lineage.exposures import Exposures, exposures_of
from pipelines.lineage.tables import Choice, Rows, quoted
from pipelines.records import source_id_of
from pipelines.storage import sha256_of_file
from pipelines.storage.single_files import is_file, local_file

logger = logging.getLogger(__name__)

ID = re.compile(r"[0-9a-f]{32}")
PREFIX = re.compile(r"[0-9a-f]{8,32}")  # of an id, as tables print it
SOURCE_COLUMNS = (
    "source_id, uris, size_bytes, container, codec, width_px, height_px, rotation_deg, fps, "
    "duration_s, num_frames, license, consent, status, reason"
)
CLIP_COLUMNS = (
    "clip_id, source_id, kind, shot_index, start_frame, end_frame, start_s, end_s, caption, "
    "clip_score, verdict, reason_stage, reason, duplicate_of, tiers, shard, key, license, consent"
)


def _is_file(text: str) -> bool:
    """A name seen at curation may look like anything."""
    try:
        return is_file(text)
    except RequestError:
        return False


def source_ids_of(catalog: Catalog, file_or_id: str) -> list[str]:
    """The ids that a file's bytes, an id, or the name of a file seen at curation stand for.

    Raises RequestError when nothing is known by it.
    """
    datasets = catalog.of("dataset")
    if not datasets:
        raise _unknown(catalog, "source", file_or_id)
    if _is_file(file_or_id):
        with local_file(file_or_id) as path:
            condition = f"source_id = {quoted(source_id_of(sha256_of_file(path)))}"
    elif PREFIX.fullmatch(file_or_id.lower()):
        condition = f"starts_with(source_id, {quoted(file_or_id.lower())})"
    else:
        name = quoted(file_or_id)
        ending = quoted(f"/{file_or_id}")
        condition = (
            f"len(list_filter(uris, lambda uri: uri = {name} OR ends_with(uri, {ending}))) > 0"
        )
    uris = [dataset.uri for dataset in datasets]
    rows = _readable(catalog, uris, manifest.SOURCES_TABLE, "source_id", condition)
    known = sorted({row["source_id"] for found in rows.values() for row in found})
    if not known:
        raise _unknown(catalog, "source", file_or_id)
    return known


def trace_source(catalog: Catalog, source_id: str) -> dict[str, Any]:
    """A source's rows and clips in every dataset, and every checkpoint that saw them."""
    choice, tables = Choice(source_ids=frozenset([source_id])), catalog.tables
    uris, chosen = [dataset.uri for dataset in catalog.of("dataset")], tables.where(choice)
    sources = _readable(catalog, uris, manifest.SOURCES_TABLE, SOURCE_COLUMNS, chosen)
    order = "shot_index, start_frame"
    clips = _readable(catalog, sources, manifest.CLIPS_TABLE, CLIP_COLUMNS, chosen, order)
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
    tables = catalog.tables
    clip_id = clip_id_of_prefix(catalog, clip_id.lower())
    choice = Choice(clip_ids=frozenset([clip_id]))
    datasets = {dataset.uri: dataset for dataset in catalog.of("dataset")}
    columns = "* EXCLUDE (embedding, filename)"
    chosen = tables.where(choice)
    rows = _readable(catalog, datasets, manifest.CLIPS_TABLE, columns, chosen)
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


def clip_id_of_prefix(catalog: Catalog, prefix: str) -> str:
    """The one clip whose id begins so. Raises RequestError when there is none, or several."""
    if ID.fullmatch(prefix):
        return prefix
    if not PREFIX.fullmatch(prefix):
        raise RequestError(f"clip {prefix}: not an id; give 8 to 32 hexadecimal digits of one")
    condition = f"starts_with(clip_id, {quoted(prefix)})"
    uris = [dataset.uri for dataset in catalog.of("dataset")]
    rows = _readable(catalog, uris, manifest.CLIPS_TABLE, "clip_id", condition)
    found = sorted({row["clip_id"] for many in rows.values() for row in many})
    if not found:
        raise _unknown(catalog, "clip", prefix)
    if len(found) > 1:
        raise RequestError(f"clip {prefix}: {len(found)} clips begin so: {', '.join(found[:4])}")
    return found[0]


def _readable(
    catalog: Catalog, uris: Iterable[str], table: str, columns: str, condition: str, order: str = ""
) -> Rows:
    """Rows by output. One that cannot be read is said and passed over."""
    found, unreadable = catalog.tables.readable_rows_by_place(
        uris, table, columns, condition, order
    )
    for why in unreadable.values():
        logger.warning("%s; left out of the answer", why)
    return found


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
    uris, chosen = [latents.uri for latents in every], tables.where(choice)
    columns = "clip_id, pack, first_row, num_frames"
    rows = _readable(catalog, uris, INDEX_TABLE, columns, chosen, "clip_id")
    return [
        {**name_of(latents), "stage": latents.header.get("stage"), "clips": rows[latents.uri]}
        for latents in every
        if latents.uri in rows
    ]


def who_saw(catalog: Catalog, choice: Choice, *, each_clip: bool = True) -> dict[str, Any]:
    """{"checkpoints": those that saw the chosen clips, "clean_checkpoints": those that did not,
    "unknown_checkpoints": those of whose past a ledger cannot be read, so nobody can tell, with
    `why`; "videos": what the first made}.

    A checkpoint's row holds `clips_seen`, `times` and `first_step` over its whole training and,
    with `each_clip`, `clips`: the same of every clip.
    """
    checkpoints = catalog.of("checkpoint")
    exposures = exposures_of(catalog, checkpoints, choice)
    seen_by = exposures.seen
    saw: list[dict[str, Any]] = []
    clean: list[dict[str, Any]] = []
    unknown: list[dict[str, Any]] = []
    for checkpoint in checkpoints:
        seen = seen_by[checkpoint.uri]
        through_base = [b.uri for b in catalog.ancestry(checkpoint)[1:] if seen_by[b.uri]]
        row = {
            **name_of(checkpoint),
            "stage": checkpoint.header.get("stage"),
            "step": checkpoint.step,
        }
        if not seen and not through_base:
            why = _why_unknown(catalog, checkpoint, exposures)
            (unknown if why else clean).append({**row, "why": why} if why else row)
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
        "unknown_checkpoints": unknown,
        "videos": _videos_of(catalog, {str(row["digest"]) for row in saw}),
    }


def _why_unknown(catalog: Catalog, checkpoint: Entry, exposures: Exposures) -> str:
    """Empty when every ledger of its past, and of its bases', was read."""
    past = (e for stage in catalog.ancestry(checkpoint) for e in catalog.history(stage))
    return next((exposures.unreadable[e.uri] for e in past if e.uri in exposures.unreadable), "")


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
