"""A dataset as curation leaves it, of a few short clips, made without curation."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from pipelines.media import jpeg_bytes, write_video
from pipelines.records import Clip, Shard, clip_id_of, to_row, to_table
from pipelines.storage import Store, sha256_of_bytes, sha256_of_file

FRAMES, FPS = 24, 8


def write_dataset(folder: Path, shards: int = 2, clips_per_shard: int = 2) -> Path:
    """Moving waves in `shards` tars, and one still image in the last; every second clip is
    high_res; all are base."""
    store = Store.open(str(folder))
    store.check_writable()
    clips: list[Clip] = []
    for number in range(shards):
        name = f"shard-{number:05d}.tar"
        last = number == shards - 1
        members: list[tuple[Clip, bytes]] = []
        for place in range(clips_per_shard):
            members.append(_video(number * clips_per_shard + place, name, place))
        if last:
            members.append(_image(name, clips_per_shard))
        clips += [clip for clip, _ in members]
        _write_tar(folder / "shards" / name, members)
    store.write_table("clips.parquet", to_table(Clip, clips))
    rows = [
        Shard(p.name, len([c for c in clips if c.shard == p.name]), p.stat().st_size, s)
        for p in sorted((folder / "shards").iterdir())
        for s in [sha256_of_file(p)]
    ]
    store.write_table("shards.parquet", to_table(Shard, rows))
    store.write_json("dataset.json", {"schema_version": 1, "digest": "d" * 32})
    return folder


def picture(seed: int, frame: int, width_px: int = 160, height_px: int = 120) -> np.ndarray:
    """uint8 RGB, soft waves that move with the frame."""
    y, x = np.mgrid[:height_px, :width_px]
    phases = [x / 40 + frame / 8, y / 40 + seed, (x + y) / 60 + frame / 10]
    return np.stack([128 + 100 * np.sin(p) for p in phases], axis=-1).astype(np.uint8)


def _clip(seed: int, kind: str, shard: str, key: str, data: bytes, frames: int) -> Clip:
    source_id = sha256_of_bytes(f"source {seed}".encode())[:32]
    return Clip(
        clip_id=clip_id_of(source_id, 0, frames),
        source_id=source_id,
        kind=kind,
        shot_index=0,
        start_frame=0,
        end_frame=frames,
        start_s=0.0,
        end_s=frames / FPS,
        fps=float(FPS),
        width_px=160,
        height_px=120,
        crop_x_px=0,
        crop_y_px=0,
        crop_w_px=160,
        crop_h_px=120,
        caption=f"a red circle moving left {seed % 2}",
        short_caption="a red circle",
        verdict="kept",
        tiers=["base", "high_res"] if seed % 2 == 0 else ["base"],
        shard=shard,
        key=key,
        content_sha256=sha256_of_bytes(data),
    )


def _video(seed: int, shard: str, place: int) -> tuple[Clip, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, (picture(seed, f) for f in range(FRAMES)), fps=FPS)
        data = path.read_bytes()
    return _clip(seed, "video", shard, f"{place:04d}", data, FRAMES), data


def _image(shard: str, place: int) -> tuple[Clip, bytes]:
    data = jpeg_bytes(picture(99, 0))
    return _clip(99, "image", shard, f"{place:04d}", data, 1), data


def _write_tar(path: Path, members: list[tuple[Clip, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for clip, data in members:
            ending = "mp4" if clip.kind == "video" else "jpg"
            _add(tar, f"{clip.key}.{ending}", data)
            _add(tar, f"{clip.key}.txt", (clip.caption or "").encode())
            _add(tar, f"{clip.key}.json", json.dumps(to_row(clip)).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
