"""A small past whose clips really play, under names that a page had better not believe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipelines.curation.shards import Sample, ShardsConfig, plan_shards, write_shard
from pipelines.lineage.manifest import digest_of_clips
from pipelines.media import write_video
from pipelines.records import SCHEMA_VERSION, Clip, Shard, Source, to_table
from pipelines.storage import Store
from tests.pipelines.lineage import small_world as world

RAN = "window.ran=(window.ran||0)+1"
EVIL = (
    f'</title></style></svg><script>{RAN}</script><img src=x onerror="{RAN}">'
    f"<svg onload='{RAN}'><a href=\"javascript:{RAN}\">\"'`&<iframe src=http://127.0.0.1:9/>"
)
EVIL_NAME = f"<img src=x onerror='{RAN}'><svg onload='{RAN}'>{{{{7*7}}}}"  # without a slash
SOURCES = (EVIL_NAME, EVIL)


@dataclass(frozen=True)
class PlayableWorld:
    root: Path
    checkpoint: str
    clip_id: str
    source_id: str

    @property
    def video(self) -> Path:
        return self.root / "video-x.mp4"

    @property
    def dataset(self) -> Path:
        return self.root / "dataset-a"


def write_world(root: Path) -> PlayableWorld:
    """Every word of it is hostile: names, captions, licences, prompts, folders."""
    root.mkdir(parents=True)
    media = _film(root / "video-x.mp4")
    clips = [
        replace(clip, caption=EVIL, short_caption=EVIL, license=EVIL, consent=EVIL)
        for clip in world.make_clips(SOURCES)
    ]
    dataset = _write_dataset(root / "dataset-a", clips, media)
    world.write_latents(root / "latents-a", clips, dataset)
    seen = {c.clip_id: (c.source_id, 1, 2) for c in clips if c.verdict == "kept"}
    made = world.write_checkpoint(root / EVIL_NAME, 5, seen, dataset=dataset)
    record = {
        "settings": {"prompt": EVIL, "short_prompt": EVIL, "seed": 3, EVIL: EVIL},
        "checkpoints": {"base": made["digest"], EVIL: "0" * 32},
    }
    (root / "video-x.json").write_text(json.dumps(record))
    return PlayableWorld(root, made["uri"], clips[0].clip_id, clips[0].source_id)


def _film(path: Path) -> bytes:
    """Two seconds of a bar that moves."""
    frames = np.full((24, 90, 160, 3), 40, np.uint8)
    for number, frame in enumerate(frames):
        frame[:, 6 * number : 6 * number + 12] = (230, 120, 30)
    write_video(path, frames, fps=12)
    return path.read_bytes()


def _write_dataset(folder: Path, clips: Sequence[Clip], media: bytes) -> dict[str, str]:
    store = Store.open(str(folder))
    sha256 = hashlib.sha256(media).hexdigest()
    kept = [replace(c, content_sha256=sha256) for c in clips if c.verdict == "kept"]
    samples = [Sample(clip, len(media)) for clip in kept]
    shards, placed = [], {}
    for planned in plan_shards(samples, ShardsConfig(max_samples=4)):
        of_shard = [sample.clip for sample in planned.samples]
        shards.append(write_shard(store, planned.name, of_shard, lambda clip: media))
        placed.update({clip.clip_id: clip for clip in of_shard})
    table = to_table(Clip, [placed.get(clip.clip_id, clip) for clip in clips])
    sources = [
        Source(world.source_id(name), [f"/footage/{name}"], 9, license=EVIL, consent=EVIL)
        for name in SOURCES
    ]
    store.write_table("clips.parquet", table)
    store.write_table("sources.parquet", to_table(Source, sources))
    store.write_table("shards.parquet", to_table(Shard, shards))
    digest = digest_of_clips(table)
    manifest = {"schema_version": SCHEMA_VERSION, "digest": digest, "parent_digest": None}
    store.write_json("dataset.json", manifest)
    return {"uri": str(folder), "digest": digest}
