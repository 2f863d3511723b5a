"""Checkpoints in MLflow: recorded by reference, found by digest, linked from run to run."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pipelines.lineage.spool.files import Record
from pipelines.lineage.tracked.experiment import Experiment
from pipelines.lineage.tracked.records import INPUT_MODELS_TAG, MISSING_MODELS_TAG

MODEL_TYPE = "checkpoint"
MODEL_ID_PREFIX = "m-"  # MLflow's; a digest is hexadecimal
READY = "READY"


class TrackedModels:
    """Every method is safe to repeat and raises what the client raises."""

    def __init__(self, experiment: Experiment, run_id: Callable[[str], str]) -> None:
        self._experiment, self._run_id = experiment, run_id
        self._client, self._kinds = experiment.client, experiment.entities

    def record(self, record: Record) -> None:
        """The same digest is the same model, however often it is made."""
        run_id, digest = self._run_id(record["run"]), record["digest"]
        model = self._experiment.find_model(digest) or self._create(record, run_id)
        if str(model.status).rpartition(".")[2] != READY:
            self._client.finalize_logged_model(model.model_id, READY)
        run = self._client.get_run(run_id)
        outputs = run.outputs.model_outputs if run.outputs else []
        if model.model_id not in {output.model_id for output in outputs}:
            edge = self._kinds.LoggedModelOutput(model.model_id, record["step"])
            self._client.log_outputs(run_id, [edge])
        self._link_who_waits(digest, model.model_id)

    def _create(self, record: Record, run_id: str) -> Any:
        return self._client.create_logged_model(
            self._experiment.experiment_id,
            name=re.sub(r"[/:.%\"']", "-", record["name"]),
            source_run_id=run_id,
            tags={**record["tags"], "mlflow.model.isExternal": "true"},
            params=record["params"],
            model_type=MODEL_TYPE,
        )

    def link_input(self, record: Record) -> None:
        """Links a run to a checkpoint it starts from; a checkpoint whose own record has not come
        yet (it waits on another machine) is noted, and linked when it comes."""
        run_id, named = self._run_id(record["run"]), record["model"]
        model_id = named
        if not named.startswith(MODEL_ID_PREFIX):
            model = self._experiment.find_model(named)
            if model is None:
                missing = self._words(run_id, MISSING_MODELS_TAG) | {named}
                self._set_words(run_id, MISSING_MODELS_TAG, missing)
                return
            model_id = model.model_id
        self._link(run_id, model_id)

    def _link(self, run_id: str, model_id: str) -> None:
        inputs = self._client.get_run(run_id).inputs
        linked = {known.model_id for known in (inputs.model_inputs if inputs else [])}
        if model_id not in linked:
            self._client.log_inputs(run_id, models=[self._kinds.LoggedModelInput(model_id)])
        # `search_runs` of MLflow 3.17 leaves model inputs out (`get_run` gives them), so they
        # are a tag as well, to be found among thousands of runs.
        self._set_words(run_id, INPUT_MODELS_TAG, linked | {model_id})

    def _link_who_waits(self, digest: str, model_id: str) -> None:
        waiting = self._client.search_runs(
            [self._experiment.experiment_id],
            filter_string=f"tags.`{MISSING_MODELS_TAG}` LIKE '%{digest}%'",
        )
        for run in waiting:
            run_id = run.info.run_id
            self._link(run_id, model_id)
            missing = self._words(run_id, MISSING_MODELS_TAG) - {digest}
            self._set_words(run_id, MISSING_MODELS_TAG, missing)

    def _words(self, run_id: str, tag: str) -> set[str]:
        return set(self._client.get_run(run_id).data.tags.get(tag, "").split())

    def _set_words(self, run_id: str, tag: str, words: set[str]) -> None:
        if words:
            self._client.set_tag(run_id, tag, " ".join(sorted(words)))
        else:
            self._client.delete_tag(run_id, tag)

    def taint(self, record: Record) -> None:
        """Tags on checkpoints, and on the runs that made them."""
        runs: dict[str, dict[str, str]] = {}
        for digest, tags in record["models"].items():
            model = self._experiment.find_model(digest)
            if model is None:
                continue
            self._client.set_logged_model_tags(model.model_id, tags)
            if made_by := model.source_run_id:
                runs[made_by] = _worse(runs.get(made_by), tags)
        for run_id, tags in runs.items():
            batch = [self._kinds.RunTag(key, value) for key, value in tags.items()]
            self._client.log_batch(run_id, tags=batch)


def _worse(known: dict[str, str] | None, tags: dict[str, str]) -> dict[str, str]:
    """A run is as tainted as the worst of its checkpoints."""
    if known is None or int(tags["takedown.clips"]) > int(known["takedown.clips"]):
        return tags
    return known
