"""What a tracker knows of past jobs, as plain values (no mlflow types leave tracking.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

KIND_TAG = "i2vgen.kind"
PLACE_TAG = "i2vgen.uri"
CONTEXT_TAG = "mlflow.data.context"
INPUT_MODELS_TAG = "i2vgen.input_models"


@dataclass(frozen=True)
class InputRecord:
    name: str
    uri: str
    digest: str
    context: str


@dataclass(frozen=True)
class RunRecord:
    """A run as the tracker knows it; `started_ms` since the epoch."""

    run_id: str
    name: str
    kind: str
    status: str
    started_ms: int
    tags: dict[str, str]
    params: dict[str, str]
    inputs: tuple[InputRecord, ...]
    input_models: tuple[str, ...]
    output_models: tuple[str, ...]


@dataclass(frozen=True)
class ModelRecord:
    """A checkpoint as the tracker knows it."""

    model_id: str
    digest: str
    uri: str
    run_id: str


def run_record(run: Any) -> RunRecord:
    tags = dict(run.data.tags)
    edges = run.inputs.dataset_inputs if run.inputs else []
    outputs = run.outputs.model_outputs if run.outputs else []
    return RunRecord(
        run_id=run.info.run_id,
        name=run.info.run_name or "",
        kind=tags.get(KIND_TAG, ""),
        status=run.info.status,
        started_ms=run.info.start_time or 0,
        tags=tags,
        params=dict(run.data.params),
        inputs=tuple(_input_record(edge) for edge in edges),
        input_models=tuple(tags.get(INPUT_MODELS_TAG, "").split()),
        output_models=tuple(model.model_id for model in outputs),
    )


def _input_record(edge: Any) -> InputRecord:
    tags = {tag.key: tag.value for tag in edge.tags}
    return InputRecord(
        name=edge.dataset.name,
        uri=tags.get(PLACE_TAG, ""),
        digest=edge.dataset.digest,
        context=tags.get(CONTEXT_TAG, ""),
    )


def model_record(model: Any) -> ModelRecord:
    tags = model.tags or {}
    return ModelRecord(
        model_id=model.model_id,
        digest=tags.get("checkpoint.digest", ""),
        uri=tags.get("checkpoint.uri", ""),
        run_id=model.source_run_id or "",
    )
