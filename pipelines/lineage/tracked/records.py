"""What a tracker knows of past jobs, as plain values (no mlflow types leave tracking.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

KIND_TAG = "i2vgen.kind"
KEY_TAG = "i2vgen.key"  # ours, known before the server knows of the run
BESIDE_TAG = "i2vgen.beside"  # the key of the live run that this one does the same as
STARTED_TAG = "i2vgen.started_ms"  # when the job was last started
PLACE_TAG = "i2vgen.uri"
CONTEXT_TAG = "mlflow.data.context"
INPUT_MODELS_TAG = "i2vgen.input_models"
MISSING_MODELS_TAG = "i2vgen.missing_models"  # digests of inputs that no record is known of yet
CHANGED_PARAMS_TAG = "i2vgen.changed_params"

MODEL_DIGEST_TAG, MODEL_URI_TAG = "checkpoint.digest", "checkpoint.uri"
URI_TAGS = ("dataset.uri", "latents.uri", MODEL_URI_TAG, "checkpoints.uri", "video.uri")
TAKEDOWN_URI_TAG = "takedown.dataset"

PENDING = "pending-"


def pending_ref(key: str) -> str:
    """How a run is named before the server has named it; `tags."i2vgen.key"` finds it later."""
    return PENDING + key


def takedown_tags(digest: str, clips: int, last_clean_step: int | None) -> dict[str, str]:
    """What a takedown says of a run or checkpoint: the dataset version without the clips, how
    many of them were seen, the newest step that saw none."""
    return {
        "takedown.digest": digest,
        "takedown.clips": str(clips),
        "takedown.last_clean_step": "none" if last_clean_step is None else str(last_clean_step),
    }


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
    experiment_id: str
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
    tags: dict[str, str]


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
        experiment_id=str(run.info.experiment_id),
        tags=tags,
        params=dict(run.data.params),
        inputs=tuple(map(input_record, edges)),
        input_models=tuple(tags.get(INPUT_MODELS_TAG, "").split()),
        output_models=tuple(model.model_id for model in outputs),
    )


def input_record(edge: Any) -> InputRecord:
    tags = {tag.key: tag.value for tag in edge.tags}
    return InputRecord(
        name=edge.dataset.name,
        uri=tags.get(PLACE_TAG, ""),
        digest=edge.dataset.digest,
        context=tags.get(CONTEXT_TAG, ""),
    )


def model_record(model: Any) -> ModelRecord:
    tags = dict(model.tags or {})
    return ModelRecord(
        model_id=model.model_id,
        digest=tags.get(MODEL_DIGEST_TAG, ""),
        uri=tags.get(MODEL_URI_TAG, ""),
        run_id=model.source_run_id or "",
        tags=tags,
    )
