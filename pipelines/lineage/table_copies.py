"""Tables of an object store as files at hand: with proof that they came whole, and few requests.

DuckDB asks a store a dozen times for a small table, gives up at the first answer that is not right,
and cannot know a bit that flipped on the way. So what is small is copied; what is large it reads
where it lies, asked again for a while when that fails.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import duckdb

from pipelines.storage import Store
from pipelines.storage.object_store import FIRST_PAUSE_S

Answer = TypeVar("Answer")

COPIED_UP_TO_BYTES = 16 << 20
TRIES = 4


class TableCopies:
    """The copies of one open DuckDB; they go with it."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._copies: dict[tuple[str, str], str] = {}  # by URI and version
        self._original: dict[str, str] = {}

    def at_hand(self, store: Store, relative: str) -> str:
        """Where the table is read from: its copy, or its URI where it is large. Raises as the
        store's own reading."""
        uri = store.path(relative)
        size_bytes, version = store.size_and_version(relative)
        if size_bytes > COPIED_UP_TO_BYTES:
            return uri
        if (uri, version) not in self._copies:
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="i2vgen-tables-")
            copy = Path(self._folder.name) / f"{len(self._copies):06d}.parquet"
            store.fetch(relative, copy)
            self._copies[uri, version] = str(copy)
            self._original[str(copy)] = uri
        return self._copies[uri, version]

    def named(self, path: str) -> str:
        """What a person calls it."""
        return self._original.get(path, path)


def asked_again(ask: Callable[[], Answer], is_passing: Callable[[duckdb.Error], bool]) -> Answer:
    """`ask()`, repeated with pauses while it fails in a way that may pass."""
    pause_s = FIRST_PAUSE_S
    for _ in range(TRIES - 1):
        try:
            return ask()
        except duckdb.Error as error:
            if not is_passing(error):
                raise
        time.sleep(pause_s)
        pause_s *= 2
    return ask()
