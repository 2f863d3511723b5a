"""The dataset's files, the one that names them last (design.md, "Dataset").

Everything but `report.html` and `origin.json` is the same bytes for equal work: no times, no run
ids, no places. Where the footage lay and where the dataset was written is in `origin.json`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipelines.config import RequestError, config_hash
from pipelines.curation.commit_log import WORK_FOLDER
from pipelines.curation.config import CurateConfig, result_settings
from pipelines.curation.cuts import cut_counts
from pipelines.curation.decisions import decisions_of
from pipelines.curation.shards import remove_strangers
from pipelines.curation.taken_down import REMEMBERED_FOLDER, TakenDown
from pipelines.lineage.fingerprint import fingerprint
from pipelines.lineage.manifest import (
    CLIPS_TABLE,
    DATASET_FILE,
    SHARDS_TABLE,
    SOURCES_TABLE,
    count_clips,
    count_sources,
    digest_of_clips,
)
from pipelines.lineage.tombstones import TOMBSTONES_TABLE
from pipelines.records import SCHEMA_VERSION, Clip, Shard, Source, to_table
from pipelines.storage import Store, absolute_uri

REPORT_FILE, ORIGIN_FILE = "report.html", "origin.json"

#: What other datasets may use; the rest of `_work` is of no use once the dataset is complete.
SHARED = frozenset({"watch", "failures", "captions", "scores", "places", REMEMBERED_FOLDER})


def refuse_complete(store: Store) -> None:
    """Raises RequestError when the dataset is finished: it is immutable."""
    if store.exists(DATASET_FILE):
        digest = store.read_json(DATASET_FILE).get("digest")
        raise RequestError(
            f"{store.uri}: already complete, digest {digest}; choose another --dataset"
        )


def dataset_manifest(
    config: CurateConfig,
    sources: Sequence[Source],
    clips: Sequence[Clip],
    shards: Sequence[Shard],
    parent_digest: str | None = None,
    cuts: Iterable[Mapping[str, Any]] = (),
    taken_down: TakenDown | None = None,
) -> dict[str, Any]:
    """What `dataset.json` says. Equal work says the same, whatever of it was done before; only
    a parent that was asked for is written down. `cuts` are the committed rows of the kept."""
    tombstones = {"tombstones": taken_down.counts()} if taken_down and taken_down.rows else {}
    settings = result_settings(config)
    table = to_table(Clip, clips)
    return {
        "schema_version": SCHEMA_VERSION,
        "digest": digest_of_clips(table),
        "parent_digest": parent_digest,
        "config": settings,
        "config_hash": config_hash(settings),
        "fingerprint": fingerprint(
            config.captions.backend, config.clip_score.model, config.clip_score.aesthetic_weights
        ),
        "counts": {
            **count_clips(table),
            **count_sources(to_table(Source, sources)),
            "shards": len(shards),
            "shard_bytes": sum(s.bytes for s in shards),
            **cut_counts(cuts),
        },
        "decisions": [asdict(decision) for decision in decisions_of(config)],
        **tombstones,
    }


def publish_dataset(
    store: Store,
    config: CurateConfig,
    sources: Sequence[Source],
    clips: Sequence[Clip],
    shards: Sequence[Shard],
    manifest: dict[str, Any],
    report: str,
    taken_down: TakenDown,
) -> None:
    """Writes all tables and the report, then `dataset.json`; before it no reader sees a dataset."""
    remove_strangers(store, shards)
    store.write_table(SOURCES_TABLE, to_table(Source, sources))
    store.write_table(CLIPS_TABLE, to_table(Clip, clips))
    store.write_table(SHARDS_TABLE, to_table(Shard, shards))
    store.remove(TOMBSTONES_TABLE)  # an interrupted run's
    if taken_down.rows:
        store.write_table(TOMBSTONES_TABLE, taken_down.table())
    store.write_bytes(REPORT_FILE, report.encode())
    origin = {"footage": absolute_uri(config.footage), "dataset": store.uri}
    store.write_json(ORIGIN_FILE, origin)
    store.write_json(DATASET_FILE, manifest)


def remove_scratch(store: Store, shared: Store) -> None:
    """Leaves in a complete dataset nothing but its files (and its work folder, if it is there)."""
    if not f"{shared.uri}/".startswith(f"{store.path(WORK_FOLDER)}/"):
        store.remove(WORK_FOLDER)
        return
    found = {name.split("/")[1] for name in store.list_files(WORK_FOLDER)}
    for name in sorted(found - SHARED):
        store.remove(f"{WORK_FOLDER}/{name}")
