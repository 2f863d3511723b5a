"""One writer per dataset: a second live job is refused, a dead one's lock is no obstacle."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.config import RequestError
from pipelines.curation.commit_log import WORK_FOLDER
from pipelines.storage import Store

LOCK_FILE = f"{WORK_FOLDER}/writer.lock"
HEARTBEAT_S = 20.0
STALE_AFTER_S = 120.0


@contextmanager
def writer_lock(store: Store) -> Iterator[None]:
    """Holds the dataset for the block. Raises RequestError when another live job holds it."""
    with _file_lock(store) if store.is_local else _heartbeat_lock(store):
        yield


@contextmanager
def _file_lock(store: Store) -> Iterator[None]:
    """The operating system's lock: it ends with the process that holds it, however that dies."""
    path = Path(store.path(LOCK_FILE))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise _refusal(store, file.read()) from error
        file.truncate(0)
        file.write(json.dumps(_holder()))
        file.flush()
        yield


@contextmanager
def _heartbeat_lock(store: Store) -> Iterator[None]:
    """In an object store: a record renewed every `HEARTBEAT_S`; stale after `STALE_AFTER_S`.

    Two jobs that take over the same stale record at the same moment both write, then both read
    back: only the one whose token stands goes on.
    """
    token = uuid.uuid4().hex
    if store.exists(LOCK_FILE):
        found = store.read_json(LOCK_FILE)
        if time.time() - float(found.get("alive_s", 0)) < STALE_AFTER_S:
            raise _refusal(store, json.dumps(found))

    def beat() -> None:
        store.write_json(LOCK_FILE, {**_holder(), "token": token, "alive_s": time.time()})

    beat()
    time.sleep(1.0)  # long enough for a rival's record to land on ours
    if store.read_json(LOCK_FILE).get("token") != token:
        raise _refusal(store, "")
    stop = threading.Event()

    def keep_beating() -> None:
        while not stop.wait(HEARTBEAT_S):
            beat()

    thread = threading.Thread(target=keep_beating, daemon=True, name="writer-lock")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        store.remove(LOCK_FILE)


def _holder() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _refusal(store: Store, record: str) -> RequestError:
    try:
        holder = json.loads(record)
        who = f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        who = "another job"
    return RequestError(
        f"{store.uri}: {who} is writing this dataset; wait for it, or choose another --dataset"
    )
