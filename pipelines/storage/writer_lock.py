"""One writer per output: a second live job is refused, a dead one's lock is no obstacle."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from pipelines.config import RequestError
from pipelines.storage import Store
from pipelines.storage.durable_files import make_folder
from pipelines.storage.object_lock import Held, holder_record, object_lock

LOCK_FILE = "_work/writer.lock"


@contextmanager
def writer_lock(store: Store, flag: str = "--dataset") -> Iterator[None]:
    """Holds the output that `flag` names for the block. Raises RequestError when another live job
    holds it."""
    with _file_lock(store, flag) if store.is_local else _store_lock(store, flag):
        yield


@contextmanager
def _file_lock(store: Store, flag: str) -> Iterator[None]:
    """The operating system's lock: it ends with the process that holds it, however that dies."""
    path = Path(store.path(LOCK_FILE))
    with _open_at(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise _refusal(store, flag, file.read()) from error
        if not _is_still_at(path, file):  # its holder ended just now, and took the file along
            raise _refusal(store, flag, "")
        file.truncate(0)
        file.write(json.dumps(holder_record()))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # other work lies there
                path.parent.rmdir()


def _open_at(path: Path) -> IO[str]:
    """The file, made with its folder, which an ending job may remove at the same moment."""
    while True:
        make_folder(path.parent)
        with suppress(FileNotFoundError):
            return open(path, "a+")


def _is_still_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def _store_lock(store: Store, flag: str) -> Iterator[None]:
    with ExitStack() as held:
        try:
            held.enter_context(object_lock(store, LOCK_FILE))
        except Held as error:
            raise _refusal(store, flag, error.record) from None
        yield


def _refusal(store: Store, flag: str, record: str) -> RequestError:
    try:
        holder = json.loads(record)
        who = f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        who = "another job"
    return RequestError(
        f"{flag} {store.uri}: {who} is writing there; wait for it, or choose another {flag}"
    )
