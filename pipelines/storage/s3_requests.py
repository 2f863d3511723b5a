"""One request to S3 where its fsspec client sends two or three.

The client asks what an object is before it reads it, and whether a folder of that name is there
when the object is not. Whoever knows that a name is a file's asks for the file alone. Stores of
other kinds are asked in fsspec's own words.
"""

from __future__ import annotations

import hashlib
from typing import Any

from pipelines.storage.fetching import stated_md5
from pipelines.storage.object_store import is_there


def is_s3(filesystem: Any) -> bool:
    own = filesystem.protocol
    return "s3" in ((own,) if isinstance(own, str) else own)


def proven_bytes(filesystem: Any, path: str, most_bytes: int) -> bytes | None:
    """An object whose answer proves that all of it came, and nothing else: its ETag is the MD5 of
    these bytes. None where that cannot be said, or it is larger: then ask what the store holds.

    Raises FileNotFoundError where no such object is.
    """
    if not is_s3(filesystem):
        return None
    from fsspec.asyn import sync

    data, etag = sync(filesystem.loop, _got, filesystem, path, most_bytes)
    if data is None:
        return None
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return data if stated_md5({"ETag": etag}) == md5 else None


async def _got(filesystem: Any, path: str, most_bytes: int) -> tuple[bytes | None, str]:
    bucket, key, _ = filesystem.split_path(path)
    answer = await filesystem._call_s3("get_object", Bucket=bucket, Key=key)
    try:
        is_small = int(answer["ContentLength"]) <= most_bytes
        return (bytes(await answer["Body"].read()) if is_small else None), answer.get("ETag", "")
    finally:
        answer["Body"].close()


def is_file_there(filesystem: Any, path: str) -> bool:
    """Whether an object of that name is there, whatever lies below such a folder."""
    if not is_s3(filesystem):
        return is_there(filesystem, path)
    bucket, key, _ = filesystem.split_path(path)
    try:
        filesystem.call_s3("head_object", Bucket=bucket, Key=key)
    except FileNotFoundError:
        return False
    return True


def names_below(filesystem: Any, path: str) -> list[str]:
    """Of every object below a folder; none where nothing is."""
    parent, _, name = path.rstrip("/").rpartition("/")
    if not is_s3(filesystem) or not parent:
        return list(filesystem.find(path))
    return list(filesystem.find(parent, prefix=f"{name}/"))  # an empty one is not looked at again
