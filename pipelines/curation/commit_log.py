"""What is finished, source by source: files that appear whole, or not at all.

Ray Data's own checkpoint loses rows when one film fans out to many clips and is resumed after a
crash, so resuming is ours. A stage's result for one source is a parquet file, published
atomically under a folder named by everything that decides the result:

    WORK/<stage>/<key>/<source_id>.parquet          all of it: what was watched
    WORK/<stage>/<key>/<source_id>/<part>.parquet   so far: captions and scores of some clips

WORK is shared by all datasets beside it, and by jobs that run at the same time: nothing in it is
ever changed, and two workers that commit the same thing write the same rows, so it does not matter
who comes last. Changing a threshold changes no key; changing the captioner changes only that of
`captions`. Whoever deletes the folder loses time, nothing else.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config import config_hash
from pipelines.storage import Store
from pipelines.storage.durable_files import (
    TEMPORARY_PREFIX,
    entries_below,
    is_being_written,
    make_folder,
)

WORK_FOLDER = "_work"

#: Half-written files in a shared folder may be another job's; this old they are a dead one's.
STALE_AFTER_S = 24 * 3600.0
#: In a shared folder; its time says when it was last walked for such files.
SWEPT_FILE = "swept"


def commit_key(stage: str, *decides: Any) -> str:
    """Names the results of a stage by its name and whatever decides them."""
    return config_hash([stage, list(decides)])


@dataclass(frozen=True)
class CommitLog:
    """The committed results of one stage under one configuration."""

    store: Store
    stage: str
    key: str

    @property
    def folder(self) -> str:
        return f"{self.stage}/{self.key}"

    def path_of(self, source_id: str) -> str:
        return f"{self.folder}/{source_id}.parquet"

    def committed(self) -> Iterator[str]:
        """Source ids that have a whole result, from one listing."""
        for name in self.store.names_below(self.folder):
            if name.endswith(".parquet") and name.count("/") == self.folder.count("/") + 1:
                yield PurePosixPath(name).stem

    def has(self, source_id: str) -> bool:
        return self.store.has_file(self.path_of(source_id))

    def read(self, source_id: str, columns: list[str] | None = None) -> pa.Table | None:
        """The committed rows, or None when there is no commit."""
        return read_if_whole(self.store, self.path_of(source_id), columns)

    def write(self, source_id: str, table: pa.Table) -> None:
        """Publishes the whole result: after this returns it survives any crash."""
        self.store.write_table(self.path_of(source_id), table)

    def add(self, source_id: str, table: pa.Table) -> None:
        """Publishes some rows beside those that are there; equal rows are there once."""
        self.store.write_table(f"{self.folder}/{source_id}/{_name_of(table)}.parquet", table)

    def read_parts(self, source_id: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """What was added, in the order of the parts' names."""
        for name in self.store.list_below(f"{self.folder}/{source_id}"):
            table = read_if_whole(self.store, name, columns)
            if table is not None:
                yield table


def read_if_whole(store: Store, path: str, columns: list[str] | None = None) -> pa.Table | None:
    """The table, or None where there is none or a damaged one: the work is then done again."""
    with _damage_passed_over():
        if not store.is_local:
            return store.read_table_file(path, columns)
        with open(store.path(path), "rb") as file:  # a few rows: no use for threads or a plan
            return pq.ParquetFile(file).read(columns=columns, use_threads=False)
    return None


def groups_if_whole(
    store: Store, path: str, columns: list[str] | None = None
) -> Iterator[pa.Table]:
    """The same a group of rows at a time, as far as they are not damaged."""
    with _damage_passed_over():
        yield from store.read_table_groups(path, columns)


@contextmanager
def _damage_passed_over() -> Iterator[None]:
    """A table that is not there, or is none, ends the block; what the system says does not."""
    try:
        yield
    except (FileNotFoundError, pa.ArrowInvalid):
        return
    except OSError as error:
        if error.errno is not None:  # without: parquet's own word for bytes that are not right
            raise


def _name_of(table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()[:32]


def remove_left_overs(store: Store, shared: Store) -> None:
    """What dead jobs left half-written, before the dataset's one writer starts: no folder is listed
    twice, and at a usual start none of those that every source has.

    What lies in the dataset's scratch goes with it when the dataset is complete. The shared folder
    is walked once a day, for what is younger would be left alone.
    """
    if f"{shared.uri}/".startswith(f"{store.path(WORK_FOLDER)}/"):  # and no scratch goes whole
        store.remove_temporaries()
        return
    store.remove_temporaries(but_in=WORK_FOLDER)
    if shared.is_local and _is_due(mark := Path(shared.path(SWEPT_FILE))):
        make_folder(mark.parent)
        mark.touch()
        remove_stale_temporaries(shared)


def _is_due(mark: Path) -> bool:
    """Clocks jump: a mark from the future says nothing."""
    try:
        return not 0 <= time.time() - mark.stat().st_mtime < STALE_AFTER_S
    except FileNotFoundError:
        return True


def remove_stale_temporaries(store: Store, older_than_s: float = STALE_AFTER_S) -> None:
    """Clears what dead jobs left half-written; what is younger may be a living one's."""
    if not store.is_local:
        return
    for entry in entries_below(store.uri):
        if not entry.name.startswith(TEMPORARY_PREFIX):
            continue
        path = Path(entry.path)
        try:
            is_old = time.time() - path.stat().st_mtime > older_than_s
            if is_old and not is_being_written(path):  # clocks jump
                path.unlink()
        except OSError:  # its writer was faster
            continue


@dataclass(frozen=True)
class AttemptCap:
    """Counts how often one run began a piece of work, across the deaths of its workers.

    Ray retries a row that kills its worker for ever. So each attempt leaves a mark before it
    starts, and the attempt after the last allowed one is told to give up. Marks belong to a run
    (`run_id`, new each time the job starts): a job killed and started again begins at zero, or
    the number of interruptions would decide what is kept.
    """

    store: Store
    run_id: str
    limit: int

    def begin(self, stage: str, name: str) -> bool:
        """Marks an attempt; False when all allowed ones were begun before."""
        for attempt in range(1, self.limit + 1):
            mark = f"attempts/{self.run_id}/{stage}-{name}-{attempt}"
            if not self.store.has_file(mark):
                self.store.write_bytes(mark, b"")
                return True
        return False
