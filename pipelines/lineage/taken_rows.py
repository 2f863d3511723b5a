"""What the tables of a dataset say of what is taken out of it: rows marked, spans remembered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.lineage.manifest import CLIPS_TABLE, Dataset
from pipelines.lineage.tables import Choice, Tables
from pipelines.lineage.tombstones import TOMBSTONE_SCHEMA
from pipelines.records import CLIP_SCHEMA
from pipelines.storage import Store

STAGE, REASON = "takedown", "taken_down"

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


def write_clips(dataset: Dataset, out: Store, choice: Choice, affected: Affected) -> None:
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


def marked_sources(sources: pa.Table, choice: Choice) -> pa.Table:
    """A source that is gone as a whole is one of which no clip may be made."""
    mask = pc.is_in(sources["source_id"], pa.array(sorted(choice.source_ids), pa.string()))
    for name, value in (("status", "failed"), ("reason", REASON)):
        index = sources.schema.get_field_index(name)
        column = pc.if_else(mask, pa.scalar(value, pa.string()), sources[name])
        sources = sources.set_column(index, sources.schema.field(name), column)
    return sources


def tombstones_after(dataset: Dataset, choice: Choice) -> pa.Table:
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


def copies_of(dataset: Dataset, choice: Choice) -> list[str]:
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
