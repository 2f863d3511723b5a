"""The dataset on disk as a value: what names it, what is in it, whether it is whole.

`dataset.json` is written last, so a folder without it is not a dataset yet (design.md,
"Dataset"). The digest says *what was learned from*: equal for equal kept clips, whatever order,
machine count or interruptions produced them.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import RequestError
from pipelines.records import SCHEMA_VERSION
from pipelines.storage import Store, sha256_of_file

DATASET_FILE = "dataset.json"
SOURCES_TABLE = "sources.parquet"
CLIPS_TABLE = "clips.parquet"
SHARDS_TABLE = "shards.parquet"
TOMBSTONES_TABLE = "tombstones.parquet"
SHARDS_FOLDER = "shards"
DIGEST_HEX = 32


def dataset_digest(rows: Iterable[tuple[str, str, str | None]], schema_version: int) -> str:
    """32 hex digits naming a set of kept clips: (clip_id, content_sha256, caption) each.

    The order of `rows` does not matter: their lines are sorted. Every field is written with its
    length before it, so no two different sets share an encoding, whatever characters a caption
    holds; a caption that was never made (None) differs from an empty one. Raises ValueError on a
    clip without an id or a content hash: its bytes were never fixed, so nothing can name them.
    """
    digest = hashlib.sha256(b"i2vgen-ray dataset %d\n" % schema_version)
    for line in sorted(_line_of_clip(*row) for row in rows):
        digest.update(line)
    return digest.hexdigest()[:DIGEST_HEX]


def _line_of_clip(clip_id: str, content_sha256: str, caption: str | None) -> bytes:
    if not clip_id or not content_sha256:
        raise ValueError(f"kept clip {clip_id!r} has no content_sha256")
    return _field(clip_id) + _field(content_sha256) + _field(caption) + b"\n"


def _field(text: str | None) -> bytes:
    if text is None:
        return b"~,"
    data = text.encode("utf-8", "surrogatepass")
    return b"%d:%b," % (len(data), data)


def digest_of_clips(clips: pa.Table, schema_version: int = SCHEMA_VERSION) -> str:
    """`dataset_digest` of the kept rows of a clips table."""
    kept = clips.filter(pc.equal(clips["verdict"], "kept"))
    columns = (kept[name].to_pylist() for name in ("clip_id", "content_sha256", "caption"))
    return dataset_digest(zip(*columns, strict=True), schema_version)


def count_clips(clips: pa.Table) -> dict[str, Any]:
    """Counts per verdict, per reason of the dropped, per tier of the kept (for `dataset.json`)."""
    kept = clips.filter(pc.equal(clips["verdict"], "kept"))
    dropped = clips.filter(pc.equal(clips["verdict"], "dropped"))
    tiers = Counter(tier for row in kept["tiers"].to_pylist() for tier in row or ())
    return {
        "clips": clips.num_rows,
        "kept": kept.num_rows,
        "dropped": dropped.num_rows,
        "reasons": dict(sorted(Counter(dropped["reason"].to_pylist()).items(), key=str)),
        "tiers": dict(sorted(tiers.items())),
    }


@dataclass(frozen=True)
class Dataset:
    """A complete dataset, opened for reading. Tables are read when asked for."""

    store: Store
    manifest: dict[str, Any]

    @property
    def uri(self) -> str:
        return self.store.uri

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])

    @property
    def parent_digest(self) -> str | None:
        return self.manifest.get("parent_digest")

    @property
    def schema_version(self) -> int:
        return int(self.manifest["schema_version"])

    @cached_property
    def sources(self) -> pa.Table:
        return self.store.read_table(SOURCES_TABLE)

    @cached_property
    def clips(self) -> pa.Table:
        return self.store.read_table(CLIPS_TABLE)

    @cached_property
    def shards(self) -> pa.Table:
        return self.store.read_table(SHARDS_TABLE)

    @cached_property
    def tombstones(self) -> pa.Table | None:
        """What was taken down from earlier versions (source_id, clip_id); None if nothing was."""
        if not self.store.exists(TOMBSTONES_TABLE):
            return None
        return self.store.read_table(TOMBSTONES_TABLE)


def read_dataset(uri: str) -> Dataset:
    """Opens a dataset. Raises RequestError when it is missing, incomplete or of another schema."""
    store = Store.open(uri)
    if not store.exists(DATASET_FILE):
        state = "has no dataset.json (curation did not finish)" if store.exists("") else "not found"
        raise RequestError(f"{uri}: {state}; run jobs/curate.py --dataset {uri}")
    try:
        manifest = store.read_json(DATASET_FILE)
        version, digest = manifest["schema_version"], manifest["digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{uri}/{DATASET_FILE}: not a dataset manifest ({error!r})") from error
    if version != SCHEMA_VERSION or not isinstance(digest, str):
        raise RequestError(
            f"{uri}: schema version {version}, this code reads {SCHEMA_VERSION}; "
            "use the version of i2vgen-ray that wrote it, or curate again"
        )
    for table in (SOURCES_TABLE, CLIPS_TABLE, SHARDS_TABLE):
        if not store.exists(table):
            raise RequestError(f"{uri}: {table} is missing; restore it or curate again")
    return Dataset(store, manifest)


# --- what changed? ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """What taking `after` instead of `before` means for a training run: kept clips only.

    Rows are dicts with `clip_id`, `source_id` and `why`: for an added clip what dropped it
    before, for a removed one what dropped it since, for a changed one the columns that differ.
    """

    before: str
    after: str
    added: list[dict[str, str]]
    removed: list[dict[str, str]]
    changed: list[dict[str, str]]


def diff(a: Dataset, b: Dataset) -> Difference:
    """From dataset `a` to dataset `b`, ordered by clip_id."""
    import duckdb

    with duckdb.connect() as connection:
        connection.register("a", a.clips.select(COMPARED_COLUMNS))
        connection.register("b", b.clips.select(COMPARED_COLUMNS))
        only_in_b = connection.execute(_ONLY_KEPT_IN.format(new="b", old="a")).fetchall()
        only_in_a = connection.execute(_ONLY_KEPT_IN.format(new="a", old="b")).fetchall()
        changed = connection.execute(_CHANGED).fetchall()
    return Difference(
        before=a.digest,
        after=b.digest,
        added=[_changed_row(row) for row in only_in_b],
        removed=[_changed_row(row) for row in only_in_a],
        changed=[_changed_row(row) for row in changed],
    )


COMPARED_COLUMNS = [
    "clip_id",
    "source_id",
    "verdict",
    "reason_stage",
    "reason",
    "caption",
    "short_caption",
    "content_sha256",
    "tiers",
]

_ONLY_KEPT_IN = """
    SELECT new.clip_id, new.source_id,
           CASE WHEN old.clip_id IS NULL THEN 'not in the other version'
                ELSE coalesce(old.reason_stage, '?') || ': ' || coalesce(old.reason, '?') END
    FROM {new} AS new LEFT JOIN {old} AS old USING (clip_id)
    WHERE new.verdict = 'kept' AND (old.verdict IS NULL OR old.verdict <> 'kept')
    ORDER BY new.clip_id
"""

_CHANGED = """
    SELECT a.clip_id, a.source_id, concat_ws(', ',
           CASE WHEN a.content_sha256 IS DISTINCT FROM b.content_sha256 THEN 'content' END,
           CASE WHEN a.caption IS DISTINCT FROM b.caption THEN 'caption' END,
           CASE WHEN a.short_caption IS DISTINCT FROM b.short_caption THEN 'short_caption' END,
           CASE WHEN a.tiers IS DISTINCT FROM b.tiers THEN 'tiers' END) AS why
    FROM a JOIN b USING (clip_id)
    WHERE a.verdict = 'kept' AND b.verdict = 'kept' AND why <> ''
    ORDER BY a.clip_id
"""


def _changed_row(row: tuple[str, str, str]) -> dict[str, str]:
    return dict(zip(("clip_id", "source_id", "why"), row, strict=True))


# --- is it whole? ----------------------------------------------------------------------------


def check_dataset(uri: str) -> list[str]:
    """What is wrong with a dataset, a sentence each; [] when every promise of its files holds.

    Reads every shard once. A tar cut on a member boundary reads as a shorter valid dataset in
    webdataset and in Ray, so counts and hashes are compared with `shards.parquet`, and clips
    with the members they name. Raises RequestError when there is no dataset at all.
    """
    dataset = read_dataset(uri)
    problems = _check_rows(dataset)
    keys_of_shard: dict[str, set[str]] = {}
    for row in dataset.shards.to_pylist():
        problems += _check_shard(dataset.store, row, keys_of_shard)
    listed = set(dataset.shards["shard"].to_pylist())
    present = {Path(name).name for name in dataset.store.list_files(SHARDS_FOLDER)}
    problems += [f"{name}: a shard that shards.parquet does not name" for name in present - listed]
    return problems + _check_places(dataset, keys_of_shard)


def _check_rows(dataset: Dataset) -> list[str]:
    problems = []
    clip_ids = dataset.clips["clip_id"].to_pylist()
    if len(set(clip_ids)) != len(clip_ids):
        problems.append("clips.parquet: a clip_id occurs twice")
    strangers = set(dataset.clips["source_id"].to_pylist()) - set(
        dataset.sources["source_id"].to_pylist()
    )
    if strangers:
        problems.append(f"clips.parquet: {len(strangers)} sources are not in sources.parquet")
    try:
        found = digest_of_clips(dataset.clips, dataset.schema_version)
        if found != dataset.digest:
            problems.append(f"dataset.json: digest {dataset.digest}, the clips give {found}")
    except ValueError as error:
        problems.append(f"clips.parquet: {error}")
    return problems


def _check_shard(
    store: Store, row: dict[str, Any], keys_of_shard: dict[str, set[str]]
) -> list[str]:
    name = row["shard"]
    relative = f"{SHARDS_FOLDER}/{name}"
    if not store.exists(relative):
        return [f"{name}: missing"]
    with store.as_local_file(relative) as path:
        if path.stat().st_size != row["bytes"]:
            return [f"{name}: {path.stat().st_size} bytes, shards.parquet says {row['bytes']}"]
        if sha256_of_file(path) != row["sha256"]:
            return [f"{name}: its sha256 differs from shards.parquet"]
        try:
            keys = sample_keys(path)
        except tarfile.TarError as error:
            return [f"{name}: not a tar file ({error})"]
    keys_of_shard[name] = keys
    if len(keys) != row["samples"]:
        return [f"{name}: {len(keys)} samples, shards.parquet says {row['samples']}"]
    return []


def sample_keys(tar_path: Path) -> set[str]:
    """The webdataset keys of a shard: member names up to the first dot of their last part."""
    with tarfile.open(tar_path) as tar:
        return {key_of_member(member.name) for member in tar if member.isfile()}


def key_of_member(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _check_places(dataset: Dataset, keys_of_shard: dict[str, set[str]]) -> list[str]:
    """Every kept clip is in its shard; every sample of a shard is a kept clip, once."""
    problems = []
    kept = dataset.clips.filter(pc.equal(dataset.clips["verdict"], "kept"))
    named = Counter(zip(kept["shard"].to_pylist(), kept["key"].to_pylist(), strict=True))
    problems += [f"{s}/{k}: named by {n} clips" for (s, k), n in named.items() if n > 1]
    held = {(shard, key) for shard, keys in keys_of_shard.items() for key in keys}
    problems += [
        f"{shard}/{key}: a kept clip that is not in its shard"
        for shard, key in sorted(set(named) - held, key=str)
        if shard is None or shard in keys_of_shard
    ]
    problems += [
        f"{shard}/{key}: a sample that no kept clip names"
        for shard, key in sorted(held - set(named))
    ]
    return problems
