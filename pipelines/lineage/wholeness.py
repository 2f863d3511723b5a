"""Is a dataset whole: does every promise of its files hold?"""

from __future__ import annotations

import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.lineage.manifest import (
    CLIPS_TABLE,
    SHARDS_FOLDER,
    Dataset,
    digest_of_clips,
    read_dataset,
)
from pipelines.lineage.shard_rewriting import sample_keys
from pipelines.storage import Store, sha256_of_file

#: What is checked of a clip's row: without the embeddings, which are most of the table.
CHECKED_COLUMNS = ["clip_id", "source_id", "verdict", "shard", "key", "content_sha256", "caption"]


def check_dataset(uri: str) -> list[str]:
    """What is wrong with a dataset, a sentence each; [] when every promise of its files holds.

    Reads every shard once. A tar cut on a member boundary reads as a shorter valid dataset in
    webdataset and in Ray, so counts and hashes are compared with `shards.parquet`, and clips
    with the members they name. Raises RequestError when there is no dataset at all.
    """
    dataset = read_dataset(uri)
    clips = dataset.store.read_table(CLIPS_TABLE, CHECKED_COLUMNS)
    problems = _check_rows(dataset, clips)
    keys_of_shard: dict[str, set[str]] = {}
    for row in dataset.shards.to_pylist():
        problems += _check_shard(dataset.store, row, keys_of_shard)
    listed = set(dataset.shards["shard"].to_pylist())
    present = {Path(name).name for name in dataset.store.list_files(SHARDS_FOLDER)}
    problems += [f"{name}: a shard that shards.parquet does not name" for name in present - listed]
    return problems + _check_places(clips, keys_of_shard)


def _check_rows(dataset: Dataset, clips: pa.Table) -> list[str]:
    problems = []
    clip_ids = clips["clip_id"].to_pylist()
    if len(set(clip_ids)) != len(clip_ids):
        problems.append("clips.parquet: a clip_id occurs twice")
    strangers = set(clips["source_id"].to_pylist()) - set(dataset.sources["source_id"].to_pylist())
    if strangers:
        problems.append(f"clips.parquet: {len(strangers)} sources are not in sources.parquet")
    try:
        found = digest_of_clips(clips, dataset.schema_version)
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


def _check_places(clips: pa.Table, keys_of_shard: dict[str, set[str]]) -> list[str]:
    """Every kept clip is in its shard; every sample of a shard is a kept clip, once."""
    problems = []
    kept = clips.filter(pc.equal(clips["verdict"], "kept"))
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
