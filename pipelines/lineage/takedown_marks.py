"""What a takedown leaves in MLflow: tags on the checkpoints, and on the runs that made them."""

from __future__ import annotations

import contextlib

from pipelines.config import RequestError, TrackingConfig
from pipelines.lineage import trace
from pipelines.lineage.catalog import Catalog
from pipelines.lineage.manifest import Dataset, read_dataset
from pipelines.lineage.tables import Choice
from pipelines.lineage.tombstones import tombstones_of
from pipelines.lineage.tracked.places import takedowns_of
from pipelines.lineage.tracking import Tracker


def everything_taken_down(dataset: Dataset, choice: Choice, tracking: TrackingConfig) -> Choice:
    """This request and all before it: a tag says what a checkpoint saw of any of them, so that a
    second takedown does not make the traces of the first look clean."""
    versions = [dataset]
    with contextlib.suppress(RequestError):  # a server that is down: this dataset's own then
        for uri in takedowns_of(tracking):
            with contextlib.suppress(RequestError):  # gone, or not finished
                versions.append(read_dataset(uri))
    tables = [version.tombstones for version in versions]
    before = tombstones_of(row for table in tables if table for row in table.to_pylist())
    return Choice(choice.source_ids | before.source_ids, choice.clip_ids | before.clip_ids)


def mark_who_saw(tracker: Tracker, known: Catalog, gone: Choice, digest: str) -> list[str]:
    """Tags the checkpoints that saw any of it, `digest` being the version without it. One that saw
    it through its base alone counts the base's clips: 0 would read as clean.

    Returns the ids of the runs that made them.
    """
    saw = trace.who_saw(known, gone, each_clip=False)
    clips = {row["uri"]: row["clips_seen"] for row in saw["checkpoints"]}
    rows = [
        {**row, "clips_seen": max(clips[uri] for uri in (row["uri"], *row["through_base"]))}
        for row in saw["checkpoints"]
    ]
    clean = trace.last_clean_steps(saw["checkpoints"], saw["clean_checkpoints"])
    return tracker.mark_tainted(rows, digest, clean)
