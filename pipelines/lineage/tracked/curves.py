"""Points of curves, each recorded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.lineage.spool.files import Record
from pipelines.lineage.tracked.experiment import Experiment

METRICS_PER_BATCH = 1000  # of one request to MLflow 3.17


class TrackedCurves:
    """Remembers how far each curve of a run goes, and asks for its whole history only when a
    point comes that is not beyond its end: after a job went back to an earlier step."""

    def __init__(self, experiment: Experiment) -> None:
        self._client, self._kinds = experiment.client, experiment.entities
        self._last: dict[str, dict[str, int]] = {}
        self._steps: dict[tuple[str, str], set[int]] = {}

    def log(self, run_id: str, records: Sequence[Record]) -> None:
        """Raises what the client raises."""
        try:
            points = list(self._new_points(run_id, records))
            for start in range(0, len(points), METRICS_PER_BATCH):
                batch = points[start : start + METRICS_PER_BATCH]
                self._client.log_batch(run_id, metrics=batch)
        except Exception:
            self._forget(run_id)  # what we believe to be there may not be
            raise

    def _new_points(self, run_id: str, records: Sequence[Record]) -> Iterator[Any]:
        chosen: set[tuple[str, int]] = set()
        for record in records:
            step, at_ms = int(record["step"]), int(record["at_ms"])
            for name, value in record["values"].items():
                if (name, step) not in chosen and not self._has(run_id, name, step):
                    chosen.add((name, step))
                    self._note(run_id, name, step)
                    yield self._kinds.Metric(name, float(value), at_ms, step)

    def _has(self, run_id: str, name: str, step: int) -> bool:
        if run_id not in self._last:
            points = self._client.get_run(run_id).data.to_proto().metrics
            self._last[run_id] = {point.key: int(point.step) for point in points}
        last = self._last[run_id].get(name)
        if last is None or step > last:
            return False
        if (run_id, name) not in self._steps:
            history = self._client.get_metric_history(run_id, name)
            self._steps[run_id, name] = {int(point.step) for point in history}
        return step in self._steps[run_id, name]

    def _note(self, run_id: str, name: str, step: int) -> None:
        last = self._last[run_id]
        last[name] = max(step, last.get(name, step))
        if steps := self._steps.get((run_id, name)):
            steps.add(step)

    def _forget(self, run_id: str) -> None:
        self._last.pop(run_id, None)
        for key in [key for key in self._steps if key[0] == run_id]:
            del self._steps[key]
