"""From a folder of anything to one row per different content, nothing left out.

A file is known by the sha256 of its bytes: copies and renamed files are one source with several
names. What has no readable bytes (pipes, links, folders without permission) is known by its name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipelines.config import RequestError
from pipelines.curation.limits import LimitsConfig
from pipelines.curation.rights.manifests import rights_inside
from pipelines.curation.rights.policy import merged, strictest
from pipelines.curation.rights.sidecars import rights_beside
from pipelines.curation.rights.stated import Rights
from pipelines.records import Source, source_id_of
from pipelines.sandbox import SandboxConfig
from pipelines.storage import COPY_CHUNK_BYTES, absolute_uri, is_local

#: Text and data that accompany footage, by suffix: they get a row, and never a decoder.
SIDECAR_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("json", "jsonl", "csv", "tsv", "txt", "md", "xml", "yaml", "yml", "parquet", "html"),
        *("srt", "vtt", "ass", "ssa", "sub", "nfo", "sha256", "md5", "log"),
    )
)
#: A file of which nothing is asked but what is stated of it.
ANY_RIGHTS = LimitsConfig()


@dataclass(frozen=True)
class Found:
    """One entry of the footage. `path` opens it (any bytes, as the system names it).

    `uri` names it in rows: relative to the footage, always text, different for different files.
    `problem` is a reason code when there is nothing to decode.
    """

    uri: str
    path: str
    size_bytes: int = 0
    mtime_ns: int = 0
    problem: str | None = None

    @property
    def fingerprint(self) -> str:
        """Changes when the file is written again: what may be remembered about it is void."""
        return f"{self.size_bytes}-{self.mtime_ns}"


@dataclass(frozen=True)
class Footage:
    """One source and the path its bytes can be read from."""

    source: Source
    path: str
    found: tuple[Found, ...] = ()


def list_footage(uri: str) -> list[Found]:
    """Every entry below the folder that is not itself a folder, sorted by name.

    Links are not followed: a link to a file inside the footage is another name of that file, any
    other link is refused. Raises RequestError when there is no such folder, or nothing in it.
    """
    if not is_local(uri):
        raise RequestError(
            f"--footage {uri}: footage is read from a local folder; mount or copy it there"
        )
    root = absolute_uri(uri)
    if not os.path.lexists(root):
        raise RequestError(f"--footage {uri}: no such folder")
    if not os.path.isdir(root):
        raise RequestError(f"--footage {uri}: not a folder; give the folder that holds the files")
    real_root = os.path.realpath(root)
    try:
        with os.scandir(real_root) as entries:
            is_empty = next(entries, None) is None
    except OSError as error:
        raise RequestError(f"--footage {uri}: cannot be listed ({error.strerror})") from error
    found = sorted(_walk(os.fsencode(real_root), os.fsencode(real_root)), key=lambda f: f.uri)
    if is_empty or not found:
        raise RequestError(f"--footage {uri}: the folder is empty; put footage in it")
    return found


def identify(
    found: Found, policy: LimitsConfig = ANY_RIGHTS, sandbox: SandboxConfig | None = None
) -> Source:
    """The row of one entry before anything is decoded: its identity, size, licence and consent."""
    rights = stated_of(found, policy, sandbox or SandboxConfig())
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
        sha256, size_bytes, is_same = _read_once(found)
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


def stated_of(found: Found, policy: LimitsConfig, sandbox: SandboxConfig) -> Rights:
    """What is stated beside the file and inside it. Never raises for what they hold."""
    inside = []
    if found.problem is None:
        inside.append(rights_inside(found.path, found.size_bytes, sandbox))
    return merged([*rights_beside(found.path), *inside], policy)


def collapse(
    identified: Iterable[tuple[Found, Source]], policy: LimitsConfig = ANY_RIGHTS
) -> list[Footage]:
    """One per content, with all its names, sorted by first name.

    Of contents that differ in licence or consent between their names the strictest counts.
    """
    by_id: dict[str, list[tuple[Found, Source]]] = {}
    for found, source in sorted(identified, key=lambda pair: pair[0].uri):
        by_id.setdefault(source.source_id, []).append((found, source))
    return [_collapsed(group, policy) for group in by_id.values()]


def ingest(uri: str) -> list[Footage]:
    """All of it in this process: list, identify, collapse."""
    return collapse((found, identify(found)) for found in list_footage(uri))


def readable_name(raw: bytes) -> str:
    r"""A name as text. Bytes that are not UTF-8, control characters and the backslash itself are
    written as \xNN or \\, so that different names stay different and a name is one line.
    """
    text = raw.decode("utf-8", "surrogateescape")
    return "".join(_readable(character) for character in text)


def _readable(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    if character.isprintable() or character == "\u200d":
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8"))


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
    suffix = os.path.splitext(os.fsdecode(entry.name))[1].lower()
    problem = "sidecar" if suffix in SIDECAR_SUFFIXES else None
    if not status.st_size:
        problem = "empty"
    return dataclasses.replace(
        _entry(root, entry.path, problem=problem),
        path=os.fsdecode(path),
        size_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
    )


def _entry(root: bytes, path: bytes, problem: str | None) -> Found:
    relative = os.path.relpath(path, root)
    return Found(readable_name(relative), os.fsdecode(path), problem=problem)


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


def _collapsed(group: list[tuple[Found, Source]], policy: LimitsConfig) -> Footage:
    first_found, first = group[0]
    sources = [source for _, source in group]
    usable = next((pair for pair in group if pair[1].status == "ok"), (first_found, first))
    rights = strictest((Rights(s.license, s.consent) for s in sources), policy)
    source = dataclasses.replace(
        usable[1],
        uris=sorted(uri for s in sources for uri in s.uris),
        license=rights.license,
        consent=rights.consent,
    )
    return Footage(source, usable[0].path, tuple(found for found, _ in group))
