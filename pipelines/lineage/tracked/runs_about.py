"""Which tracked runs made or used a thing, by our digests; as places.py, without mlflow."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.config import RequestError, TrackingConfig
from pipelines.lineage.tracked import uri as tracking_uri
from pipelines.lineage.tracked.places import client_of, open_read_only
from pipelines.lineage.tracked.records import KIND_TAG, MODEL_DIGEST_TAG, RunRecord

Runs = list[dict[str, Any]]

_ABOUT = """
    WITH wanted AS (SELECT value AS digest FROM json_each(:digests)),
    project AS (SELECT experiment_id FROM experiments WHERE name = :project),
    about AS (
        SELECT run_uuid FROM tags JOIN wanted ON tags.value = wanted.digest
        UNION
        SELECT inputs.destination_id FROM inputs
        JOIN datasets ON datasets.dataset_uuid = inputs.source_id
        JOIN wanted ON datasets.digest = wanted.digest WHERE inputs.destination_type = 'RUN'
        UNION
        SELECT source_run_id FROM logged_models JOIN logged_model_tags USING (model_id)
        JOIN wanted ON tag_value = wanted.digest WHERE tag_key = :model_tag
    )
    SELECT runs.run_uuid AS run_id, kind.value AS kind, runs.name, runs.status,
           runs.start_time AS started_ms, runs.experiment_id
    FROM runs JOIN about USING (run_uuid)
    LEFT JOIN tags AS kind ON kind.run_uuid = runs.run_uuid AND kind.key = :kind_tag
    WHERE runs.lifecycle_stage = 'active'
      AND runs.experiment_id IN (SELECT experiment_id FROM project)
    ORDER BY runs.start_time, runs.run_uuid
"""


def runs_about(config: TrackingConfig, digests: Iterable[str]) -> Runs:
    """[{run_id, kind, name, status, started_ms, experiment_id}], oldest first: every run whose
    tags, inputs or checkpoints hold one of the digests.

    Empty when tracking is off or nothing was recorded. Raises RequestError as `places_of`.
    """
    wanted = frozenset(filter(None, digests))
    if not config.enabled or not wanted:
        return []
    uri = tracking_uri.resolve(config.uri)
    path = tracking_uri.sqlite_path(uri)
    if path is not None and not path.exists():
        return []
    if path is not None:
        with contextlib.suppress(sqlite3.Error), contextlib.closing(open_read_only(path)) as store:
            return _in_tables(store, config.project, wanted)
    client = client_of(config)
    made_by = {model.run_id for model in client.models() if model.digest in wanted}
    runs = [run for run in client.runs() if run.run_id in made_by or is_about(run, wanted)]
    return [_row(run) for run in sorted(runs, key=lambda run: (run.started_ms, run.run_id))]


def known_runs(config: TrackingConfig, digests: Iterable[str]) -> Runs:
    """`runs_about`; none where a server does not answer."""
    try:
        return runs_about(config, digests)
    except RequestError:
        if tracking_uri.sqlite_path(tracking_uri.resolve(config.uri)) is not None:
            raise
        return []


def is_about(run: RunRecord, digests: frozenset[str]) -> bool:
    named = {*run.tags.values(), *(edge.digest for edge in run.inputs)}
    return not digests.isdisjoint(named)


def _in_tables(store: sqlite3.Connection, project: str, digests: frozenset[str]) -> Runs:
    values: Mapping[str, Any] = {
        "digests": json.dumps(sorted(digests)),
        "project": project,
        "model_tag": MODEL_DIGEST_TAG,
        "kind_tag": KIND_TAG,
    }
    cursor = store.execute(_ABOUT, values)
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    return [{**row, "experiment_id": str(row["experiment_id"])} for row in rows]


def _row(run: RunRecord) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "kind": run.kind,
        "name": run.name,
        "status": run.status,
        "started_ms": run.started_ms,
        "experiment_id": run.experiment_id,
    }
