"""Datasets, latents and checkpoints in the contract's files, with made-up pictures.

The shards are written by curation's own writer; `media_of` stands for the cut clip.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.curation.shards import Sample, ShardsConfig, plan_shards, write_shard
from pipelines.lineage.manifest import count_clips, digest_of_clips
from pipelines.records import (
    SCHEMA_VERSION,
    Clip,
    Shard,
    Source,
    clip_id_of,
    source_id_of,
    to_table,
)
from pipelines.storage import Store
from pipelines.training.checkpoints.ledger import LINEAGE_SCHEMA
from pipelines.training.latents.on_disk import INDEX_SCHEMA

FRAMES_PER_SHOT = 24
FPS = 24.0


def source_bytes(name: str) -> bytes:
    return f"the film {name}".encode() * 50


def source_id(name: str) -> str:
    return source_id_of(hashlib.sha256(source_bytes(name)).hexdigest())


def media_of(clip: Clip) -> bytes:
    return f"cut of {clip.clip_id}".encode() * (20 + clip.shot_index)


def make_clip(source: str, shot: int, **changes: Any) -> Clip:
    start, end = shot * FRAMES_PER_SHOT, (shot + 1) * FRAMES_PER_SHOT
    clip = Clip(
        clip_id=clip_id_of(source_id(source), start, end),
        source_id=source_id(source),
        kind="video",
        shot_index=shot,
        start_frame=start,
        end_frame=end,
        start_s=start / FPS,
        end_s=end / FPS,
        fps=FPS,
        width_px=320,
        height_px=180,
        crop_x_px=0,
        crop_y_px=0,
        crop_w_px=320,
        crop_h_px=180,
        caption=f"a red circle, shot {shot} of {source}",
        short_caption="a red circle",
        tiers=["base"],
        license="CC0-1.0",
    )
    return replace(clip, **changes)


def make_clips(sources: Sequence[str], shots: int = 4) -> list[Clip]:
    """The last shot of every source is dropped as too still; the others are kept."""
    clips = []
    for name in sources:
        kept = [make_clip(name, shot) for shot in range(shots - 1)]
        clips += [*kept, make_clip(name, shots - 1, tiers=[]).dropped("motion", "too_still")]
    return clips


def write_footage(folder: Path, sources: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in sources:
        (folder / name).write_bytes(source_bytes(name))


def write_dataset(
    folder: Path, sources: Sequence[str], clips: Sequence[Clip], shard_samples: int = 3
) -> str:
    """Returns the digest."""
    store = Store.open(str(folder))
    kept = []
    for clip in clips:
        if clip.verdict == "kept":
            sha256 = hashlib.sha256(media_of(clip)).hexdigest()
            kept.append(Sample(replace(clip, content_sha256=sha256), len(media_of(clip))))
    shards, placed = [], {}
    for planned in plan_shards(kept, ShardsConfig(max_samples=shard_samples)):
        of_shard = [sample.clip for sample in planned.samples]
        shards.append(write_shard(store, planned.name, of_shard, media_of))
        placed.update({clip.clip_id: clip for clip in of_shard})
    table = to_table(Clip, [placed.get(clip.clip_id, clip) for clip in clips])
    rows = [
        Source(
            source_id(name),
            [f"/footage/{name}"],
            len(source_bytes(name)),
            fps=FPS,
            license="CC0-1.0",
        )
        for name in sources
    ]
    store.write_table("clips.parquet", table)
    store.write_table("sources.parquet", to_table(Source, rows))
    store.write_table("shards.parquet", to_table(Shard, shards))
    digest = digest_of_clips(table)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "digest": digest,
        "parent_digest": None,
        "counts": count_clips(table),
    }
    store.write_json("dataset.json", manifest)
    return digest


def write_latents(folder: Path, clips: Sequence[Clip], dataset: Mapping[str, str]) -> None:
    rows: list[dict[str, Any]] = [
        {
            "clip_id": clip.clip_id,
            "source_id": clip.source_id,
            "kind": clip.kind,
            "pack": "packs/pack-00000.safetensors",
            "first_row": number * 16,
            "num_frames": 16,
            "fps": 16.0,
            "caption": clip.caption,
            "short_caption": clip.short_caption,
            "tiers": clip.tiers,
            "text_row": 1,
            "short_text_row": 1,
            "license": clip.license,
        }
        for number, clip in enumerate(clips)
        if clip.verdict == "kept"
    ]
    store = Store.open(str(folder))
    store.write_table("index.parquet", pa.Table.from_pylist(rows, schema=INDEX_SCHEMA))
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:32]
    store.write_json("latents.json", {"digest": digest, "stage": "base", "dataset": dict(dataset)})


def write_checkpoint(
    folder: Path,
    step: int,
    seen: Mapping[str, tuple[str, int, int]],
    *,
    dataset: Mapping[str, str],
    parent: str | None = None,
    base: Mapping[str, str] | None = None,
    stage: str = "base",
) -> dict[str, str]:
    """`seen`: {clip_id: (source_id, first_step, times)} since the parent. Returns uri, digest."""
    directory = folder / f"step-{step:08d}"
    rows: list[dict[str, Any]] = [
        {"clip_id": clip_id, "source_id": source, "first_step": first_step, "times": times}
        for clip_id, (source, first_step, times) in sorted(seen.items())
    ]
    store = Store.open(str(directory))
    store.write_table("lineage.parquet", pa.Table.from_pylist(rows, schema=LINEAGE_SCHEMA))
    digest = hashlib.sha256(json.dumps([str(directory), rows]).encode()).hexdigest()[:32]
    header = {
        "digest": digest,
        "stage": stage,
        "step": step,
        "finished": True,
        "samples_seen": sum(row["times"] for row in rows),
        "parent": {"checkpoint": "the one before", "digest": parent} if parent else None,
        "base": dict(base) if base else None,
        "latents": {"uri": "/elsewhere/latents", "digest": "0" * 32},
        "dataset": dict(dataset),
        "config": {"seed": 0},
    }
    store.write_json("checkpoint.json", header)
    return {"uri": str(directory), "digest": digest}
