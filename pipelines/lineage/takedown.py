"""A new version of a dataset without what must go, and nothing else changed.

Only shards that hold a removed sample are rewritten, by leaving out that sample's bytes; all
others are the same bytes (the same file, where a hard link can be made). The rows stay, marked
`taken_down` and without what was made from the pictures (captions, embedding, hash);
`tombstones.parquet` keeps the ids and spans for later curations of the same footage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

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
from pipelines.lineage.tables import Choice
from pipelines.lineage.taken_rows import (
    affected_by,
    copies_of,
    marked_sources,
    tombstones_after,
    write_clips,
)
from pipelines.lineage.tombstones import TOMBSTONES_TABLE, counts_of
from pipelines.records import Shard, to_table
from pipelines.storage import Store, sha256_of_file
from pipelines.storage.seal import check_files, sealed_bytes

WORK_FOLDER = "_work"
MARKER_FILE = f"{WORK_FOLDER}/takedown.json"
REPORT_FILE = "report.html"

# Counts of dataset.json that say how the clips of the parent were made, not what is in it.
OF_THE_PARENT = frozenset({"cuts", "leak_checked", "leak_frames", "lost_frames", "cut_again"})


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
    write_clips(dataset, out, choice, affected)
    failpoint("takedown.before_sources")
    sources = marked_sources(dataset.sources, choice)
    out.write_table(SOURCES_TABLE, sources)
    failpoint("takedown.before_shards_table")
    out.write_table(SHARDS_TABLE, to_table(Shard, shards))
    failpoint("takedown.before_tombstones")
    tombstones = tombstones_after(dataset, choice)
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
        copies_left=copies_of(dataset, choice),
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
