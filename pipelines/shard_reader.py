"""Reading members of a WebDataset shard, by name. Nothing is ever extracted to a path.

A shard is somebody's file. A link, a device, or a file with holes (which may claim terabytes) has
no place in one, and is treated as if it were not there. Nor has compression, behind which a small
file may be a huge one.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import BinaryIO

from pipelines.records import Clip
from pipelines.storage import Store

MEDIA_ENDINGS = {"video": "mp4", "image": "jpg"}


def open_shard(shard: Path | BinaryIO) -> tarfile.TarFile:
    """Raises tarfile.TarError for what is no plain tar, OSError."""
    if isinstance(shard, Path):
        return tarfile.open(shard, mode="r:")
    return tarfile.open(fileobj=shard, mode="r:")


def member_bytes(tar: tarfile.TarFile, name: str) -> bytes:
    """The bytes of a plain file in the shard. Raises KeyError where there is none of that name,
    and for one that is shorter than its header says."""
    member = tar.getmember(name)
    file = tar.extractfile(member) if member.isreg() and not member.issparse() else None
    if file is None:
        raise KeyError(f"{name} is no plain file")
    data = file.read()
    if len(data) != member.size:
        raise KeyError(f"{name} is cut off")
    return data


def read_sample(store: Store, clip: Clip) -> bytes:
    """The clip's media bytes, from the shard that its row names.

    Raises KeyError when the row names no shard, or the shard has no such member.
    """
    if not clip.shard or not clip.key:
        raise KeyError(f"clip {clip.clip_id} is in no shard (verdict {clip.verdict})")
    name = f"{clip.key}.{MEDIA_ENDINGS[clip.kind]}"
    with store.as_local_file(f"shards/{clip.shard}") as path, open_shard(path) as tar:
        return member_bytes(tar, name)
