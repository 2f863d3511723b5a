"""Shards that are the same bytes whoever writes them, in whatever order, after any crash.

What goes where is decided first, from the kept clips and the sizes of their cuts alone: a seeded
shuffle (so that one shard is not one film), then runs of clips capped by count and bytes. Each
shard is then an independent piece of work: written under another name, made durable, renamed.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.config import setting
from pipelines.records import CLIP_SCHEMA, Clip, Shard, to_row
from pipelines.storage import Store, sha256_of_file

SHARDS_FOLDER = "shards"
TAR_BLOCK_BYTES = 512
TAR_TAIL_BYTES = 2 * TAR_BLOCK_BYTES + 10240  # end marks, then padding to a whole record
MEMBER_MODE = 0o444
PLACE_BYTES = 128  # `shard` and `key` enter KEY.json only once the plan is made
EXTENSIONS = {"video": "mp4", "image": "jpg"}

#: Columns that KEY.json leaves to clips.parquet: bulk, not of use to a person or a data loader.
LEFT_OUT = frozenset({"embedding"})


@dataclass(frozen=True)
class ShardsConfig:
    """How kept clips are grouped into tars."""

    max_samples: int = setting(1000, "samples in a shard, at most", unit="samples", low=1)
    max_bytes: int = setting(
        1 << 30, "bytes of a shard, at most (one larger sample stands alone)", unit="bytes", low=1
    )
    seed: int = setting(0, "seed of the shuffle that mixes films")


@dataclass(frozen=True)
class Sample:
    """A kept clip with the size of its media file."""

    clip: Clip
    media_bytes: int


@dataclass(frozen=True)
class PlannedShard:
    name: str
    samples: tuple[Sample, ...]


def extension_of(clip: Clip) -> str:
    return EXTENSIONS[clip.kind]


def shuffle_key(clip_id: str, seed: int) -> bytes:
    """Orders clips at random, yet by the clip and the seed alone: adding one moves none."""
    return hashlib.sha256(f"{seed}:{clip_id}".encode()).digest()


def plan_shards(samples: Sequence[Sample], config: ShardsConfig) -> list[PlannedShard]:
    """Every sample in exactly one shard, none empty; the clips carry their `shard` and `key`.

    A function of the set of samples: their order does not matter.
    """
    groups: list[list[Sample]] = []
    filled_bytes = TAR_TAIL_BYTES
    for sample in sorted(samples, key=lambda s: shuffle_key(s.clip.clip_id, config.seed)):
        size = planned_bytes(sample)
        full = groups and (
            len(groups[-1]) >= config.max_samples or filled_bytes + size > config.max_bytes
        )
        if not groups or full:
            groups.append([])
            filled_bytes = TAR_TAIL_BYTES
        groups[-1].append(sample)
        filled_bytes += size
    return [_named(number, group) for number, group in enumerate(groups)]


def planned_bytes(sample: Sample) -> int:
    """What the sample adds to a tar, at most: its three members in whole blocks, each a header."""
    caption = (sample.clip.caption or "").encode()
    members = (sample.media_bytes, len(caption), len(_json_bytes(sample.clip)) + PLACE_BYTES)
    return sum(TAR_BLOCK_BYTES * (1 + -(-size // TAR_BLOCK_BYTES)) for size in members)


def _named(number: int, samples: Sequence[Sample]) -> PlannedShard:
    name = f"shard-{number:05d}.tar"
    placed = (replace(s, clip=replace(s.clip, shard=name, key=s.clip.clip_id)) for s in samples)
    return PlannedShard(name, tuple(placed))


def offsets_of(shard: PlannedShard) -> dict[str, int]:
    """Where each clip's media begins in the tar, by clip_id: members are in order of name, each
    in whole blocks after a header of one. The clips must be as they are written."""
    found: dict[str, int] = {}
    at = 0
    for sample in shard.samples:
        sizes = {
            "txt": len((sample.clip.caption or "").encode()),
            "json": len(_json_bytes(sample.clip)),
            extension_of(sample.clip): sample.media_bytes,
        }
        for member in sorted(sizes):
            at += TAR_BLOCK_BYTES
            if member == extension_of(sample.clip):
                found[sample.clip.clip_id] = at
            at += -(-sizes[member] // TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES
    return found


def manifest_of(shard: PlannedShard) -> str:
    """32 hex digits over everything that decides the shard's bytes."""
    digest = hashlib.sha256(shard.name.encode())
    for sample in shard.samples:
        digest.update(b"\0" + _json_bytes(sample.clip))
    return digest.hexdigest()[:32]


def write_shard(
    store: Store,
    name: str,
    clips: Sequence[Clip],
    read_media: Callable[[Clip], bytes],
) -> Shard:
    """Writes and publishes one tar, members in the order of `clips`; returns its index row.

    Raises ValueError when a media file's sha256 is not the clip's `content_sha256`.
    """
    with store.publishing(f"{SHARDS_FOLDER}/{name}") as path:
        with tarfile.open(path, "w") as tar:
            for clip in clips:
                add_sample(tar, sample_of(clip, read_media(clip)))
        return Shard(name, len(clips), path.stat().st_size, sha256_of_file(path))


def add_sample(tar: tarfile.TarFile, sample: Mapping[str, Any]) -> None:
    """The members of a sample in order of name, as webdataset's own writer puts them. (Importing
    that one loads PyTorch, which takes longer than the shard.)"""
    for extension in sorted(sample.keys() - {"__key__"}):
        member = tarfile.TarInfo(f"{sample['__key__']}.{extension}")
        # A fixed time, owner and mode: equal samples give equal bytes.
        member.size, member.mtime, member.mode = len(sample[extension]), 0, MEMBER_MODE
        tar.addfile(member, io.BytesIO(sample[extension]))


def sample_of(clip: Clip, media: bytes) -> dict[str, Any]:
    """The webdataset sample of a kept clip."""
    found = hashlib.sha256(media).hexdigest()
    if found != clip.content_sha256:
        raise ValueError(f"clip {clip.clip_id}: cut has sha256 {found}, not {clip.content_sha256}")
    return {
        "__key__": clip.clip_id,
        extension_of(clip): media,
        "txt": (clip.caption or "").encode(),
        "json": _json_bytes(clip),
    }


def _json_bytes(clip: Clip) -> bytes:
    row = {n: _shortest(n, value) for n, value in to_row(clip).items() if n not in LEFT_OUT}
    return json.dumps(row, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()


def _shortest(column: str, value: Any) -> Any:
    """A float32 as the shortest decimal that reads back as it (0.1, not 0.10000000149)."""
    if isinstance(value, float) and CLIP_SCHEMA.field(column).type == pa.float32():
        return float(str(np.float32(value)))
    return value


def is_published(store: Store, shard: Shard) -> bool:
    """True when the file is there with the bytes that the index row promises."""
    relative = f"{SHARDS_FOLDER}/{shard.shard}"
    if not store.exists(relative):
        return False
    with store.as_local_file(relative) as path:
        return Path(path).stat().st_size == shard.bytes and sha256_of_file(path) == shard.sha256


def remove_strangers(store: Store, shards: Sequence[Shard]) -> None:
    """Removes shards of an earlier, interrupted plan; only the dataset's one writer may call it."""
    planned = {f"{SHARDS_FOLDER}/{shard.shard}" for shard in shards}
    for name in store.list_files(SHARDS_FOLDER):
        if name not in planned:
            store.remove(name)
