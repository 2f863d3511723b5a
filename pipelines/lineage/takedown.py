"""A new version of a dataset without what must go, and nothing else changed.

Only shards that hold a removed sample are rewritten, by leaving out that sample's bytes; all
others are the same bytes (the same file, where a hard link can be made). The rows stay, marked
`taken_down` and without what was made from the pictures (captions, embedding, hash);
`tombstones.parquet` keeps the ids and spans for later curations of the same footage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import RequestError, TrackingConfig, config_hash, required
from pipelines.failpoints import failpoint
from pipelines.lineage.manifest import (
    CLIPS_TABLE,
    DATASET_FILE,
    SHARDS_FOLDER,
    SHARDS_TABLE,
    SOURCES_TABLE,
    Dataset,
    count_clips,
    count_sources,
    digest_of_clips,
    hashes_of_tables,
)
from pipelines.lineage.shard_rewriting import copy_without, put_same_bytes
from pipelines.lineage.tables import Choice, Tables
from pipelines.lineage.tombstones import TOMBSTONE_SCHEMA, TOMBSTONES_TABLE, counts_of
from pipelines.records import CLIP_SCHEMA, Shard, to_table
from pipelines.storage import Store, sha256_of_file
from pipelines.storage.seal import check_files, sealed_bytes

STAGE, REASON = "takedown", "taken_down"
WORK_FOLDER = "_work"
MARKER_FILE = f"{WORK_FOLDER}/takedown.json"
REPORT_FILE = "report.html"

# Counts of dataset.json that say how the clips of the parent were made, not what is in it.
OF_THE_PARENT = frozenset({"cuts", "leak_checked", "leak_frames", "lost_frames", "cut_again"})

#: What the row of a removed clip says from now on; the other columns stay.
MARKED: dict[str, Any] = {
    "verdict": "dropped",
    "reason_stage": STAGE,
    "reason": REASON,
    "tiers": [],
    "shard": None,
    "key": None,
    "content_sha256": None,
}
#: Made from the pictures: of no clip of the request may it stay, kept before or not.
SCRUBBED = ("caption", "short_caption", "embedding", "phash")


@dataclass(frozen=True)
class TakedownConfig:
    """One request to take something out of a dataset."""

    dataset: str = required("dataset to take out of; it stays as it is")
    list: str = required(
        "text file, a line each: a source id, clip id or file; or `license: GLOB`, "
        "`consent: GLOB` (`not stated`: none given); # starts a comment line"
    )
    out: str = required("where to write the new version")
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass(frozen=True)
class Takedown:
    """What was done. `copies_left`: clips of other sources that curation found to be duplicates
    of a removed clip, or that a removed clip duplicates; nobody asked for them, so they stay."""

    digest: str
    parent_digest: str
    removed: list[str]
    rewritten_shards: list[str]
    same_shards: list[str]
    copies_left: list[str]
    counts: dict[str, Any]


@dataclass(frozen=True)
class Affected:
    """The clips of a request: the kept ones with their places, and how many rows it names."""

    going: list[dict[str, Any]]
    named: int

    @property
    def clip_ids(self) -> list[str]:
        return sorted(row["clip_id"] for row in self.going)

    @property
    def keys_of_shard(self) -> dict[str, set[str]]:
        keys: dict[str, set[str]] = {}
        for row in self.going:
            keys.setdefault(row["shard"], set()).add(row["key"])
        return keys


def affected_by(dataset: Dataset, choice: Choice) -> Affected:
    """What a request would take out. Reads the columns it needs of `clips.parquet`."""
    tables = Tables()
    scan = tables.scan([(dataset.uri, CLIPS_TABLE)])
    rows = tables.rows(
        f"SELECT clip_id, source_id, start_frame, end_frame, verdict, shard, key FROM {scan} "
        f"WHERE {tables.where(choice)} ORDER BY clip_id"
    )
    return Affected([row for row in rows if row["verdict"] == "kept"], len(rows))


# --- the new version ---------------------------------------------------------------------------

Render = Callable[[Dataset], str | None]


def take_down(
    dataset: Dataset, choice: Choice, out_uri: str, render: Render | None = None
) -> Takedown:
    """Writes the new version; `dataset.json` last. An interrupted one is simply run again.

    `render` makes report.html of the new version, once all but dataset.json is there; None: none.
    Raises RequestError when `out_uri` is the dataset itself, complete, or something else's place,
    and when a table or a shard to be rewritten is not as it was written.
    """
    check_files(dataset.store, dataset.manifest.get("files", {}), "restore it, or curate again")
    out = _claim(dataset, choice, out_uri)
    failpoint("takedown.claimed")
    affected = affected_by(dataset, choice)
    gone_keys = affected.keys_of_shard
    shards = _write_shards(dataset, out, gone_keys)
    failpoint("takedown.before_clips")
    _write_clips(dataset, out, choice, affected)
    failpoint("takedown.before_sources")
    sources = _marked_sources(dataset.sources, choice)
    out.write_table(SOURCES_TABLE, sources)
    failpoint("takedown.before_shards_table")
    out.write_table(SHARDS_TABLE, to_table(Shard, shards))
    failpoint("takedown.before_tombstones")
    tombstones = _tombstones(dataset, choice)
    out.write_table(TOMBSTONES_TABLE, tombstones)
    columns = ["clip_id", "content_sha256", "caption", "verdict", "reason", "tiers", "license"]
    clips = out.read_table(CLIPS_TABLE, [*columns, "consent"])
    counts = {
        **{k: v for k, v in dataset.manifest.get("counts", {}).items() if k not in OF_THE_PARENT},
        **count_clips(clips),
        **count_sources(sources),
        "shards": len(shards),
        "shard_bytes": sum(shard.bytes for shard in shards),
    }
    manifest = {
        **dataset.manifest,
        "digest": digest_of_clips(clips, dataset.schema_version),
        "parent_digest": dataset.digest,
        "counts": counts,
        "tombstones": counts_of(tombstones.to_pylist()),
        "taken_down": {
            "source_ids": sorted(choice.source_ids),
            "clip_ids": sorted(choice.clip_ids),
        },
    }
    if render and (page := render(Dataset(out, manifest))):
        out.write_bytes(REPORT_FILE, page.encode())
    manifest["files"] = hashes_of_tables(out)
    failpoint("takedown.before_manifest")
    out.publish_bytes(DATASET_FILE, sealed_bytes(manifest))
    failpoint("takedown.before_scratch")
    out.remove(WORK_FOLDER)
    return Takedown(
        digest=manifest["digest"],
        parent_digest=dataset.digest,
        removed=affected.clip_ids,
        rewritten_shards=sorted(gone_keys),
        same_shards=sorted(s.shard for s in shards if s.shard not in gone_keys),
        copies_left=_copies(dataset, choice),
        counts=counts,
    )


def check_out(dataset: Dataset, out_uri: str) -> Store:
    """Raises RequestError when the new version cannot go there."""
    out = Store.open(out_uri)
    if out.uri == dataset.uri:
        raise RequestError(f"--out {out_uri}: is the dataset itself, which stays; give another")
    if f"{out.uri}/".startswith(f"{dataset.uri}/") or f"{dataset.uri}/".startswith(f"{out.uri}/"):
        raise RequestError(f"--out {out_uri}: lies in the dataset or around it; give another place")
    if out.exists(DATASET_FILE):
        raise RequestError(f"--out {out_uri}: holds a complete dataset; give another place")
    if not out.exists(MARKER_FILE) and out.list_files():
        raise RequestError(f"--out {out_uri}: is not empty; give a new folder")
    return out


def _claim(dataset: Dataset, choice: Choice, out_uri: str) -> Store:
    place = Store.open(out_uri)
    if place.exists(DATASET_FILE) and place.exists(MARKER_FILE):
        place.remove(WORK_FOLDER)  # all that a takedown that was killed had left to do
    out = check_out(dataset, out_uri)
    out.check_writable()
    out.remove_temporaries()
    request = config_hash([dataset.digest, sorted(choice.source_ids), sorted(choice.clip_ids)])
    out.write_json(MARKER_FILE, {"parent_digest": dataset.digest, "request": request})
    for left_over in out.list_files(SHARDS_FOLDER):
        out.remove(left_over)
    return out


def _write_shards(dataset: Dataset, out: Store, gone_keys: dict[str, set[str]]) -> list[Shard]:
    written = []
    for row in dataset.shards.to_pylist():
        shard = Shard(**row)
        relative = f"{SHARDS_FOLDER}/{shard.shard}"
        gone = gone_keys.get(shard.shard)
        failpoint("takedown.before_shard")
        if gone is None:
            put_same_bytes(dataset.store, out, relative)
            written.append(shard)
        elif shard.samples > len(gone):
            with (
                dataset.store.as_local_file(relative) as source,
                out.publishing(relative) as target,
            ):
                if sha256_of_file(source) != shard.sha256:
                    raise RequestError(
                        f"{dataset.store.path(relative)}: damaged, its sha256 is not the one in "
                        "shards.parquet; restore it, or curate again"
                    )
                copy_without(source, target, gone)
                written.append(
                    Shard(
                        shard=shard.shard,
                        samples=shard.samples - len(gone),
                        bytes=target.stat().st_size,
                        sha256=sha256_of_file(target),
                    )
                )
    return written


# --- rows --------------------------------------------------------------------------------------


def _write_clips(dataset: Dataset, out: Store, choice: Choice, affected: Affected) -> None:
    """Group by group: a million clips with their embeddings are never in memory at once."""
    going = pa.array(affected.clip_ids, pa.string())
    sources = pa.array(sorted(choice.source_ids), pa.string())
    clips = pa.array(sorted(choice.clip_ids), pa.string())

    def marked(groups: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for group in groups:
            named = pc.or_(pc.is_in(group["source_id"], sources), pc.is_in(group["clip_id"], clips))
            group = _with_values(group, named, dict.fromkeys(SCRUBBED))
            yield _with_values(group, pc.is_in(group["clip_id"], going), MARKED)

    out.write_table_groups(CLIPS_TABLE, marked(dataset.store.read_table_groups(CLIPS_TABLE)))


def _with_values(table: pa.Table, mask: pa.ChunkedArray, values: dict[str, Any]) -> pa.Table:
    """The table with these values in the rows of `mask`; every other row as it was."""
    if not pc.any(mask).as_py():
        return table
    for name, value in values.items():
        kind = CLIP_SCHEMA.field(name).type
        column = pc.if_else(mask, pa.scalar(value, kind), table[name].cast(kind))
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(name), column)
    return table


def _marked_sources(sources: pa.Table, choice: Choice) -> pa.Table:
    """A source that is gone as a whole is one of which no clip may be made."""
    mask = pc.is_in(sources["source_id"], pa.array(sorted(choice.source_ids), pa.string()))
    for name, value in (("status", "failed"), ("reason", REASON)):
        index = sources.schema.get_field_index(name)
        column = pc.if_else(mask, pa.scalar(value, pa.string()), sources[name])
        sources = sources.set_column(index, sources.schema.field(name), column)
    return sources


def _tombstones(dataset: Dataset, choice: Choice) -> pa.Table:
    """Those of the parent, and the new ones; by source, then clip."""
    names = TOMBSTONE_SCHEMA.names
    rows: list[dict[str, Any]] = []
    if dataset.tombstones is not None:
        rows = [{n: row.get(n) for n in names} for row in dataset.tombstones.to_pylist()]
    known = {(row["source_id"], row["clip_id"]) for row in rows}
    whole = [dict.fromkeys(names) | {"source_id": source} for source in choice.source_ids]
    tables = Tables()
    scan = tables.scan([(dataset.uri, CLIPS_TABLE)])
    single = tables.rows(
        f"SELECT source_id, clip_id, start_frame, end_frame FROM {scan} "
        f"WHERE {tables.where(Choice(clip_ids=choice.clip_ids))}"
    )
    rows += [
        {**row, "from_digest": dataset.digest}
        for row in (*whole, *(row for row in single if row["source_id"] not in choice.source_ids))
        if (row["source_id"], row["clip_id"]) not in known
    ]
    rows.sort(key=lambda row: (row["source_id"], row["clip_id"] or ""))
    return pa.Table.from_pylist(rows, schema=TOMBSTONE_SCHEMA)


def _copies(dataset: Dataset, choice: Choice) -> list[str]:
    tables = Tables()
    scan = tables.scan([(dataset.uri, CLIPS_TABLE)])
    chosen = tables.where(choice)
    rows = tables.rows(
        f"WITH gone AS (SELECT clip_id, source_id, duplicate_of FROM {scan} WHERE {chosen}) "
        f"SELECT clip_id FROM {scan} WHERE NOT {chosen} "
        "AND source_id NOT IN (SELECT source_id FROM gone) "
        "AND (duplicate_of IN (SELECT clip_id FROM gone) "
        "OR clip_id IN (SELECT duplicate_of FROM gone)) ORDER BY clip_id"
    )
    return [row["clip_id"] for row in rows]
