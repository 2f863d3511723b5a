"""One holder at a time, told by the system when the holder dies."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

POLL_S = 0.05

_guard = threading.Lock()
_held: set[tuple[int, str]] = set()


class FileLock:
    """A record lock on a file, free again when its process is gone, however it went.

    `lockf`, not `flock`: a child that was forked and outlives the process must not go on holding
    it. Such locks do not keep threads of one process apart, so the process remembers its own.
    """

    def __init__(self, file: int, key: tuple[int, str]) -> None:
        self._file, self._key = file, key

    @classmethod
    def take(cls, path: Path) -> FileLock | None:
        """None while somebody holds it, or when its folder is gone. Raises OSError where files
        cannot be locked."""
        key = (os.getpid(), str(path))
        with _guard:
            if key in _held:
                # Opening and closing the file here would give the lock away.
                return None
            try:
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                return None
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(file)
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    return None
                raise
            if not _is_at(file, path):  # its last holder removed it meanwhile
                os.close(file)
                return None
            _held.add(key)
            return cls(file, key)

    @classmethod
    def wait(cls, path: Path, patience_s: float) -> FileLock | None:
        """As `take`, after at most `patience_s`."""
        until_s = time.monotonic() + patience_s
        while (lock := cls.take(path)) is None and time.monotonic() < until_s:
            time.sleep(POLL_S)
        return lock

    def release(self, *, remove: bool = False) -> None:
        with _guard:
            if self._key in _held:
                if remove:
                    Path(self._key[1]).unlink(missing_ok=True)
                _held.discard(self._key)
                os.close(self._file)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
