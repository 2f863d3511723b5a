"""What every worker is told of one curation: where its results lie, and how they are named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pipelines.curation.commit_log import WORK_FOLDER, AttemptCap, CommitLog
from pipelines.curation.config import CurateConfig
from pipelines.curation.shards import extension_of
from pipelines.lineage.tombstones import Tombstones
from pipelines.records import Clip
from pipelines.storage import Store

#: One row of a Ray dataset.
Row = dict[str, Any]

SIDECAR = "sidecar"


class LostWork(RuntimeError):
    """Something committed has gone, or was damaged, while the job ran."""

    def __init__(self, work: Work, source_id: str, what: str) -> None:
        super().__init__(
            f"{work.shared_uri}: {what} of source {source_id} is gone; run the same command again"
        )


@dataclass(frozen=True)
class Work:
    """What every worker is told: the places, the configuration, and how results are named."""

    dataset: str
    shared_uri: str
    config: CurateConfig
    keys: Mapping[str, str]
    captioner_name: str
    run_id: str
    #: What must not come back of this footage; decides verdicts, never what was watched.
    tombstones: Tombstones = field(default_factory=Tombstones)

    @cached_property
    def store(self) -> Store:
        """The dataset."""
        return Store(self.dataset)

    @cached_property
    def scratch(self) -> Store:
        """Of this dataset alone, until it is complete."""
        return Store(self.store.path(WORK_FOLDER))

    @cached_property
    def shared(self) -> Store:
        """The work folder: results by content, for any dataset."""
        return Store(self.shared_uri)

    def log(self, stage: str) -> CommitLog:
        """`watch`, `failures`, `captions` and `scores` are shared; `passing`, `sidecar` (texts
        beside the films) and `cuts` are the dataset's own."""
        own = stage in ("passing", SIDECAR, "cuts")
        return CommitLog(self.scratch if own else self.shared, stage, self.keys[stage])

    @property
    def texts_beside(self) -> bool:
        """True when captions are read from files, which may say something else every time."""
        return self.config.captions.backend == SIDECAR

    @property
    def attempts(self) -> AttemptCap:
        return AttemptCap(self.scratch, self.run_id, self.config.resources.attempts)

    def cut_path(self, clip: Clip) -> str:
        """Where its cut waits for a shard, below `scratch`."""
        folder = f"{self.log('cuts').folder}/{clip.source_id}"
        return f"{folder}/{clip.clip_id}.{extension_of(clip)}"
