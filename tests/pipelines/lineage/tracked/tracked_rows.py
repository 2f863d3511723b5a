"""Everything MLflow holds of a project, in a form that two records of the same jobs share."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from pipelines.lineage.tracked.records import INPUT_MODELS_TAG, STARTED_TAG
from pipelines.lineage.tracking import Tracker

PARENT_TAG = "mlflow.parentRunId"
# When, and in which state of the checkout: not what.
LEFT_OUT = {STARTED_TAG, "code.sha256", "code.diff_sha256", "mlflow.source.git.commit"}


def client_of(tracker: Tracker) -> Any:
    """MLflow's own client, to see what others see."""
    assert tracker.experiment is not None
    return tracker.experiment.client


def rows_of(tracker: Tracker) -> dict[str, Any]:
    """{"runs": [...], "models": [...]}: ids replaced by names and digests, times left out."""
    client = client_of(tracker)
    names = {run.run_id: run.name for run in tracker.runs()}
    digests = {model.model_id: model.digest for model in tracker.models()}
    runs = [_run(client, run_id, names, digests) for run_id in names]
    models = [_model(client.get_logged_model(model_id), names) for model_id in digests]
    order = lambda row: json.dumps(row, sort_keys=True)  # noqa: E731
    return {"runs": sorted(runs, key=order), "models": sorted(models, key=order)}


def _run(
    client: Any, run_id: str, names: dict[str, str], digests: dict[str, str]
) -> dict[str, Any]:
    run = client.get_run(run_id)
    tags = {k: v for k, v in run.data.tags.items() if k not in LEFT_OUT}
    if PARENT_TAG in tags:
        tags[PARENT_TAG] = names[tags[PARENT_TAG]]
    if INPUT_MODELS_TAG in tags:
        tags[INPUT_MODELS_TAG] = sorted(digests[m] for m in tags[INPUT_MODELS_TAG].split())
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "params": run.data.params,
        "tags": tags,
        "metrics": {
            name: [(p.step, str(p.value)) for p in client.get_metric_history(run_id, name)]
            for name in run.data.metrics
        },
        "inputs": sorted(
            (edge.dataset.name, edge.dataset.digest, sorted((t.key, t.value) for t in edge.tags))
            for edge in run.inputs.dataset_inputs
        ),
        "input_models": sorted(digests[edge.model_id] for edge in run.inputs.model_inputs),
        "output_models": sorted(
            (digests[edge.model_id], edge.step) for edge in run.outputs.model_outputs
        ),
        "files": _files(client, run_id),
    }


def _files(client: Any, run_id: str, folder: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for entry in client.list_artifacts(run_id, folder):
            if entry.is_dir:
                found |= _files(client, run_id, entry.path)
                continue
            local = client.download_artifacts(run_id, entry.path, temporary)
            found[entry.path] = hashlib.sha256(Path(local).read_bytes()).hexdigest()
    return found


def _model(model: Any, names: dict[str, str]) -> dict[str, Any]:
    return {
        "name": model.name,
        "status": str(model.status),
        "tags": model.tags,
        "params": model.params,
        "run": names.get(model.source_run_id),
    }
