"""A new version of a dataset without what must go, and nothing else changed.

Only shards that hold a removed sample are rewritten, by leaving out that sample's bytes; all
others are the same bytes (the same file, where a hard link can be made). The rows stay, marked
`taken_down`, and `tombstones.parquet` keeps the ids for later curations of the same footage.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import RequestError, TrackingConfig, config_hash, required
from pipelines.lineage.manifest import (
    CLIPS_TABLE,
    DATASET_FILE,
    SHARDS_FOLDER,
    SHARDS_TABLE,
    SOURCES_TABLE,
    TOMBSTONES_TABLE,
    Dataset,
    count_clips,
    digest_of_clips,
    key_of_member,
)
from pipelines.records import CLIP_SCHEMA, Shard, source_id_of, to_table
from pipelines.storage import Store, sha256_of_file

STAGE, REASON = "takedown", "taken_down"
MARKER_FILE = "_work/takedown.json"
ID = re.compile(r"[0-9a-f]{32}")
BLOCK_BYTES = tarfile.BLOCKSIZE
TOMBSTONE_SCHEMA = pa.schema(
    [
        pa.field("source_id", pa.string(), nullable=False),
        ("clip_id", pa.string()),  # null: the whole source
        pa.field("from_digest", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class TakedownConfig:
    """One request to take something out of a dataset."""

    dataset: str = required("dataset to take out of; it stays as it is")
    list: str = required("text file: a source id, clip id or file a line; # starts a comment line")
    out: str = required("where to write the new version")
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass(frozen=True)
class Targets:
    """What was asked to go: whole sources, and single clips of other sources."""

    source_ids: frozenset[str]
    clip_ids: frozenset[str]

    def chosen(self) -> pc.Expression:
        """A filter for any table with `source_id` and `clip_id`."""
        sources = pc.is_in(pc.field("source_id"), pa.array(sorted(self.source_ids), pa.string()))
        return sources | pc.is_in(pc.field("clip_id"), pa.array(sorted(self.clip_ids), pa.string()))


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


# --- what must go ------------------------------------------------------------------------------


def read_list(path: str) -> list[str]:
    """Raises RequestError when the file cannot be read or names nothing."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"--list {path}: cannot be read ({error})") from error
    named = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not named:
        raise RequestError(f"--list {path}: names nothing; give one id or file a line")
    return named


def resolve_targets(dataset: Dataset, named: Iterable[str]) -> Targets:
    """Raises RequestError on a name that is nothing in this dataset: a request that cannot be
    met must not look as if it had been."""
    source_ids = set(dataset.sources["source_id"].to_pylist())
    clip_ids = set(dataset.clips["clip_id"].to_pylist())
    by_name = _sources_by_name(dataset)
    sources: set[str] = set()
    clips: set[str] = set()
    for name in named:
        if ID.fullmatch(name) and name in source_ids:
            sources.add(name)
        elif ID.fullmatch(name) and name in clip_ids:
            clips.add(name)
        elif Path(name).is_file() and (found := source_id_of(sha256_of_file(name))) in source_ids:
            sources.add(found)
        elif name in by_name:
            sources |= by_name[name]
        else:
            raise RequestError(f"--list: {name!r} is no source, clip or file of {dataset.uri}")
    return Targets(frozenset(sources), frozenset(clips))


def _sources_by_name(dataset: Dataset) -> dict[str, set[str]]:
    """Source ids by the URIs they were read from, and by file name."""
    by_name: dict[str, set[str]] = {}
    for row in dataset.sources.select(["source_id", "uris"]).to_pylist():
        for uri in row["uris"]:
            for name in {uri, uri.rpartition("/")[2]}:
                by_name.setdefault(name, set()).add(row["source_id"])
    return by_name


# --- the new version ---------------------------------------------------------------------------


def take_down(dataset: Dataset, targets: Targets, out_uri: str) -> Takedown:
    """Writes the new version; `dataset.json` last. An interrupted one is simply run again.

    Raises RequestError when `out_uri` is the dataset itself, complete, or something else's place.
    """
    out = _claim(dataset, targets, out_uri)
    chosen = dataset.clips.filter(targets.chosen())
    going = chosen.filter(pc.equal(chosen["verdict"], "kept"))
    gone_keys: dict[str, set[str]] = {}
    for shard, key in zip(going["shard"].to_pylist(), going["key"].to_pylist(), strict=True):
        gone_keys.setdefault(shard, set()).add(key)

    shards = _write_shards(dataset, out, gone_keys)
    clips = _mark(dataset.clips, going["clip_id"])
    out.write_table(CLIPS_TABLE, clips)
    out.write_table(SOURCES_TABLE, dataset.sources)
    out.write_table(SHARDS_TABLE, to_table(Shard, shards))
    out.write_table(TOMBSTONES_TABLE, _tombstones(dataset, targets, chosen))
    digest = digest_of_clips(clips, dataset.schema_version)
    counts = {
        **dataset.manifest.get("counts", {}),
        **count_clips(clips),
        "shards": len(shards),
        "shard_bytes": sum(shard.bytes for shard in shards),
    }
    out.write_json(DATASET_FILE, _manifest(dataset, digest, counts, targets))
    out.remove("_work")
    return Takedown(
        digest=digest,
        parent_digest=dataset.digest,
        removed=sorted(going["clip_id"].to_pylist()),
        rewritten_shards=sorted(gone_keys),
        same_shards=sorted(s.shard for s in shards if s.shard not in gone_keys),
        copies_left=_copies(dataset.clips, chosen),
        counts=counts,
    )


def check_out(dataset: Dataset, out_uri: str) -> Store:
    """Raises RequestError when the new version cannot go there."""
    out = Store.open(out_uri)
    if out.uri == dataset.uri:
        raise RequestError(f"--out {out_uri}: is the dataset itself, which stays; give another")
    if out.exists(DATASET_FILE):
        raise RequestError(f"--out {out_uri}: holds a complete dataset; give another place")
    if not out.exists(MARKER_FILE) and out.list_files():
        raise RequestError(f"--out {out_uri}: is not empty; give a new folder")
    return out


def _claim(dataset: Dataset, targets: Targets, out_uri: str) -> Store:
    out = check_out(dataset, out_uri)
    out.check_writable()
    request = config_hash([dataset.digest, sorted(targets.source_ids), sorted(targets.clip_ids)])
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
        if gone is None:
            _same_bytes(dataset.store, out, relative)
            written.append(shard)
        elif shard.samples > len(gone):
            with (
                dataset.store.as_local_file(relative) as source,
                out.publishing(relative) as target,
            ):
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


def _same_bytes(source: Store, out: Store, relative: str) -> None:
    """Datasets are immutable, so one file can be in both; across file systems it is copied."""
    if source.is_local and out.is_local:
        target = Path(out.path(relative))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source.path(relative), target)
            return
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
                raise
    with source.as_local_file(relative) as original, out.publishing(relative) as copy:
        shutil.copyfile(original, copy)


def copy_without(source: Path, target: Path, keys: set[str]) -> None:
    """A tar without the members of some webdataset keys; all other members byte for byte."""
    with tarfile.open(source) as tar:
        members = tar.getmembers()
    with open(source, "rb") as original, open(target, "wb") as copy:
        for member in members:
            if key_of_member(member.name) in keys:
                continue
            blocks = -(-member.size // BLOCK_BYTES)
            end = member.offset_data + blocks * BLOCK_BYTES
            original.seek(member.offset)
            copy.write(original.read(end - member.offset))
        copy.write(b"\0" * (2 * BLOCK_BYTES))  # end of archive, then a whole record
        copy.write(b"\0" * (-copy.tell() % tarfile.RECORDSIZE))


def _mark(clips: pa.Table, gone: pa.ChunkedArray) -> pa.Table:
    """The rows of `gone` dropped as taken down; every other row as it was."""
    mask = pc.is_in(clips["clip_id"], gone.combine_chunks())
    values: dict[str, Any] = {
        "verdict": "dropped",
        "reason_stage": STAGE,
        "reason": REASON,
        "tiers": [],
        "shard": None,
        "key": None,
        "content_sha256": None,
    }
    for name, value in values.items():
        kind = CLIP_SCHEMA.field(name).type
        column = pc.if_else(mask, pa.scalar(value, kind), clips[name].cast(kind))
        index = clips.schema.get_field_index(name)
        clips = clips.set_column(index, clips.schema.field(name), column)
    return clips


def _tombstones(dataset: Dataset, targets: Targets, chosen: pa.Table) -> pa.Table:
    """Those of the parent, and the new ones; by source, then clip."""
    rows: list[dict[str, Any]] = []
    if dataset.tombstones is not None:
        rows = dataset.tombstones.to_pylist()
    known = {(row["source_id"], row["clip_id"]) for row in rows}
    wanted: set[tuple[str, str | None]] = {(source_id, None) for source_id in targets.source_ids}
    ids = zip(chosen["source_id"].to_pylist(), chosen["clip_id"].to_pylist(), strict=True)
    wanted |= {(s, c) for s, c in ids if s not in targets.source_ids}
    rows += [
        {"source_id": source_id, "clip_id": clip_id, "from_digest": dataset.digest}
        for source_id, clip_id in wanted - known
    ]
    rows.sort(key=lambda row: (row["source_id"], row["clip_id"] or ""))
    return pa.Table.from_pylist(rows, schema=TOMBSTONE_SCHEMA)


def _manifest(
    dataset: Dataset, digest: str, counts: dict[str, Any], targets: Targets
) -> dict[str, Any]:
    asked = {key: sorted(ids) for key, ids in asdict(targets).items()}
    return {
        **dataset.manifest,
        "digest": digest,
        "parent_digest": dataset.digest,
        "counts": counts,
        "taken_down": asked,
    }


def _copies(clips: pa.Table, chosen: pa.Table) -> list[str]:
    gone = set(chosen["clip_id"].to_pylist())
    kept_copies = set(chosen["duplicate_of"].to_pylist()) - {None}
    columns = (clips[name].to_pylist() for name in ("clip_id", "duplicate_of"))
    return sorted(
        clip_id
        for clip_id, original in zip(*columns, strict=True)
        if clip_id not in gone and (original in gone or clip_id in kept_copies)
    )
