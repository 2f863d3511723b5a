"""Records -> MLflow, each with its effect once however often it is delivered.

Runs are found again by our key, checkpoints by their digest, points of a curve by their step: a
run has one point of a name at a step, the first that came. So a delivery that was cut off is
simply repeated, and a job that goes on in its former run from an earlier step repeats nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from pipelines.lineage.spool.files import Record, refused_in
from pipelines.lineage.spool.lock import FileLock
from pipelines.lineage.spool.spool import Verdict
from pipelines.lineage.tracked.curves import TrackedCurves
from pipelines.lineage.tracked.experiment import Experiment
from pipelines.lineage.tracked.models import TrackedModels
from pipelines.lineage.tracked.records import (
    BESIDE_TAG,
    CHANGED_PARAMS_TAG,
    CONTEXT_TAG,
    KEY_TAG,
    KIND_TAG,
    PENDING,
    PLACE_TAG,
    STARTED_TAG,
    input_record,
)
from pipelines.lineage.tracked.values import TAG_CHARACTERS, as_json

# Limits of one request to MLflow 3.17.
ENTRIES_PER_BATCH = 100
RECORDS_PER_DELIVERY = 500
DATASET_DIGEST_CHARACTERS = 36

LOCK_PATIENCE_S = 30.0

HOPELESS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
DOUBTFUL = ("BAD_REQUEST", "INTERNAL_ERROR", "RESOURCE_ALREADY_EXISTS")


class NotYet(Exception):
    """The run was started by another process, whose records are not there yet."""


class Refused(Exception):
    """What the record is about cannot be recorded any more."""


class Recorder:
    """The sink of a spool: one experiment. Used by one thread."""

    def __init__(self, experiment: Experiment, lock: Path) -> None:
        """`lock`: a file in the store's spool folder that keeps processes of this machine from
        creating the same run twice."""
        self._experiment, self._lock = experiment, lock
        self._client, self._kinds = experiment.client, experiment.entities
        self._ids: dict[str, str] = {}
        self._curves = TrackedCurves(experiment)
        self._models = TrackedModels(experiment, self.run_id)
        self._deliver: dict[str, Callable[[Record], None]] = {
            "start": self._start,
            "params": self._log_params,
            "tags": self._set_tags,
            "dataset": self._log_dataset,
            "model": lambda record: self._alone(lambda: self._models.record(record)),
            "input": self._models.link_input,
            "taint": self._models.taint,
            "end": self._end,
        }

    # --- as a sink -----------------------------------------------------------------------

    def groups(self, records: Sequence[Record]) -> Iterator[int]:
        """Neighbouring metrics go together; every other record alone."""
        for is_metrics, stretch in groupby(records, lambda r: r.get("op") == "metrics"):
            count = len(list(stretch))
            if not is_metrics:
                yield from [1] * count
                continue
            for start in range(0, count, RECORDS_PER_DELIVERY):
                yield min(RECORDS_PER_DELIVERY, count - start)

    def deliver(self, records: Sequence[Record]) -> None:
        if records[0]["op"] != "metrics":
            self._deliver[records[0]["op"]](records[0])
            return
        by_run: dict[str, list[Record]] = {}
        for record in records:
            by_run.setdefault(record["run"], []).append(record)
        for run, of_run in by_run.items():
            self._curves.log(self.run_id(run), of_run)

    def attach(self, record: Record) -> None:
        run_id = self.run_id(record["run"])
        self._client.log_artifact(run_id, record["file"], record["folder"] or None)

    def verdict(self, error: Exception) -> Verdict:
        if isinstance(error, NotYet):
            return Verdict.NOT_YET
        if isinstance(error, (Refused, FileNotFoundError)):
            return Verdict.HOPELESS
        code = getattr(error, "error_code", "")
        if code in HOPELESS:
            return Verdict.HOPELESS
        # A record of another version of this code is a doubtful one as well.
        is_ours = isinstance(error, (LookupError, TypeError, ValueError, AttributeError))
        return Verdict.DOUBTFUL if code in DOUBTFUL or is_ours else Verdict.LATER

    def is_alive(self) -> bool:
        try:
            self._client.get_experiment(self._experiment.experiment_id)
        except Exception:
            return False
        return True

    # --- runs ----------------------------------------------------------------------------

    def known_id(self, run: str) -> str | None:
        """What `run_id` would say, without asking the server."""
        return self._ids.get(run) if run.startswith(PENDING) else run

    def page_of(self, run_id: str) -> str:
        return self._experiment.page_of(run_id)

    def run_id(self, run: str) -> str:
        """MLflow's id of a run that is named by it, or by our key. Raises NotYet, Refused."""
        if not run.startswith(PENDING):
            return run
        if run not in self._ids:
            found = self._find(run)
            if found is None:
                if self._is_start_refused(run):
                    raise Refused(f"{run}: its start was refused")
                raise NotYet(f"{run}: the process that started it has not recorded it yet")
            self._ids[run] = str(found.info.run_id)
        return self._ids[run]

    def _is_start_refused(self, run: str) -> bool:
        refused = [entry.get("record") or {} for entry in refused_in(self._lock.parent)]
        return any(r.get("op") == "start" and r.get("run") == run for r in refused)

    def _find(self, run: str) -> Any:
        """The run, or None. Raises Refused when it was deleted."""
        key = run.removeprefix(PENDING)
        if not key.isalnum():
            raise Refused(f"{run!r} is no key of a run")
        found = self._client.search_runs(
            [self._experiment.experiment_id],
            filter_string=f"tags.`{KEY_TAG}` = '{key}'",
            run_view_type=self._kinds.ViewType.ALL,
            order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
        )
        active = [one for one in found if one.info.lifecycle_stage == "active"]
        if found and not active:
            raise Refused(f"the run {found[0].info.run_id} was deleted")
        return active[0] if active else None

    def _start(self, record: Record) -> None:
        self._alone(lambda: self._find_or_create(record))

    def _find_or_create(self, record: Record) -> None:
        run, at_ms = record["run"], record["at_ms"]
        found = self._find(run)
        if found is None:
            run_id = self._create(record)
        else:
            run_id = str(found.info.run_id)
            if started_ms(found) < at_ms:  # the job was started again
                self._client.update_run(run_id, status="RUNNING")
                self._client.set_tag(run_id, STARTED_TAG, str(at_ms))
        self._ids[run] = run_id

    def _create(self, record: Record) -> str:
        run, at_ms = record["run"], record["at_ms"]
        tags = {
            **record["tags"],
            KIND_TAG: record["kind"],
            KEY_TAG: run.removeprefix(PENDING),
            STARTED_TAG: str(at_ms),
        }
        if record.get("parent"):
            tags["mlflow.parentRunId"] = self.run_id(record["parent"])
        if record.get("beside"):
            tags[BESIDE_TAG] = record["beside"]
        made = self._client.create_run(
            self._experiment.experiment_id, start_time=at_ms, tags=tags, run_name=record["name"]
        )
        # Another machine may have created it at the same moment: the older one stays.
        kept = self._find(run)
        if kept.info.run_id != made.info.run_id:
            self._client.delete_run(made.info.run_id)
        return str(kept.info.run_id)

    def _alone(self, change: Callable[[], None]) -> None:
        with contextlib.ExitStack() as stack:
            self._lock.parent.mkdir(parents=True, exist_ok=True)
            if lock := FileLock.wait(self._lock, LOCK_PATIENCE_S):
                stack.enter_context(lock)
            change()

    def _end(self, record: Record) -> None:
        run_id = self.run_id(record["run"])
        run = self._client.get_run(run_id)
        if record.get("orphan") and run.info.status != "RUNNING":
            return  # it ended before its process did
        # The end of an attempt that the job has since begun again is not the run's.
        if started_ms(run) <= record["at_ms"]:
            self._client.set_terminated(run_id, record["status"], record["at_ms"])

    # --- values --------------------------------------------------------------------------

    def _log_params(self, record: Record) -> None:
        """MLflow never changes a parameter: what differs from an earlier attempt is a tag."""
        run_id = self.run_id(record["run"])
        known = self._client.get_run(run_id).data.params
        values = record["values"]
        new = [self._kinds.Param(k, v) for k, v in values.items() if k not in known]
        for batch in _batches(new):
            self._client.log_batch(run_id, params=batch)
        if changed := {k: v for k, v in values.items() if known.get(k, v) != v}:
            self._client.set_tag(run_id, CHANGED_PARAMS_TAG, as_json(changed)[:TAG_CHARACTERS])

    def _set_tags(self, record: Record) -> None:
        run_id = self.run_id(record["run"])
        for batch in _batches([self._kinds.RunTag(k, v) for k, v in record["values"].items()]):
            self._client.log_batch(run_id, tags=batch)

    def _log_dataset(self, record: Record) -> None:
        """MLflow keeps one edge per dataset and run and drops a second without a word, and it
        keeps the first source of a (name, digest): so a second context is a second name, and the
        place where this run found the data is on the edge."""
        run_id = self.run_id(record["run"])
        name, digest, tags = record["name"], record["digest"], record["tags"]
        digest = digest[:DATASET_DIGEST_CHARACTERS]
        inputs = self._client.get_run(run_id).inputs
        edges = [input_record(edge) for edge in (inputs.dataset_inputs if inputs else [])]
        first = next((e for e in edges if (e.name, e.digest) == (name, digest)), None)
        if first is not None and first.context != tags[CONTEXT_TAG]:
            name = f"{name} ({tags[CONTEXT_TAG]})"
        kinds = self._kinds
        source = as_json({"uri": tags[PLACE_TAG]})
        entity = kinds.Dataset(name, digest, record["source"], source)
        edge_tags = [kinds.InputTag(key, value) for key, value in tags.items()]
        self._client.log_inputs(run_id, [kinds.DatasetInput(entity, edge_tags)])


def started_ms(run: Any) -> int:
    """When the job of a run was last started; 0 for a run of another kind."""
    return int(run.data.tags.get(STARTED_TAG, 0))


def _batches(entries: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(entries), ENTRIES_PER_BATCH):
        yield entries[start : start + ENTRIES_PER_BATCH]
