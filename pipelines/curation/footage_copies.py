"""Footage of an object store, as local files: a URL is never handed to a decoder.

Each machine keeps copies for all workers of one dataset, so that a film is fetched once for its
hash, its pictures, its parts and its cuts. Copies that nobody uses make room when the disk they may
take is full; all go when the dataset is done. Those of a run that was killed are found by the next
run on that machine: of the same dataset it goes on with them, of another it removes them.

    TMP/i2vgen-footage-UID/DATASET/NAME-SIZE.mp4        a copy; SIZE in bytes
                                   NAME-SIZE.mp4.part   one that is being fetched
                                   NAME.lock            shared by readers, held by who fetches
                                   NAME.json            version and sha256 of the copy
                                   in_use               shared by every process of the run
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import IO

from pipelines.config import RequestError
from pipelines.storage import Store
from pipelines.storage.fetching import Fetched, WrongBytes

_COPY = re.compile(r"(?P<name>[0-9a-f]{32})-(?P<size>[0-9]+)[^/]*")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")
_IN_USE, _ROOM = "in_use", "room"


@dataclass(frozen=True)
class FootageCopies:
    """The copies of one dataset's footage on this machine, `most_bytes` of them; more only while
    that many are in use at the same time."""

    footage: str
    dataset: str
    most_bytes: int

    @property
    def folder(self) -> Path:
        name = hashlib.sha256(self.dataset.encode()).hexdigest()[:16]
        return _root() / name

    @contextlib.contextmanager
    def copy_of(
        self, uri: str, size_bytes: int, version: str = "", source_id: str = ""
    ) -> Iterator[tuple[Path, Fetched]]:
        """The object's bytes in a local file that stays for the block, and what is known of them.

        A copy of another version, or of another content, than asked for is fetched again, once:
        the caller compares what came. Raises FileNotFoundError when it is gone, closed to
        us or never comes whole, RequestError when all of the footage is closed, StoreUnreachable
        when the store does not answer.
        """
        folder = _folder_in_use(str(self.folder))
        name = hashlib.sha256(uri.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        copy = folder / f"{name}-{size_bytes}{_suffix_of(uri)}"
        facts, lock = folder / f"{name}.json", folder / f"{name}.lock"
        wanted = (version, source_id)
        while True:
            with _locked(lock, fcntl.LOCK_SH):
                if (found := _known_copy(copy, facts, *wanted)) is not None:
                    _note_use(copy)
                    yield copy, found
                    return
            with _locked(lock, fcntl.LOCK_EX):
                if _known_copy(copy, facts, *wanted) is None:
                    self._fetch(uri, copy, facts)
            wanted = ("", "")  # whatever came

    def clear(self) -> None:
        """Removes what nobody uses."""
        if self.folder.is_dir():
            self._make_room(self.most_bytes + 1)
            _remove_unless_in_use(self.folder)

    def _fetch(self, uri: str, copy: Path, facts: Path) -> None:
        part = copy.with_name(f"{copy.name}.part")
        with _locked(copy.parent / _ROOM, fcntl.LOCK_EX):
            copy.unlink(missing_ok=True)
            self._make_room(_size_in(copy.name))
            part.touch()
        bucket, _, key = uri.partition("://")[2].partition("/")
        store = Store(f"{uri.partition('://')[0]}://{bucket}")
        try:
            found = store.fetch(key, part)
        except WrongBytes as error:
            raise FileNotFoundError(errno.EIO, str(error)) from error
        except RequestError as error:
            # One object may be closed or archived: that is its own fault. When all are, the run
            # must not call every film unreadable.
            Store.open(self.footage).exists("")
            raise FileNotFoundError(errno.EACCES, str(error)) from error
        else:
            facts.write_text(json.dumps(asdict(found)))
            part.rename(copy)
        finally:
            part.unlink(missing_ok=True)

    def _make_room(self, coming_bytes: int) -> None:
        """Of what nobody uses, halves of copies first, then what was used longest ago."""
        held = [p for p in self.folder.iterdir() if _COPY.fullmatch(p.name)]
        held.sort(key=lambda p: (p.suffix != ".part", _used_s(p)))
        over_bytes = sum(_size_in(p.name) for p in held) + coming_bytes - self.most_bytes
        for path in held:
            if over_bytes <= 0 and path.suffix != ".part":
                return
            if _removed(path):
                over_bytes -= _size_in(path.name)


def _known_copy(copy: Path, facts: Path, version: str, source_id: str) -> Fetched | None:
    """What is known of the copy; None where there is none of that version and content."""
    try:
        known = Fetched(**json.loads(facts.read_bytes()))
        size_bytes = copy.stat().st_size
    except (OSError, ValueError, TypeError):
        return None
    is_same = version in ("", known.version) and known.sha256.startswith(source_id)
    return known if is_same and size_bytes == known.size_bytes else None


def _removed(path: Path) -> bool:
    """False where somebody uses it."""
    lock = path.with_name(f"{path.name[:32]}.lock")
    try:
        with _locked(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name[:32]}.json").unlink(missing_ok=True)
            lock.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    return True


def _size_in(name: str) -> int:
    match = _COPY.fullmatch(name)
    return int(match["size"]) if match else 0


def _note_use(copy: Path) -> None:
    """The time of its last change stays: it says that a file was not written while it was read."""
    os.utime(copy, ns=(time.time_ns(), copy.stat().st_mtime_ns))


def _used_s(path: Path) -> float:
    try:
        return path.stat().st_atime
    except FileNotFoundError:
        return 0.0


def _suffix_of(uri: str) -> str:
    """Demuxers look at it, as they do at a local file's."""
    suffix = os.path.splitext(uri)[1]
    return suffix if _SUFFIX.fullmatch(suffix) else ""


# --- folders and locks -------------------------------------------------------------------------


def _root() -> Path:
    return Path(tempfile.gettempdir()) / f"i2vgen-footage-{os.getuid()}"


@cache
def _folder_in_use(folder: str) -> Path:
    """Makes it and holds it for as long as this process lives; removes those of dead runs."""
    root, own = Path(folder).parent, Path(folder)
    for one in (root, own):
        one.mkdir(mode=0o700, exist_ok=True)
        status = one.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise PermissionError(f"{one}: belongs to somebody else")
    _held_for_ever(own)
    for other in root.iterdir():
        if other != own:
            _remove_unless_in_use(other)
    return own


_held: list[IO[bytes]] = []


def _held_for_ever(folder: Path) -> None:
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        file = open(folder / _IN_USE, "ab")  # noqa: SIM115  closed by the end of the process
        fcntl.flock(file, fcntl.LOCK_SH)
        if _is_still(file, folder / _IN_USE):
            _held.append(file)
            return
        file.close()


def _remove_unless_in_use(folder: Path) -> None:
    with contextlib.suppress(OSError), open(folder / _IN_USE, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    """Raises BlockingIOError when it must not wait and would have to."""
    while True:
        with open(path, "ab") as file:
            fcntl.flock(file, how)
            if _is_still(file, path):
                yield
                return


def _is_still(file: IO[bytes], path: Path) -> bool:
    """Whether the file of that name is this one: who held the lock before may have removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
