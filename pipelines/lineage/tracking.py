"""Runs, datasets and checkpoints in MLflow: the only module that imports mlflow.

One experiment per project, one run per job. Datasets and checkpoints stay where they are and are
recorded by reference, under our own digests. After `Tracker.open` succeeded nothing here raises
because of the server: see spool.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.config import RequestError, TrackingConfig
from pipelines.lineage import fingerprint, tracking_uri
from pipelines.lineage.spool import one_line
from pipelines.lineage.tracked import (
    KIND_TAG,
    ModelRecord,
    RunRecord,
    model_record,
    run_record,
)
from pipelines.lineage.tracked_run import Experiment, Run

__all__ = ["KINDS", "Experiment", "Run", "Tracker"]

logger = logging.getLogger(__name__)

JOBS = ("curate", "encode", "train_base", "train_refine", "generate", "evaluate", "takedown")
KINDS = (*JOBS, "phase")  # a phase of a training job: a run nested in the job's

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_TRUNCATE_LONG_VALUES": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "GIT_PYTHON_REFRESH": "quiet",
}


class Tracker:
    """An open experiment, or, when tracking is disabled, a place where records vanish."""

    def __init__(self, experiment: Experiment | None) -> None:
        self.experiment = experiment

    @classmethod
    def open(cls, config: TrackingConfig) -> Tracker:
        """Raises RequestError when the place cannot be used: unreachable, refused, not writable.

        Creates the sqlite file and the experiment when they are not there; several processes
        may do so at once.
        """
        if not config.enabled:
            return cls(None)
        uri = tracking_uri.resolve(config.uri)
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        path = tracking_uri.sqlite_path(uri)
        if path is None:
            tracking_uri.check_server(uri)
        else:
            tracking_uri.prepare_sqlite_folder(path)
        with _alone(path):
            return cls(_connect(uri, config.project, path))

    @classmethod
    def open_existing(cls, config: TrackingConfig) -> Tracker:
        """The same for readers: where no sqlite file is, a disabled tracker, and none is made."""
        if config.enabled:
            path = tracking_uri.sqlite_path(tracking_uri.resolve(config.uri))
            if path is not None and not path.exists():
                return cls(None)
        return cls.open(config)

    @property
    def enabled(self) -> bool:
        return self.experiment is not None

    @property
    def uri(self) -> str:
        """Empty when tracking is off."""
        return self.experiment.uri if self.experiment else ""

    # --- writing -------------------------------------------------------------------------

    @contextlib.contextmanager
    def run(
        self,
        kind: str,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        parent_run_id: str | None = None,
    ) -> Iterator[Run]:
        """A run for the length of the block: finished, or failed when the block raises.

        `params` may be nested; they are flattened to `section.field`. Values too long for
        MLflow are named by their hash and written whole to the artifact `long_values.json`.
        Raises RequestError when the server refuses the run.
        """
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is not one of {KINDS}")
        run_id = self._create_run(kind, name, parent_run_id)
        run = Run(self.experiment, run_id)
        run.set_tags({**_code_tags(), **tags})
        run.log_params(params)
        status = "FAILED"
        try:
            yield run
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            run.end(status)

    def resume(self, run_id: str) -> Run:
        """A run that another process started (a Ray Train worker joins its driver's).

        Close it, or use it as a context manager, to flush; ending it is the starter's business.
        """
        return Run(self.experiment, run_id)

    def _create_run(self, kind: str, name: str, parent_run_id: str | None) -> str:
        experiment = self.experiment
        if experiment is None:
            return ""
        tags = {KIND_TAG: kind}
        if kind in JOBS:
            tags["mlflow.source.name"] = f"jobs/{kind}.py"
        if parent_run_id:
            tags["mlflow.parentRunId"] = parent_run_id
        try:
            run = experiment.client.create_run(experiment.experiment_id, run_name=name, tags=tags)
        except Exception as error:
            raise RequestError(f"tracking: {self.uri}: {one_line(error)}") from error
        return str(run.info.run_id)

    # --- reading -------------------------------------------------------------------------

    def find_model(self, digest: str) -> str | None:
        """The id of the recorded checkpoint with this digest; None when there is none."""
        if self.experiment is None or not re.fullmatch(r"[0-9a-f]{1,64}", digest):
            return None
        try:
            return self.experiment.find_model(digest)
        except Exception as error:
            logger.warning("tracking could not look up %s: %s", digest, one_line(error))
            return None

    def runs(self) -> list[RunRecord]:
        """Every run of the project, newest first."""
        if self.experiment is None:
            return []
        return [run_record(run) for run in _every(self.experiment, "search_runs")]

    def models(self) -> list[ModelRecord]:
        """Every recorded checkpoint of the project."""
        if self.experiment is None:
            return []
        found = _every(self.experiment, "search_logged_models")
        return [record for record in map(model_record, found) if record.digest]


def _every(experiment: Experiment, search: str) -> Iterator[Any]:
    """All pages of one of the client's searches."""
    token = None
    while True:
        page = getattr(experiment.client, search)([experiment.experiment_id], page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _code_tags() -> dict[str, str]:
    state = fingerprint.git_state()
    tags = {"code.sha256": fingerprint.code_sha256()}
    if "commit" in state:
        tags["mlflow.source.git.commit"] = state["commit"]
    if "diff_sha256" in state:
        tags["code.diff_sha256"] = state["diff_sha256"]
    return tags


# --- connecting ------------------------------------------------------------------------------


@contextlib.contextmanager
def _alone(path: Path | None) -> Iterator[None]:
    """One process at a time: MLflow creates its sqlite tables without a lock of its own."""
    if path is None:
        yield
        return
    with open(path.with_name(path.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _connect(uri: str, project: str, path: Path | None) -> Experiment:
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)
    location = None
    if path is not None:
        location = (path.parent / f"{path.stem}-artifacts" / _safe_folder(project)).as_uri()
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(project)
        if found is None:
            experiment_id = _create_experiment(client, project, location)
            return Experiment(uri, client, mlflow.entities, experiment_id)
    except Exception as error:
        raise RequestError(f"tracking: {uri}: {one_line(error)}") from error
    if found.lifecycle_stage != "active":
        raise RequestError(
            f"tracking: experiment {project!r} at {uri} is deleted; restore it, or give another "
            "--tracking.project"
        )
    return Experiment(uri, client, mlflow.entities, str(found.experiment_id))


def _create_experiment(client: Any, project: str, location: str | None) -> str:
    from mlflow.exceptions import MlflowException

    try:
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(client.create_experiment(project, artifact_location=location, tags=tags))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(client.get_experiment_by_name(project).experiment_id)


def _safe_folder(project: str) -> str:
    return re.sub(r"[^\w\-]", "_", project)
