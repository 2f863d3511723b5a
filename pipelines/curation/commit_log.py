"""What is finished, source by source: one file that appears whole, or not at all.

Ray Data's own checkpoint loses rows when one film fans out to many clips and is resumed after a
crash, so resuming is ours. A stage's result for one source is one parquet file, published
atomically under a folder named by everything that decides the result:

    DATASET/_work/<stage>/<key>/<source_id>.parquet

Whoever finds the file finds all of the result; a stage killed at any moment redoes only the
sources whose file is missing. Two workers that commit the same source write the same rows, so it
does not matter who comes last. Changing a threshold changes no key of `watch`; changing the
captioner changes only the key of `captions`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from pipelines.config import config_hash
from pipelines.storage import Store

WORK_FOLDER = "_work"

#: Raised by one when a stage would write something else for the same input and configuration.
STAGE_VERSIONS = {"watch": 1, "captions": 1, "scores": 1, "cuts": 1}


def commit_key(stage: str, *decides: Any) -> str:
    """Names the results of a stage by its name, its version and whatever decides them."""
    return config_hash([stage, STAGE_VERSIONS[stage], list(decides)])


@dataclass(frozen=True)
class CommitLog:
    """The committed results of one stage under one configuration."""

    store: Store
    stage: str
    key: str

    @property
    def folder(self) -> str:
        return f"{WORK_FOLDER}/{self.stage}/{self.key}"

    def path_of(self, source_id: str) -> str:
        return f"{self.folder}/{source_id}.parquet"

    def committed(self) -> set[str]:
        """Source ids that have a result."""
        return {
            PurePosixPath(name).stem
            for name in self.store.list_files(self.folder)
            if name.endswith(".parquet") and name.count("/") == self.folder.count("/") + 1
        }

    def has(self, source_id: str) -> bool:
        return self.store.exists(self.path_of(source_id))

    def read(self, source_id: str, columns: list[str] | None = None) -> pa.Table | None:
        """The committed rows, or None when there is no commit."""
        if not self.has(source_id):
            return None
        return self.store.read_table(self.path_of(source_id), columns=columns)

    def write(self, source_id: str, table: pa.Table) -> None:
        """Publishes the result: after this returns it survives any crash."""
        self.store.write_table(self.path_of(source_id), table)


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
            mark = f"{WORK_FOLDER}/attempts/{self.run_id}/{stage}-{name}-{attempt}"
            if not self.store.exists(mark):
                self.store.write_bytes(mark, b"")
                return True
        return False
