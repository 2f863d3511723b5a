"""Writes that an object store refuses when another writer was first.

The store decides, so two jobs on two machines cannot both be told yes. S3 and those like it compare
ETags (If-None-Match, If-Match), Google's store generations. Any other fsspec filesystem is asked
what is there just before, as all are, for there are stores that ignore conditions: that is no
promise, and the best that can be done there.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import quote

from pipelines.storage.fetching import WrongBytes, whole
from pipelines.storage.object_store import Overtaken, is_overtaken

_S3, _GOOGLE = frozenset(("s3", "s3a")), frozenset(("gs", "gcs"))


def create(filesystem: Any, path: str, data: bytes) -> None:
    """A new object. Raises Overtaken when one of that name holds anything else: one that holds
    `data` is ours, written by an attempt whose answer was lost."""
    if version_of(filesystem, path) is not None:  # there are stores that ignore a condition
        _pass_if_ours(filesystem, path, data)
        return
    try:
        filesystem.pipe_file(path, data, mode="create")
    except Exception as error:
        if not is_overtaken(error):
            raise
        _pass_if_ours(filesystem, path, data)


def version_of(filesystem: Any, path: str) -> str | None:
    """Changes with every write; None where nothing is."""
    try:
        found = filesystem.info(path)
    except FileNotFoundError:
        return None
    stated = found.get("ETag") if _is_one_of(filesystem, _S3) else found.get("generation")
    return str(stated or filesystem.ukey(path))


def changed_s(filesystem: Any, path: str) -> float | None:
    """When the store says that it was last written, in seconds of its own clock."""
    try:
        said = filesystem.info(path)
    except FileNotFoundError:
        return None
    for name in ("LastModified", "mtime", "created"):
        if isinstance(said.get(name), datetime):
            return float(said[name].timestamp())
    return None


def replace(filesystem: Any, path: str, data: bytes, version: str) -> None:
    """What is there in that version gives way to `data`. Raises Overtaken when it has changed."""
    try:
        if version_of(filesystem, path) != version:
            raise Overtaken(path)
        if _is_one_of(filesystem, _S3):
            filesystem.pipe_file(path, data, IfMatch=version)
        elif _is_one_of(filesystem, _GOOGLE):
            _replace_generation(filesystem, path, data, version)
        else:
            filesystem.pipe_file(path, data)
    except Exception as error:
        # Without its object a condition on its version fails as well.
        if not (is_overtaken(error) or isinstance(error, FileNotFoundError)):
            raise
        _pass_if_ours(filesystem, path, data)


def _pass_if_ours(filesystem: Any, path: str, data: bytes) -> None:
    found = _stored(filesystem, path)
    if found == data:
        return
    if _stored(filesystem, path) != found:  # one of them did not come as it is stored
        raise WrongBytes(f"{path}: read twice, and not the same")
    raise Overtaken(f"{path}: another writer was first")


def _stored(filesystem: Any, path: str) -> bytes | None:
    try:
        return whole(filesystem, path)
    except FileNotFoundError:
        return None


def _replace_generation(filesystem: Any, path: str, data: bytes, generation: str) -> None:
    """gcsfs knows no condition but that of a new object; its door to the store does."""
    bucket, key, _ = filesystem.split_path(path)
    filesystem.call(
        "POST",
        f"{filesystem._location}/upload/storage/v1/b/{quote(bucket)}/o",
        uploadType="media",
        name=key,
        ifGenerationMatch=generation,
        headers={"Content-Type": "application/octet-stream"},
        data=data,
        json_out=True,
    )


def _is_one_of(filesystem: Any, protocols: frozenset[str]) -> bool:
    own = filesystem.protocol
    return bool(protocols & set([own] if isinstance(own, str) else own))
