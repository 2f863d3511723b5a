"""Runs, datasets and checkpoints in MLflow: the only module that imports mlflow.

One experiment per project, one run per job. Datasets and checkpoints stay where they are and are
recorded by reference, under our own digests. What a job records is written to disk and delivered
by a thread (spool/thread.py), so a server that is slow, down, or refuses us neither stops nor
slows the job. Who reads hears of it: RequestError.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.config import RequestError, TrackingConfig
from pipelines.job import say
from pipelines.lineage import fingerprint
from pipelines.lineage.spool import files as spool_files
from pipelines.lineage.spool.lock import FileLock
from pipelines.lineage.spool.thread import OF_FILE, OF_SERVER, Delivery, delivery_to
from pipelines.lineage.tracked import uri as tracking_uri
from pipelines.lineage.tracked.experiment import Experiment, open_experiment
from pipelines.lineage.tracked.reader import TrackedReader
from pipelines.lineage.tracked.recorder import Recorder
from pipelines.lineage.tracked.records import (
    pending_ref,
    takedown_tags,
)
from pipelines.lineage.tracked.run import Run
from pipelines.lineage.tracked.values import RUN_NAME_CHARACTERS, clean, job_identity

__all__ = ["KINDS", "Experiment", "Run", "Tracker", "job_identity"]

logger = logging.getLogger(__name__)

JOBS = ("curate", "encode", "train_base", "train_refine", "generate", "evaluate", "takedown")
KINDS = (*JOBS, "phase")  # a phase of a training job: a run nested in the job's

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_TRUNCATE_LONG_VALUES": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "GIT_PYTHON_REFRESH": "quiet",
}


class Tracker(TrackedReader):
    """A project's place in a tracking store, or, when tracking is disabled, a place where
    records vanish: `Tracker(None)`."""

    def __init__(self, uri: str | None, project: str = "") -> None:
        """`uri`: as `tracking_uri.resolve` gives it."""
        super().__init__(uri or "")
        self.project = project
        self._experiment: Experiment | None = None

    @classmethod
    def open(cls, config: TrackingConfig) -> Tracker:
        """Creates the sqlite file and the experiment when they are not there; several processes
        may do so at once. A server is not asked for anything yet.

        Raises RequestError when the place can never be used: a relative or unwritable path, a
        file that is no database, a deleted experiment in it.
        """
        if not config.enabled:
            return cls(None)
        tracker = cls(tracking_uri.resolve(config.uri), config.project)
        path = tracking_uri.sqlite_path(tracker.uri)
        if path is not None:
            tracking_uri.prepare_sqlite_folder(path)
            try:
                tracker._connect()
            except RequestError as error:
                if not _is_busy(error.__cause__):
                    raise
        return tracker

    @classmethod
    def open_existing(cls, config: TrackingConfig) -> Tracker:
        """For readers: where no sqlite file is, a disabled tracker, and none is made. Raises
        RequestError when a server does not answer."""
        if not config.enabled:
            return cls(None)
        path = tracking_uri.sqlite_path(tracking_uri.resolve(config.uri))
        if path is not None and not path.exists():
            return cls(None)
        tracker = cls.open(config)
        tracker._connect()
        return tracker

    @property
    def experiment(self) -> Experiment | None:
        """None when tracking is off. Raises RequestError when the store does not answer."""
        return self._connect() if self.enabled else None

    def _connect(self) -> Experiment:
        if self._experiment is None:
            self._experiment = open_experiment(_import_mlflow(), self.uri, self.project)
        return self._experiment

    # --- writing -------------------------------------------------------------------------

    def _delivery(self) -> Delivery:
        # Here, in the job's thread: two threads that import at once may see half a module.
        _import_mlflow()
        patience = OF_FILE if tracking_uri.sqlite_path(self.uri) else OF_SERVER
        root = tracking_uri.spool_root()
        return delivery_to(
            root, self.uri, self.project, lambda: recorder(self.uri, self.project), patience
        )

    @contextlib.contextmanager
    def run(
        self,
        kind: str,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        parent_run_id: str | None = None,
        identity: str | None = None,
    ) -> Iterator[Run]:
        """A run for the length of the block: finished, or failed when the block raises.

        `params` may be nested; they are flattened to `section.field`. Values too long for
        MLflow are named by their hash and written whole to the artifact `long_values.json`.

        `identity`: everything that decides what the job makes. The same one again is the same
        run: a job that was killed or failed goes on in it, and one that is repeated when it had
        finished has nothing new to say, so it adds no run. (What is new must be in `identity`.)
        While an identical job of this machine lives, a second one has a run of its own.
        """
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is not one of {KINDS}")
        if not self.enabled:
            yield Run(None, "")
            return
        delivery = self._delivery()
        with self._key_of(kind, identity) as (key, beside):
            run = Run(delivery, pending_ref(key), started=True)
            source = {"mlflow.source.name": f"jobs/{kind}.py"} if kind in JOBS else {}
            start = {
                "op": "start",
                "run": run.ref,
                "kind": kind,
                "name": clean(name)[:RUN_NAME_CHARACTERS],
                "parent": parent_run_id or "",
                "tags": source,
                "at_ms": int(time.time() * 1000),
                "beside": beside,
            }
            delivery.submit(start)
            run.set_tags({**_code_tags(), **tags})
            run.log_params(params)
            status = "FAILED"
            try:
                yield run
                status = "FINISHED"
            except (KeyboardInterrupt, SystemExit):
                status = "KILLED"
                raise
            finally:
                run.end(status)
        if kind in JOBS and (url := run.ui_url()):
            say(f"MLflow: {url}")

    @contextlib.contextmanager
    def _key_of(self, kind: str, identity: str | None) -> Iterator[tuple[str, str]]:
        """(the run's key, the key of the live run that it would be otherwise)."""
        own = uuid.uuid4().hex
        if identity is None:
            yield own, ""
            return
        key = fingerprint.sha256_of_text(f"{kind}\0{identity}")[:32]
        folder = spool_files.store_folder(tracking_uri.spool_root(), self.uri, self.project)
        try:
            (folder / "keys").mkdir(parents=True, exist_ok=True)
            lock = FileLock.take(folder / "keys" / key)
        except OSError:  # no disk, no lock: no twin is looked for
            yield key, ""
            return
        if lock is None:
            yield own, key
            return
        try:
            yield key, ""
        finally:
            lock.release(remove=True)

    def resume(self, run_id: str) -> Run:
        """A run that another process started (a Ray Train worker joins its driver's).

        Close it, or use it as a context manager; ending it is the starter's business.
        """
        return Run(self._delivery() if self.enabled else None, run_id)

    def settle(self) -> bool:
        """Waits for what this process recorded, while the store answers; False when some of it
        still waits."""
        return self._delivery().settle() if self.enabled else True

    def mark_tainted(
        self,
        checkpoints: Sequence[Mapping[str, Any]],
        dataset_digest: str,
        last_clean: Mapping[str, int | None],
    ) -> list[str]:
        """Tags checkpoints that saw what was taken down, and the runs that made them, with
        `takedown.digest` (of the dataset version without it), `takedown.clips` (seen of it; of a
        run: by the worst of its checkpoints) and `takedown.last_clean_step`.

        `checkpoints`: {"digest", "uri", "clips_seen"} each; `last_clean`: the newest clean step by
        folder of a training. Returns the runs' ids; those that the store names now.
        """
        if not self.enabled:
            return []
        models = {
            row["digest"]: takedown_tags(
                dataset_digest, row["clips_seen"], last_clean.get(row["uri"].rpartition("/")[0])
            )
            for row in checkpoints
        }
        delivery = self._delivery()
        delivery.submit({"op": "taint", "models": models})
        if not delivery.settle():
            return []
        try:
            return sorted({m.run_id for m in self.models() if m.digest in models and m.run_id})
        except RequestError as error:
            logger.warning("%s", error)
            return []

    def log_page(self, run_id: str, path: str | Path, folder: str = "") -> None:
        """A file, by copy, for a run that exists."""
        with self.resume(run_id) as run:
            run.log_artifact(path, folder)

    def _settled(self) -> Experiment:
        self._delivery().settle()
        return self._connect()


def _code_tags() -> dict[str, str]:
    state = fingerprint.git_state()
    tags = {"code.sha256": fingerprint.code_sha256()}
    if "commit" in state:
        tags["mlflow.source.git.commit"] = state["commit"]
    if "diff_sha256" in state:
        tags["code.diff_sha256"] = state["diff_sha256"]
    return tags


# --- connecting ------------------------------------------------------------------------------


def _import_mlflow() -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)
    # They print much where we say one line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    return mlflow


def recorder(uri: str, project: str) -> Recorder:
    """The sink for records of this project. Raises RequestError."""
    store = spool_files.store_folder(tracking_uri.spool_root(), uri, project)
    return Recorder(open_experiment(_import_mlflow(), uri, project), store / "create.lock")


def _is_busy(error: BaseException | None) -> bool:
    """A store that will answer another time."""
    return getattr(error, "error_code", "") == "TEMPORARILY_UNAVAILABLE" or "locked" in str(error)
