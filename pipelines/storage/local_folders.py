"""A folder on a disk: what is in it, what dead writers left there, whether it can be written to."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pipelines.config import RequestError
from pipelines.storage.durable_files import TEMPORARY_PREFIX, entries_below


def names_below(root: str, relative: str) -> Iterator[str]:
    """Of every file below `relative`, as seen from `root`, as they are read."""
    start = len(str(Path(root)).rstrip("/")) + 1
    for entry in entries_below(Path(root) / relative):
        if os.path.isfile(entry.path):
            yield entry.path[start:]


def remove(path: Path) -> None:
    """A file, a link, or a folder with all below; nothing where nothing is."""
    if path.is_dir() and not path.is_symlink():
        _remove_folder(path)
    else:
        path.unlink(missing_ok=True)


def _remove_folder(folder: str | Path) -> None:
    """Entries go as they are read: `shutil.rmtree` first holds all of a folder's in memory, which
    is a GB for a million clips' folders. What another process removes at the same time is gone."""
    with suppress(FileNotFoundError):
        while not _is_removed_with_what_is_read(folder):
            pass  # a folder that changes while it is read may be read in part


def _is_removed_with_what_is_read(folder: str | Path) -> bool:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove_folder(entry.path)
            else:
                Path(entry.path).unlink(missing_ok=True)
    try:
        os.rmdir(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def remove_temporaries(root: str, but_in: str) -> None:
    """Only while no other writer is at work."""
    for entry in entries_below(root, but_in):
        if not entry.name.startswith(TEMPORARY_PREFIX):
            continue
        if entry.is_dir():
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            Path(entry.path).unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Makes the folder. Raises RequestError when nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=TEMPORARY_PREFIX):
            pass
    except OSError as error:
        raise RequestError(
            f"{folder}: cannot write here ({error.strerror}); give a writable folder"
        ) from error
