"""How a local file appears: whole and durable at its name, or not at all."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.failpoints import failpoint

TEMPORARY_PREFIX = ".tmp-"


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Gives a path beside `target` to fill; on a clean exit it becomes `target`.

    The bytes are made durable, then the name, then the folder that holds the name. On an exception
    the temporary file goes and nothing is seen. Until then it is locked: see `is_being_written`.
    """
    make_folder(target.parent)
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{target.name}")
    with open(temporary, "xb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_SH)
            failpoint("file.before_write")
            yield temporary
            failpoint("file.before_fsync")
            fsync_path(temporary)
            failpoint("file.before_rename")
            os.replace(temporary, target)
            failpoint("file.before_folder_fsync")
            fsync_path(target.parent)
            failpoint("file.after")
        finally:
            temporary.unlink(missing_ok=True)


def is_being_written(temporary: Path) -> bool:
    """Whether the process that fills it lives, whatever the clock says of the file's age."""
    try:
        with open(temporary, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def make_folder(folder: Path) -> None:
    """The folder and those above it, with names that survive a power cut: what is durable in a
    folder whose own name is lost is lost as well."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        fsync_path(one.parent)


def entries_below(folder: str | Path, but_in: str = "") -> Iterator[os.DirEntry[str]]:
    """Everything below, each folder listed once; links are not followed, what goes meanwhile is
    passed over. The folder `but_in` right below is not looked into."""
    waiting, left_out = [str(folder)], os.path.join(folder, but_in) if but_in else ""
    while waiting:
        try:
            listed = os.scandir(waiting.pop())
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        with listed:
            for entry in listed:
                yield entry
                if entry.path != left_out and entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def fsync_path(path: Path) -> None:
    """Makes a file's bytes, or a folder's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
