"""Whole objects as local files, with proof that all of their bytes came, and no others.

A body can end early and look complete, and what lies between a store and its reader can be broken.
Where the store states an MD5 of what it holds (Google's always; S3's ETag of an object that was
uploaded in one piece and is not encrypted with a key of one's own) the bytes must have it. An ETag
may look like an MD5 and be none: then two copies in a row must be the same.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.job import JobEnded

_MD5 = re.compile(r"[0-9a-f]{32}")
CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class Fetched:
    """What came. `version` is that of the object when it was asked for."""

    version: str
    size_bytes: int
    sha256: str


class WrongBytes(JobEnded, ValueError):
    """What came is not what is stored, however often it was asked for. One line."""


def version_in(said: Mapping[str, Any]) -> str:
    """What a store says of an object, as a text that changes when the object does."""
    for name in ("ETag", "etag", "md5Hash", "generation", "LastModified", "mtime", "created"):
        if said.get(name):
            return str(said[name]).strip('"')
    return ""


def fetched(filesystem: Any, path: str, target: Path, seen: set[str]) -> Fetched:
    """Copies an object to `target`. Raises WrongBytes when it did not come as it is stored; `seen`
    remembers what came, for the next attempt."""
    said = filesystem.info(path)
    if said["type"] == "directory":  # s3fs takes a name that ends in a slash for one
        raise FileNotFoundError(path)
    target.unlink(missing_ok=True)
    filesystem.get_file(path, str(target))
    target.touch()  # s3fs makes no file of an empty object
    md5, sha256 = _hashes(target)
    size_bytes = target.stat().st_size
    _check(path, said, size_bytes, md5, seen)
    return Fetched(version_in(said), size_bytes, sha256)


def fetched_bytes(filesystem: Any, path: str, said: Mapping[str, Any], seen: set[str]) -> bytes:
    """The same of a small object, of which `info` was asked before."""
    data = whole(filesystem, path)
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    _check(path, said, len(data), md5, seen)
    return data


def whole(filesystem: Any, path: str) -> bytes:
    """A small object. S3's client compares its checksum where the store has one; other stores are
    asked what they hold first."""
    if "s3" in filesystem.protocol:
        return bytes(filesystem.cat_file(path, max_concurrency=1))
    said = filesystem.info(path)
    data = bytes(filesystem.cat_file(path))
    _check(path, said, len(data), hashlib.md5(data, usedforsecurity=False).hexdigest(), set())
    return data


def _check(path: str, said: Mapping[str, Any], size_bytes: int, md5: str, seen: set[str]) -> None:
    if size_bytes != int(said["size"]):
        raise WrongBytes(f"{path}: {size_bytes} of {said['size']} bytes came")
    if stated_md5(said) not in (None, md5) and md5 not in seen:
        seen.add(md5)
        raise WrongBytes(f"{path}: the bytes that came are not those that are stored")


def stated_md5(said: Mapping[str, Any]) -> str | None:
    """In hex, where the store states one, or what looks like one."""
    if said.get("md5Hash"):
        return base64.b64decode(said["md5Hash"]).hex()
    etag = str(said.get("ETag", "")).strip('"')
    return etag if _MD5.fullmatch(etag) else None


def _hashes(path: Path) -> tuple[str, str]:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            md5.update(chunk)
            sha256.update(chunk)
    return md5.hexdigest(), sha256.hexdigest()
