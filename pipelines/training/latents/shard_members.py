"""The clips of a dataset's shard as bytes, each checked against what the dataset says it is."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pipelines.config import RequestError
from pipelines.shard_reader import MEDIA_ENDINGS, member_bytes, open_shard
from pipelines.storage import Store, sha256_of_bytes, sha256_of_file


class ShardMembers:
    """One shard, open for reading by member name; nothing is extracted to a path.

    Safe to read from several threads.
    """

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._tar = open_shard(path)
        self._lock = threading.Lock()

    def read(self, clip: Mapping[str, Any]) -> bytes:
        """The media of a clip (a row of clips.parquet). Raises RequestError naming the clip when
        the shard does not have it, or has other bytes than the row names."""
        name = f"{clip['key']}.{MEDIA_ENDINGS[clip['kind']]}"
        with self._lock:
            try:
                data = member_bytes(self._tar, name)
            except KeyError:
                raise RequestError(
                    f"{self._name} has no {name}, though clips.parquet names it"
                ) from None
        if clip["content_sha256"] and sha256_of_bytes(data) != clip["content_sha256"]:
            raise RequestError(
                f"{self._name}: {name} is not the clip {clip['clip_id']} that clips.parquet "
                "names, its sha256 is another; curate again"
            )
        return data

    def close(self) -> None:
        self._tar.close()


class Shards:
    """The shards of a dataset; the last one asked for stays open, for the next task of the same."""

    def __init__(self, dataset: str) -> None:
        self._store = Store(dataset)
        self._open = ExitStack()
        self._current: tuple[tuple[str, str], ShardMembers] | None = None

    def members(self, shard: str, sha256: str) -> ShardMembers:
        """Raises RequestError when the shard is missing or is not the one that was indexed."""
        if self._current is None or self._current[0] != (shard, sha256):
            self.close()
            path = self._open.enter_context(self._store.as_local_file(f"shards/{shard}"))
            verify_shard(path, f"{self._store.uri}/shards/{shard}", sha256)
            members = ShardMembers(path)
            self._open.callback(members.close)
            self._current = ((shard, sha256), members)
        return self._current[1]

    def close(self) -> None:
        self._current = None
        self._open.close()


def verify_shard(path: Path, where: str, sha256: str) -> None:
    """A tar that was cut on a member's border reads without any error, so hashes decide."""
    if not path.is_file():
        raise RequestError(f"{where}: missing, though shards.parquet names it; curate again")
    if sha256_of_file(path) != sha256:
        raise RequestError(
            f"{where}: damaged, its sha256 is not the one in shards.parquet; curate again"
        )
