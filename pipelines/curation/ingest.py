"""From a folder of anything to one row per different content, nothing left out.

A file is known by the sha256 of its bytes: copies and renamed files are one source with several
names. What has no readable bytes (pipes, links, folders without permission) is known by its name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence

from pipelines.config import RequestError
from pipelines.curation.collapse import ANY_RIGHTS, Footage, collapse
from pipelines.curation.footage_copies import FootageCopies
from pipelines.curation.found import Found, problem_of_name, readable_name, sorted_by_name
from pipelines.curation.limits import LimitsConfig
from pipelines.curation.object_footage import list_objects
from pipelines.curation.rights.manifests import rights_inside
from pipelines.curation.rights.policy import merged
from pipelines.curation.rights.sidecars import rights_beside
from pipelines.curation.rights.stated import Rights
from pipelines.records import Source, source_id_of
from pipelines.sandbox.calls import SandboxConfig
from pipelines.storage import COPY_CHUNK_BYTES, absolute_uri, is_local

HUGE_BYTES = 1 << 30
MAX_HOLLOWNESS = 64  # bytes that a file says for each byte that lies on the disk


def list_footage(uri: str) -> Sequence[Found]:
    """Every entry below the folder or prefix that is not itself a folder, sorted by name.

    Links are not followed: a link to a file inside the footage is another name of that file, any
    other link is refused. Raises RequestError when there is no such folder, or nothing in it.
    """
    if not is_local(uri):
        return list_objects(uri)
    root = absolute_uri(uri)
    if not os.path.lexists(root):
        raise RequestError(f"--footage {uri}: no such folder")
    if not os.path.isdir(root):
        raise RequestError(f"--footage {uri}: not a folder; give the folder that holds the files")
    real_root = os.path.realpath(root)
    try:
        os.close(os.open(real_root, os.O_RDONLY | os.O_DIRECTORY))
    except OSError as error:
        raise RequestError(f"--footage {uri}: cannot be listed ({error.strerror})") from error
    found = sorted_by_name(_walk(os.fsencode(real_root), os.fsencode(real_root)))
    if not found:
        raise RequestError(f"--footage {uri}: the folder is empty; put footage in it")
    return found


def identify(
    found: Found,
    policy: LimitsConfig = ANY_RIGHTS,
    sandbox: SandboxConfig | None = None,
    copies: FootageCopies | None = None,
) -> Source:
    """The row of one entry before anything is decoded: its identity, size, licence and consent.

    An object is fetched for it, into `copies`. Raises RequestError where the whole store is closed
    to us, StoreUnreachable when it does not answer.
    """
    sandbox = sandbox or SandboxConfig()
    if copies is None or is_local(found.path) or found.problem not in (None, "sidecar"):
        return _identified(found, stated_of(found, policy, sandbox), _read_once)
    try:
        with copies.copy_of(found.path, found.size_bytes, found.version) as (path, came):
            read = (came.sha256, came.size_bytes, came.version == found.version)
            return _identified(found, stated_of(found, policy, sandbox, str(path)), lambda _: read)
    except FileNotFoundError:
        return _identified(found, stated_of(found, policy, sandbox), _not_read)


def _identified(
    found: Found, rights: Rights, read: Callable[[Found], tuple[str, int, bool]]
) -> Source:
    nameless = Source(
        source_id=source_id_of(hashlib.sha256(f"no-bytes:{found.uri}".encode()).hexdigest()),
        uris=[found.uri],
        size_bytes=found.size_bytes,
        license=rights.license,
        consent=rights.consent,
        status="failed",
    )
    if found.problem and found.problem != "sidecar":
        return dataclasses.replace(nameless, reason=found.problem)
    try:
        sha256, size_bytes, is_same = read(found)
    except OSError:
        return dataclasses.replace(nameless, reason="unreadable")
    if not size_bytes:
        return dataclasses.replace(nameless, reason="empty")
    reason = found.problem if is_same else "changed_while_read"
    return dataclasses.replace(
        nameless,
        source_id=source_id_of(sha256),
        size_bytes=size_bytes,
        status="failed" if reason else "ok",
        reason=reason,
    )


def stated_of(
    found: Found, policy: LimitsConfig, sandbox: SandboxConfig, local_path: str = ""
) -> Rights:
    """What is stated beside the file and inside it. Never raises for what they hold.

    Inside an object nothing is looked for without its copy at `local_path`.
    """
    inside = []
    path = local_path or (found.path if is_local(found.path) else "")
    if found.problem is None and path:
        inside.append(rights_inside(path, found.size_bytes, sandbox))
    return merged([*rights_beside(found), *inside], policy)


def ingest(uri: str) -> list[Footage]:
    """All of it in this process: list, identify, collapse; in order of the first names."""
    footage = collapse((found, identify(found)) for found in list_footage(uri))
    return sorted(footage, key=lambda one: one.source.uris[0])


def _walk(root: bytes, folder: bytes) -> Iterator[Found]:
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda e: e.name)
    except OSError:
        yield _entry(root, folder, problem="unreadable")
        return
    for entry in listed:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, entry.path)
        else:
            yield _judged_entry(root, entry)


def _judged_entry(root: bytes, entry: os.DirEntry[bytes]) -> Found:
    path = entry.path
    try:
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            path = os.path.realpath(entry.path)
            status = os.lstat(path)
            if not path.startswith(root + b"/"):
                return _entry(root, entry.path, problem="not_regular_file")
    except OSError:  # a link to nowhere, or in a circle, or a file that has just gone
        is_link = os.path.islink(entry.path)
        return _entry(root, entry.path, problem="not_regular_file" if is_link else "unreadable")
    if not stat.S_ISREG(status.st_mode):
        return _entry(root, entry.path, problem="not_regular_file")
    problem = problem_of_name(os.fsdecode(entry.name))
    if not status.st_size:
        problem = "empty"
    elif is_hollow(status):
        problem = "broken"
    return dataclasses.replace(
        _entry(root, entry.path, problem=problem),
        path=os.fsdecode(path),
        size_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
    )


def is_hollow(status: os.stat_result) -> bool:
    """Whether nearly all of a huge file are holes, which no film has: a terabyte of zeros lies on
    the disk in one block, and takes half an hour to hash."""
    held_bytes = status.st_blocks * 512
    return status.st_size > HUGE_BYTES and held_bytes * MAX_HOLLOWNESS < status.st_size


def _entry(root: bytes, path: bytes, problem: str | None) -> Found:
    relative = os.path.relpath(path, root)
    return Found(readable_name(relative), os.fsdecode(path), problem=problem)


def _not_read(found: Found) -> tuple[str, int, bool]:
    raise OSError(f"{found.uri}: gone, or closed to us")


def _read_once(found: Found) -> tuple[str, int, bool]:
    """(sha256, bytes read, whether the file is the one that was listed and stayed the same)."""
    digest, size_bytes = hashlib.sha256(), 0
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(found.path, flags)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("not a regular file")
        while chunk := file.read(COPY_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
        after = os.fstat(descriptor)
    is_same = (after.st_size, after.st_mtime_ns) == (found.size_bytes, found.mtime_ns)
    return digest.hexdigest(), size_bytes, is_same and size_bytes == found.size_bytes
