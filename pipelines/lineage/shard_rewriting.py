"""Shards without some of their samples, and shards as they are, in another place."""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
from pathlib import Path

from pipelines.shard_reader import open_shard
from pipelines.storage import Store

BLOCK_BYTES = tarfile.BLOCKSIZE


def sample_keys(tar_path: Path) -> set[str]:
    """The webdataset keys of a shard: member names up to the first dot of their last part."""
    with open_shard(tar_path) as tar:
        return {key_of_member(member.name) for member in tar if member.isfile()}


def key_of_member(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def copy_without(source: Path, target: Path, keys: set[str]) -> None:
    """A tar without the members of some webdataset keys; all other members byte for byte."""
    with open_shard(source) as tar:
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


def put_same_bytes(source: Store, out: Store, relative: str) -> None:
    """Datasets are immutable, so one file can be in both; across file systems it is copied, and
    within an object store the store copies it."""
    if source.is_local and out.is_local:
        target = Path(out.path(relative))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source.path(relative), target)
            return
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
                raise
    elif not source.is_local and source.uri.partition("://")[0] == out.uri.partition("://")[0]:
        source.filesystem().cp_file(source.path(relative), out.path(relative))
        return
    with source.as_local_file(relative) as original, out.publishing(relative) as copy:
        shutil.copyfile(original, copy)
