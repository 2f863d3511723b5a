"""One run and what it records. Gets MLflow's client and entities handed in: see tracking.py."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.lineage.spool import Record, Spool
from pipelines.lineage.tracked import CONTEXT_TAG, INPUT_MODELS_TAG, PLACE_TAG
from pipelines.lineage.tracking_values import (
    PARAM_CHARACTERS,
    TAG_CHARACTERS,
    as_json,
    fit,
    flatten,
    safe_key,
)
from pipelines.storage import absolute_uri, is_local

MODEL_TYPE = "checkpoint"

# Limits of one request to MLflow 3.17.
ENTRIES_PER_BATCH = 100
METRICS_PER_BATCH = 1000

BUFFERED_METRICS = 500
BUFFERED_S = 5.0

HOPELESS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST")


@dataclass(frozen=True)
class Experiment:
    """An open MLflow experiment: its client, and the module that makes its entities."""

    uri: str
    client: Any
    entities: Any
    experiment_id: str

    def find_model(self, digest: str) -> str | None:
        """The id of the recorded checkpoint with this digest. Raises what the client raises."""
        found = self.client.search_logged_models(
            [self.experiment_id],
            filter_string=f"tags.`checkpoint.digest` = '{digest}'",
            max_results=1,
        )
        return str(found[0].model_id) if found else None


class Run:
    """One job's record. Metrics are buffered: `close`, or the end of `Tracker.run`, flushes."""

    def __init__(self, experiment: Experiment | None, run_id: str) -> None:
        self.run_id = run_id
        self._experiment = experiment
        self._spool = Spool(_is_hopeless)
        self._metrics: list[Any] = []
        self._flushed_s = time.monotonic()
        self._contexts: dict[tuple[str, str], str] = {}

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def ui_hint(self) -> str:
        """Path and fragment of this run in the MLflow UI; the UI opens in another mode without
        the parameter at its end."""
        if self._experiment is None:
            return ""
        page = f"/#/experiments/{self._experiment.experiment_id}/runs/{self.run_id}"
        return f"{page}?workflowType=machine_learning"

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        experiment = self._experiment
        if experiment is None:
            return
        now_ms = int(time.time() * 1000)
        for name, value in metrics.items():
            self._metrics.append(
                experiment.entities.Metric(safe_key(name), float(value), now_ms, int(step))
            )
        waited_s = time.monotonic() - self._flushed_s
        if len(self._metrics) >= BUFFERED_METRICS or waited_s >= BUFFERED_S:
            self.flush()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        experiment = self._experiment
        if experiment is None or not tags:
            return
        short, long = fit({key: str(value) for key, value in tags.items()}, TAG_CHARACTERS)
        self._log_batches(
            experiment, "tags", [experiment.entities.RunTag(k, v) for k, v in short.items()]
        )
        if long:
            self.log_dict(long, "long_tags.json")

    def log_input_dataset(self, name: str, uri: str, digest: str, context: str) -> None:
        """What the run read or wrote: `context` is "output", "training", "encoding", ..."""
        experiment = self._experiment
        if experiment is None:
            return
        # MLflow keeps one edge per dataset and run and drops a second without a word, and it
        # keeps the first source of a (name, digest): so a second context is a second name, and
        # the place where this run found the data is on the edge.
        uri = absolute_uri(uri)
        first = self._contexts.setdefault((name, digest), context)
        if first != context:
            name = f"{name} ({context})"
        kind = "local" if is_local(uri) else uri.partition("://")[0]
        kinds = experiment.entities
        entity = kinds.Dataset(name, digest, kind, as_json({"uri": uri}))
        tags = [kinds.InputTag(CONTEXT_TAG, context), kinds.InputTag(PLACE_TAG, uri)]
        edge = kinds.DatasetInput(entity, tags)
        self._send(f"dataset {name}", lambda: experiment.client.log_inputs(self.run_id, [edge]))

    def log_output_model(
        self, name: str, uri: str, digest: str, step: int, params: Mapping[str, Any]
    ) -> str | None:
        """Records a checkpoint by reference; the same digest is the same model, however often.

        None when tracking is off or the server does not answer now (it is recorded later).
        """
        experiment = self._experiment
        if experiment is None:
            return None
        made: list[str] = []
        short, _ = fit(flatten(params), PARAM_CHARACTERS)
        tags = {
            "checkpoint.digest": digest,
            "checkpoint.uri": absolute_uri(uri),
            "checkpoint.step": str(step),
        }
        self._send(
            f"checkpoint {name}",
            lambda: made.append(self._record_model(experiment, name, digest, step, short, tags)),
        )
        return made[0] if made else None

    def _record_model(
        self,
        experiment: Experiment,
        name: str,
        digest: str,
        step: int,
        params: dict[str, str],
        tags: dict[str, str],
    ) -> str:
        model_id = experiment.find_model(digest)
        if model_id is None:
            model = experiment.client.create_logged_model(
                experiment.experiment_id,
                name=re.sub(r"[/:.%\"']", "-", name),
                source_run_id=self.run_id,
                tags={**tags, "mlflow.model.isExternal": "true"},
                params=params,
                model_type=MODEL_TYPE,
            )
            model_id = str(model.model_id)
            experiment.client.finalize_logged_model(model_id, "READY")
        outputs = experiment.client.get_run(self.run_id).outputs.model_outputs
        if model_id not in {output.model_id for output in outputs}:
            experiment.client.log_outputs(
                self.run_id, [experiment.entities.LoggedModelOutput(model_id, step)]
            )
        return model_id

    def log_input_model(self, model_id: str | None) -> None:
        """Links this run to a checkpoint it starts from; nothing for None (not recorded)."""
        experiment = self._experiment
        if experiment is None or not model_id:
            return
        edge = experiment.entities.LoggedModelInput(model_id)
        self._send("input checkpoint", lambda: self._link_input(experiment, edge))

    def _link_input(self, experiment: Experiment, edge: Any) -> None:
        inputs = experiment.client.get_run(self.run_id).inputs.model_inputs
        linked = [known.model_id for known in inputs]
        if edge.model_id not in linked:
            experiment.client.log_inputs(self.run_id, models=[edge])
            linked.append(edge.model_id)
        # `search_runs` of MLflow 3.17 leaves model inputs out (`get_run` gives them), so they
        # are a tag as well, to be found among thousands of runs.
        experiment.client.set_tag(self.run_id, INPUT_MODELS_TAG, " ".join(sorted(linked)))

    def log_artifact(self, local_path: str | Path, folder: str = "") -> None:
        """A file's copy beside the run: a page, a sample video, the configuration."""
        experiment = self._experiment
        if experiment is None:
            return
        path = str(local_path)
        self._send(
            f"file {Path(path).name}",
            lambda: experiment.client.log_artifact(self.run_id, path, folder or None),
            ordered=False,
        )

    def log_dict(self, obj: Mapping[str, Any], file: str) -> None:
        experiment = self._experiment
        if experiment is None:
            return
        plain = dict(obj)
        self._send(
            f"file {file}",
            lambda: experiment.client.log_dict(self.run_id, plain, file),
            ordered=False,
        )

    def flush(self, *, at_once: bool = False) -> None:
        """Sends what is buffered; records that could not go wait for the next time."""
        experiment = self._experiment
        if experiment is None:
            return
        self._flushed_s = time.monotonic()
        for start in range(0, len(self._metrics), METRICS_PER_BATCH):
            batch = self._metrics[start : start + METRICS_PER_BATCH]
            self._send(
                "metrics",
                lambda batch=batch: experiment.client.log_batch(self.run_id, metrics=batch),
            )
        self._metrics = []
        self._spool.flush(at_once=at_once)

    def close(self) -> None:
        """Sends everything; warns of what the server never took."""
        self.flush(at_once=True)
        self._spool.close()

    def log_params(self, params: Mapping[str, Any]) -> None:
        experiment = self._experiment
        if experiment is None:
            return
        short, long = fit(flatten(params), PARAM_CHARACTERS)
        self._log_batches(
            experiment, "params", [experiment.entities.Param(k, v) for k, v in short.items()]
        )
        if long:
            self.log_dict(long, "long_values.json")

    def _log_batches(self, experiment: Experiment, field: str, entries: list[Any]) -> None:
        for start in range(0, len(entries), ENTRIES_PER_BATCH):
            batch = {field: entries[start : start + ENTRIES_PER_BATCH]}
            self._send(field, lambda batch=batch: experiment.client.log_batch(self.run_id, **batch))

    def _send(self, what: str, deliver: Any, *, ordered: bool = True) -> None:
        self._spool.submit(Record(what, deliver, ordered))

    def end(self, status: str) -> None:
        experiment = self._experiment
        if experiment is None:
            return
        self.flush(at_once=True)
        self._send("its end", lambda: experiment.client.set_terminated(self.run_id, status))
        self._spool.close()


def _is_hopeless(error: Exception) -> bool:
    """Will it fail the same way for ever? Then it does not wait in front of the others."""
    code = getattr(error, "error_code", "")
    return code in HOPELESS or isinstance(error, FileNotFoundError)
