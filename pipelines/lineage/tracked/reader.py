"""What a tracking store knows, as plain values."""

from __future__ import annotations

import abc
import contextlib
import re
from collections.abc import Iterator

from pipelines.config import RequestError
from pipelines.lineage.spool.spool import one_line
from pipelines.lineage.tracked.experiment import Experiment
from pipelines.lineage.tracked.records import (
    TAKEDOWN_URI_TAG,
    URI_TAGS,
    ModelRecord,
    RunRecord,
    model_record,
    run_record,
)


class TrackedReader(abc.ABC):
    """The questions of a `Tracker`. Nothing is known where tracking is off."""

    def __init__(self, uri: str) -> None:
        """`uri`: empty when tracking is off."""
        self.uri = uri

    @property
    def enabled(self) -> bool:
        return bool(self.uri)

    @abc.abstractmethod
    def _settled(self) -> Experiment:
        """The experiment, with what this process recorded. Raises RequestError."""

    def find_model(self, digest: str) -> str | None:
        """MLflow's id of the recorded checkpoint with this digest; None when there is none.
        Raises RequestError when the store does not answer, as all that reads."""
        if not self.enabled or not re.fullmatch(r"[0-9a-f]{1,64}", digest):
            return None
        with self._asking():
            found = self._settled().find_model(digest)
        return str(found.model_id) if found else None

    def runs(self) -> list[RunRecord]:
        """Every run of the project, newest first."""
        if not self.enabled:
            return []
        with self._asking():
            return [run_record(run) for run in self._settled().every("search_runs")]

    def models(self) -> list[ModelRecord]:
        """Every recorded checkpoint of the project."""
        if not self.enabled:
            return []
        with self._asking():
            found = list(self._settled().every("search_logged_models"))
        return [record for record in map(model_record, found) if record.digest]

    def places(self) -> set[str]:
        """Every URI that runs, their inputs and models point to. `tracked_places.places_of` is
        quicker: it does without mlflow where it can."""
        runs = self.runs()
        places = {run.tags.get(tag, "") for run in runs for tag in URI_TAGS}
        places |= {edge.uri for run in runs for edge in run.inputs}
        return (places | {model.uri for model in self.models()}) - {""}

    def takedowns(self) -> list[str]:
        """URIs of the datasets that takedown runs wrote, or set out to write."""
        named = {run.tags.get(TAKEDOWN_URI_TAG, "") for run in self.runs()}
        return sorted(named - {""})

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except RequestError:
            raise
        except Exception as error:
            raise RequestError(f"tracking: {self.uri}: {one_line(error)}") from error
