"""Reading one sample out of a WebDataset shard, by name. Nothing is ever extracted to a path."""

from __future__ import annotations

import tarfile

from pipelines.records import Clip
from pipelines.storage import Store

MEDIA_ENDINGS = {"video": "mp4", "image": "jpg"}


def read_sample(store: Store, clip: Clip) -> bytes:
    """The clip's media bytes, from the shard that its row names.

    Raises KeyError when the row names no shard, or the shard has no such member.
    """
    if not clip.shard or not clip.key:
        raise KeyError(f"clip {clip.clip_id} is in no shard (verdict {clip.verdict})")
    name = f"{clip.key}.{MEDIA_ENDINGS[clip.kind]}"
    with store.as_local_file(f"shards/{clip.shard}") as path, tarfile.open(path) as tar:
        member = tar.extractfile(name)
        if member is None:
            raise KeyError(f"{clip.shard} has no member {name}")
        return member.read()
