"""The dataset's files, the one that names them last (design.md, "Dataset").

Everything but `report.html` and `origin.json` is the same bytes for equal work: no times, no run
ids, no places. Where the footage lay and where the dataset was written is in `origin.json`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from pipelines.config import RequestError, config_hash
from pipelines.curation.commit_log import WORK_FOLDER
from pipelines.curation.config import CurateConfig, result_settings
from pipelines.curation.decisions import decisions_of
from pipelines.curation.shards import remove_strangers
from pipelines.curation.taken_down import REMEMBERED_FOLDER, TakenDown
from pipelines.failpoints import failpoint
from pipelines.lineage.fingerprint import fingerprint
from pipelines.lineage.manifest import (
    CLIPS_TABLE,
    DATASET_FILE,
    SHARDS_TABLE,
    SOURCES_TABLE,
    count_clips,
    count_sources,
    digest_of_clips,
    hashes_of_tables,
)
from pipelines.lineage.tombstones import TOMBSTONES_TABLE
from pipelines.records import SCHEMA_VERSION, Shard, to_table
from pipelines.storage import ROW_GROUP_ROWS, Store, absolute_uri
from pipelines.storage.seal import sealed_bytes
from pipelines.storage.writer_lock import LOCK_FILE, writer_lock

#: Rows of a table in one file; and, where it takes several files, in memory at once.
FILE_ROWS, GROUP_ROWS = ROW_GROUP_ROWS, 8192
DIGEST_COLUMNS = ["verdict", "clip_id", "content_sha256", "caption"]
COUNTED_COLUMNS = ["verdict", "reason", "tiers", "license", "consent"]
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
    store: Store,
    config: CurateConfig,
    cuts: Mapping[str, Any],
    parent_digest: str | None = None,
    taken_down: TakenDown | None = None,
) -> dict[str, Any]:
    """What `dataset.json` says of the tables that are there, read a group of rows at a time.

    Equal work says the same, whatever of it was done before; only a parent that was asked for is
    written down. `cuts` is what cut_counts says of the kept.
    """
    tombstones = {"tombstones": taken_down.counts()} if taken_down and taken_down.rows else {}
    settings = result_settings(config)
    shards = store.read_table(SHARDS_TABLE, ["bytes"])["bytes"].to_pylist()
    return {
        "schema_version": SCHEMA_VERSION,
        "digest": digest_of_clips(store.read_table_groups(CLIPS_TABLE, DIGEST_COLUMNS)),
        "parent_digest": parent_digest,
        "config": settings,
        "config_hash": config_hash(settings),
        "fingerprint": fingerprint(
            config.captions.backend, config.clip_score.model, config.clip_score.aesthetic_weights
        ),
        "counts": {
            **count_clips(store.read_table_groups(CLIPS_TABLE, COUNTED_COLUMNS)),
            **count_sources(store.read_table_groups(SOURCES_TABLE, ["status", "reason"])),
            "shards": len(shards),
            "shard_bytes": sum(shards),
            **cuts,
        },
        "decisions": [asdict(decision) for decision in decisions_of(config)],
        **tombstones,
    }


def publish_tables(
    store: Store,
    sources: Iterable[pa.Table],
    clips: Iterable[pa.Table],
    shards: Sequence[Shard],
    taken_down: TakenDown,
    num_sources: int,
    num_clips: int,
) -> None:
    """Writes all tables, those of very many rows a group at a time; they name no dataset yet."""
    failpoint("dataset.before_strangers")
    remove_strangers(store, shards)
    failpoint("dataset.before_sources")
    write_rows(store, SOURCES_TABLE, sources, num_sources)
    failpoint("dataset.before_clips")
    write_rows(store, CLIPS_TABLE, clips, num_clips)
    failpoint("dataset.before_shards_table")
    store.write_table(SHARDS_TABLE, to_table(Shard, shards))
    failpoint("dataset.before_tombstones")
    store.remove(TOMBSTONES_TABLE)  # an interrupted run's
    if taken_down.rows:
        store.write_table(TOMBSTONES_TABLE, taken_down.table())


def publish_dataset(
    store: Store, config: CurateConfig, manifest: Mapping[str, Any], report: str
) -> None:
    """Writes the report, then `dataset.json`; before it no reader sees a dataset."""
    failpoint("dataset.before_report")
    store.write_bytes(REPORT_FILE, report.encode())
    failpoint("dataset.before_origin")
    origin = {"footage": absolute_uri(config.footage), "dataset": store.uri}
    store.write_json(ORIGIN_FILE, origin)
    manifest = {**manifest, "files": hashes_of_tables(store)}
    failpoint("dataset.before_manifest")
    store.publish_bytes(DATASET_FILE, sealed_bytes(manifest))
    failpoint("dataset.before_scratch")


def write_rows(store: Store, name: str, tables: Iterable[pa.Table], count_rows: int) -> None:
    """One file; or a folder of files of FILE_ROWS each where one does not hold them all, written
    a small group at a time."""
    store.remove(name)  # an interrupted run's, which may have been the other kind
    if count_rows <= FILE_ROWS:
        store.write_table(name, next(in_groups(tables, FILE_ROWS)))
        return
    groups = in_groups(tables, GROUP_ROWS)
    for number in range(-(-count_rows // FILE_ROWS)):
        of_file = itertools.islice(groups, FILE_ROWS // GROUP_ROWS)
        store.write_table_groups(f"{name}/part-{number:05d}.parquet", of_file)


def in_groups(tables: Iterable[pa.Table], size_rows: int) -> Iterator[pa.Table]:
    """The same rows in groups of `size_rows`, the last smaller; one at least."""
    waiting: list[pa.Table] = []
    count, is_first = 0, True
    for table in tables:
        waiting.append(table)
        count += table.num_rows
        while count > size_rows:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, size_rows).combine_chunks()
            waiting, count, is_first = [whole.slice(size_rows)], count - size_rows, False
    if count or is_first:
        yield pa.concat_tables(waiting).combine_chunks()


def tidy_complete(store: Store) -> None:
    """Removes what a job that was killed when dataset.json stood had yet to remove. Raises
    RequestError while a job is at work there."""
    if store.exists(DATASET_FILE) and any(store.list_level(WORK_FOLDER)):
        with writer_lock(store):
            remove_scratch(store, Store(store.path(WORK_FOLDER)))
            store.remove_temporaries()


def remove_scratch(store: Store, shared: Store) -> None:
    """Leaves in a complete dataset nothing but its files (and its work folder, if it is there)."""
    if not f"{shared.uri}/".startswith(f"{store.path(WORK_FOLDER)}/"):
        store.remove_but_lock(WORK_FOLDER, LOCK_FILE)
        return
    folders, files = store.list_level(WORK_FOLDER)  # below lie some files of every source
    for name in sorted({*folders, *files} - SHARED - {LOCK_FILE.split("/")[1]}):
        store.remove(f"{WORK_FOLDER}/{name}")
