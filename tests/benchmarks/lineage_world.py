"""A million clips of fifty thousand sources, three trainings and their videos, as files on disk.

The tables have the contract's columns (design.md, "Dataset", "Checkpoint") and the order in which
curation and training write them. No media: shards are rows of shards.parquet only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lineage.manifest import digest_of_clips
from pipelines.records import CLIP_SCHEMA, SHARD_SCHEMA, SOURCE_SCHEMA
from pipelines.storage import Store
from pipelines.training.checkpoints.ledger import LEDGER_GROUP_ROWS, LINEAGE_SCHEMA
from pipelines.training.latents.on_disk import INDEX_SCHEMA

LICENCES = "['CC0-1.0', 'CC-BY-4.0', 'CC-BY-SA-4.0', 'proprietary']"
CLIPS_OF_SHARD = 400
BASE_CHECKPOINTS, REFINE_CHECKPOINTS, VIDEOS = 10, 4, 20

_SOURCES = """
    SELECT md5('source ' || i) AS source_id, ['films/part-' || (i % 100) || '/film-' || i || '.mp4']
           AS uris, 1000000 + i AS size_bytes, 'mp4' AS container, 'h264' AS codec,
           1280 AS width_px, 720 AS height_px, 0 AS rotation_deg, 24.0 AS fps,
           shots * 4.0 AS duration_s, shots * 96 AS num_frames,
           {licences}[1 + i % 4] AS license, CASE WHEN i % 3 = 0 THEN 'yes' END AS consent,
           'ok' AS status, NULL AS reason
    FROM (SELECT i, {shots} AS shots FROM range({sources}) AS t(i)) ORDER BY source_id
"""

_CLIPS = """
    SELECT md5(source_id || ':' || shot) AS clip_id, source_id, 'video' AS kind, shot AS shot_index,
           shot * 96 AS start_frame, (shot + 1) * 96 AS end_frame,
           shot * 4.0 AS start_s, (shot + 1) * 4.0 AS end_s, 24.0 AS fps,
           1280 AS width_px, 720 AS height_px, 0 AS crop_x_px, 0 AS crop_y_px,
           1280 AS crop_w_px, 720 AS crop_h_px,
           random() AS motion, random() AS sharpness, random() AS text_area,
           random() AS clip_score, 1.0 AS single_shot,
           'a person walks along a street in the rain, number ' || (hash(source_id, shot) % 1000000)
               AS caption, 'a person walks' AS short_caption, 'model' AS captioner,
           CASE WHEN shot % 10 < 7 THEN 'kept' ELSE 'dropped' END AS verdict,
           CASE WHEN shot % 10 >= 7 THEN 'motion' END AS reason_stage,
           CASE WHEN shot % 10 >= 7 THEN 'too_still' END AS reason,
           CASE WHEN shot % 10 < 2 THEN ['base', 'high_res'] WHEN shot % 10 < 7 THEN ['base']
                ELSE [] END AS tiers,
           license, consent
    FROM sources, range({shots}) AS t(shot) ORDER BY source_id, shot
"""

# Kept clips lie in the shards in the order of their ids, as good as random over sources.
_PLACED = """
    SELECT c.* EXCLUDE (shard, key, content_sha256),
           CASE WHEN n IS NOT NULL
                THEN printf('shard-%06d.tar', n // {per_shard}) END AS shard,
           CASE WHEN n IS NOT NULL THEN clip_id END AS key,
           CASE WHEN n IS NOT NULL THEN sha256(clip_id) END AS content_sha256
    FROM (SELECT *, NULL AS shard, NULL AS key, NULL AS content_sha256 FROM clips) c
    LEFT JOIN (SELECT clip_id, row_number() OVER (ORDER BY clip_id) - 1 AS n
               FROM clips WHERE verdict = 'kept') USING (clip_id)
    ORDER BY source_id, shot_index
"""


@dataclass(frozen=True)
class LineageWorld:
    """Where the parts lie."""

    root: Path
    dataset: Path
    later: Path
    base: Path
    refine: Path


def build(root: Path, sources: int = 50_000, shots: int = 20) -> LineageWorld:
    """Writes it all below `root` (about 250 MB at the default size); takes half a minute."""
    world = world_at(root)
    with duckdb.connect() as sql:
        sql.execute("SET threads = 1; SELECT setseed(0.5)")
        given = {"licences": LICENCES, "sources": sources, "shots": shots}
        sql.execute(f"CREATE TABLE sources AS {_SOURCES.format(**given)}")
        sql.execute(f"CREATE TABLE clips AS {_CLIPS.format(**given)}")
        sql.execute(f"CREATE TABLE placed AS {_PLACED.format(per_shard=CLIPS_OF_SHARD)}")
        reference = _write_dataset(sql, world.dataset, "SELECT * FROM placed", None)
        _write_dataset(sql, world.later, _LATER, reference["digest"])
        _write_latents(sql, root / "latents-base", "base", "base", reference)
        _write_latents(sql, root / "latents-refine", "refine", "high_res", reference)
        last = _write_training(sql, world.base, "base", BASE_CHECKPOINTS, "base", reference, None)
        last = _write_training(
            sql, world.refine, "refine", REFINE_CHECKPOINTS, "high_res", reference, last
        )
    _write_videos(root / "videos", last)
    return world


def world_at(root: Path) -> LineageWorld:
    return LineageWorld(root, root / "dataset", root / "dataset-2", root / "base", root / "refine")


# Of a later version: one clip in 5,000 taken down, one in 1,000 with another caption.
_LATER = """
    SELECT * EXCLUDE (gone) REPLACE (
        CASE WHEN gone THEN 'dropped' ELSE verdict END AS verdict,
        CASE WHEN gone THEN 'takedown' ELSE reason_stage END AS reason_stage,
        CASE WHEN gone THEN 'taken_down' ELSE reason END AS reason,
        CASE WHEN gone THEN [] ELSE tiers END AS tiers,
        CASE WHEN gone THEN NULL ELSE content_sha256 END AS content_sha256,
        CASE WHEN hash(clip_id) % 1000 = 7 THEN caption || ' again' ELSE caption END AS caption
    )
    FROM (SELECT *, verdict = 'kept' AND hash(clip_id) % 5000 = 3 AS gone FROM placed)
"""


def _write_dataset(
    sql: duckdb.DuckDBPyConnection, folder: Path, query: str, parent: str | None
) -> dict[str, str]:
    store = Store.open(str(folder))
    clips = _in_schema(sql.sql(query).to_arrow_table(), CLIP_SCHEMA)
    store.write_table("clips.parquet", clips)
    table = sql.sql("SELECT * FROM sources").to_arrow_table()
    store.write_table("sources.parquet", _in_schema(table, SOURCE_SCHEMA))
    shards = sql.sql(
        "SELECT shard, count(*) AS samples, 1000 AS bytes, sha256(shard) AS sha256 FROM placed "
        "WHERE shard IS NOT NULL GROUP BY shard ORDER BY shard"
    ).to_arrow_table()
    store.write_table("shards.parquet", _in_schema(shards, SHARD_SCHEMA))
    digest = digest_of_clips(clips)
    manifest = {"schema_version": 1, "digest": digest, "parent_digest": parent, "counts": {}}
    store.write_json("dataset.json", manifest)
    return {"uri": store.uri, "digest": digest}


def _in_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _write_latents(
    sql: duckdb.DuckDBPyConnection, folder: Path, stage: str, tier: str, dataset: dict[str, str]
) -> None:
    rows = sql.sql(
        f"SELECT clip_id, source_id, kind, tiers, license, caption, short_caption, "
        f"'packs/pack-00000.safetensors' AS pack, 0 AS first_row, 16 AS num_frames, 16.0 AS fps, "
        f"0 AS text_row, 0 AS short_text_row FROM placed "
        f"WHERE list_contains(tiers, '{tier}') ORDER BY clip_id"
    ).to_arrow_table()
    store = Store.open(str(folder))
    store.write_table("index.parquet", _in_schema(rows, INDEX_SCHEMA))
    store.write_json(
        "latents.json", {"digest": f"{stage}-latents", "stage": stage, "dataset": dataset}
    )


def _write_training(
    sql: duckdb.DuckDBPyConnection,
    folder: Path,
    stage: str,
    checkpoints: int,
    tier: str,
    dataset: dict[str, str],
    base: dict[str, str] | None,
) -> dict[str, str]:
    """Every kept clip of the tier once per training, in a shuffled order over the checkpoints."""
    parent = None
    reference: dict[str, str] = {}
    for number in range(checkpoints):
        step = (number + 1) * 1000
        rows = sql.sql(
            f"SELECT clip_id, source_id, {step} - 1 - (hash(clip_id) % 1000)::BIGINT AS first_step,"
            f" 1 AS times FROM placed WHERE list_contains(tiers, '{tier}') "
            f"AND hash(clip_id, '{stage}') % {checkpoints} = {number} ORDER BY source_id, clip_id"
        ).to_arrow_table()
        store = Store.open(str(folder / f"step-{step:08d}"))
        Path(store.uri).mkdir(parents=True, exist_ok=True)
        table = _in_schema(rows, LINEAGE_SCHEMA)
        pq.write_table(
            table,
            store.path("lineage.parquet"),
            compression="zstd",
            row_group_size=LEDGER_GROUP_ROWS,
        )
        digest = f"{stage}{step}"
        header = {
            "digest": digest,
            "stage": stage,
            "step": step,
            "finished": number == checkpoints - 1,
            "samples_seen": rows.num_rows * (number + 1),
            "parent": {"checkpoint": "the one before", "digest": parent} if parent else None,
            "base": base,
            "latents": {
                "uri": str(folder.parent / f"latents-{stage}"),
                "digest": f"{stage}-latents",
            },
            "dataset": dataset,
            "config": {"seed": 0},
        }
        store.write_json("checkpoint.json", header)
        parent, reference = digest, {"uri": store.uri, "digest": digest}
    return reference


def _write_videos(folder: Path, refine: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    for number in range(VIDEOS):
        (folder / f"video-{number}.mp4").write_bytes(b"")
        record = {
            "checkpoints": {"base": f"base{BASE_CHECKPOINTS * 1000}", "refine": refine["digest"]},
            "settings": {"prompt": "a person walks", "seed": number},
        }
        (folder / f"video-{number}.json").write_text(json.dumps(record))
