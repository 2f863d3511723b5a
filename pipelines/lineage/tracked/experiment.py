"""An open MLflow experiment, and opening it. MLflow is handed in: see tracking.py."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config import RequestError
from pipelines.lineage.spool.lock import FileLock
from pipelines.lineage.spool.spool import one_line
from pipelines.lineage.tracked import uri as tracking_uri
from pipelines.lineage.tracked.records import MODEL_DIGEST_TAG

UI_MODE = "workflowType=machine_learning"  # MLflow's pages open in another mode without it
CREATION_PATIENCE_S = 120.0


@dataclass(frozen=True)
class Experiment:
    """Its client, and the module that makes its entities."""

    uri: str
    client: Any
    entities: Any
    experiment_id: str

    def find_model(self, digest: str) -> Any:
        """MLflow's record of the checkpoint with this digest, or None; the oldest when several
        machines recorded it at once. Raises what the client raises."""
        found = self.client.search_logged_models(
            [self.experiment_id],
            filter_string=f"tags.`{MODEL_DIGEST_TAG}` = '{digest}'",
            order_by=[{"field_name": "creation_time", "ascending": True}],
            max_results=1,
        )
        return found[0] if found else None

    def page_of(self, run_id: str) -> str:
        """Path and fragment of a run's page in the UI."""
        return f"/#/experiments/{self.experiment_id}/runs/{run_id}?{UI_MODE}"

    def every(self, search: str) -> Iterator[Any]:
        """All pages of one of the client's searches."""
        token = None
        while True:
            page = getattr(self.client, search)([self.experiment_id], page_token=token)
            yield from page
            token = page.token
            if not token:
                return


def open_experiment(mlflow: Any, uri: str, project: str) -> Experiment:
    """Asks the store; makes the experiment where it is not. Raises RequestError."""
    path = tracking_uri.sqlite_path(uri)
    if path is None:
        tracking_uri.check_server(uri)
    else:
        tracking_uri.prepare_sqlite_folder(path)
    with contextlib.ExitStack() as alone:
        if path is not None:
            # MLflow creates its sqlite tables without a lock of its own.
            lock = FileLock.wait(path.with_name(path.name + ".lock"), CREATION_PATIENCE_S)
            if lock is None:
                raise RequestError(f"tracking: {path}: another process is making it, for long")
            alone.enter_context(lock)
        try:
            return _find_or_create(mlflow, uri, project, path)
        except RequestError:
            raise
        except Exception as error:
            raise RequestError(f"tracking: {uri}: {one_line(error)}") from error


def _find_or_create(mlflow: Any, uri: str, project: str, path: Path | None) -> Experiment:
    location = None
    if path is not None:
        location = (path.parent / f"{path.stem}-artifacts" / _safe_folder(project)).as_uri()
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(project)
    if found is None:
        experiment_id = _create_experiment(mlflow, client, project, location)
        return Experiment(uri, client, mlflow.entities, experiment_id)
    if found.lifecycle_stage != "active":
        raise RequestError(
            f"tracking: experiment {project!r} at {uri} is deleted; restore it, or give another "
            "--tracking.project"
        )
    return Experiment(uri, client, mlflow.entities, str(found.experiment_id))


def _create_experiment(mlflow: Any, client: Any, project: str, location: str | None) -> str:
    try:
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(client.create_experiment(project, artifact_location=location, tags=tags))
    except mlflow.exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(client.get_experiment_by_name(project).experiment_id)


def _safe_folder(project: str) -> str:
    return re.sub(r"[^\w\-]", "_", project)
