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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    ordered = sorted(samples, key=lambda s: shuffle_key(s.clip.clip_id, config.seed))
    groups: list[list[Sample]] = []
    numbers = shard_numbers((planned_bytes(sample) for sample in ordered), config)
    for sample, number in zip(ordered, numbers, strict=True):
        if number == len(groups):
            groups.append([])
        groups[number].append(sample)
    return [_named(number, group) for number, group in enumerate(groups)]


def shard_numbers(sizes_bytes: Iterable[int], config: ShardsConfig) -> Iterator[int]:
    """The shard of each sample, rising from 0, by what each adds to a tar."""
    number, held, filled_bytes = -1, 0, 0
    for size_bytes in sizes_bytes:
        full = held >= config.max_samples or filled_bytes + size_bytes > config.max_bytes
        if number < 0 or full:
            number, held, filled_bytes = number + 1, 0, TAR_TAIL_BYTES
        held += 1
        filled_bytes += size_bytes
        yield number


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.tar"


def planned_bytes(sample: Sample) -> int:
    """What the sample adds to a tar, at most."""
    caption = (sample.clip.caption or "").encode()
    return int(members_bytes(sample.media_bytes, len(caption), len(json_bytes(sample.clip))))


def members_bytes(media_bytes: Any, caption_bytes: Any, row_bytes: Any) -> Any:
    """The three members in whole blocks, each after a header of one; `row_bytes` of a KEY.json
    that does not know its place yet. Numbers, or arrays of them."""
    sizes = (media_bytes, caption_bytes, row_bytes + PLACE_BYTES)
    return sum(TAR_BLOCK_BYTES + in_blocks(size) for size in sizes)


def in_blocks(size_bytes: Any) -> Any:
    """A size, or an array of them, filled up to whole blocks of a tar."""
    return -(-size_bytes // TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES


def _named(number: int, samples: Sequence[Sample]) -> PlannedShard:
    name = shard_name(number)
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
            "json": len(json_bytes(sample.clip)),
            extension_of(sample.clip): sample.media_bytes,
        }
        for member in sorted(sizes):
            at += TAR_BLOCK_BYTES
            if member == extension_of(sample.clip):
                found[sample.clip.clip_id] = at
            at += in_blocks(sizes[member])
    return found


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
        "json": json_bytes(clip),
    }


def json_bytes(clip: Clip) -> bytes:
    """KEY.json: the clip's row without its bulk."""
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
